"""A loaded model, and what is asked of it."""

from __future__ import annotations

import json
from collections.abc import AsyncIterator, Iterable
from typing import TYPE_CHECKING, Any, Literal, Optional, Union, overload

from ._buffers import as_lists, new_floats, pointer_to
from ._library import NULL, Handle, call, check, ffi, filled_ids, filled_text, guard, lib, made, struct
from ._options import Path, c_ids, c_messages, encoded, engine_options, milliseconds, number
from ._types import Answer, EngineInfo, GenerateOptions, MemoryUsage, Message, Piece, Prompt, usage_of
from ._waiting import in_thread
from .errors import InvalidArgumentError
from .scheduler import Request, Scheduler, text_flags
from .sequence import Sequence, decode_all

if TYPE_CHECKING:
    from typing_extensions import Self, Unpack

    from ._buffers import Floats


class Engine:
    """A model, loaded into this process. Any number of threads may use it at once; their requests run together.

    Close it with `close()` or `with`. A forked child can't use it: load one there.
    """

    def __init__(
        self,
        model: Path,
        *,
        backend: Optional[str] = None,
        threads: Optional[int] = None,
        context: Optional[int] = None,
        max_batch: Optional[int] = None,
        max_draft: Optional[int] = None,
        activations: Literal["int16", "int8", None] = None,
        plugins: Iterable[Path] = (),
        only_named_plugins: bool = False,
        allow_insecure_plugins: bool = False,
        exact: bool = False,
        active_tokens: Optional[int] = None,
        compressed_tokens: Optional[int] = None,
        selected_pages: Union[int, Literal["all"], None] = None,
        archive: Optional[Path] = None,
        archive_lz4: bool = False,
        memory_budget: Optional[int] = None,
        prefix_bytes: Optional[int] = None,
        cache_dir: Optional[Path] = None,
        cache_dir_bytes: Optional[int] = None,
        pack_cache: bool = True,
        loras: Iterable[Union[Path, tuple[Path, float]]] = (),
        draft_model: Optional[Path] = None,
    ) -> None:
        """Loads a model.

        model: a GGUF file, or a split model's first one; `herald_engine.pull` fetches some.
        backend: the preferred plugin (`simd`, `blas`, `cpu`); None: the fastest.
        threads: to compute with; None: as many as this process may use.
        context: the most tokens of a sequence; None: what the model was trained for.
        max_batch: the most tokens of a pass (512); longer prompts are split.
        max_draft: the most tokens that are drafted for a pass (31; speculative decoding), which changes no text; 0: none.
        activations: `int8`, or `int16`, slower and as good as exact; None: int8, and int16 with `exact` and for models that embed or
        rank.
        plugins: further ones. only_named_plugins: these alone. allow_insecure_plugins: even if others can write them.
        exact: nothing lossy. Otherwise only the latest active_tokens (3,072) of a sequence keep 16 bits, so many
        compressed_tokens (32,768) of the older ones stay in RAM with 4 bits, the oldest go to a file (archive: it, or
        its folder; archive_lz4: compressed). Each layer attends to the best selected_pages (64, or `all`) of both.
        memory_budget: bytes of RAM for keys, values and states; None: no limit.
        prefix_bytes: bytes of RAM for what earlier prompts computed (512 MiB); 0: none is kept.
        cache_dir, cache_dir_bytes: a folder where that outlives the engine, and how much it may take (8 GiB).
        pack_cache: whether weights are packed once, into a file in the user's cache folder that processes share.
        loras: adapters to load beside the model, GGUF files, each by itself or with its scale (1). Sequences begin with all of
        them; `Sequence.set_loras` and the option `loras` choose others by their indices here.
        draft_model: a smaller model of the same vocabulary that drafts too, where that pays; no text changes.
        """
        options = {
            "backend": backend,
            "threads": threads,
            "context": context,
            "max_batch": max_batch,
            "max_draft": max_draft,
            "activations": activations,
            "plugins": list(plugins),
            "only_named_plugins": only_named_plugins,
            "allow_insecure_plugins": allow_insecure_plugins,
            "exact": exact,
            "active_tokens": active_tokens,
            "compressed_tokens": compressed_tokens,
            "selected_pages": selected_pages,
            "archive": archive,
            "archive_lz4": archive_lz4,
            "memory_budget": memory_budget,
            "prefix_bytes": prefix_bytes,
            "cache_dir": cache_dir,
            "cache_dir_bytes": cache_dir_bytes,
            "pack_cache": pack_cache,
            "loras": list(loras),
            "draft_model": draft_model,
        }
        how = engine_options(model, options)
        self._handle: Handle = made(
            "engine", "HeraldEngine", lib.herald_engine_free, lib.herald_engine_load, how.struct
        )
        self._scheduler: Optional[Scheduler] = None
        self._info = self._read_info()

    def _read_info(self) -> EngineInfo:
        raw = struct("HeraldEngineInfo")
        with self._handle as engine:
            call(lib.herald_engine_info, engine, raw)
            backend = filled_text(lib.herald_engine_backend, engine, capacity=64)
        bos, eos = (None if token == lib.HERALD_NO_TOKEN else token for token in (raw.bos, raw.eos))
        return EngineInfo(
            vocabulary=raw.vocabulary,
            context=raw.context,
            hidden=raw.hidden,
            blocks=raw.blocks,
            bos=bos,
            eos=eos,
            threads=raw.threads,
            load_seconds=raw.load_seconds,
            backend=backend.decode(),
        )

    @property
    def info(self) -> EngineInfo:
        """Facts about the model."""
        return self._info

    @property
    def scheduler(self) -> Scheduler:
        """What runs `generate`, `stream` and `chat`: 32 requests at once, 256 waiting. It starts with the first."""
        with self._handle, guard():
            if self._scheduler is None:
                self._scheduler = Scheduler(self)
            return self._scheduler

    # --- Text ---

    def generate(
        self, prompt: Prompt, *, parse_special: bool = False, bos: bool = True, **options: Unpack[GenerateOptions]
    ) -> Answer:
        """Continues a prompt (a text or token ids), and returns the whole answer."""
        return self.stream(prompt, parse_special=parse_special, bos=bos, **options).result()

    def stream(
        self, prompt: Prompt, *, parse_special: bool = False, bos: bool = True, **options: Unpack[GenerateOptions]
    ) -> Request:
        """Continues a prompt piece by piece: `for piece in engine.stream("Once"): print(piece, end="")`."""
        return self.scheduler.submit(prompt, parse_special=parse_special, bos=bos, **options)

    @overload
    def chat(
        self, messages: Iterable[Message], *, stream: Literal[False] = False, **options: Unpack[GenerateOptions]
    ) -> Answer: ...

    @overload
    def chat(
        self, messages: Iterable[Message], *, stream: Literal[True], **options: Unpack[GenerateOptions]
    ) -> Request: ...

    def chat(
        self, messages: Iterable[Message], *, stream: bool = False, **options: Unpack[GenerateOptions]
    ) -> Union[Answer, Request]:
        """Answers a conversation of `{"role": ..., "content": ...}`, formatted by the model's chat template.

        With `stream=True` the answer comes piece by piece.
        """
        request = self.scheduler.submit(messages=messages, **options)
        return request if stream else request.result()

    def format_chat(self, messages: Iterable[Message], *, add_generation_prompt: bool = True) -> str:
        """A conversation as the model's chat template writes it, for `generate` with `parse_special=True`."""
        turns = c_messages(messages)
        with self._handle as engine:
            formatted = filled_text(
                lib.herald_chat_format, engine, turns.struct, len(turns.struct), int(add_generation_prompt)
            )
        return formatted.decode("utf-8")

    # --- The same without blocking an event loop; a cancelled task ends the generation ---

    async def agenerate(
        self, prompt: Prompt, *, parse_special: bool = False, bos: bool = True, **options: Unpack[GenerateOptions]
    ) -> Answer:
        """`generate` for asyncio."""
        submit = self.scheduler.submit
        request = await in_thread(lambda: submit(prompt, parse_special=parse_special, bos=bos, **options))
        return await request.aresult()

    async def astream(
        self, prompt: Prompt, *, parse_special: bool = False, bos: bool = True, **options: Unpack[GenerateOptions]
    ) -> AsyncIterator[Piece]:
        """`stream` for asyncio: `async for piece in engine.astream("Once"): ...`."""
        submit = self.scheduler.submit
        with await in_thread(lambda: submit(prompt, parse_special=parse_special, bos=bos, **options)) as request:
            async for piece in request:
                yield piece

    @overload
    async def achat(
        self, messages: Iterable[Message], *, stream: Literal[False] = False, **options: Unpack[GenerateOptions]
    ) -> Answer: ...

    @overload
    async def achat(
        self, messages: Iterable[Message], *, stream: Literal[True], **options: Unpack[GenerateOptions]
    ) -> Request: ...

    async def achat(
        self, messages: Iterable[Message], *, stream: bool = False, **options: Unpack[GenerateOptions]
    ) -> Union[Answer, Request]:
        """`chat` for asyncio. With `stream=True` it gives a request for `async for`."""
        submit = self.scheduler.submit
        request = await in_thread(lambda: submit(messages=messages, **options))
        return request if stream else await request.aresult()

    # --- Tokens ---

    def tokenize(self, text: str, *, parse_special: bool = False, bos: bool = True) -> list[int]:
        """The tokens of a text. `bos`: as a sequence begins, with the tokens that the model puts around it."""
        raw = encoded("text", text)
        flags = text_flags(parse_special, bos)
        with self._handle as engine:
            return filled_ids(lib.herald_tokenize, engine, raw, len(raw), flags, capacity=len(raw) + 2)

    def detokenize(self, ids: Iterable[int], *, special: bool = False, continues: bool = False) -> str:
        """The text of tokens. `special`: special ones are written out. `continues`: it goes on from an earlier text."""
        tokens = c_ids("ids", ids)
        flags = (lib.HERALD_TEXT_SPECIAL if special else 0) | (lib.HERALD_TEXT_CONTINUES if continues else 0)
        with self._handle as engine:
            text = filled_text(lib.herald_detokenize, engine, tokens, len(tokens), flags, capacity=8 * len(tokens) + 16)
        return text.decode("utf-8")

    def token_bytes(self, token: int, *, special: bool = False) -> bytes:
        """What a token adds to a text that it continues; it may be a part of a character."""
        flags = lib.HERALD_TEXT_SPECIAL if special else 0
        with self._handle as engine:
            return filled_text(lib.herald_token_bytes, engine, number("token", token), flags, capacity=64)

    def token_ends(self, token: int) -> bool:
        """Whether a token ends a generation."""
        with self._handle as engine:
            return bool(lib.herald_token_ends(engine, number("token", token)))

    # --- Vectors ---

    def embed(
        self,
        texts: Union[str, Iterable[str]],
        *,
        normalize: bool = True,
        pooling: Optional[str] = None,
        deadline: Optional[float] = None,
    ) -> Floats:
        """The vector of a text, or those of several as an array [texts, size]; without NumPy, lists.

        `normalize`: scaled to length 1. `pooling`: `mean`, `first` or `last`; None: what the model says. `deadline`:
        seconds for each text.
        """
        poolings = {
            None: 0,
            "mean": lib.HERALD_EMBED_MEAN,
            "first": lib.HERALD_EMBED_FIRST,
            "last": lib.HERALD_EMBED_LAST,
        }
        if pooling not in poolings:
            raise InvalidArgumentError(f"pooling is {pooling!r}, where mean, first, last or None was expected")
        flags = poolings[pooling] | (lib.HERALD_EMBED_NORMALIZE if normalize else 0)
        chosen = [texts] if isinstance(texts, str) else list(texts)
        raws = [encoded(f"texts[{index}]", text) for index, text in enumerate(chosen)]
        width = self._info.hidden
        buffer: Any = new_floats(len(raws), width)
        row = 0
        while row < len(raws):
            found = self._embed(raws[row], flags, milliseconds("deadline", deadline), buffer, row, width)
            if found == width:
                row += 1
            else:
                # Some models embed into vectors of another size than their activations; the first text tells.
                width, row = found, 0
                buffer = new_floats(len(raws), width)
        rows = as_lists(buffer, len(raws))
        return rows[0] if isinstance(texts, str) else rows  # type: ignore[no-any-return]

    def _embed(self, text: bytes, flags: int, deadline_ms: int, buffer: Any, row: int, width: int) -> int:
        """Writes a text's vector to a row of the buffer if it fits; returns its size."""
        target = ffi.cast("float *", pointer_to(buffer, (row + 1) * width)) + row * width
        count, error = ffi.new("size_t *"), struct("HeraldError")
        with self._handle as engine:
            status = lib.herald_embed(engine, text, len(text), flags, deadline_ms, target, width, count, error)
        if status != lib.HERALD_STATUS_BUFFER_TOO_SMALL:
            check(status, error)
        found: int = count[0]
        return found

    async def aembed(
        self,
        texts: Union[str, Iterable[str]],
        *,
        normalize: bool = True,
        pooling: Optional[str] = None,
        deadline: Optional[float] = None,
    ) -> Floats:
        """`embed` for asyncio."""
        return await in_thread(lambda: self.embed(texts, normalize=normalize, pooling=pooling, deadline=deadline))

    def hidden_states(
        self, ids: Iterable[int], *, blocks: Optional[int] = None, deadline: Optional[float] = None
    ) -> Floats:
        """Each token's activations after the first `blocks` blocks (None: all): an array [tokens, hidden]."""
        tokens = c_ids("ids", ids)
        width = self._info.hidden
        buffer = new_floats(len(tokens), width)
        if len(tokens):
            rows = ffi.cast("float *", pointer_to(buffer, len(tokens) * width))

            def each(_: Any, index: int, state: Any, n_state: int) -> int:
                ffi.memmove(rows + index * width, state, 4 * n_state)
                return 0

            callback = ffi.callback("int32_t(void *, size_t, const float *, size_t)", each, error=1)
            some = lib.HERALD_ALL_BLOCKS if blocks is None else number("blocks", blocks)
            until = milliseconds("deadline", deadline)
            with self._handle as engine:
                call(lib.herald_hidden_states, engine, tokens, len(tokens), some, until, callback, NULL)
        return as_lists(buffer, len(tokens))  # type: ignore[no-any-return]

    # --- Sequences ---

    def sequence(self) -> Sequence:
        """A new context, to run yourself."""
        return Sequence(self)

    def load_sequence(self, path: Path) -> Sequence:
        """A context that was saved with the same model."""
        return Sequence.load(self, path)

    def decode(self, sequences: Iterable[Sequence], tokens: Iterable[int], *, out: Optional[Any] = None) -> Floats:
        """Appends a token to each of several sequences, in one pass; returns the logits [sequences, vocabulary]."""
        buffer, rows = decode_all(self, sequences, tokens, out)
        return as_lists(buffer, rows) if out is None else buffer  # type: ignore[no-any-return]

    # --- Memory and metrics ---

    def usage(self) -> MemoryUsage:
        """What the memory tiers hold of all sequences."""
        raw = struct("HeraldMemoryUsage")
        with self._handle as engine:
            call(lib.herald_engine_usage, engine, raw)
        return usage_of(raw)

    def forget_prefixes(self) -> None:
        """Empties the RAM in which earlier prompts and answers are kept for later ones that begin alike."""
        with self._handle as engine:
            call(lib.herald_engine_forget_prefixes, engine)

    def metrics(self, scheduler: Optional[Scheduler] = None) -> dict[str, Any]:
        """The process's memory, the memory tiers, and the requests of a scheduler (None: the engine's own)."""
        found: dict[str, Any] = json.loads(self._metrics(lib.herald_metrics_json, scheduler))
        return found

    def metrics_prometheus(self, scheduler: Optional[Scheduler] = None) -> str:
        """The same in Prometheus's text format (OpenMetrics 1.0)."""
        return self._metrics(lib.herald_metrics_prometheus, scheduler).decode("utf-8")

    def _metrics(self, function: Any, scheduler: Optional[Scheduler]) -> bytes:
        with self._handle as engine, (scheduler or self.scheduler)._handle as requests:
            return filled_text(function, engine, requests, capacity=16384, spare=4096)

    def close(self) -> None:
        """Ends its requests, and frees the model when no call uses it any more. May be called again."""
        with guard():
            scheduler = self._scheduler
        if scheduler is not None:
            scheduler.close()
        self._handle.close()

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_: object) -> None:
        self.close()
