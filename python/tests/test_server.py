"""The bundled server, and clients that start it."""

from __future__ import annotations

import json
import os
import pathlib
import signal
import subprocess
import sys
import time
import urllib.error
import urllib.request
from typing import Any

import pytest

import herald_engine
from herald_engine.server import Server

from .conftest import tiny_model

QUESTION = "What is the capital of France?"


def post(url: str, body: Any, **headers: str) -> Any:
    request = urllib.request.Request(url, json.dumps(body).encode(), {"Content-Type": "application/json", **headers})
    with urllib.request.urlopen(request, timeout=60) as answer:
        return json.load(answer)


def is_there(url: str) -> bool:
    try:
        urllib.request.urlopen(f"{url}/health", timeout=5).close()
    except urllib.error.URLError:
        return False
    return True


def test_a_server_answers_and_ends() -> None:
    with Server(tiny_model("llama"), threads=1, api_key="secret") as server:
        body = {"prompt": [5, 6], "max_tokens": 3, "ignore_eos": True}
        with pytest.raises(urllib.error.HTTPError, match="401"):
            post(f"{server.openai_url}/completions", body)
        answer = post(f"{server.openai_url}/completions", body, Authorization="Bearer secret")
        assert answer["usage"]["completion_tokens"] == 3
        assert server.running
    assert not server.running and not is_there(server.url)
    server.stop()


def test_a_failed_start_says_why(tmp_path: pathlib.Path) -> None:
    with pytest.raises(herald_engine.HeraldError, match=r"didn't start.*nothing\.gguf"):
        Server(tmp_path / "nothing.gguf")
    with pytest.raises(herald_engine.HeraldError, match="--no-such-thing"):
        Server(tiny_model("llama"), no_such_thing=1)


def test_a_server_ends_with_its_process() -> None:
    code = (
        "import time\nfrom herald_engine.server import Server\n"
        f"print(Server({str(tiny_model('llama'))!r}, threads=1).url, flush=True)\ntime.sleep(600)\n"
    )
    with subprocess.Popen([sys.executable, "-c", code], stdout=subprocess.PIPE, text=True) as process:
        assert process.stdout is not None
        url = process.stdout.readline().strip()
        assert is_there(url)
        os.kill(process.pid, signal.SIGKILL)
    until = time.monotonic() + 30
    while is_there(url):
        assert time.monotonic() < until, "the server outlived the process that started it"
        time.sleep(0.05)


def test_the_program_is_a_command() -> None:
    program = pathlib.Path(sys.executable).with_name("herald")
    done = subprocess.run([program, "--version"], stdout=subprocess.PIPE, text=True, check=True)
    assert herald_engine.__version__ in done.stdout


def test_langchain(smollm2_path: pathlib.Path, smollm2: herald_engine.Engine) -> None:
    pytest.importorskip("langchain_openai")
    from herald_engine.langchain import ChatHerald

    chat = ChatHerald.from_model(smollm2_path, server_options={"threads": 1}, temperature=0, max_tokens=16)
    try:
        expected = smollm2.chat([{"role": "user", "content": QUESTION}], max_tokens=16).text
        assert chat.invoke(QUESTION).content == expected
        assert "".join(str(chunk.content) for chunk in chat.stream(QUESTION)) == expected
        schema = {
            "title": "city",
            "description": "A city.",
            "type": "object",
            "properties": {"name": {"type": "string", "enum": ["Paris", "Rome"]}},
            "required": ["name"],
        }
        found = chat.with_structured_output(schema, method="json_schema").invoke(QUESTION, max_tokens=24)
        assert isinstance(found, dict) and found["name"] in ("Paris", "Rome")
        assert chat.server is not None
        other = ChatHerald(base_url=chat.server.openai_url, temperature=0, max_tokens=16)
        assert other.invoke(QUESTION).content == expected
    finally:
        chat.close()
    assert not chat.server.running


def test_llama_index(smollm2_path: pathlib.Path) -> None:
    pytest.importorskip("llama_index.llms.openai_like")
    from llama_index.core.llms import ChatMessage  # type: ignore[import-not-found, unused-ignore]

    from herald_engine.llama_index import Herald

    model = Herald.from_model(smollm2_path, server_options={"threads": 1}, temperature=0, max_tokens=16)
    try:
        answer = model.chat([ChatMessage(role="user", content=QUESTION)])
        assert "Paris" in str(answer.message.content)
    finally:
        model.close()
