#!/usr/bin/env python3
"""Runs the Windows build under wine and compares what it says with the build for this machine.

    tools/check_wine.py TARGET/x86_64-pc-windows-gnu/PROFILE TARGET/PROFILE MODEL [--keep]

Both folders hold the program, its plugins and the C library, made by

    cargo build --target x86_64-pc-windows-gnu -p herald-cli -p herald-cpu -p herald-simd -p herald-blas -p herald-capi

and by the same command without a target. MODEL is a GGUF file, such as that of `host pull smollm2-135m-instruct`.

The Windows program is put into a new wine prefix. There must hold:

- each of the tour's commands below gives the same stdout and exit code as this machine's, or differs only in what the list says;
- the logits of MODEL, and of some models of host/tests/data/tiny, are equal to the bit on `simd`, and within a divergence of 1e-10 on `cpu`;
- a server answers as this machine's does, and Ctrl-C ends it as it ends an answer;
- a plugin that everybody may write to is refused;
- the C example, built by mingw-w64 with the header and herald.dll, says what the program says, and the example plugin in C passes
  `host plugin check`.

Exits with 1 where one doesn't. Needs wine64, and x86_64-w64-mingw32-gcc for the example.
"""

import argparse
import difflib
import filecmp
import json
import os
import pathlib
import re
import shutil
import signal
import subprocess
import sys
import tempfile
import time
import urllib.request

ROOT = pathlib.Path(__file__).resolve().parent.parent
NOTES = (
    "Field notes. The key to the shed hangs behind the clock in the kitchen. The spare one is with Ada, next door. "
    "Water the tomatoes on Mondays and Thursdays, and leave the gate open for the cat.\n"
)
CITY = (
    '{"type": "object", "properties": {"city": {"type": "string", "pattern": "^[A-Z][a-z]+$"}, '
    '"country": {"type": "string", "pattern": "^[A-Z][a-z]+$"}}, "required": ["city", "country"], '
    '"additionalProperties": false}\n'
)
# Rust's standard library takes random bytes from a library that wine has from version 9 on; this one stands in for it.
RANDOM = """
#include <windows.h>
#include <ntsecapi.h>
__declspec(dllexport) BOOL WINAPI ProcessPrng(PBYTE bytes, SIZE_T len) { return RtlGenRandom(bytes, (ULONG)len); }
"""
COMPILER = ["x86_64-w64-mingw32-gcc", "-std=c11", "-Wall", "-Wextra", "-Wpedantic", "-Werror", "-O2"]
# What differs between two runs on one machine too, or names the machine's own files.
VARIES = [
    (re.compile(r"[0-9.]+/s\b"), "N/s"),
    (re.compile(r"\b[0-9]+(\.[0-9]+)? (ms|s)\b"), "T"),
    (re.compile(r'"(\w+_s)": ?[0-9.e-]+'), r'"\1":T'),
    (re.compile(r"(lib)?herald_(\w+)\.(so|dll)"), r"herald_\2"),
    (re.compile(r"\bhost\.exe\b"), "host"),
    (re.compile(r": [^:]*\(os error [0-9]+\)"), ": what the system says"),
]
# The commands, each in the folder of the files above; they build on one another. HERALD_MODEL names the model.
COMMANDS = [
    ["--version"],
    ["generate", "--help"],
    ["generate", "Once upon a time", "--temperature", "0.8", "--seed", "7", "-n", "30"],
    ["generate", "--chat", "What is the capital of France?"],
    ["generate", "--chat", "--regex", "(yes|no)", "Is Paris in France?"],
    ["generate", "--chat", "--json-schema", "city.json", "Which city is the Eiffel Tower in?"],
    ["generate", "--json", "--logprobs", "3", "--seed", "1", "The sea is", "-n", "4"],
    ["generate", "--activations", "int8", "The sea is", "-n", "12"],
    ["generate", "--chat", "Grüße! Was heißt »Straße« auf Englisch? 日本語も", "-n", "24"],
    ["generate", "Dear diary,", "-n", "20", "--save-state", "s.herald"],
    ["generate", "--load-state", "s.herald", "-n", "20"],
    ["cache", "compress", "s.herald", "--keep", "16"],
    ["generate", "--context", "100000", "--active-tokens", "64", "--compressed-tokens", "64", "--selected-pages", "2",
     "--archive", "archive", "-n", "8", "The cat sat on the mat. " * 60],
    ["generate", "--cache-dir", "cache", "--chat", "What is the capital of France?"],
    ["generate", "--cache-dir", "cache", "--chat", "What is the capital of France?"],
    ["info", "--no-tensors"],
    ["tokenize", "--", "How many tokens? Grüße, 日本"],
    ["perplexity", "--file", "notes.txt", "--window", "128"],
    ["logits", "--text", "notes.txt", "--out", "logits.safetensors"],
    ["logits", "compare", "logits.safetensors", "logits.safetensors"],
    ["backends", "--json"],
    ["docs", "add", "notes.txt"],
    ["docs", "add", "Grüße.txt"],
    ["docs", "list"],
    ["docs", "search", "Where is the key to the shed?"],
    ["docs", "ask", "Where is the key to the shed?", "-n", "32"],
    ["quantize", "MODEL", "small.gguf", "--type", "q4_k"],
    ["generate", "--model", "small.gguf", "Once upon a time", "-n", "12"],
    ["imatrix", "--file", "notes.txt", "imatrix.gguf"],
    ["plugin", "new", "mine", "--lang", "c"],
    ["plugin", "check", "CPU", "--only", "tokenizers"],
    ["plugin", "check", "CPU", "--only", "tiers"],
    ["completions", "bash"],
    ["pull"],
    ["generate", "--model", "none.gguf", "x"],
    ["generate", "--backend", "none", "x"],
    ["generate", "--plugin", "notes.txt", "x"],
]
# Models of the repository whose logits are compared beside the large one's.
TINY = ["llama", "qwen35", "jamba", "gpt_oss.mxfp4", "mamba2"]


