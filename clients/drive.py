"""Serves a model and drives every client against it. See README.md."""

import argparse
import os
import pathlib
import re
import shutil
import subprocess
import sys

HERE = pathlib.Path(__file__).resolve().parent
# A step that takes longer than this hangs.
STEP_SECONDS = 300


def python_environment() -> pathlib.Path:
    """The Python of an environment with the clients."""
    given = os.environ.get("HERALD_CLIENTS_PYTHON")
    if given:
        return pathlib.Path(given)
    folder = HERE / ".venv"
    python = folder / "bin" / "python"
    wanted = (HERE / "python" / "requirements.txt").read_text()
    done = folder / "installed.txt"
    if done.exists() and done.read_text() == wanted:
        return python
    subprocess.run([sys.executable, "-m", "venv", folder], check=True)
    pip = [python, "-m", "pip", "install", "--quiet", "--disable-pip-version-check"]
    complete = True
    for line in wanted.splitlines():
        requirement = line.split("#")[0].strip()
        if requirement and subprocess.run(pip + requirement.split()).returncode != 0:
            complete = False
            print(f"{requirement} can't be installed: its clients are skipped")
    if complete:
        done.write_text(wanted)
    return python


def node_environment() -> bool:
    """Whether the Node clients are installed."""
    if shutil.which("node") is None or shutil.which("npm") is None:
        return False
    if (HERE / "node" / "node_modules" / "openai").is_dir():
        return True
    npm = ["npm", "ci", "--silent", "--no-audit", "--no-fund"]
    return subprocess.run(npm, cwd=HERE / "node").returncode == 0


def serve(host: str, model: str) -> tuple[subprocess.Popen, str]:
    """A server on a free port, and its address."""
    command = [host, "serve", "--model", model, "--port", "0"]
    server = subprocess.Popen(command, stdout=subprocess.PIPE, text=True)
    address = server.stdout.readline().strip()
    if not re.fullmatch(r"http://[0-9.]+:[0-9]+", address):
        sys.exit(f"{' '.join(command)} said {address!r}, where its address was expected")
    return server, address


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--host", default=str(HERE.parent / "target" / "release" / "host"))
    parser.add_argument("--model", help="a file, or a name that `host pull` knows")
    parser.add_argument("clients", nargs="*", help="only these")
    arguments = parser.parse_args()
    if shutil.which(arguments.host) is None:
        sys.exit(f"{arguments.host} is no program: cargo build --release makes it, and --host names another")
    model = arguments.model
    if model is None:
        pull = [arguments.host, "pull", "smollm2-135m-instruct"]
        model = subprocess.run(pull, check=True, stdout=subprocess.PIPE, text=True).stdout.strip()
    python = python_environment()
    commands = [[str(python), str(script)] for script in sorted((HERE / "python").glob("with_*.py"))]
    if node_environment():
        commands += [["node", str(script)] for script in sorted((HERE / "node").glob("with_*.mjs"))]
    else:
        print("node or its packages are not there: their clients are skipped")
    server, address = serve(arguments.host, model)
    environment = dict(os.environ, HERALD_ADDRESS=address, PYTHONPATH=str(HERE / "python"))
    failed = []
    try:
        for command in commands:
            name = pathlib.Path(command[-1]).stem.removeprefix("with_")
            if arguments.clients and name not in arguments.clients:
                continue
            try:
                code = subprocess.run(command, env=environment, timeout=STEP_SECONDS).returncode
            except subprocess.TimeoutExpired:
                print(f"{name}: took more than {STEP_SECONDS} seconds")
                code = 1
            if code != 0:
                failed.append(name)
    finally:
        server.terminate()
        server.wait(timeout=60)
    if failed:
        sys.exit(f"failed: {', '.join(failed)}")
    print("all clients passed")


main()
