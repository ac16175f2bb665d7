"""HERALD in your own process: language models on ordinary CPUs.

import herald_engine

engine = herald_engine.Engine(herald_engine.pull("smollm2-135m-instruct"))
for piece in engine.chat([{"role": "user", "content": "What is gravity?"}], stream=True):
    print(piece, end="", flush=True)
"""

from __future__ import annotations

from ._library import ffi as _ffi
from ._library import lib as _lib
from ._log import set_log
from ._program import pull
from ._types import Answer, EngineInfo, Finish, GenerateOptions, MemoryUsage, Message, Piece, Prompt
from .engine import Engine
from .errors import (
    CancelledError,
    ClosedError,
    ContextFullError,
    CorruptError,
    DeadlineError,
    HeraldError,
    InternalError,
    InvalidArgumentError,
    IoError,
    NotFoundError,
    OutOfMemoryError,
    QueueFullError,
    UnsupportedError,
)
from .scheduler import Request, Scheduler
from .sequence import Sequence

__all__ = [
    "Answer",
    "CancelledError",
    "ClosedError",
    "ContextFullError",
    "CorruptError",
    "DeadlineError",
    "Engine",
    "EngineInfo",
    "Finish",
    "GenerateOptions",
    "HeraldError",
    "InternalError",
    "InvalidArgumentError",
    "IoError",
    "MemoryUsage",
    "Message",
    "NotFoundError",
    "OutOfMemoryError",
    "Piece",
    "Prompt",
    "QueueFullError",
    "Request",
    "Scheduler",
    "Sequence",
    "UnsupportedError",
    "__version__",
    "pull",
    "set_log",
]

__version__: str = _ffi.string(_lib.herald_version()).decode()