class Side:
    """A program with its plugins, and a folder where its commands run."""

    def __init__(self, build, binaries, work, runner, environment):
        self.build, self.binaries, self.work, self.runner = build, binaries, work, runner
        self.environment = os.environ | environment
        suffix, prefix, end = (".exe", "", ".dll") if runner else ("", "lib", ".so")
        self.host = "host" + suffix
        self.plugin = lambda name: f"{prefix}herald_{name}{end}"
        binaries.mkdir(parents=True)
        work.mkdir(parents=True)
        for name in [self.host, *(self.plugin(name) for name in ("cpu", "simd"))]:
            shutil.copy(build / name, binaries / name)
            (binaries / name).chmod(0o755)
        (work / "notes.txt").write_text(NOTES)
        (work / "Grüße.txt").write_text("Grüße aus Köln. Der Schlüssel hängt im Flur.\n")
        (work / "city.json").write_text(CITY)

    def command(self, arguments, model):
        named = {"MODEL": self.path(model), "CPU": self.path(self.binaries / self.plugin("cpu"))}
        return [*self.runner, self.binaries / self.host, "--threads", "2", *(named.get(word, word) for word in arguments)]

    def path(self, path):
        """A file of this machine as the program names it."""
        path = str(path)
        if not self.runner:
            return path
        drive = self.environment["WINEPREFIX"] + "/drive_c"
        path = "C:" + path[len(drive):] if path.startswith(drive) else "Z:" + path
        return path.replace("/", "\\")

    def start(self, arguments, model):
        environment = self.environment | {"HERALD_MODEL": self.path(model)}
        return subprocess.Popen(
            self.command(arguments, model), cwd=self.work, env=environment, stdin=subprocess.DEVNULL,
            stdout=subprocess.PIPE, stderr=subprocess.PIPE,
        )

    def run(self, arguments, model):
        child = self.start(arguments, model)
        out, err = child.communicate(timeout=1800)
        folders = [(self.path(self.binaries), "BIN"), (self.path(self.work), "WORK"), (self.path(model.parent), "MODELS")]
        return child.returncode, plain(out, folders), plain(err, folders)


def plain(output, folders):
    text = output.decode("utf-8").replace("\r\n", "\n")
    for folder, name in folders:
        # As it is, and as it stands in JSON.
        for written in (folder.replace("\\", "\\\\"), folder):
            for separator in ("\\\\", "\\", "/"):
                text = text.replace(written + separator, name + "/")
    for pattern, by in VARIES:
        text = pattern.sub(by, text)
    return text


def difference(ours, theirs):
    lines = difflib.unified_diff(ours.splitlines(), theirs.splitlines(), "here", "wine", lineterm="", n=0)
    return "\n    ".join(list(lines)[:30])


