"""The common calls of `llama_cpp.Llama` on HERALD: `from herald_engine.compat import Llama`.

Arguments that only say how fast to compute, or on what, change nothing. Those that would change the answer and
aren't served raise by name.
"""

from __future__ import annotations

import json
import time
import uuid
from collections.abc import Iterable, Mapping, Sequence
from typing import TYPE_CHECKING, Any, Optional, Union

from ._compat_shapes import chat_chunks, chat_completion, completion, completion_chunks
from ._types import GenerateOptions, Message
from .engine import Engine
from .errors import UnsupportedError

if TYPE_CHECKING:
    from typing_extensions import Self

__all__ = ["Llama", "LlamaGrammar"]

# llama.cpp's seed that means "any".
ANY_SEED = 0xFFFFFFFF

# Arguments of the constructor that change speed, places and logs, but no answer.
NO_MATTER = {
    "n_gpu_layers", "split_mode", "main_gpu", "tensor_split", "use_mmap", "use_mlock", "n_ubatch", "n_threads_batch",
    "logits_all", "embedding", "offload_kqv", "flash_attn", "op_offload", "swa_full", "no_perf", "draft_model", "numa",
}  # fmt: skip

# Those that would change answers, with the values that leave them as they are.
UNSERVED: dict[str, tuple[Any, ...]] = {
    "vocab_only": (False,),
    "kv_overrides": (None, {}),
    "rope_scaling_type": (None, -1),
    "attention_type": (-1,),
    "rope_freq_base": (0.0,),
    "rope_freq_scale": (0.0,),
    "yarn_ext_factor": (-1.0,),
    "yarn_attn_factor": (1.0,),
    "yarn_beta_fast": (32.0,),
    "yarn_beta_slow": (1.0,),
    "yarn_orig_ctx": (0,),
    "lora_base": (None,),
    "lora_scale": (1.0,),
    "lora_path": (None,),
    "chat_format": (None,),
    "chat_handler": (None,),
    "tokenizer": (None,),
    "type_k": (None, 1),
    "type_v": (None, 1),
    "spm_infill": (False,),
}

# llama.cpp's numbers of poolings.
POOLINGS = {-1: None, 0: None, 1: "mean", 2: "first", 3: "last"}


def refuse(given: Mapping[str, Any], allowed: Mapping[str, tuple[Any, ...]], what: str) -> None:
    """Raises the first argument that has another value than those that change nothing."""
    for name, value in given.items():
        if name in allowed and value not in allowed[name]:
            raise UnsupportedError(
                f"{what}: {name} is {value!r}, which isn't served, where {allowed[name][0]!r} was expected"
            )


class LlamaGrammar:
    """A grammar for answers, in GBNF."""

    def __init__(self, text: str) -> None:
        self.text = text

    @classmethod
    def from_string(cls, grammar: str, verbose: bool = True) -> Self:
        """A grammar from its text."""
        return cls(grammar)

    @classmethod
    def from_file(cls, file: str, verbose: bool = True) -> Self:
        """A grammar from a file."""
        with open(file, encoding="utf-8") as opened:
            return cls(opened.read())


