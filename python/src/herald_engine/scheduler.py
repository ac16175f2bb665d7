"""Many requests at once over one engine, by continuous batching."""

from __future__ import annotations

import asyncio
import contextlib
import os
import threading
import time
from collections.abc import AsyncIterator, Iterable, Iterator
from typing import TYPE_CHECKING, Any, Optional, Union

from ._library import NULL, Handle, call, check, ffi, lib, made, struct
from ._options import c_ids, c_messages, c_text, encoded, generate_options, number, stops_of
from ._types import FINISHES, Answer, Finish, GenerateOptions, Message, Piece, Prompt
from ._waiting import in_thread
from .errors import ClosedError, HeraldError, InvalidArgumentError

if TYPE_CHECKING:
    from typing_extensions import Self, Unpack

    from .engine import Engine

# How long a call waits for a token before Python looks for signals.
_TICK_MS = 100


class Request(Iterator[Piece]):
    """A running generation: an iterator of pieces, also for `async for`.

    `close()`, leaving its `with` block, Ctrl-C in it or its collection ends the generation.
    """

    def __init__(self, handle: Handle, stops: list[str]) -> None:
        self._handle = handle
        self._stops = stops
        self._pieces: list[Piece] = []
        self._answer: Optional[Answer] = None
        self._failure: Optional[HeraldError] = None
        # The library takes one call at a time.
        self._reading = threading.Lock()
        self._process = os.getpid()

    def __iter__(self) -> Self:
        return self

    def __next__(self) -> Piece:
        try:
            while True:
                piece = self._poll(_TICK_MS)
                if isinstance(piece, Piece):
                    return piece
                if piece is not None:
                    raise StopIteration
        except StopIteration:
            raise
        except ClosedError:
            raise StopIteration from None
        except BaseException:
            self.close()
            raise

    def _poll(self, timeout_ms: int) -> Union[Piece, Answer, None]:
        """What comes next: a piece, the whole answer at its end, or None if nothing came in time."""
        # In a forked child another thread may have left the lock taken; there the library refuses the call.
        with self._reading if os.getpid() == self._process else contextlib.nullcontext():
            if self._failure is not None:
                raise self._failure
            if self._answer is not None:
                return self._answer
            event, error = struct("HeraldEvent"), struct("HeraldError")
            with self._handle as request:
                try:
                    check(lib.herald_request_next(request, timeout_ms, event, error), error)
                except HeraldError as failure:
                    self._failure = failure
                    raise
                if event.kind == lib.HERALD_EVENT_PIECE:
                    self._pieces.append(piece_of(event.piece))
                    return self._pieces[-1]
                if event.kind == lib.HERALD_EVENT_FINISHED:
                    self._answer = answer_of(event.generated, self._pieces, self._stops)
                    self._handle.close()
                    return self._answer
            return None

    @property
    def answer(self) -> Optional[Answer]:
        """The finished answer; None while it runs."""
        return self._answer

    def result(self, timeout: Optional[float] = None) -> Answer:
        """Waits for the answer. Ctrl-C ends the generation; a `timeout` in seconds (TimeoutError) doesn't."""
        until = None if timeout is None else time.monotonic() + timeout
        try:
            while True:
                found = self._poll(_TICK_MS)
                if isinstance(found, Answer):
                    return found
                if until is not None and time.monotonic() >= until:
                    break
        except BaseException:
            self.close()
            raise
        raise TimeoutError(f"no whole answer came within {timeout} seconds")

    async def aresult(self) -> Answer:
        """Waits for the answer without blocking the event loop. A cancelled task ends the generation."""
        return await in_thread(self.result, self.close)

    async def __aiter__(self) -> AsyncIterator[Piece]:
        loop = asyncio.get_running_loop()
        queue: asyncio.Queue[Union[Piece, Answer, BaseException]] = asyncio.Queue()

        def pump() -> None:
            item: Union[Piece, Answer, BaseException, None] = None
            while item is None or isinstance(item, Piece):
                try:
                    item = self._poll(_TICK_MS)
                except BaseException as failure:
                    item = failure
                try:
                    if item is not None:
                        loop.call_soon_threadsafe(queue.put_nowait, item)
                except RuntimeError:
                    # The loop is closed, and nobody reads.
                    return self.close()

        threading.Thread(target=pump, name="herald-stream", daemon=True).start()
        try:
            while True:
                item = await queue.get()
                if isinstance(item, Piece):
                    yield item
                elif isinstance(item, Answer):
                    return
                else:
                    raise item
        finally:
            self.close()

    def cancel(self) -> None:
        """Ends the generation; what has come can still be read, and the answer's finish is `cancelled`. Any thread."""
        try:
            with self._handle as request:
                lib.herald_request_cancel(request)
        except ClosedError:
            pass

    def close(self) -> None:
        """Ends the generation, if it runs, and frees it. Any thread."""
        self.cancel()
        self._handle.close()

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_: object) -> None:
        self.close()


