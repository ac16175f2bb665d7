"""Texts, chats, forms and options; the program's text is what answers are compared with."""

from __future__ import annotations

import json
import math
import pathlib
import re
import subprocess
from typing import Any

import numpy
import pytest

import herald_engine
from herald_engine._native import NATIVE
from herald_engine.compat import Llama

PROMPT = "The capital of France is"
QUESTION = [{"role": "user", "content": "What is the capital of Germany?"}]


@pytest.fixture(scope="session")
def programs_text(smollm2_path: pathlib.Path) -> str:
    """What the program continues the prompt with."""
    options = ["--temperature", "0", "--max-tokens", "16", "--threads", "1", "--json"]
    command = [str(NATIVE / "host"), "generate", "--model", str(smollm2_path), *options, PROMPT]
    done = subprocess.run(command, stdout=subprocess.PIPE, check=True)
    text = json.loads(done.stdout)["text"]
    assert isinstance(text, str)
    return text


def test_greedy_text_is_the_programs(smollm2: herald_engine.Engine, programs_text: str) -> None:
    answer = smollm2.generate(PROMPT, max_tokens=16)
    assert answer.text == programs_text
    assert answer.finish is herald_engine.Finish.LENGTH
    assert answer.generated_tokens == len(answer.tokens) == 16
    assert answer.prompt_tokens == len(smollm2.tokenize(PROMPT))
    # A sequence of one's own gives the same, and so do token ids.
    with smollm2.sequence() as sequence:
        assert sequence.generate(PROMPT, max_tokens=16).text == programs_text
    assert smollm2.generate(smollm2.tokenize(PROMPT), max_tokens=16).text == programs_text


def test_compat_gives_the_programs_text_too(smollm2_path: pathlib.Path, programs_text: str) -> None:
    with Llama(str(smollm2_path), n_ctx=0, n_threads=1, verbose=False) as llama:
        assert llama(PROMPT, max_tokens=16, temperature=0)["choices"][0]["text"] == programs_text


def test_a_stream_is_the_answer_in_pieces(smollm2: herald_engine.Engine) -> None:
    with smollm2.chat(QUESTION, stream=True, max_tokens=16) as request:
        pieces = list(request)
    answer = smollm2.chat(QUESTION, max_tokens=16)
    assert "Berlin" in answer.text
    assert "".join(map(str, pieces)) == str(answer) == request.result().text
    assert request.answer is not None and request.answer.tokens == answer.tokens
    assert all(piece.logprob <= 0 for piece in pieces)
    # A conversation is what its template writes.
    text = smollm2.format_chat(QUESTION)
    assert smollm2.generate(text, parse_special=True, max_tokens=16).text == answer.text
    parts = [{"role": "user", "content": [{"type": "text", "text": QUESTION[0]["content"]}]}]
    assert smollm2.chat(parts, max_tokens=16).text == answer.text


def test_forms(smollm2: herald_engine.Engine) -> None:
    schema = {"type": "object", "properties": {"n": {"type": "integer", "maximum": 99}}, "required": ["n"]}
    answer = smollm2.chat(QUESTION, json_schema=schema, max_tokens=40)
    assert isinstance(json.loads(answer.text)["n"], int)
    assert re.fullmatch("[0-9]{3}-[a-c]", smollm2.generate(PROMPT, regex="[0-9]{3}-[a-c]").text)
    answer = smollm2.generate(PROMPT, grammar='root ::= "no" | "never"')
    assert answer.text in ("no", "never") and answer.finish is herald_engine.Finish.COMPLETE
    with pytest.raises(herald_engine.InvalidArgumentError, match="regex and grammar are both set"):
        smollm2.generate(PROMPT, regex="a", grammar='root ::= "a"')
    with pytest.raises(herald_engine.InvalidArgumentError, match="JSON"):
        smollm2.generate(PROMPT, json_schema="{")


