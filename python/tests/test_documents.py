"""Texts that are kept and found, and contexts by name."""

from __future__ import annotations

import asyncio
import pathlib

import pytest

import herald_engine

TEXTS = {
    "sea": "Whales are mammals that live in the ocean and breathe air through a blowhole.",
    "bread": "Knead the dough, let it rise for an hour, and bake the loaf in a hot oven.",
    "law": "The parliament passed the bill after the second reading, by forty votes.",
}


def test_documents_are_found_kept_and_removed(smollm2: herald_engine.Engine, tmp_path: pathlib.Path) -> None:
    folder = tmp_path / "texts"
    with herald_engine.Documents(smollm2, folder) as documents:
        numbers = {name: documents.add(name, text) for name, text in TEXTS.items()}
        assert len(set(numbers.values())) == 3
        # The same text under the same name is there already.
        assert documents.add("sea", TEXTS["sea"]) == numbers["sea"]
        hits = documents.search("the dough in the oven", 2)
        assert len(hits) == 2 and hits[0].name == "bread" and hits[0].document == numbers["bread"]
        assert hits[0].text == TEXTS["bread"] and hits[0].chunk == 0 and hits[0].word_rank == 1
        assert hits[0].score == pytest.approx(1 / (60 + hits[0].meaning_rank) + 1 / 61)
        assert hits[1].word_rank is None and hits[1].score == pytest.approx(1 / (60 + hits[1].meaning_rank))
        prompt = documents.recall("How is bread baked in an oven?", 1)
        assert TEXTS["bread"] in prompt and "How is bread baked" in prompt and TEXTS["law"] not in prompt
    # Their files stay.
    with herald_engine.Documents(smollm2, folder) as documents:
        assert {hit.name for hit in documents.search("whales")} == set(TEXTS)
        documents.remove(numbers["bread"])
        assert {hit.name for hit in documents.search("dough")} == {"sea", "law"}
        documents.clear()
        assert documents.search("dough") == []


def test_documents_say_what_is_wrong(tiny: herald_engine.Engine, tmp_path: pathlib.Path) -> None:
    documents = herald_engine.Documents(tiny)
    wrong = herald_engine.InvalidArgumentError
    with pytest.raises(wrong, match="empty"):
        documents.add("name", "")
    with pytest.raises(wrong, match="empty"):
        documents.search("")
    with pytest.raises(wrong, match="name has a NUL"):
        documents.add("a\0b", "text")
    with pytest.raises(wrong, match="7"):
        documents.remove(7)
    with pytest.raises(wrong, match="count is -1"):
        documents.search("text", -1)
    (tmp_path / "file").write_text("no folder")
    with pytest.raises(herald_engine.HeraldError):
        herald_engine.Documents(tiny, tmp_path / "file")
    documents.close()
    documents.close()
    with pytest.raises(herald_engine.ClosedError, match="the set of documents is closed"):
        documents.search("text")


def test_documents_without_blocking(tiny: herald_engine.Engine) -> None:
    async def work() -> None:
        with herald_engine.Documents(tiny) as documents:
            number = await documents.aadd("name", "some text")
            (hit,) = await documents.asearch("text")
            assert hit.document == number
            assert "some text" in await documents.arecall("text", budget=200)

    asyncio.run(work())


def test_contexts_by_name_give_what_sequences_give(smollm2: herald_engine.Engine) -> None:
    expected = smollm2.generate("The capital of France is", max_tokens=6)
    with herald_engine.Memory(smollm2) as memory:
        assert memory.add("a", "The capital of") == len(smollm2.tokenize("The capital of"))
        pieces: list[str] = []
        answer = memory.generate("a", " France is", max_tokens=6, on_piece=lambda piece: pieces.append(piece.text))
        assert answer.text == expected.text == "".join(pieces)
        assert memory.add("b", [5, 6, 7]) == 3
        assert memory.usage("b").active_tokens < memory.usage("a").active_tokens
        memory.clear("a")
        assert memory.usage("a").active_tokens == 0
        # It begins anew.
        assert memory.generate("a", "The capital of France is", max_tokens=6).text == expected.text
        memory.remove("b")
        with pytest.raises(herald_engine.InvalidArgumentError, match="b"):
            memory.usage("b")


def test_contexts_are_cared_for(tiny: herald_engine.Engine) -> None:
    with herald_engine.Memory(tiny) as memory:
        memory.mark()
        for name in ("a", "b"):
            memory.add(name, [5] * 200)
        assert memory.leak_stats().orphaned_pages == 0 and memory.leak_stats().grown_pages > 0
        assert memory.compress("a", 64) > 0
        assert memory.usage("a").compressed_tokens > 0
        assert memory.optimize().busy_contexts == 0
        memory.cancel("a")
        with pytest.raises(herald_engine.CancelledError):
            memory.add("a", [5, 6])
        memory.cancel("a")
        assert memory.generate("a", "x", max_tokens=4).finish is herald_engine.Finish.CANCELLED
        with pytest.raises(herald_engine.InvalidArgumentError, match="client"):
            memory.generate("a", "x", client="someone")

        def fails(piece: herald_engine.Piece) -> bool:
            raise KeyError("a mistake")

        with pytest.raises(KeyError, match="a mistake"):
            memory.generate("b", "x", on_piece=fails, ignore_eos=True, max_tokens=4)
        memory.clear()
        assert memory.usage("b").active_tokens == 0
