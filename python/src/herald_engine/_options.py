"""Python's options as the structs that the library reads. What a struct points to is kept with it."""

from __future__ import annotations

import json
import math
import os
from collections.abc import Iterable, Mapping
from typing import Any, NamedTuple, Optional, Union

from ._library import ffi, lib, struct
from ._types import GenerateOptions, Message
from .errors import InvalidArgumentError

Path = Union[str, "os.PathLike[str]"]


class Kept(NamedTuple):
    """A struct, and what it points to, which must live as long."""

    struct: Any
    memory: list[Any]


def number(name: str, value: Any, bits: int = 32, least: int = 0) -> int:
    """A whole number that fits into so many bits."""
    # bool is an int to Python, and never meant as one here.
    if not hasattr(value, "__index__") or isinstance(value, bool):
        raise InvalidArgumentError(f"{name} is {value!r}, where a whole number was expected")
    found = int(value.__index__())
    if not least <= found < 1 << bits:
        raise InvalidArgumentError(f"{name} is {found}, where a number from {least} to {(1 << bits) - 1} was expected")
    return found


def real(name: str, value: Any) -> float:
    """A number with a fraction."""
    if isinstance(value, (str, bytes, bool)) or not hasattr(value, "__float__"):
        raise InvalidArgumentError(f"{name} is {value!r}, where a number was expected")
    return float(value)


def encoded(name: str, value: Any) -> bytes:
    """A text as UTF-8."""
    if not isinstance(value, str):
        raise InvalidArgumentError(f"{name} is {value!r}, where a text was expected")
    try:
        return value.encode("utf-8")
    except UnicodeEncodeError as error:
        raise InvalidArgumentError(
            f"{name} has a lone surrogate at character {error.start}, where text that UTF-8 can express was expected"
        ) from None


def c_text(name: str, value: Any) -> Any:
    """A text as C has it, ended by a NUL."""
    text = encoded(name, value)
    if b"\0" in text:
        raise InvalidArgumentError(f"{name} has a NUL at byte {text.index(0)}, where a text without one was expected")
    return ffi.new("char[]", text)


def c_path(name: str, value: Path) -> Any:
    """A path as C has it."""
    path = os.fsencode(value) if isinstance(value, (str, bytes, os.PathLike)) else b""
    if b"\0" in path or not path:
        raise InvalidArgumentError(f"{name} is {value!r}, where a path was expected")
    return ffi.new("char[]", path)


def c_ids(name: str, ids: Iterable[Any]) -> Any:
    """Token ids as C has them."""
    if isinstance(ids, (str, bytes)):
        raise InvalidArgumentError(f"{name} is {ids!r}, where token ids were expected")
    return ffi.new("uint32_t[]", [number(f"{name}[{index}]", id) for index, id in enumerate(ids)])


def milliseconds(name: str, seconds: Optional[float]) -> int:
    """A time from now on as C has it, where 0 means none; the shortest is a millisecond."""
    if seconds is None:
        return 0
    value = real(name, seconds)
    if not 0 < value < 1e12:
        raise InvalidArgumentError(f"{name} is {value}, where a number of seconds above 0 was expected")
    return max(1, math.ceil(value * 1000))


