"""pydantic-ai."""

from steps import BASE, KEY, MODEL, QUESTION, run


def agent(**arguments):
    from pydantic_ai import Agent
    from pydantic_ai.models.openai import OpenAIChatModel
    from pydantic_ai.providers.openai import OpenAIProvider

    model = OpenAIChatModel(MODEL, provider=OpenAIProvider(base_url=BASE, api_key=KEY))
    return Agent(model, model_settings={"max_tokens": 120, "temperature": 0}, **arguments)


def chat():
    assert agent().run_sync("What is gravity?", model_settings={"max_tokens": 16}).output


def stream():
    import asyncio

    async def streamed():
        async with agent().run_stream("What is gravity?", model_settings={"max_tokens": 16}) as result:
            return [part async for part in result.stream_text(delta=True)]

    assert "".join(asyncio.run(streamed()))


def structured():
    import pydantic

    class Answer(pydantic.BaseModel):
        """An answer."""

        inhabitants: int
        is_capital: bool

    assert isinstance(agent(output_type=Answer).run_sync("How large is Paris?").output, Answer)


def tools():
    from typing import Literal

    called = []
    asked = agent(retries=3)

    @asked.tool_plain
    def get_weather(city: Literal["Paris", "Rome"], unit: Literal["celsius", "fahrenheit"]) -> str:
        """The weather in a city."""
        called.append((city, unit))
        return "18 degrees"

    def settings(_context):
        # One call, and then an answer.
        return {"tool_choice": "none" if called else "required", "max_tokens": 120}

    assert asked.run_sync(QUESTION, model_settings=settings).output
    assert called


run("pydantic_ai", "pydantic_ai", chat, stream, structured, tools)