def compare_commands(here, wine, model):
    differing = 0
    for arguments in COMMANDS:
        ours, theirs = here.run(arguments, model), wine.run(arguments, model)
        shown = " ".join(word if len(word) < 60 else word[:57] + "..." for word in arguments)
        equal = ours[:2] == theirs[:2] and (ours[0] == 0 or ours[2] == theirs[2])
        print(f"{'same   ' if equal else 'DIFFERS'} host {shown}", flush=True)
        if not equal:
            differing += 1
            print(f"    exit codes: {ours[0]} here, {theirs[0]} under wine")
            print("    " + difference(ours[1], theirs[1]))
            print("    stderr: " + difference(ours[2], theirs[2]))
    return differing


def compare_logits(here, wine, model):
    differing = 0
    tiny = ROOT / "host/tests/data/tiny"
    models = [model] + [tiny / (f"{name}.gguf" if "." in name else f"{name}.f32.gguf") for name in TINY]
    for side in (here, wine):
        (side.work / "ids.json").write_text(str([(7 * i + 3) % 500 for i in range(100)]))
    for path in models:
        # In 16 and 8 bits; a large model on scalar code takes minutes, and shows no more than a small one.
        ways = [("simd", "int16"), ("simd", "int8")] + [("cpu", "int16")] * (path != model)
        for backend, precision in ways:
            arguments = ["-q", "--backend", backend, "--activations", precision]
            arguments += ["logits", "--ids", "ids.json", "--out", "l.safetensors"]
            ended = [side.run(arguments, path) for side in (here, wine)]
            files = [side.work / "l.safetensors" for side in (here, wine)]
            equal = ended[0][0] == ended[1][0] == 0 and filecmp.cmp(*files, shallow=False)
            if not equal and backend == "cpu":
                # Scalar code takes exponentials from the system's C library, whose last bit may differ.
                code, out, said = here.run(["logits", "compare", *map(str, files), "--max-kl", "1e-10"], path)
                ended[0] = (code, out, said + out)
                equal = code == 0
            print(f"{'same   ' if equal else 'DIFFERS'} logits of {path.name}, {backend}, {precision}", flush=True)
            differing += not equal
            if not equal:
                print(f"    here: {ended[0][2].strip()}\n    wine: {ended[1][2].strip()}")
    return differing


def said_first(child, mark):
    """Reads a child's stdout to a line with a mark; None where it ends before."""
    for line in child.stdout:
        if mark in line:
            return line.decode().strip()
    return None


def served(side, model):
    """What a server answers, and its exit code after Ctrl-C."""
    child = side.start(["serve", "--port", "0"], model)
    try:
        address = said_first(child, b"http://")
        return (None, child.wait()) if address is None else (asked(address), stopped(child))
    finally:
        child.kill()


def stopped(child):
    """The exit code of a program after Ctrl-C."""
    child.send_signal(signal.SIGINT)
    child.communicate(timeout=60)
    return child.returncode


def asked(address):
    """What a server at an address answers."""
    question = {"messages": [{"role": "user", "content": "What is the capital of France?"}], "temperature": 0, "max_tokens": 24}
    request = urllib.request.Request(
        f"{address}/v1/chat/completions", json.dumps(question).encode(), {"Content-Type": "application/json"}
    )
    with urllib.request.urlopen(request, timeout=300) as response:
        return json.load(response)["choices"][0]["message"]["content"]


def check_interrupt(here, wine, model):
    """Ctrl-C, which wine makes of SIGINT, ends an answer with exit code 1, and a server with 0."""
    failed = 0
    child = wine.start(["generate", "--ignore-eos", "-n", "5000", "Once upon a time"], model)
    child.stdout.read(40)
    child.send_signal(signal.SIGINT)
    begun = time.monotonic()
    child.communicate(timeout=60)
    took = time.monotonic() - begun
    equal = child.returncode == 1 and took < 10
    print(f"{'right  ' if equal else 'WRONG  '} Ctrl-C ends an answer: exit code {child.returncode}, {took:.1f} s")
    failed += not equal

    expected, _ = served(here, model)
    answer, code = served(wine, model)
    equal = answer == expected and code == 0
    print(f"{'same   ' if equal else 'DIFFERS'} a server answers {answer!r} (here: {expected!r}); Ctrl-C: exit code {code}")
    return failed + (not equal)