def generate_options(options: GenerateOptions) -> Kept:
    """A HeraldGenerateOptions; `client`, which isn't part of it, is passed over."""
    unknown = set(options) - set(GenerateOptions.__annotations__)
    if unknown:
        raise TypeError(
            f"{sorted(unknown)[0]!r} is not an option; there are {', '.join(GenerateOptions.__annotations__)}"
        )
    raw = struct("HeraldGenerateOptions")
    memory: list[Any] = []
    # None is "not given" everywhere.
    given: Mapping[str, Any] = {name: value for name, value in options.items() if value is not None}
    reals = (
        "temperature",
        "top_p",
        "min_p",
        "typical_p",
        "repetition_penalty",
        "presence_penalty",
        "frequency_penalty",
    )
    for name in reals:
        if name in given:
            setattr(raw, name, real(name, given[name]))
    if "max_tokens" in given:
        raw.max_tokens = number("max_tokens", given["max_tokens"], least=1)
    if "top_k" in given:
        raw.top_k = number("top_k", given["top_k"])
    if "logprobs" in given:
        raw.top_logprobs = number("logprobs", given["logprobs"])
    flags = 0
    if "seed" in given:
        flags |= lib.HERALD_GENERATE_SEEDED
        raw.seed = number("seed", given["seed"], bits=64)
    if given.get("repeat_last_n") == -1:
        flags |= lib.HERALD_GENERATE_REPEAT_ALL
    elif "repeat_last_n" in given:
        raw.repeat_last_n = number("repeat_last_n", given["repeat_last_n"], least=1)
    flags |= lib.HERALD_GENERATE_IGNORE_EOS if given.get("ignore_eos") else 0
    flags |= lib.HERALD_GENERATE_SPECIAL if given.get("special") else 0
    raw.flags = flags
    lists(raw, memory, given)
    for name in ("regex", "grammar", "cache_key"):
        if name in given:
            memory.append(c_text(name, given[name]))
            setattr(raw, name, memory[-1])
    if "json_schema" in given:
        schema = given["json_schema"]
        if not isinstance(schema, (str, bool, Mapping)):
            raise InvalidArgumentError(f"json_schema is {schema!r}, where a schema or its text was expected")
        memory.append(c_text("json_schema", schema if isinstance(schema, str) else json.dumps(schema)))
        raw.json_schema = memory[-1]
    raw.deadline_ms = milliseconds("deadline", given.get("deadline"))
    return Kept(raw, memory)


def stops_of(options: GenerateOptions) -> list[str]:
    """The texts that end an answer."""
    stop = options.get("stop") or []
    return [stop] if isinstance(stop, str) else list(stop)


def lists(raw: Any, memory: list[Any], given: Mapping[str, Any]) -> None:
    """Fills in the options that are lists."""
    stops = given.get("stop") or []
    if not isinstance(stops, (str, list, tuple)):
        raise InvalidArgumentError(f"stop is {stops!r}, where a text or a list of texts was expected")
    texts = [c_text("stop", text) for text in ([stops] if isinstance(stops, str) else stops)]
    if texts:
        memory += [texts, ffi.new("char *[]", texts)]
        raw.stops, raw.n_stops = memory[-1], len(texts)
    tokens = c_ids("stop_tokens", given.get("stop_tokens", ()))
    if len(tokens):
        memory.append(tokens)
        raw.stop_tokens, raw.n_stop_tokens = tokens, len(tokens)
    biases = given.get("logit_bias") or {}
    if not isinstance(biases, Mapping):
        raise InvalidArgumentError(f"logit_bias is {biases!r}, where an object with a bias for each token was expected")
    if biases:
        ids = c_ids("logit_bias", biases)
        values = ffi.new("float[]", [real("logit_bias", value) for value in biases.values()])
        memory += [ids, values]
        raw.bias_tokens, raw.biases, raw.n_biases = ids, values, len(biases)
    if "loras" in given:
        raw.loras, raw.lora_scales, raw.n_loras = c_loras(memory, given["loras"])


def c_loras(memory: list[Any], loras: Any) -> tuple[Any, Any, int]:
    """Adapters with their scales as C takes them."""
    if not isinstance(loras, Mapping):
        raise InvalidArgumentError(f"loras is {loras!r}, where an object with a scale for each adapter was expected")
    indices = ffi.new("uint32_t[]", [number("loras", index) for index in loras] or 1)
    scales = ffi.new("float[]", [real("loras", scale) for scale in loras.values()] or 1)
    memory += [indices, scales]
    return indices, scales, len(loras)


def content_of(index: int, content: Any) -> str:
    """A message's text: a text, OpenAI's parts of type text, or null."""
    if content is None:
        return ""
    if isinstance(content, str):
        return content
    if isinstance(content, (list, tuple)):
        texts = []
        for part in content:
            kind = part.get("type") if isinstance(part, Mapping) else part
            if kind != "text":
                raise InvalidArgumentError(f"message {index} has a part of type {kind!r}, where only text is served")
            texts.append(str(part.get("text", "")))
        return "".join(texts)
    raise InvalidArgumentError(f"the content of message {index} is {content!r}, where a text or parts were expected")


