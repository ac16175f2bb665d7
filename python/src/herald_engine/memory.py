"""Contexts by name over one engine, and care for the memory that they take."""

from __future__ import annotations

import contextlib
from typing import TYPE_CHECKING, Any, Callable, Optional

from ._library import NULL, Handle, call, check, ffi, lib, made, struct
from ._options import c_ids, c_text, encoded, number
from ._types import Answer, GenerateOptions, LeakStats, MemoryUsage, Optimized, Piece, Prompt, usage_of
from ._waiting import interruptible
from .errors import HeraldError
from .sequence import generated_by

if TYPE_CHECKING:
    from typing_extensions import Self, Unpack

    from .engine import Engine


class Memory:
    """Contexts by name. Any number of threads may use it at once: work on a context waits for other work on it."""

    def __init__(self, engine: Engine) -> None:
        """Has no contexts yet: the first text of each creates it."""
        with engine._handle as pointer:
            self._handle: Handle = made(
                "memory", "HeraldMemory", lib.herald_memory_free, lib.herald_memory_new, pointer
            )

    def add(self, context: str, prompt: Prompt) -> int:
        """Appends a text or token ids to a context and runs them. Returns the number of tokens that were added.

        An empty context begins a text as the model wants it to.
        """
        name = c_text("context", context)
        if not isinstance(prompt, str):
            ids = c_ids("prompt", prompt)
            self._run(context, lib.herald_memory_add_ids_to_active, name, ids, len(ids))
            return len(ids)
        text, added = encoded("prompt", prompt), ffi.new("size_t *")
        self._run(context, lib.herald_memory_add_to_active, name, text, len(text), added)
        found: int = added[0]
        return found

    def generate(
        self,
        context: str,
        text: str,
        *,
        on_piece: Optional[Callable[[Piece], Optional[bool]]] = None,
        **options: Unpack[GenerateOptions],
    ) -> Answer:
        """Appends a text to a context, then generates. The context then holds both.

        `on_piece` is as for `Sequence.generate`; it must not work on contexts.
        """
        name, raw = c_text("context", context), encoded("text", text)

        def run(how: Any, generated: Any) -> None:
            self._run(context, lib.herald_memory_generate, name, raw, len(raw), how, generated)

        return generated_by(run, on_piece, options)

    def _run(self, context: str, function: Callable[..., int], *arguments: Any) -> None:
        """Makes a long call. Ctrl-C ends it after the layer that is running."""
        error = struct("HeraldError")

        def work() -> int:
            with self._handle as memory:
                return function(memory, *arguments, error)

        def cancel() -> None:
            # A context that the call hasn't created yet can't be cancelled.
            with contextlib.suppress(HeraldError):
                self.cancel(context)

        check(interruptible(work, cancel, lambda: None), error)

    def cancel(self, context: str) -> None:
        """Ends the work on a context that runs now, or else what begins next. Any thread."""
        with self._handle as memory:
            call(lib.herald_memory_cancel, memory, c_text("context", context))

    def compress(self, context: str, keep_tokens: int = 0) -> int:
        """Moves what is older than a context's latest tokens to the compressed tier; returns how many pages moved."""
        moved = ffi.new("uint64_t *")
        with self._handle as memory:
            call(
                lib.herald_memory_compress,
                memory,
                c_text("context", context),
                number("keep_tokens", keep_tokens, 64),
                moved,
            )
        found: int = moved[0]
        return found

    def optimize(self) -> Optimized:
        """Frees unused room, merges equal pages of several contexts, and gives freed memory back to the system."""
        raw = struct("HeraldOptimized")
        with self._handle as memory:
            call(lib.herald_memory_optimize, memory, raw)
        return Optimized(**{name: getattr(raw, name) for name in Optimized.__dataclass_fields__})

    def clear(self, context: Optional[str] = None) -> None:
        """Removes all tokens of a context (None: of every one) from all tiers; it stays open."""
        with self._handle as memory:
            call(lib.herald_memory_clear_active, memory, NULL if context is None else c_text("context", context))

    def remove(self, context: str) -> None:
        """Removes a context after waiting for work on it; does nothing if there is none."""
        with self._handle as memory:
            call(lib.herald_memory_close, memory, c_text("context", context))

    def usage(self, context: Optional[str] = None) -> MemoryUsage:
        """What the tiers held of a context when work on it last ended; None: what they hold of all sequences."""
        raw = struct("HeraldMemoryUsage")
        with self._handle as memory:
            call(lib.herald_memory_usage, memory, NULL if context is None else c_text("context", context), raw)
        return usage_of(raw)

    def leak_stats(self) -> LeakStats:
        """Pages that are held, beside those that can be reached. Waits for running work."""
        raw = struct("HeraldLeakStats")
        with self._handle as memory:
            call(lib.herald_memory_leak_stats, memory, raw)
        return LeakStats(**{name: getattr(raw, name) for name in LeakStats.__dataclass_fields__})

    def mark(self) -> None:
        """Sets the mark from which `leak_stats` counts growth."""
        with self._handle as memory:
            call(lib.herald_memory_mark, memory)

    def close(self) -> None:
        """Frees it and its contexts. May be called again."""
        self._handle.close()

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_: object) -> None:
        self.close()
