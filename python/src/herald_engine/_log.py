"""The library's log, as records of Python's."""

from __future__ import annotations

import atexit
import logging
from typing import Any, Callable, Optional

from ._library import NULL, call, ffi, lib
from .errors import InvalidArgumentError

LOGGER = logging.getLogger("herald_engine")

# The library's levels, the most severe first, with Python's.
LEVELS = {
    "error": (1, logging.ERROR),
    "warning": (2, logging.WARNING),
    "info": (3, logging.INFO),
    "debug": (4, logging.DEBUG),
}

# The function that the library calls, which must live until another one is set.
_current: Any = None


def set_log(level: Optional[str], sink: Optional[Callable[[int, str], None]] = None) -> None:
    """Sets what becomes of the library's log, for the whole process.

    Lines of a level (`error`, `warning`, `info`, `debug`) and more severe ones go to `sink(level, line)`, with Python's
    level, or to the logger `herald_engine`. None: nowhere.

    `sink` may be called from any thread, many at once.
    """
    global _current
    if level is None:
        call(lib.herald_log, lib.HERALD_LOG_ERROR, NULL, NULL)
        _current = None
        return
    if level not in LEVELS:
        raise InvalidArgumentError(f"level is {level!r}, where one of {', '.join(LEVELS)} or None was expected")
    pythons = {code: python for code, python in LEVELS.values()}
    target: Callable[[int, str], None] = LOGGER.log if sink is None else sink

    def line(_: Any, code: int, text: Any, length: int) -> None:
        target(pythons.get(code, logging.DEBUG), bytes(ffi.buffer(text, length)).decode("utf-8", "replace"))

    callback = ffi.callback("void(void *, uint32_t, const char *, size_t)", line)
    call(lib.herald_log, LEVELS[level][0], callback, NULL)
    _current = callback


# The library's threads must not call Python while it ends.
atexit.register(set_log, None)