class Scheduler:
    """Serves many requests over one engine: each step decodes a token of every request, and reads the weights once.

    Answers are the same as alone. Any thread may submit, read and cancel.
    """

    def __init__(
        self,
        engine: Engine,
        *,
        max_running: Optional[int] = None,
        max_waiting: Optional[int] = None,
        prompt_piece: Optional[int] = None,
        step_ms: Optional[int] = None,
    ) -> None:
        """Starts it.

        `max_running` requests run together (32), and `max_waiting` wait (256; one more is a QueueFullError). A step
        takes at most `prompt_piece` tokens of prompts (512) while other requests decode, and about `step_ms`
        milliseconds (200) with any.
        """
        raw = struct("HeraldSchedulerOptions")
        given = {
            "max_running": max_running,
            "max_waiting": max_waiting,
            "prompt_piece": prompt_piece,
            "step_ms": step_ms,
        }
        for name, value in given.items():
            if value is not None:
                setattr(raw, name, number(name, value, least=1))
        with engine._handle as pointer:
            self._handle = made(
                "scheduler", "HeraldScheduler", lib.herald_scheduler_free, lib.herald_scheduler_new, pointer, raw
            )

    def submit(
        self,
        prompt: Optional[Prompt] = None,
        *,
        messages: Optional[Iterable[Message]] = None,
        parse_special: bool = False,
        bos: bool = True,
        **options: Unpack[GenerateOptions],
    ) -> Request:
        """Submits a prompt (a text or token ids) or a conversation, and returns at once.

        `parse_special`: special tokens that a text spells are meant. `bos`: a text begins as the model wants it to.
        Raises QueueFullError where too many wait.
        """
        raw, kept = struct("HeraldPrompt"), []
        if (prompt is None) == (messages is None):
            both = "none" if prompt is None else "both"
            raise InvalidArgumentError(f"{both} of prompt and messages were given, where one was expected")
        if messages is not None:
            turns = c_messages(messages)
            kept.append(turns)
            raw.messages, raw.n_messages = turns.struct, len(turns.struct)
        elif isinstance(prompt, str):
            text = encoded("prompt", prompt)
            kept.append(ffi.from_buffer("char[]", text))
            raw.text, raw.text_len = kept[-1], len(text)
            raw.flags = text_flags(parse_special, bos)
        else:
            ids = c_ids("prompt", prompt if prompt is not None else ())
            kept.append(ids)
            raw.ids, raw.n_ids = ids, len(ids)
        client = options.get("client")
        if client is not None:
            kept.append(c_text("client", client))
            raw.client = kept[-1]
        how = generate_options(options)
        with self._handle as scheduler:
            out = ffi.new("HeraldRequest **")
            call(lib.herald_submit, scheduler, raw, how.struct, out)
        return Request(Handle("request", out[0], lib.herald_request_free), stops_of(options))

    def close(self) -> None:
        """Cancels its requests, and frees it. May be called again."""
        self._handle.close()

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_: object) -> None:
        self.close()


def text_flags(parse_special: bool, bos: bool) -> int:
    """The HERALD_TEXT_* bits of a text that is encoded."""
    flags: int = lib.HERALD_TEXT_SPECIAL if parse_special else 0
    return flags | (lib.HERALD_TEXT_PROMPT if bos else 0)


def piece_of(raw: Any) -> Piece:
    """A HeraldPiece as Python has it."""
    token = None if raw.token == lib.HERALD_NO_TOKEN else raw.token
    top: tuple[tuple[int, float], ...] = ()
    if raw.n_top and raw.top_tokens != NULL:
        top = tuple(zip(ffi.unpack(raw.top_tokens, raw.n_top), ffi.unpack(raw.top_logprobs, raw.n_top)))
    return Piece(bytes(ffi.buffer(raw.text, raw.text_len)).decode("utf-8", "replace"), token, raw.logprob, top)


def answer_of(raw: Any, pieces: list[Piece], stops: list[str]) -> Answer:
    """A HeraldGenerated and its pieces as Python has them."""
    finish = FINISHES.get(raw.finish)
    if finish is None:
        raise HeraldError(f"a generation ended with the code {raw.finish}, which this version doesn't know")
    return Answer(
        text="".join(piece.text for piece in pieces),
        finish=finish,
        pieces=list(pieces),
        stop=stops[raw.stop] if finish is Finish.STOP_TEXT and raw.stop < len(stops) else None,
        end_token=None if raw.end_token == lib.HERALD_NO_TOKEN else raw.end_token,
        prompt_tokens=raw.n_prompt_tokens,
        cached_tokens=raw.n_cached_tokens,
        generated_tokens=raw.n_tokens,
        seed=raw.seed,
        prompt_seconds=raw.prompt_seconds,
        decode_seconds=raw.decode_seconds,
    )
