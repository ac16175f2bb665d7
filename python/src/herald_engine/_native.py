"""Where the package's binaries are: the library, its plugins and the program."""

from __future__ import annotations

import pathlib

NATIVE = pathlib.Path(__file__).resolve().parent / "native"
