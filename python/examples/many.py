"""Answers many questions at once with asyncio, each in a given form: `python many.py [MODEL.gguf]`."""

import asyncio
import json
import sys

import herald_engine

CITY = {
    "type": "object",
    "properties": {"city": {"type": "string", "pattern": "^[A-Z][a-z]{1,12}$"}},
    "required": ["city"],
    "additionalProperties": False,
}


async def capital(engine: herald_engine.Engine, country: str) -> str:
    """The model's word for a country's capital."""
    messages = [{"role": "user", "content": f"What is the capital of {country}?"}]
    answer = await engine.achat(messages, json_schema=CITY, max_tokens=30)
    return str(json.loads(answer.text)["city"])


async def main(model: str) -> None:
    """Asks for all at once: their requests run together."""
    countries = ["France", "Italy", "Spain", "Japan"]
    with herald_engine.Engine(model) as engine:
        cities = await asyncio.gather(*(capital(engine, country) for country in countries))
    for country, city in zip(countries, cities):
        print(f"{country}: {city}")


asyncio.run(main(sys.argv[1] if len(sys.argv) > 1 else str(herald_engine.pull("smollm2-135m-instruct"))))