def test_stops_seeds_and_logprobs(smollm2: herald_engine.Engine) -> None:
    answer = smollm2.generate(PROMPT, stop=["nothing like it", "Paris"], max_tokens=16)
    assert answer.finish is herald_engine.Finish.STOP_TEXT and answer.stop == "Paris" and "Paris" not in answer.text
    drawn = [smollm2.generate(PROMPT, temperature=1.5, seed=7, max_tokens=12) for _ in range(2)]
    assert drawn[0].text == drawn[1].text and drawn[0].seed == 7
    assert drawn[0].text != smollm2.generate(PROMPT, temperature=1.5, seed=8, max_tokens=12).text

    answer = smollm2.generate(PROMPT, max_tokens=1, logprobs=3)
    top = answer.pieces[0].top
    with smollm2.sequence() as sequence:
        logits = numpy.asarray(sequence.prefill(smollm2.tokenize(PROMPT)), dtype=numpy.float64)
    expected = logits - logits.max() - math.log(numpy.exp(logits - logits.max()).sum())
    best = numpy.argsort(-expected)[:3]
    assert [token for token, _ in top] == best.tolist()
    assert numpy.allclose([logprob for _, logprob in top], expected[best], atol=1e-4)

    first = answer.tokens[0]
    assert smollm2.generate(PROMPT, max_tokens=1, logit_bias={first: -math.inf}).tokens[0] != first
    assert smollm2.generate(PROMPT, stop_tokens=[first]).end_token == first


@pytest.mark.parametrize(
    ("options", "sentence"),
    [
        ({"max_tokens": 0}, "max_tokens is 0, where a number from 1"),
        ({"max_tokens": -1}, "max_tokens is -1"),
        ({"max_tokens": 1.5}, "max_tokens is 1.5, where a whole number"),
        ({"temperature": "hot"}, "temperature is 'hot', where a number"),
        ({"temperature": -1.0}, "temperature"),
        ({"top_p": 2.0}, "top_p is 2"),
        ({"seed": 1 << 64}, "seed is"),
        ({"stop": ["a\0b"]}, "stop has a NUL at byte 1"),
        ({"stop": 5}, "stop is 5, where a text or a list"),
        ({"logit_bias": [1]}, "logit_bias is [1]"),
        ({"json_schema": 3}, "json_schema is 3"),
        ({"stop": [1]}, "stop is 1, where a text"),
        ({"stop_tokens": "ab"}, "stop_tokens is 'ab', where token ids"),
        ({"deadline": 0}, "deadline is 0.0, where a number of seconds above 0"),
        ({"deadline": math.nan}, "deadline is nan"),
        ({"regex": "a(b"}, "regular expression"),
        ({"regex": "\ud800"}, "lone surrogate"),
    ],
)
def test_a_wrong_option_gets_a_sentence(tiny: herald_engine.Engine, options: Any, sentence: str) -> None:
    with pytest.raises(herald_engine.InvalidArgumentError, match=re.escape(sentence)):
        tiny.generate("a", **options)


def test_other_mistakes_get_one_too(tiny: herald_engine.Engine, tmp_path: pathlib.Path) -> None:
    unknown: Any = {"temprature": 1}
    with pytest.raises(TypeError, match="'temprature' is not an option"):
        tiny.generate("a", **unknown)
    with pytest.raises(herald_engine.InvalidArgumentError, match="prompt\\[1\\] is -1"):
        tiny.generate([1, -1])
    with pytest.raises(herald_engine.InvalidArgumentError, match="999999"):
        tiny.generate([999999])
    with pytest.raises(herald_engine.NotFoundError, match="nothing.gguf"):
        herald_engine.Engine(tmp_path / "nothing.gguf")
    (tmp_path / "damaged.gguf").write_bytes(b"GGUF\3\0\0\0" + b"\xff" * 64)
    with pytest.raises(herald_engine.HeraldError, match="damaged.gguf"):
        herald_engine.Engine(tmp_path / "damaged.gguf")
    damaged: Any = [{"role": "user", "content": [{"type": "image_url"}]}]
    with pytest.raises(herald_engine.InvalidArgumentError, match="a part of type 'image_url'"):
        tiny.chat(damaged)
    with pytest.raises(herald_engine.InvalidArgumentError, match="the field 'tool_calls'"):
        tiny.chat([{"role": "assistant", "content": "", "tool_calls": [{}]}])
    with pytest.raises(herald_engine.ContextFullError):
        tiny.generate([1] * (tiny.info.context + 1))
    with pytest.raises(herald_engine.InvalidArgumentError, match="exact|EXACT"):
        herald_engine.Engine(tiny_path(), exact=True, active_tokens=64)
    nothing: Any = None
    with pytest.raises(herald_engine.InvalidArgumentError, match="model is None, where a path was expected"):
        herald_engine.Engine(nothing)
    wrong: Any = "int4"
    with pytest.raises(herald_engine.InvalidArgumentError, match="activations is 'int4'"):
        herald_engine.Engine(tiny_path(), activations=wrong)


