"""The package as a whole: what the header has, what works without NumPy, the examples."""

from __future__ import annotations

import inspect
import os
import pathlib
import subprocess
import sys

import pytest

import herald_engine
from herald_engine._library import ffi

from .conftest import tiny_model

EXAMPLES = sorted((pathlib.Path(__file__).resolve().parents[1] / "examples").glob("*.py"))


def fields(name: str) -> set[str]:
    return {field for field, _ in ffi.typeof(name).fields} - {"struct_size", "reserved"}


def test_every_option_of_the_header_is_served() -> None:
    # By the library's name: what it is called here.
    renamed = {
        "top_logprobs": "logprobs",
        "stops": "stop",
        "bias_tokens": "logit_bias",
        "biases": "logit_bias",
        "deadline_ms": "deadline",
        "flags": "seed",
    }
    options = set(herald_engine.GenerateOptions.__annotations__)
    here = {"on_piece", "user_data", "n_stops", "n_stop_tokens", "n_biases", "lora_scales", "n_loras"}
    assert {renamed.get(name, name) for name in fields("HeraldGenerateOptions") - here} <= options
    arguments = set(inspect.signature(herald_engine.Engine).parameters)
    renamed = {
        "model_path": "model",
        "n_plugins": "plugins",
        "lora_scales": "loras",
        "n_loras": "loras",
        "flags": "exact",
        "max_draft_tokens": "max_draft",
    }
    assert {renamed.get(name, name) for name in fields("HeraldEngineOptions")} <= arguments
    assert set(inspect.signature(herald_engine.Scheduler).parameters) >= fields("HeraldSchedulerOptions")
    assert set(herald_engine.MemoryUsage.__dataclass_fields__) == fields("HeraldMemoryUsage")


def test_without_numpy_there_are_lists() -> None:
    code = f"""
import sys
sys.modules["numpy"] = None
import herald_engine
with herald_engine.Engine({str(tiny_model("llama"))!r}, threads=1) as engine:
    vectors = engine.embed(["a", "b"])
    assert [len(vector) for vector in vectors] == [engine.info.hidden] * 2 and isinstance(vectors[0], list)
    assert isinstance(engine.embed("a"), list)
    with engine.sequence() as sequence:
        assert len(sequence.prefill([5, 6])) == engine.info.vocabulary
        assert len(sequence.logits([7, 8])) == 2
        assert len(engine.decode([sequence], [9])[0]) == engine.info.vocabulary
"""
    subprocess.run([sys.executable, "-c", code], check=True)


@pytest.mark.parametrize("example", EXAMPLES, ids=lambda path: path.stem)
def test_examples_run(example: pathlib.Path, smollm2_path: pathlib.Path) -> None:
    # On one CPU: two threads that wait for each other stand still where others use the machine.
    one = min(os.sched_getaffinity(0))
    code = (
        f"import os, runpy; os.sched_setaffinity(0, {{{one}}}); runpy.run_path({str(example)!r}, run_name='__main__')"
    )
    command = [sys.executable, "-c", code, str(smollm2_path)]
    done = subprocess.run(command, stdout=subprocess.PIPE, text=True, timeout=300, check=True)
    assert done.stdout.strip()
