from __future__ import annotations

import pathlib
from collections.abc import Iterator

import pytest

import herald_engine

TINY = pathlib.Path(__file__).resolve().parents[2] / "host" / "tests" / "data" / "tiny"


def tiny_model(name: str) -> pathlib.Path:
    """A small model with random weights."""
    return TINY / f"{name}.f32.gguf"


@pytest.fixture(scope="session")
def smollm2_path() -> pathlib.Path:
    return herald_engine.pull("smollm2-135m-instruct")


@pytest.fixture(scope="session")
def smollm2(smollm2_path: pathlib.Path) -> Iterator[herald_engine.Engine]:
    with herald_engine.Engine(smollm2_path, threads=1) as engine:
        yield engine


@pytest.fixture
def tiny() -> Iterator[herald_engine.Engine]:
    """An engine of a test's own."""
    with herald_engine.Engine(tiny_model("llama"), threads=1) as engine:
        yield engine