def tiny_path() -> pathlib.Path:
    from .conftest import tiny_model

    return tiny_model("llama")


def test_engine_options_reach_the_library(tmp_path: pathlib.Path) -> None:
    with herald_engine.Engine(
        tiny_path(),
        backend="cpu",
        threads=1,
        context=96,
        max_batch=16,
        active_tokens=64,
        compressed_tokens=128,
        selected_pages="all",
        archive=tmp_path,
        archive_lz4=True,
        memory_budget=1 << 28,
        prefix_bytes=0,
    ) as engine:
        assert engine.info.backend == "cpu" and engine.info.threads == 1 and engine.info.context == 96
        prompt = list(range(3, 43))
        first, second = (engine.generate(prompt, max_tokens=4) for _ in range(2))
        assert first.tokens == second.tokens and second.cached_tokens == 0
        assert engine.generate(prompt, ignore_eos=True).finish is herald_engine.Finish.CONTEXT_FULL
    with herald_engine.Engine(tiny_path(), threads=1, cache_dir=tmp_path / "cache") as engine:
        engine.generate(prompt, max_tokens=4)
        assert engine.generate(prompt, max_tokens=4).cached_tokens > 0
        engine.forget_prefixes()


def test_tokens(smollm2: herald_engine.Engine) -> None:
    text = "Grüße, 世界! 🙂"
    ids = smollm2.tokenize(text)
    assert smollm2.detokenize(ids) == text
    assert b"".join(map(smollm2.token_bytes, ids)).decode() == text
    assert len(smollm2.tokenize("<|im_end|>", parse_special=True, bos=False)) == 1
    assert len(smollm2.tokenize("<|im_end|>", bos=False)) > 1
    assert smollm2.info.eos is not None and smollm2.token_ends(smollm2.info.eos)
    assert smollm2.tokenize("", bos=False) == []
    with pytest.raises(herald_engine.InvalidArgumentError):
        smollm2.detokenize([smollm2.info.vocabulary])


def test_embeddings(smollm2: herald_engine.Engine) -> None:
    from .conftest import tiny_model

    texts = ["a cat", "a dog", "the theory of numbers"]
    vectors = smollm2.embed(texts)
    assert vectors.shape == (3, smollm2.info.hidden) and vectors.dtype == numpy.float32
    assert numpy.allclose(numpy.linalg.norm(vectors, axis=1), 1, atol=1e-5)
    one = smollm2.embed(texts[1])
    assert one.shape == (smollm2.info.hidden,) and numpy.array_equal(one, vectors[1])
    # A pooling is of the states that the model gives.
    states = smollm2.hidden_states(smollm2.tokenize(texts[0]))
    last = smollm2.embed(texts[0], pooling="last", normalize=False)
    assert numpy.allclose(states[-1], last, rtol=1e-3, atol=1e-3)
    wrong: Any = "max"
    with pytest.raises(herald_engine.InvalidArgumentError, match="pooling is 'max'"):
        smollm2.embed("a", pooling=wrong)
    with herald_engine.Engine(tiny_model("gemma_embedding"), threads=1) as engine:
        assert engine.embed(["a b", "c"]).shape[0] == 2


def test_metrics_and_usage(tiny: herald_engine.Engine) -> None:
    tiny.generate([1, 2, 3], max_tokens=4, ignore_eos=True)
    metrics = tiny.metrics()
    assert metrics["process"] and metrics["serving"]
    text = tiny.metrics_prometheus()
    assert text.endswith("# EOF\n") and "herald" in text
    assert tiny.usage().memory_bytes > 0


def test_the_log_reaches_python() -> None:
    lines: list[tuple[int, str]] = []
    herald_engine.set_log("debug", lambda level, line: lines.append((level, line)))
    herald_engine.Engine(tiny_path(), threads=1).close()
    herald_engine.set_log(None)
    assert lines and all(level in (10, 20, 30, 40) for level, _ in lines)
    count = len(lines)
    herald_engine.Engine(tiny_path(), threads=1).close()
    assert len(lines) == count
    with pytest.raises(herald_engine.InvalidArgumentError, match="level is 'loud'"):
        herald_engine.set_log("loud")
