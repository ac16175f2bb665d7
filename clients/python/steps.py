"""Runs a client's steps, each a function, and says how they went."""

import importlib.util
import os
import sys
import traceback

ADDRESS = os.environ["HERALD_ADDRESS"]
BASE = f"{ADDRESS}/v1"
# The server has one model, whatever it is called.
MODEL = "smollm2-135m-instruct"
# Clients want one.
KEY = "none"

# No client is to tell anybody about these runs.
os.environ.setdefault("OTEL_SDK_DISABLED", "true")
os.environ.setdefault("LITELLM_LOCAL_MODEL_COST_MAP", "True")
os.environ.setdefault("OPENAI_AGENTS_DISABLE_TRACING", "1")

WEATHER = {
    "type": "object",
    "properties": {
        "city": {"type": "string", "maxLength": 20},
        "unit": {"type": "string", "enum": ["celsius", "fahrenheit"]},
    },
    "required": ["city", "unit"],
    "additionalProperties": False,
}
TOOL = {
    "type": "function",
    "function": {"name": "get_weather", "description": "The weather in a city.", "parameters": WEATHER},
}
QUESTION = "What is the weather in Paris, in celsius?"


def check_weather(arguments: dict) -> None:
    """Fails where arguments don't fit WEATHER."""
    assert set(arguments) == {"city", "unit"}, arguments
    assert isinstance(arguments["city"], str) and len(arguments["city"]) <= 20, arguments
    assert arguments["unit"] in ("celsius", "fahrenheit"), arguments


def run(name: str, module: str, *steps) -> None:
    """Runs steps; exits with 1 where one failed. A client that isn't installed is skipped."""
    if importlib.util.find_spec(module) is None:
        print(f"{name}: skipped, as {module} is not installed")
        return
    failed = False
    for step in steps:
        try:
            step()
            print(f"{name}: {step.__name__}: ok", flush=True)
        except Exception:
            failed = True
            print(f"{name}: {step.__name__}: FAILED", flush=True)
            traceback.print_exc()
    sys.exit(1 if failed else 0)
