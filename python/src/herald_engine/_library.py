"""The C library, and how its calls are made: statuses become exceptions, handles are counted."""

from __future__ import annotations

import os
import threading
from typing import Any, Callable, Optional

from . import _abi
from ._native import NATIVE
from .errors import BY_STATUS, ClosedError, HeraldError, InternalError

ffi: Any = _abi.ffi
lib: Any = ffi.dlopen(str(NATIVE / "libherald.so"))
NULL: Any = ffi.NULL

# Guards the counts of all handles, for a few instructions each time. Finalizers may run within these.
_counts = threading.RLock()


def _fresh_lock() -> None:
    """Gives a forked child a lock of its own: another thread may have held the parent's."""
    global _counts
    _counts = threading.RLock()


os.register_at_fork(after_in_child=_fresh_lock)


def guard() -> Any:
    """The lock of all counts, for what is as short; it is never left taken in a forked child."""
    return _counts


def struct(name: str) -> Any:
    """A struct of zeros but for its size."""
    made = ffi.new(f"{name} *")
    made.struct_size = ffi.sizeof(name)
    return made


def check(status: int, error: Any) -> None:
    """Raises a status that isn't OK, with the sentence in `error`."""
    if status != lib.HERALD_STATUS_OK:
        message = ffi.string(error.message).decode("utf-8", "replace") or f"the library returned status {status}"
        failure = BY_STATUS.get(status, HeraldError)(message)
        failure.status = status
        raise failure


def call(function: Callable[..., int], *arguments: Any) -> None:
    """Calls a function that takes an error last, and raises what fails."""
    error = struct("HeraldError")
    check(function(*arguments, error), error)


def filled_text(function: Callable[..., int], *arguments: Any, capacity: int = 4096, spare: int = 0) -> bytes:
    """Calls a function that writes a text, with a buffer that is large enough. `spare`: bytes for a text that grows."""
    length = ffi.new("size_t *")
    error = struct("HeraldError")
    # A text may have grown between two calls, but not without end.
    for _ in range(16):
        buffer = ffi.new("char[]", capacity)
        status = function(*arguments, buffer, capacity, length, error)
        if status != lib.HERALD_STATUS_BUFFER_TOO_SMALL:
            check(status, error)
            return bytes(ffi.buffer(buffer, length[0]))
        capacity = length[0] + 1 + spare
    raise InternalError("a text of the library grew 16 times while it was read, where it was expected to come to rest")


def filled_ids(function: Callable[..., int], *arguments: Any, capacity: int = 256) -> list[int]:
    """Calls a function that writes token ids, with a buffer that is large enough."""
    count = ffi.new("size_t *")
    error = struct("HeraldError")
    for _ in range(2):
        ids = ffi.new("uint32_t[]", max(capacity, 1))
        status = function(*arguments, ids, capacity, count, error)
        if status != lib.HERALD_STATUS_BUFFER_TOO_SMALL:
            break
        capacity = count[0]
    check(status, error)
    found: list[int] = ffi.unpack(ids, count[0])
    return found


class Handle:
    """A pointer that the library made, freed once: when it is closed and nobody uses it. `with handle as pointer` does.

    So closing while another thread is in a call is safe: the last call frees.
    """

    __slots__ = ("__weakref__", "_closed", "_free", "_name", "_pointer", "_uses")

    def __init__(self, name: str, pointer: Any, free: Callable[[Any], None]) -> None:
        self._name = name
        self._pointer: Optional[Any] = pointer
        self._free = free
        self._uses = 0
        self._closed = False

    def __enter__(self) -> Any:
        with _counts:
            if self._closed:
                raise ClosedError(f"the {self._name} is closed, where an open one was expected")
            self._uses += 1
            return self._pointer

    def __exit__(self, *_: object) -> None:
        with _counts:
            self._uses -= 1
            freed = self._taken()
        self._release(freed)

    @property
    def closed(self) -> bool:
        """Whether it can't be used any more."""
        return self._closed

    def close(self) -> None:
        """Frees it, or has the last call that uses it free it. May be called again."""
        with _counts:
            self._closed = True
            freed = self._taken()
        self._release(freed)

    def _taken(self) -> Optional[Any]:
        """The pointer, if it is to be freed now."""
        if not self._closed or self._uses > 0:
            return None
        pointer, self._pointer = self._pointer, None
        return pointer

    def _release(self, pointer: Optional[Any]) -> None:
        if pointer is not None:
            self._free(pointer)

    def __del__(self) -> None:
        # Nobody uses what is collected.
        pointer, self._pointer = getattr(self, "_pointer", None), None
        self._release(pointer)


def made(name: str, kind: str, free: Callable[[Any], None], function: Callable[..., int], *arguments: Any) -> Handle:
    """Calls a function that writes a new handle of a type before its error, and takes it over."""
    out = ffi.new(f"{kind} **")
    call(function, *arguments, out)
    return Handle(name, out[0], free)
