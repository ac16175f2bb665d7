"""Float32 buffers: NumPy arrays where NumPy is there, otherwise Python's own."""

from __future__ import annotations

import array
from typing import TYPE_CHECKING, Any, Optional

from ._library import ffi
from .errors import InvalidArgumentError

if TYPE_CHECKING:
    import numpy
    from numpy.typing import NDArray

    Floats = NDArray[numpy.float32]


def numpy_module() -> Optional[Any]:
    """NumPy, if it is installed."""
    try:
        import numpy
    except ImportError:
        return None
    return numpy


def new_floats(*shape: int) -> Any:
    """A buffer of this shape: a NumPy array, or a flat `array.array`."""
    numpy = numpy_module()
    if numpy is not None:
        return numpy.empty(shape, numpy.float32)
    count = 1
    for size in shape:
        count *= size
    return array.array("f", bytes(4 * count))


def pointer_to(buffer: Any, count: int) -> Any:
    """A C pointer to at least `count` float32 of a caller's buffer, which the call writes to in place."""
    view = memoryview(buffer)
    if view.format != "f" or not view.c_contiguous or view.readonly:
        found = (
            f"{view.format!r}{'' if view.c_contiguous else ', not contiguous'}{', read-only' if view.readonly else ''}"
        )
        raise InvalidArgumentError(
            f"out has elements {found}, where a writable, contiguous buffer of float32 was expected"
        )
    if view.nbytes < 4 * count:
        raise InvalidArgumentError(f"out has {view.nbytes // 4} elements, where at least {count} were expected")
    return ffi.from_buffer("float[]", buffer, require_writable=True)


def as_lists(buffer: Any, rows: int) -> Any:
    """Rows of a flat `array.array` as lists; a NumPy array is returned as it is."""
    if not isinstance(buffer, array.array):
        return buffer
    flat: list[float] = buffer.tolist()
    size = len(flat) // rows if rows else 0
    return [flat[row * size : (row + 1) * size] for row in range(rows)]
