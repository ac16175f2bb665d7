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
from ._types import (
    Answer,
    EngineInfo,
    Finish,
    GenerateOptions,
    Hit,
    LeakStats,
    MemoryUsage,
    Message,
    Optimized,
    Piece,
    Prompt,
)
from .documents import Documents
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
from .memory import Memory
from .scheduler import Request, Scheduler
from .sequence import Sequence

__all__ = [
    "Answer",
    "CancelledError",
    "ClosedError",
    "ContextFullError",
    "CorruptError",
    "DeadlineError",
    "Documents",
    "Engine",
    "EngineInfo",
    "Finish",
    "GenerateOptions",
    "HeraldError",
    "Hit",
    "InternalError",
    "InvalidArgumentError",
    "IoError",
    "LeakStats",
    "Memory",
    "MemoryUsage",
    "Message",
    "NotFoundError",
    "Optimized",
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
