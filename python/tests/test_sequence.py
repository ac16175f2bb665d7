"""Contexts that are run step by step, beside what the library generates by itself."""

from __future__ import annotations

import array
import pathlib
from typing import Any

import numpy
import pytest

import herald_engine

from .conftest import TINY, tiny_model

PROMPT = "The capital of France is"


def test_ones_own_greedy_sampler_is_the_librarys(smollm2: herald_engine.Engine) -> None:
    expected = smollm2.generate(PROMPT, max_tokens=8).tokens
    with smollm2.sequence() as sequence:
        logits = sequence.prefill(smollm2.tokenize(PROMPT))
        assert logits.shape == (smollm2.info.vocabulary,) and logits.dtype == numpy.float32
        chosen = [int(logits.argmax())]
        while len(chosen) < 8:
            # The same buffer each time: nothing is copied.
            assert sequence.decode(chosen[-1], out=logits) is logits
            chosen.append(int(logits.argmax()))
        assert chosen == expected
        assert sequence.tokens == smollm2.tokenize(PROMPT) + chosen[:-1]


def test_fork_truncate_save_and_load(tiny: herald_engine.Engine, tmp_path: pathlib.Path) -> None:
    ids = [5, 6, 7, 8, 9, 10]
    with tiny.sequence() as sequence:
        assert len(sequence) == 0 and bool(sequence)
        sequence.prefill(ids, logits=False)
        expected = sequence.fork().decode(11)
        assert len(sequence) == len(ids)
        sequence.save(tmp_path / "saved")
        assert numpy.array_equal(tiny.load_sequence(tmp_path / "saved").decode(11), expected)
        sequence.decode(12)
        sequence.truncate(len(ids))
        assert numpy.array_equal(sequence.decode(11), expected)
        every = tiny.sequence().logits([*ids, 11])
        assert every.shape == (7, tiny.info.vocabulary) and numpy.allclose(every[-1], expected, atol=1e-5)
    with pytest.raises(herald_engine.NotFoundError):
        tiny.load_sequence(tmp_path / "nothing")
    (tmp_path / "damaged").write_bytes(b"nothing like it")
    with pytest.raises(herald_engine.CorruptError):
        tiny.load_sequence(tmp_path / "damaged")


def test_several_sequences_decode_in_one_pass(tiny: herald_engine.Engine) -> None:
    sequences = [tiny.sequence() for _ in range(3)]
    for index, sequence in enumerate(sequences):
        sequence.prefill([5 + index, 6], logits=False)
    alone = [sequence.fork().decode(9) for sequence in sequences]
    together = tiny.decode(sequences, [9, 9, 9])
    assert together.shape == (3, tiny.info.vocabulary)
    assert all(numpy.allclose(together[index], alone[index], atol=1e-5) for index in range(3))
    with pytest.raises(herald_engine.InvalidArgumentError, match="2 tokens were given for 3 sequences"):
        tiny.decode(sequences, [9, 9])
    with pytest.raises(herald_engine.InvalidArgumentError):
        tiny.decode([sequences[0], sequences[0]], [9, 9])


def test_only_buffers_that_fit_are_written_to(tiny: herald_engine.Engine) -> None:
    width = tiny.info.vocabulary
    sequence = tiny.sequence()
    expected = sequence.fork().prefill([5, 6])
    plain = array.array("f", bytes(4 * width))
    assert list(sequence.fork().prefill([5, 6], out=plain)) == expected.tolist()
    frozen = numpy.zeros(width, numpy.float32)
    frozen.flags.writeable = False
    wrong: list[tuple[Any, str]] = [
        (numpy.zeros(width - 1, numpy.float32), f"{width - 1} elements"),
        (numpy.zeros(width, numpy.float64), "'d'"),
        (numpy.zeros(2 * width, numpy.float32)[::2], "not contiguous"),
        (frozen, "read-only"),
    ]
    for out, sentence in wrong:
        with pytest.raises(herald_engine.InvalidArgumentError, match=sentence):
            sequence.prefill([5, 6], out=out)
    assert len(sequence) == 0


def test_memory(tiny: herald_engine.Engine) -> None:
    with tiny.sequence() as sequence:
        for _ in range(2):
            sequence.prefill([5] * 100, logits=False)
        assert sequence.usage().active_tokens > 0 and sequence.usage().compressed_tokens == 0
        assert sequence.compress(64) > 0
        assert sequence.usage().compressed_tokens > 0 and sequence.usage().ratio > 1


def test_cancels_and_deadlines(tiny: herald_engine.Engine) -> None:
    with tiny.sequence() as sequence:
        sequence.cancel()
        with pytest.raises(herald_engine.CancelledError):
            sequence.prefill([5, 6])
        sequence.cancel()
        assert sequence.reset_cancel() and not sequence.reset_cancel()
        sequence.set_deadline(1e-3)
        with pytest.raises(herald_engine.DeadlineError):
            while True:
                sequence.truncate(0)
                sequence.prefill([5] * 64, logits=False)
        sequence.set_deadline(None)
        sequence.truncate(0)
        assert sequence.generate([5, 6], max_tokens=3, ignore_eos=True).generated_tokens == 3


def test_a_callback_ends_a_generation(tiny: herald_engine.Engine) -> None:
    seen: list[herald_engine.Piece] = []

    def three(piece: herald_engine.Piece) -> bool:
        seen.append(piece)
        return len(seen) < 3

    with tiny.sequence() as sequence:
        answer = sequence.generate([5, 6], on_piece=three, ignore_eos=True)
        assert answer.finish is herald_engine.Finish.CANCELLED and len(seen) == 3

        def fails(piece: herald_engine.Piece) -> bool:
            raise KeyError("a mistake")

        with pytest.raises(KeyError, match="a mistake"):
            sequence.generate([5, 6], on_piece=fails, ignore_eos=True)
        assert sequence.generate([7], max_tokens=2, ignore_eos=True).generated_tokens == 2


def test_sequences_have_their_own_adapters() -> None:
    adapter = TINY.parent / "lora" / "llama_lora.gguf"
    prompt = [5, 6, 7, 8]
    with herald_engine.Engine(tiny_model("llama"), threads=1, loras=[(adapter, 0.0)]) as engine:
        with engine.sequence() as plain, engine.sequence() as tuned:
            without = list(plain.prefill(prompt))
            tuned.set_loras({0: 1.0})
            assert list(tuned.prefill(prompt)) != without
            with pytest.raises(herald_engine.InvalidArgumentError, match="other adapters"):
                tuned.set_loras({})
            tuned.truncate(0)
            tuned.set_loras({})
            assert list(tuned.prefill(prompt)) == without
        with pytest.raises(herald_engine.InvalidArgumentError, match="no adapter 3"):
            engine.generate("x", max_tokens=1, loras={3: 1.0})
        # What was loaded by itself is on from the beginning.
        changed = engine.generate("bees", max_tokens=8, ignore_eos=True, loras={0: 1.0})
    with herald_engine.Engine(tiny_model("llama"), threads=1, loras=[adapter]) as engine:
        assert engine.generate("bees", max_tokens=8, ignore_eos=True).text == changed.text
