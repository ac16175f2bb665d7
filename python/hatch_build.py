"""Brings what cargo built into the wheel: the library, its plugins and the program, and the ABI's declarations.

`HERALD_BUILD` names cargo's output folder; without it, it is the repository's `target/release`.
"""

from __future__ import annotations

import os
import pathlib
import platform
import re
import shutil
import subprocess
import sys
from typing import Any

from hatchling.builders.hooks.plugin.interface import BuildHookInterface

HERE = pathlib.Path(__file__).resolve().parent
REPOSITORY = HERE.parent
sys.path.insert(0, str(HERE))


class BinaryHook(BuildHookInterface):  # type: ignore[type-arg]
    """Adds the binaries to the wheel, and says on which systems they run."""

    def initialize(self, version: str, build_data: dict[str, Any]) -> None:
        """Fills the wheel's `native` folder and sets its tag."""
        from declarations import module

        build = pathlib.Path(os.environ.get("HERALD_BUILD", REPOSITORY / "target" / "release")).resolve()
        work = HERE / "build"
        native = work / "native"
        shutil.rmtree(native, ignore_errors=True)
        native.mkdir(parents=True)
        binaries = [prepared(build / "host", native, "--strip-all")]
        libraries = [build / "libherald.so", *sorted(build.glob("libherald_*.so"))]
        if len(libraries) < 2:
            raise SystemExit(f"{build} has no libherald_NAME.so, where the plugins that cargo builds were expected")
        binaries += [prepared(library, native, "--strip-unneeded") for library in libraries]

        header = (REPOSITORY / "include" / "herald.h").read_text(encoding="utf-8")
        module(header, str(work / "_abi.py"))
        include = build_data["force_include"]
        for file in binaries:
            include[str(file)] = f"herald_engine/native/{file.name}"
        include[str(work / "_abi.py")] = "herald_engine/_abi.py"
        for licence in [REPOSITORY / "LICENSE-MIT", REPOSITORY / "LICENSE-APACHE", work / "THIRD-PARTY"]:
            if licence.is_file():
                include[str(licence)] = f"herald_engine/licences/{licence.name}"
        build_data["pure_python"] = False
        build_data["tag"] = f"py3-none-{platform_tag(binaries)}"


def prepared(file: pathlib.Path, folder: pathlib.Path, strip: str) -> pathlib.Path:
    """A copy of a binary without its debug information."""
    if not file.is_file():
        raise SystemExit(f"{file} is missing: build it with cargo build --release, or name its folder in HERALD_BUILD")
    copy = folder / file.name
    subprocess.run(["objcopy", strip, "--remove-section=.gnu_debuglink", str(file), str(copy)], check=True)
    # The library refuses plugins that others may write to.
    copy.chmod(0o755)
    return copy


def platform_tag(binaries: list[pathlib.Path]) -> str:
    """The manylinux tag of the newest version of glibc that any of the binaries asks for."""
    newest = (2, 17)
    for file in binaries:
        symbols = subprocess.run(["objdump", "-T", str(file)], check=True, stdout=subprocess.PIPE, text=True).stdout
        versions = re.findall(r"GLIBC_(\d+)\.(\d+)", symbols)
        newest = max([newest, *((int(major), int(minor)) for major, minor in versions)])
    return f"manylinux_{newest[0]}_{newest[1]}_{platform.machine()}"