def check_trust(wine, model):
    """wine shows a file's mode as an access list: what everybody may write to is refused."""
    plugin = wine.binaries / wine.plugin("cpu")
    failed = 0
    for path, mode in ((plugin, 0o666), (wine.binaries, 0o777)):
        before = path.stat().st_mode
        path.chmod(mode)
        code, out, said = wine.run(["backends", "--plugin", wine.path(plugin)], model)
        path.chmod(before)
        equal = code == 1 and "an access list that lets" in said
        print(f"{'right  ' if equal else 'WRONG  '} {path.name} that everybody may write to: {said.strip() or out}")
        failed += not equal
    return failed


def check_c(here, wine, model):
    """The C example, built with the header and the library."""
    example = ROOT / "examples/c/generate.c"
    shutil.copy(wine.build / "herald.dll", wine.binaries / "herald.dll")
    library = wine.build / "libherald.dll.a"
    command = [*COMPILER, f"-I{ROOT / 'include'}", "-o", wine.binaries / "generate.exe", example, library]
    subprocess.run(command, check=True)
    arguments = [wine.path(model), "The capital of France is"]
    command = [*wine.runner, wine.binaries / "generate.exe", *arguments]
    done = subprocess.run(command, cwd=wine.work, env=wine.environment, capture_output=True, timeout=600)
    _, expected, _ = here.run(["generate", "-n", "64", arguments[1]], model)
    said = plain(done.stdout, []).strip()
    equal = done.returncode == 0 and said == expected.strip()
    print(f"{'same   ' if equal else 'DIFFERS'} the C example says {said[:60]!r}... {done.stderr.decode() if not equal else ''}")
    return not equal


def check_plugin(wine, model):
    """The example plugin in C, which `host plugin check` finds right."""
    plugin = wine.work / "herald_example_c.dll"
    command = [*COMPILER, "-shared", f"-I{ROOT / 'include'}", "-o", plugin, ROOT / "examples/plugin-c/example.c"]
    subprocess.run(command, check=True)
    code, out, said = wine.run(["plugin", "check", "herald_example_c.dll"], model)
    last = (out.strip() or said.strip()).splitlines()[-1]
    print(f"{'right  ' if code == 0 else 'WRONG  '} host plugin check of the example in C: {last}")
    return code != 0


def main():
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("windows", type=pathlib.Path)
    parser.add_argument("here", type=pathlib.Path)
    parser.add_argument("model", type=pathlib.Path)
    parser.add_argument("--keep", action="store_true", help="leave the prefix and the files, and say where they are")
    given = parser.parse_args()
    folder = pathlib.Path(tempfile.mkdtemp(prefix="herald-wine-"))
    folder.chmod(0o755)
    prefix = folder / "prefix"
    environment = {"WINEPREFIX": str(prefix), "WINEDEBUG": "-all", "WINEDLLOVERRIDES": "mscoree,mshtml="}
    # Names that aren't ASCII reach wine in the locale's encoding.
    environment["LC_ALL"] = "C.UTF-8"
    model = given.model.resolve()
    begun = time.monotonic()
    try:
        subprocess.run(["wine", "wineboot", "--init"], env=os.environ | environment, check=True, capture_output=True)
        ours = {"XDG_CACHE_HOME": str(folder / "cache"), "HERALD_DOCUMENTS": str(folder / "documents")}
        here = Side(given.here.resolve(), folder / "here/bin", folder / "here/work", [], ours)
        root = prefix / "drive_c/herald-check"
        theirs = environment | {"HERALD_DOCUMENTS": "C:\\herald-check\\documents"}
        wine = Side(given.windows.resolve(), root / "bin", root / "work", ["wine"], theirs)
        if not (prefix / "drive_c/windows/system32/bcryptprimitives.dll").exists():
            (folder / "random.c").write_text(RANDOM)
            library = wine.binaries / "bcryptprimitives.dll"
            subprocess.run([*COMPILER, "-shared", "-o", library, folder / "random.c", "-ladvapi32"], check=True)
        failed = compare_logits(here, wine, model)
        failed += compare_commands(here, wine, model)
        failed += check_interrupt(here, wine, model) + check_trust(wine, model)
        failed += check_c(here, wine, model) + check_plugin(wine, model)
    finally:
        subprocess.run(["wineserver", "-k"], env=os.environ | environment, check=False)
        if given.keep:
            print(f"left in {folder}")
        else:
            shutil.rmtree(folder, ignore_errors=True)
    print(f"{failed} differ or are wrong; {time.monotonic() - begun:.0f} s")
    sys.exit(failed > 0)


if __name__ == "__main__":
    main()
