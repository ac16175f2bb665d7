"""One context of a model: its tokens, and what the layers have computed for them."""

from __future__ import annotations

import contextlib
from collections.abc import Iterable, Mapping
from typing import TYPE_CHECKING, Any, Callable, Optional, TypeVar

from ._buffers import as_lists, new_floats, pointer_to
from ._library import NULL, Handle, call, check, ffi, filled_ids, lib, made, struct
from ._options import Path, c_ids, c_loras, c_path, encoded, generate_options, milliseconds, number, stops_of
from ._types import Answer, GenerateOptions, MemoryUsage, Piece, Prompt, usage_of
from ._waiting import interruptible
from .errors import ClosedError, InvalidArgumentError
from .scheduler import answer_of, piece_of, text_flags

if TYPE_CHECKING:
    from typing_extensions import Self, Unpack

    from ._buffers import Floats
    from .engine import Engine

T = TypeVar("T")


class Sequence:
    """A context that you run yourself: `prefill` and `decode` give logits to your own sampler, `generate` goes on.

    One call at a time; `cancel` may come from any thread.
    """

    def __init__(self, engine: Engine) -> None:
        """Creates an empty sequence."""
        with engine._handle as pointer:
            self._take(engine, lib.herald_sequence_new, pointer)

    def _take(self, engine: Engine, function: Callable[..., int], *arguments: Any) -> None:
        self._engine = engine
        self._handle: Handle = made("sequence", "HeraldEngineSequence", lib.herald_sequence_free, function, *arguments)

    @classmethod
    def load(cls, engine: Engine, path: Path) -> Self:
        """Loads a sequence that `save` or the program saved with the same model."""
        loaded = cls.__new__(cls)
        with engine._handle as pointer:
            loaded._take(engine, lib.herald_sequence_load, pointer, c_path("path", path))
        return loaded

    def save(self, path: Path) -> None:
        """Saves it to a file, for this or another process. An earlier file is replaced as a whole."""
        with self._handle as sequence:
            call(lib.herald_sequence_save, sequence, c_path("path", path))

    def fork(self) -> Self:
        """A copy that goes on by itself and shares pages until one of the two writes."""
        forked = self.__class__.__new__(self.__class__)
        with self._handle as sequence:
            forked._take(self._engine, lib.herald_sequence_fork, sequence)
        return forked

    def set_loras(self, loras: Mapping[int, float]) -> None:
        """Has it computed with these adapters, each with its scale, by their indices among those of the engine, and with no others.

        Once it has tokens, which were computed with some, only the same are accepted.
        """
        memory: list[Any] = []
        with self._handle as sequence:
            call(lib.herald_sequence_set_loras, sequence, *c_loras(memory, loras))

    def prefill(self, ids: Iterable[int], *, logits: bool = True, out: Optional[Any] = None) -> Floats:
        """Appends tokens and runs them. Returns the last one's logits: in `out`, in place, or in a new buffer.

        `logits=False` leaves them out, and returns an empty buffer.
        """
        tokens = c_ids("ids", ids)
        count = self._engine.info.vocabulary if logits or out is not None else 0
        buffer = new_floats(count) if out is None else out
        target = pointer_to(buffer, count) if count else NULL
        self._run(lib.herald_prefill, tokens, len(tokens), target, count)
        return buffer  # type: ignore[no-any-return]

    def decode(self, token: int, *, out: Optional[Any] = None) -> Floats:
        """Appends a token, runs it and returns its logits: `out`, which is written in place, or a new buffer."""
        buffer = new_floats(self._engine.info.vocabulary) if out is None else out
        self._engine.decode([self], [token], out=buffer)
        return buffer  # type: ignore[no-any-return]

    def logits(self, ids: Iterable[int]) -> Floats:
        """Appends tokens, runs them and returns the logits of each: an array [tokens, vocabulary]."""
        tokens = c_ids("ids", ids)
        width = self._engine.info.vocabulary
        buffer = new_floats(len(tokens), width)
        if len(tokens):
            rows = ffi.cast("float *", pointer_to(buffer, len(tokens) * width))

            def each(_: Any, index: int, logits: Any, n_logits: int) -> int:
                ffi.memmove(rows + index * width, logits, 4 * n_logits)
                return 0

            callback = ffi.callback("int32_t(void *, size_t, const float *, size_t)", each, error=1)
            self._run(lib.herald_logits, tokens, len(tokens), callback, NULL)
        return as_lists(buffer, len(tokens))  # type: ignore[no-any-return]

    def generate(
        self,
        prompt: Prompt,
        *,
        on_piece: Optional[Callable[[Piece], Optional[bool]]] = None,
        parse_special: bool = False,
        bos: Optional[bool] = None,
        **options: Unpack[GenerateOptions],
    ) -> Answer:
        """Appends a prompt (a text or token ids), then generates. The sequence then holds both, but for the last token.

        `on_piece` gets each piece as it comes, on another thread where this is the main one; False ends the generation.
        `bos`: a text begins as the model wants it to; by default, if the sequence is empty.
        """

        def run(how: Any, generated: Any) -> None:
            if isinstance(prompt, str):
                text = encoded("prompt", prompt)
                flags = text_flags(parse_special, len(self) == 0 if bos is None else bos)
                self._run(lib.herald_generate, text, len(text), flags, how, generated)
            else:
                ids = c_ids("prompt", prompt)
                self._run(lib.herald_generate_ids, ids, len(ids), how, generated)

        return generated_by(run, on_piece, options)

    def _run(self, function: Callable[..., int], *arguments: Any) -> None:
        """Makes a long call with the engine and the sequence first. Ctrl-C ends it after the layer that is running."""
        error = struct("HeraldError")

        def work() -> int:
            # Both stay in use until the call has returned, whoever closes them or stops waiting.
            with self._engine._handle as engine, self._handle as sequence:
                return function(engine, sequence, *arguments, error)

        # The cancel may have come too late, and would end the next call.
        status = interruptible(work, self.cancel, self._forget_cancel)
        check(status, error)

    def _forget_cancel(self) -> None:
        with contextlib.suppress(ClosedError):
            self.reset_cancel()

    def cancel(self) -> None:
        """Ends the call that runs now, or else the next one. Any thread."""
        with contextlib.suppress(ClosedError), self._handle as sequence:
            lib.herald_sequence_cancel(sequence)

    def reset_cancel(self) -> bool:
        """Clears a cancel that no call has reported; returns whether there was one."""
        with self._handle as sequence:
            return bool(lib.herald_sequence_reset_cancel(sequence))

    def set_deadline(self, seconds: Optional[float]) -> None:
        """Sets when all work on it that begins from now on ends at the latest, in seconds from now; None: never."""
        with self._handle as sequence:
            call(lib.herald_sequence_set_deadline, sequence, milliseconds("seconds", seconds))

    @property
    def tokens(self) -> list[int]:
        """Its tokens."""
        with self._handle as sequence:
            return filled_ids(lib.herald_sequence_tokens, sequence)

    def __len__(self) -> int:
        length = ffi.new("size_t *")
        with self._handle as sequence:
            call(lib.herald_sequence_len, sequence, length)
        found: int = length[0]
        return found

    def __bool__(self) -> bool:
        # An empty sequence is one, too.
        return True

    def truncate(self, length: int) -> None:
        """Removes the tokens from this index on. Models with recurrent states can only go back to 0."""
        with self._handle as sequence:
            call(lib.herald_sequence_truncate, sequence, number("length", length, 64))

    def usage(self) -> MemoryUsage:
        """What the memory tiers hold of it; pages that it shares count whole."""
        raw = struct("HeraldMemoryUsage")
        with self._handle as sequence:
            call(lib.herald_sequence_usage, sequence, raw)
        return usage_of(raw)

    def compress(self, keep_tokens: int = 0) -> int:
        """Moves what is older than its latest tokens to the compressed tier, which is lossy; returns how many pages."""
        moved = ffi.new("uint64_t *")
        with self._handle as sequence:
            call(lib.herald_sequence_compress, sequence, number("keep_tokens", keep_tokens, 64), moved)
        found: int = moved[0]
        return found

    def close(self) -> None:
        """Frees it. May be called again."""
        self._handle.close()

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_: object) -> None:
        self.close()


