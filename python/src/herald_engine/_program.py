"""The program that comes with the library, as the command `herald`."""

from __future__ import annotations

import os
import pathlib
import subprocess
import sys
from typing import NoReturn

from ._native import NATIVE
from .errors import HeraldError

PROGRAM = NATIVE / "host"


def pull(model: str, *, accept_terms: bool = False) -> pathlib.Path:
    """Fetches a model that the program knows (such as `smollm2-135m-instruct`) unless it is there; returns its file.

    Progress goes to stderr. `accept_terms`: models that come under terms of use are fetched, too.
    """
    command = [str(PROGRAM), "pull", *(["--accept-terms"] if accept_terms else []), "--", model]
    done = subprocess.run(command, stdout=subprocess.PIPE, text=True, check=False)
    if done.returncode != 0:
        raise HeraldError(f"{model} can't be fetched: what the program wrote to stderr says why")
    return pathlib.Path(done.stdout.strip())


def main() -> NoReturn:
    """Becomes the program, with this process's arguments."""
    os.execv(PROGRAM, ["herald", *sys.argv[1:]])
