"""llama_cpp's calls: the shapes of answers, and what is refused."""

from __future__ import annotations

import json
import pathlib
from collections.abc import Iterator
from typing import Any

import pytest

import herald_engine
from herald_engine.compat import Llama, LlamaGrammar

from .conftest import tiny_model

MESSAGES = [{"role": "user", "content": "What is the capital of France?"}]


@pytest.fixture(scope="module")
def llama(smollm2_path: pathlib.Path) -> Iterator[Llama]:
    with Llama(model_path=str(smollm2_path), n_ctx=512, n_threads=1, n_gpu_layers=-1, seed=3, verbose=False) as loaded:
        yield loaded


def test_completions(llama: Llama) -> None:
    done = llama("The capital of France is", max_tokens=4, temperature=0, echo=True, logprobs=2)
    assert done["object"] == "text_completion" and done["id"].startswith("cmpl-")
    choice = done["choices"][0]
    assert choice["text"].startswith("The capital of France is Paris") and choice["finish_reason"] == "length"
    assert done["usage"] == {"prompt_tokens": 5, "completion_tokens": 4, "total_tokens": 9}
    logprobs = choice["logprobs"]
    assert "".join(logprobs["tokens"]) == choice["text"].removeprefix("The capital of France is")
    assert logprobs["text_offset"][0] == len("The capital of France is")
    assert all(len(top) in (2, 3) for top in logprobs["top_logprobs"])

    chunks = list(llama.create_completion("The capital of France is", max_tokens=4, temperature=0, stream=True))
    assert "The capital of France is" + "".join(chunk["choices"][0]["text"] for chunk in chunks) == choice["text"]
    assert [chunk["choices"][0]["finish_reason"] for chunk in chunks][-1] == "length"
    # The constructor's seed is that of calls without one.
    assert len({llama("Once", max_tokens=6, temperature=1.5)["choices"][0]["text"] for _ in range(2)}) == 1
    assert llama(llama.tokenize(b"The capital of France is"), temperature=0, stop="Paris")["choices"][0]["text"] == " "


def test_chats(llama: Llama) -> None:
    done = llama.create_chat_completion(MESSAGES, temperature=0, max_tokens=20, logprobs=True, top_logprobs=2)
    choice = done["choices"][0]
    assert done["object"] == "chat.completion" and choice["message"]["role"] == "assistant"
    assert "Paris" in choice["message"]["content"] and choice["finish_reason"] == "stop"
    entries = choice["logprobs"]["content"]
    assert bytes(byte for entry in entries for byte in entry["bytes"]).decode().startswith(choice["message"]["content"])
    assert all(len(entry["top_logprobs"]) == 2 for entry in entries)
    chunks = list(llama.create_chat_completion(MESSAGES, temperature=0, max_tokens=20, stream=True))
    deltas = [chunk["choices"][0]["delta"] for chunk in chunks]
    assert deltas[0] == {"role": "assistant"} and deltas[-1] == {} and chunks[0]["object"] == "chat.completion.chunk"
    assert "".join(delta.get("content", "") for delta in deltas) == choice["message"]["content"]


def test_forms(llama: Llama) -> None:
    schema = {"type": "object", "properties": {"n": {"type": "integer", "maximum": 9}}, "required": ["n"]}
    formats: list[dict[str, Any]] = [
        {"type": "json_object", "schema": schema},
        {"type": "json_schema", "json_schema": {"name": "n", "schema": schema}},
    ]
    for form in formats:
        done = llama.create_chat_completion(MESSAGES, temperature=0, max_tokens=40, response_format=form)
        assert isinstance(json.loads(done["choices"][0]["message"]["content"])["n"], int)
    done = llama.create_chat_completion(MESSAGES, temperature=0, max_tokens=24, response_format={"type": "json_object"})
    assert isinstance(json.loads(done["choices"][0]["message"]["content"]), dict)
    grammar = LlamaGrammar.from_string('root ::= "yes" | "no"')
    assert llama("Is it?", grammar=grammar)["choices"][0]["text"] in ("yes", "no")


def test_tokens_and_vectors(llama: Llama) -> None:
    ids = llama.tokenize("Grüße".encode())
    assert llama.detokenize(ids) == "Grüße".encode()
    assert llama.n_ctx() == 512 and llama.n_vocab() == 49152 and llama.token_eos() == 2
    done = llama.create_embedding(["a cat", "a dog"])
    assert [entry["index"] for entry in done["data"]] == [0, 1] and done["usage"]["total_tokens"] == 4
    assert llama.embed("a cat") == done["data"][0]["embedding"]
    llama.reset()


@pytest.mark.parametrize(
    ("options", "name"),
    [
        ({"lora_path": "x"}, "lora_path"),
        ({"chat_format": "chatml"}, "chat_format"),
        ({"rope_freq_base": 1e4}, "rope_freq_base"),
        ({"kv_overrides": {"a": 1}}, "kv_overrides"),
        ({"type_k": 8}, "type_k"),
        ({"pooling_type": 4}, "pooling_type"),
    ],
)
def test_what_would_change_answers_is_refused_by_name(options: Any, name: str) -> None:
    with pytest.raises(herald_engine.UnsupportedError, match=f"Llama: {name} is "):
        Llama(str(tiny_model("llama")), **options)


def test_so_it_is_with_calls(llama: Llama) -> None:
    with pytest.raises(TypeError, match="'n_contxt'"):
        Llama(str(tiny_model("llama")), n_contxt=4)
    calls: list[dict[str, Any]] = [{"mirostat_mode": 2}, {"tfs_z": 0.5}, {"suffix": "x"}, {"logits_processor": [print]}]
    for options in calls:
        with pytest.raises(herald_engine.UnsupportedError, match=f"{next(iter(options))} is "):
            llama("a", **options)
    with pytest.raises(herald_engine.UnsupportedError, match=r"has tools\): tools is "):
        llama.create_chat_completion(MESSAGES, tools=[{"type": "function"}])
    with pytest.raises(herald_engine.UnsupportedError, match="response_format is"):
        llama.create_chat_completion(MESSAGES, response_format={"type": "xml"})