def generated_by(
    run: Callable[[Any, Any], None], on_piece: Optional[Callable[[Piece], Optional[bool]]], options: GenerateOptions
) -> Answer:
    """The answer of a call that fills a HeraldGenerated. What `on_piece` raises ends it, and is raised."""
    if options.get("client") is not None:
        raise InvalidArgumentError("client is for requests to a scheduler, where a sequence or a context has none")
    how = generate_options(options)
    generated = struct("HeraldGenerated")
    pieces: list[Piece] = []
    failures: list[BaseException] = []

    def each(_: Any, raw: Any) -> int:
        pieces.append(piece_of(raw))
        return 0 if on_piece is None or on_piece(pieces[-1]) is not False else 1

    def failed(_: Any, failure: BaseException, __: Any) -> None:
        failures.append(failure)

    callback = ffi.callback("int32_t(void *, const HeraldPiece *)", each, error=1, onerror=failed)
    how.struct.on_piece = callback
    run(how.struct, generated)
    if failures:
        raise failures[0]
    return answer_of(generated, pieces, stops_of(options))


def decode_all(
    engine: Engine, sequences: Iterable[Sequence], tokens: Iterable[int], out: Optional[Any]
) -> tuple[Any, int]:
    """Runs a token of each sequence in one pass; returns the buffer of logits, and the number of sequences."""
    chosen = list(sequences)
    ids = c_ids("tokens", tokens)
    if len(ids) != len(chosen):
        raise InvalidArgumentError(
            f"{len(ids)} tokens were given for {len(chosen)} sequences, where one for each was expected"
        )
    width = engine.info.vocabulary
    buffer = new_floats(len(chosen), width) if out is None else out
    target = pointer_to(buffer, len(chosen) * width) if chosen else NULL
    with contextlib.ExitStack() as used:
        pointer = used.enter_context(engine._handle)
        handles = ffi.new("HeraldEngineSequence *[]", [used.enter_context(each._handle) for each in chosen])
        call(lib.herald_decode, pointer, handles, ids, len(chosen), target, len(chosen) * width)
    return buffer, len(chosen)
