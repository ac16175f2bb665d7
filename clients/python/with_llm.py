"""The `llm` program, with its models described in a file as its users do."""

import os
import pathlib
import subprocess
import sys
import tempfile

from steps import BASE, KEY, MODEL, run


def program(*arguments, text=None):
    with tempfile.TemporaryDirectory() as folder:
        lines = [
            "- model_id: here",
            f"  model_name: {MODEL}",
            f"  api_base: {BASE}",
            f"  api_key: {KEY}",
            "  supports_schema: true",
            "  supports_tools: true",
        ]
        pathlib.Path(folder, "extra-openai-models.yaml").write_text("\n".join(lines) + "\n")
        command = [sys.executable, "-m", "llm", *arguments]
        environment = dict(os.environ, LLM_USER_PATH=folder)
        done = subprocess.run(
            command, env=environment, input=text, capture_output=True, text=True, timeout=120
        )
        assert done.returncode == 0, done.stderr
        return done.stdout


def chat():
    assert program("-m", "here", "-o", "max_tokens", "16", "--no-stream", "What is gravity?").strip()


def stream():
    assert program("-m", "here", "-o", "max_tokens", "16", "What is gravity?").strip()


def structured():
    import json

    answer = program("-m", "here", "-o", "max_tokens", "60", "--schema", "inhabitants int", "How large is Paris?")
    assert isinstance(json.loads(answer)["inhabitants"], int)


def tools():
    # The program can't ask for a call: what counts is that tools are taken.
    code = "def weather(city: str) -> str:\n    'The weather in a city.'\n    return '18 degrees'\n"
    program("-m", "here", "-o", "max_tokens", "40", "--functions", code, "--chain-limit", "2", "Say hello.")


run("llm", "llm", chat, stream, structured, tools)