class Llama:
    """`llama_cpp.Llama` by its calls and the shapes of its answers, which a HERALD engine computes."""

    def __init__(
        self,
        model_path: str,
        *,
        n_ctx: int = 512,
        n_batch: int = 512,
        n_threads: Optional[int] = None,
        seed: int = ANY_SEED,
        last_n_tokens_size: int = 64,
        pooling_type: int = -1,
        verbose: bool = True,
        **others: Any,
    ) -> None:
        """Loads a model. `n_ctx` 0: the context that the model was trained for."""
        unknown = set(others) - NO_MATTER - set(UNSERVED)
        if unknown:
            raise TypeError(f"Llama() got an unexpected keyword argument {sorted(unknown)[0]!r}")
        refuse(others, UNSERVED, "Llama")
        refuse({"pooling_type": pooling_type}, {"pooling_type": tuple(POOLINGS)}, "Llama")
        self.model_path = str(model_path)
        self.verbose = verbose
        self._pooling = POOLINGS[pooling_type]
        self._last_n = last_n_tokens_size
        self._seed = seed
        self.engine = Engine(
            model_path, threads=n_threads or None, context=n_ctx or None, max_batch=n_batch or None, exact=True
        )

    # --- Completions ---

    def create_completion(
        self,
        prompt: Union[str, Sequence[int]],
        suffix: Optional[str] = None,
        max_tokens: Optional[int] = 16,
        temperature: float = 0.8,
        top_p: float = 0.95,
        min_p: float = 0.05,
        typical_p: float = 1.0,
        logprobs: Optional[int] = None,
        echo: bool = False,
        stop: Union[str, Sequence[str], None] = None,
        frequency_penalty: float = 0.0,
        presence_penalty: float = 0.0,
        repeat_penalty: float = 1.0,
        top_k: int = 40,
        stream: bool = False,
        seed: Optional[int] = None,
        tfs_z: float = 1.0,
        mirostat_mode: int = 0,
        mirostat_tau: float = 5.0,
        mirostat_eta: float = 0.1,
        model: Optional[str] = None,
        stopping_criteria: Any = None,
        logits_processor: Any = None,
        grammar: Any = None,
        logit_bias: Optional[Mapping[int, float]] = None,
    ) -> Any:
        """A continuation of a prompt, as OpenAI's API has it; with `stream=True` an iterator of chunks.

        `mirostat_tau` and `mirostat_eta` mean something with mirostat only, which is refused.
        """
        refuse(
            {"suffix": suffix, "stopping_criteria": stopping_criteria, "logits_processor": logits_processor},
            {"suffix": (None,), "stopping_criteria": (None,), "logits_processor": (None,)},
            "create_completion",
        )
        options = self._options(
            max_tokens=max_tokens,
            temperature=temperature,
            top_p=top_p,
            min_p=min_p,
            typical_p=typical_p,
            stop=stop,
            frequency_penalty=frequency_penalty,
            presence_penalty=presence_penalty,
            repeat_penalty=repeat_penalty,
            top_k=top_k,
            seed=seed,
            tfs_z=tfs_z,
            mirostat_mode=mirostat_mode,
            grammar=grammar,
            logit_bias=logit_bias,
        )
        options["logprobs"] = logprobs or 0
        head = self._head("cmpl", "text_completion", model)
        shown = (prompt if isinstance(prompt, str) else self._text(prompt)) if echo else ""
        request = self.engine.stream(prompt, parse_special=True, **options)
        if stream:
            return completion_chunks(self.engine, head, request, shown, logprobs)
        return completion(self.engine, head, request.result(), shown, logprobs)

    __call__ = create_completion

    def create_chat_completion(
        self,
        messages: Iterable[Message],
        functions: Optional[Sequence[Any]] = None,
        function_call: Any = None,
        tools: Optional[Sequence[Any]] = None,
        tool_choice: Any = None,
        temperature: float = 0.2,
        top_p: float = 0.95,
        top_k: int = 40,
        min_p: float = 0.05,
        typical_p: float = 1.0,
        stream: bool = False,
        stop: Union[str, Sequence[str], None] = None,
        seed: Optional[int] = None,
        response_format: Optional[Mapping[str, Any]] = None,
        max_tokens: Optional[int] = None,
        presence_penalty: float = 0.0,
        frequency_penalty: float = 0.0,
        repeat_penalty: float = 1.0,
        tfs_z: float = 1.0,
        mirostat_mode: int = 0,
        mirostat_tau: float = 5.0,
        mirostat_eta: float = 0.1,
        model: Optional[str] = None,
        logits_processor: Any = None,
        grammar: Any = None,
        logit_bias: Optional[Mapping[int, float]] = None,
        logprobs: Optional[bool] = None,
        top_logprobs: Optional[int] = None,
    ) -> Any:
        """An answer to messages by the model's chat template; with `stream=True` an iterator of chunks.

        Tools are refused: `herald_engine.server.Server` has them.
        """
        given = {"functions": functions, "function_call": function_call, "tools": tools, "tool_choice": tool_choice}
        nothing: tuple[Any, ...] = (None, [], (), "none")
        refuse(given, dict.fromkeys(given, nothing), "create_chat_completion (herald_engine.server.Server has tools)")
        refuse({"logits_processor": logits_processor}, {"logits_processor": (None,)}, "create_chat_completion")
        options = self._options(
            max_tokens=max_tokens,
            temperature=temperature,
            top_p=top_p,
            min_p=min_p,
            typical_p=typical_p,
            stop=stop,
            frequency_penalty=frequency_penalty,
            presence_penalty=presence_penalty,
            repeat_penalty=repeat_penalty,
            top_k=top_k,
            seed=seed,
            tfs_z=tfs_z,
            mirostat_mode=mirostat_mode,
            grammar=grammar,
            logit_bias=logit_bias,
        )
        schema = schema_of(response_format)
        if schema is not None:
            options["json_schema"] = schema
        options["logprobs"] = (top_logprobs or 0) if logprobs else 0
        head = self._head("chatcmpl", "chat.completion.chunk" if stream else "chat.completion", model)
        request = self.engine.chat(messages, stream=True, **options)
        if stream:
            return chat_chunks(self.engine, head, request, bool(logprobs))
        return chat_completion(self.engine, head, request.result(), bool(logprobs))

    def _options(self, *, repeat_penalty: float, tfs_z: float, mirostat_mode: int, **given: Any) -> GenerateOptions:
        """llama.cpp's options as HERALD's."""
        refuse({"tfs_z": tfs_z, "mirostat_mode": mirostat_mode}, {"tfs_z": (1.0,), "mirostat_mode": (0,)}, "Llama")
        if (given["max_tokens"] or 0) <= 0:
            given["max_tokens"] = None
        given["temperature"] = max(given["temperature"], 0.0)
        given["top_k"] = max(given["top_k"], 0)
        if given["grammar"] is not None and not isinstance(given["grammar"], str):
            # llama_cpp's own LlamaGrammar keeps its text under the other name.
            given["grammar"] = getattr(given["grammar"], "text", None) or given["grammar"]._grammar
        given["logit_bias"] = {int(token): bias for token, bias in (given["logit_bias"] or {}).items()}
        if given["seed"] is None and self._seed not in (ANY_SEED, -1):
            given["seed"] = self._seed
        if given["seed"] in (ANY_SEED, -1):
            given["seed"] = None
        options: GenerateOptions = {**given, "repetition_penalty": repeat_penalty}  # type: ignore[typeddict-item]
        if self._last_n != 0:
            options["repeat_last_n"] = self._last_n
        else:
            options["repetition_penalty"] = 1.0
        return options

    def _head(self, prefix: str, kind: str, model: Optional[str]) -> dict[str, Any]:
        return {
            "id": f"{prefix}-{uuid.uuid4()}",
            "object": kind,
            "created": int(time.time()),
            "model": model if model is not None else self.model_path,
        }

    # --- Vectors ---

    def create_embedding(self, input: Union[str, Sequence[str]], model: Optional[str] = None) -> dict[str, Any]:
        """The vectors of texts, as OpenAI's API has them. Of a language model it is the mean over a text's tokens."""
        texts = [input] if isinstance(input, str) else list(input)
        tokens = sum(len(self.engine.tokenize(text)) for text in texts)
        vectors = self.embed(texts)
        data = [{"object": "embedding", "embedding": vector, "index": at} for at, vector in enumerate(vectors)]
        return {
            "object": "list",
            "data": data,
            "model": model if model is not None else self.model_path,
            "usage": {"prompt_tokens": tokens, "total_tokens": tokens},
        }

    def embed(self, input: Union[str, Sequence[str]], normalize: bool = False) -> Any:
        """The vector of a text as a list of numbers, or a list of those of several. Texts are never cut."""
        texts = [input] if isinstance(input, str) else list(input)
        found: Any = self.engine.embed(texts, normalize=normalize, pooling=self._pooling)
        rows = found if isinstance(found, list) else found.tolist()
        return rows[0] if isinstance(input, str) else rows

    # --- Tokens ---

    def tokenize(self, text: bytes, add_bos: bool = True, special: bool = False) -> list[int]:
        """The tokens of a text."""
        return self.engine.tokenize(text.decode("utf-8"), parse_special=special, bos=add_bos)

    def detokenize(
        self, tokens: Sequence[int], prev_tokens: Optional[Sequence[int]] = None, special: bool = False
    ) -> bytes:
        """The bytes of tokens; those that begin a text lose the space that its tokenizer put before it."""
        found = b"".join(self.engine.token_bytes(token, special=special) for token in tokens)
        begins = prev_tokens is None and len(tokens) > 0 and tokens[0] == self.engine.info.bos
        return found[1:] if begins and found.startswith(b" ") else found

    def _text(self, tokens: Sequence[int]) -> str:
        return self.detokenize(tokens).decode("utf-8", "replace")

    def n_ctx(self) -> int:
        """The most tokens of a context."""
        return self.engine.info.context

    def n_vocab(self) -> int:
        """The number of tokens in the vocabulary."""
        return self.engine.info.vocabulary

    def n_embd(self) -> int:
        """The size of a token's activations."""
        return self.engine.info.hidden

    def token_bos(self) -> int:
        """The token that begins a text, or -1."""
        return -1 if self.engine.info.bos is None else self.engine.info.bos

    def token_eos(self) -> int:
        """The token that ends a text, or -1."""
        return -1 if self.engine.info.eos is None else self.engine.info.eos

    def set_seed(self, seed: int) -> None:
        """Sets the seed of calls that give none."""
        self._seed = seed

    def reset(self) -> None:
        """Does nothing: every call begins an answer of its own."""

    def close(self) -> None:
        """Frees the model."""
        self.engine.close()

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_: object) -> None:
        self.close()


def schema_of(response_format: Optional[Mapping[str, Any]]) -> Any:
    """The JSON schema that a response format asks for."""
    kind = None if response_format is None else response_format.get("type")
    if response_format is None or kind == "text":
        return None
    if kind == "json_object":
        schema = response_format.get("schema")
        return {"type": "object"} if schema is None else schema
    if kind == "json_schema":
        inner = response_format.get("json_schema")
        if isinstance(inner, Mapping) and "schema" in inner:
            return inner["schema"]
    raise UnsupportedError(
        f"response_format is {json.dumps(response_format)}, where the type text, json_object, or json_schema with "
        "json_schema.schema was expected"
    )