def c_messages(messages: Iterable[Message]) -> Kept:
    """OpenAI-shaped messages as an array of HeraldMessage."""
    if isinstance(messages, (str, bytes, Mapping)):
        raise InvalidArgumentError(f"messages is {messages!r}, where a list of messages was expected")
    turns = list(messages)
    array = ffi.new("HeraldMessage[]", len(turns))
    memory: list[Any] = []
    for index, message in enumerate(turns):
        if not isinstance(message, Mapping) or "role" not in message:
            raise InvalidArgumentError(
                f"message {index} is {message!r}, where an object with role and content was expected"
            )
        for name, value in message.items():
            if name not in ("role", "content") and value is not None:
                raise InvalidArgumentError(
                    f"message {index} has the field {name!r}, where only role and content are served in-process: "
                    "herald_engine.server.Server has tools"
                )
        role = c_text(f"the role of message {index}", message["role"])
        content = c_text(f"the content of message {index}", content_of(index, message.get("content")))
        memory += [role, content]
        array[index].struct_size = ffi.sizeof("HeraldMessage")
        array[index].role, array[index].content = role, content
    return Kept(array, memory)


def engine_options(model: Path, options: Mapping[str, Any]) -> Kept:
    """A HeraldEngineOptions from the arguments of Engine."""
    raw = struct("HeraldEngineOptions")
    memory: list[Any] = [c_path("model", model)]
    raw.model_path = memory[0]
    given = {name: value for name, value in options.items() if value is not None}
    for name, bits in {
        "threads": 32,
        "context": 32,
        "max_batch": 32,
        "active_tokens": 64,
        "compressed_tokens": 64,
    }.items():
        if name in given:
            setattr(raw, name, number(name, given[name], bits, least=1))
    if given.get("max_draft") == 0:
        raw.max_draft_tokens = lib.HERALD_NO_DRAFTS
    elif "max_draft" in given:
        raw.max_draft_tokens = number("max_draft", given["max_draft"], least=1)
    for name in ("memory_budget", "cache_dir_bytes"):
        if name in given:
            setattr(raw, name, number(name, given[name], 64, least=1))
    if given.get("selected_pages") == "all":
        raw.selected_pages = lib.HERALD_ALL_PAGES
    elif "selected_pages" in given:
        raw.selected_pages = number("selected_pages", given["selected_pages"], least=1)
    raw.prefix_bytes = number("prefix_bytes", given.get("prefix_bytes", 0), 64)
    if "backend" in given:
        memory.append(c_text("backend", given["backend"]))
        raw.backend = memory[-1]
    for name in ("archive", "cache_dir", "draft_model"):
        if name in given:
            memory.append(c_path(name, given[name]))
            setattr(raw, name, memory[-1])
    plugins = [c_path("plugins", plugin) for plugin in given.get("plugins", ())]
    if plugins:
        memory += [plugins, ffi.new("char *[]", plugins)]
        raw.plugins, raw.n_plugins = memory[-1], len(plugins)
    adapters = [lora if isinstance(lora, tuple) else (lora, 1.0) for lora in given.get("loras", ())]
    if adapters:
        paths = [c_path("loras", path) for path, _ in adapters]
        scales = ffi.new("float[]", [real("loras", scale) for _, scale in adapters])
        memory += [paths, ffi.new("char *[]", paths), scales]
        raw.loras, raw.lora_scales, raw.n_loras = memory[-2], scales, len(adapters)
    raw.flags = engine_flags(given)
    return Kept(raw, memory)


def engine_flags(given: Mapping[str, Any]) -> int:
    """The HERALD_LOAD_* bits."""
    activations = given.get("activations")
    if activations not in ("int16", "int8", None):
        raise InvalidArgumentError(f"activations is {activations!r}, where int16 or int8 was expected")
    flags = {
        lib.HERALD_LOAD_INT8_ACTIVATIONS: activations == "int8",
        lib.HERALD_LOAD_INT16_ACTIVATIONS: activations == "int16",
        lib.HERALD_LOAD_ALLOW_INSECURE_PLUGINS: given.get("allow_insecure_plugins"),
        lib.HERALD_LOAD_ONLY_NAMED_PLUGINS: given.get("only_named_plugins"),
        lib.HERALD_LOAD_EXACT: given.get("exact"),
        lib.HERALD_LOAD_ARCHIVE_LZ4: given.get("archive_lz4"),
        lib.HERALD_LOAD_NO_PACK_CACHE: given.get("pack_cache") is False,
        # 0 bytes for the prefix cache is none of it; to the library 0 is the default.
        lib.HERALD_LOAD_NO_PREFIX_CACHE: given.get("prefix_bytes") == 0,
    }
    return sum(flag for flag, is_set in flags.items() if is_set)
