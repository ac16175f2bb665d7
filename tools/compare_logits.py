#!/usr/bin/env python3
"""Says whether two builds of HERALD compute the same logits, to the bit.

    tools/compare_logits.py OLD/target/release NEW/target/release [MODEL...]

Each folder holds the program `host` and its plugins. Every model (those in host/tests/data/tiny unless others are named)
runs on every backend and SIMD variant that the machine has, in one pass and in pieces of 7 tokens. A change of structure
must leave all of them equal; a change of arithmetic says so. Exits with 1 where any differs.
"""

import hashlib
import os
import pathlib
import random
import subprocess
import sys
import tempfile

VARIANTS = [("cpu", "")] + [("simd", isa) for isa in ("avx2", "avx-vnni", "avx512", "avx512-vnni", "amx")] + [("blas", "")]
PIECES = [[], ["--pieces", "7"]]
TOKENS = 200


def digest(build, model, backend, isa, pieces, ids, out):
    """The hash of the logits' file, or what the program said."""
    command = [build / "host", "-q", "--model", model, "--backend", backend, "-t", "2", "-c", str(2 * TOKENS)]
    command += ["logits", "--ids", ids, "-o", out, *pieces]
    done = subprocess.run(command, env=os.environ | {"HERALD_SIMD": isa}, capture_output=True, text=True)
    if done.returncode != 0:
        return None, done.stderr.strip()
    return hashlib.sha256(out.read_bytes()).hexdigest(), None


def main():
    if len(sys.argv) < 3:
        sys.exit(__doc__)
    old, new = (pathlib.Path(folder).resolve() for folder in sys.argv[1:3])
    tiny = pathlib.Path(__file__).resolve().parent.parent / "host/tests/data/tiny"
    models = [pathlib.Path(model) for model in sys.argv[3:]] or sorted(tiny.glob("*.gguf"))
    equal, differ, left_out = 0, 0, set()
    with tempfile.TemporaryDirectory() as folder:
        folder = pathlib.Path(folder)
        ids = folder / "ids.txt"
        chosen = random.Random(5)
        ids.write_text(" ".join(str(chosen.randrange(3, 500)) for _ in range(TOKENS)))
        for backend, isa in VARIANTS:
            for model in models:
                for pieces in PIECES:
                    found = [
                        digest(build, model, backend, isa, pieces, ids, folder / "logits.safetensors")
                        for build in (old, new)
                    ]
                    if found[0][0] is None and found[1][0] is None:
                        left_out.add(f"{backend} {isa}".strip())
                    elif found[0][0] == found[1][0]:
                        equal += 1
                    else:
                        differ += 1
                        print(f"{backend} {isa} {model.name} {' '.join(pieces)}: {found[0]} and {found[1]}")
    note = f"; not on this machine: {', '.join(sorted(left_out))}" if left_out else ""
    print(f"{equal} equal, {differ} differ{note}")
    sys.exit(1 if differ or not equal else 0)


if __name__ == "__main__":
    main()
