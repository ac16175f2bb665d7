"""Texts that are kept, found by meaning and by words, and put into prompts."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any, Optional

from ._library import NULL, Handle, call, ffi, filled_text, lib, made
from ._options import Path, c_path, c_text, encoded, number
from ._types import Hit
from ._waiting import in_thread

if TYPE_CHECKING:
    from typing_extensions import Self

    from .engine import Engine


class Documents:
    """Texts in chunks of 1,024 tokens that overlap by 128. Any number of threads may use it at once.

    In a folder they outlive the process, and several processes may use it at once.
    """

    def __init__(self, engine: Engine, folder: Optional[Path] = None) -> None:
        """Opens a folder's texts, which is created if it doesn't exist; without a folder they are in RAM.

        All of them must have been added with the same model. Damaged files are left out, with a warning in the log.
        """
        where = NULL if folder is None else c_path("folder", folder)
        with engine._handle as pointer:
            self._handle: Handle = made(
                "set of documents",
                "HeraldDocuments",
                lib.herald_documents_free,
                lib.herald_documents_open,
                pointer,
                where,
            )

    def add(self, name: str, text: str) -> int:
        """Adds a text under a name, and returns its number. It runs through the model once.

        A text that is there under that name already isn't added again; another one of the same name is kept beside it.
        """
        raw, title = encoded("text", text), c_text("name", name)
        out = ffi.new("uint64_t *")
        with self._handle as documents:
            call(lib.herald_documents_add, documents, title, raw, len(raw), out)
        added: int = out[0]
        return added

    def search(self, query: str, count: int = 5) -> list[Hit]:
        """The `count` chunks that fit a query best, best first."""
        hits: list[Hit] = []

        def each(_: Any, raw: Any) -> int:
            hits.append(hit_of(raw))
            return 0

        callback = ffi.callback("int32_t(void *, const HeraldHit *)", each, error=1)
        wanted, most = c_text("query", query), number("count", count, 64)
        with self._handle as documents:
            call(lib.herald_documents_search, documents, wanted, most, callback, NULL)
        return hits

    def recall(self, question: str, count: int = 5, *, budget: int = 2048) -> str:
        """A prompt for a question, with as much of the `count` best chunks as fits into `budget` tokens."""
        asked, most, tokens = c_text("question", question), number("count", count, 64), number("budget", budget, 64)
        with self._handle as documents:
            prompt = filled_text(lib.herald_documents_recall, documents, asked, most, tokens, capacity=16384)
        return prompt.decode("utf-8")

    def remove(self, document: int) -> None:
        """Removes a text by its number."""
        with self._handle as documents:
            call(lib.herald_documents_remove, documents, number("document", document, 64))

    def clear(self) -> None:
        """Removes all texts."""
        with self._handle as documents:
            call(lib.herald_documents_clear, documents)

    async def aadd(self, name: str, text: str) -> int:
        """`add` for asyncio."""
        return await in_thread(lambda: self.add(name, text))

    async def asearch(self, query: str, count: int = 5) -> list[Hit]:
        """`search` for asyncio."""
        return await in_thread(lambda: self.search(query, count))

    async def arecall(self, question: str, count: int = 5, *, budget: int = 2048) -> str:
        """`recall` for asyncio."""
        return await in_thread(lambda: self.recall(question, count, budget=budget))

    def close(self) -> None:
        """Frees it; a folder's files stay. May be called again."""
        self._handle.close()

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_: object) -> None:
        self.close()


def hit_of(raw: Any) -> Hit:
    """A HeraldHit as Python has it."""
    return Hit(
        document=raw.document,
        name=bytes(ffi.buffer(raw.name, raw.name_len)).decode("utf-8"),
        chunk=raw.chunk,
        text=bytes(ffi.buffer(raw.text, raw.text_len)).decode("utf-8"),
        score=raw.score,
        meaning_rank=raw.meaning_rank,
        word_rank=raw.word_rank or None,
    )
