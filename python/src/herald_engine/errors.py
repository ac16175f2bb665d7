"""What fails is an exception with the library's one sentence: what failed, where, and what was expected."""

from __future__ import annotations

__all__ = [
    "CancelledError",
    "ClosedError",
    "ContextFullError",
    "CorruptError",
    "DeadlineError",
    "HeraldError",
    "InternalError",
    "InvalidArgumentError",
    "IoError",
    "NotFoundError",
    "OutOfMemoryError",
    "QueueFullError",
    "UnsupportedError",
]


class HeraldError(Exception):
    """Any failure of the library. `status` is its `HERALD_STATUS_*`, or 0 where Python's side found it."""

    status: int = 0


class InvalidArgumentError(HeraldError, ValueError):
    """An argument contradicts the call's contract: its type, its range."""


class UnsupportedError(HeraldError):
    """What was asked for isn't offered by the model or the library; also any call in a forked child."""


class OutOfMemoryError(HeraldError, MemoryError):
    """Memory for the request could not be had."""


class IoError(HeraldError):
    """The operating system refused a read or a write."""


class CorruptError(HeraldError):
    """Data failed a check: it is damaged, or was never what it claims to be."""


class NotFoundError(HeraldError):
    """What the request names isn't there."""


class CancelledError(HeraldError):
    """The work was cancelled."""


class InternalError(HeraldError):
    """A fault of the library or of a plugin."""


class ContextFullError(HeraldError):
    """The context has no room for the tokens."""


class QueueFullError(HeraldError):
    """The scheduler's queue has no room for the request: try again later."""


class DeadlineError(HeraldError, TimeoutError):
    """The deadline has passed."""


class ClosedError(HeraldError, ValueError):
    """The object was closed, and used afterwards."""


# By HERALD_STATUS_*; one that isn't here is a plain HeraldError.
BY_STATUS: dict[int, type[HeraldError]] = {
    1: InvalidArgumentError,
    2: UnsupportedError,
    3: OutOfMemoryError,
    4: IoError,
    5: CorruptError,
    7: NotFoundError,
    8: CancelledError,
    9: InternalError,
    100: ContextFullError,
    101: QueueFullError,
    102: DeadlineError,
}
