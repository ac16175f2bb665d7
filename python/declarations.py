"""Turns `herald.h` into a Python module with the ABI's declarations, for cffi's ABI mode: nothing is compiled."""

from __future__ import annotations

import re

import cffi


def declarations(header: str) -> str:
    """What cffi reads of a header: its constants, types and functions."""
    text = re.sub(r"/\*.*?\*/", "", header, flags=re.DOTALL)
    text = re.sub(r"//[^\n]*", "", text)
    text = re.sub(r"#ifdef __cplusplus.*?#endif", "", text, flags=re.DOTALL)
    lines = []
    for line in text.splitlines():
        constant = re.fullmatch(r"#define (HERALD_\w+) (?:(\d+)|\((\d+) << (\d+)\))\s*", line)
        if constant:
            name, plain, one, shift = constant.groups()
            value = int(plain) if plain else int(one) << int(shift)
            lines.append(f"#define {name} {value}")
        elif not line.startswith("#"):
            lines.append(line)
    return "\n".join(lines)


def module(header: str, path: str) -> None:
    """Writes the module with a header's declarations."""
    ffi = cffi.FFI()
    ffi.set_source("herald_engine._abi", None)
    ffi.cdef(declarations(header))
    ffi.emit_python_code(path)
