"""Servers of `host` and of llama.cpp, started and stopped alike, and asked over HTTP."""

import contextlib
import json
import socket
import subprocess
import time
import urllib.error
import urllib.request


def post(base, path, body):
    """The JSON object that a request's answer is."""
    with opened(base, path, body) as answer:
        return json.load(answer)


def opened(base, path, body):
    request = urllib.request.Request(
        base + path, json.dumps(body).encode(), {"Content-Type": "application/json"}
    )
    try:
        return urllib.request.urlopen(request, timeout=3600)
    except urllib.error.HTTPError as error:
        raise SystemExit(f"{base}{path}: {error.code}: {error.read().decode()}") from error


def started(command, **streams):
    try:
        return subprocess.Popen(command, **streams)
    except OSError as error:
        raise SystemExit(f"{command[0]} can't be run: {error.strerror}") from error


@contextlib.contextmanager
def herald(host, model, threads, *options):
    """`host serve` at a free port; gives its address."""
    command = [host, "--model", model, "--threads", str(threads), "serve", "--port", "0", *options]
    serve = started(command, stdout=subprocess.PIPE, text=True)
    try:
        base = serve.stdout.readline().strip()
        if not base:
            raise SystemExit(f"{host} serve ended at once, where an address was expected")
        yield base
    finally:
        serve.terminate()
        serve.wait()


@contextlib.contextmanager
def llama_server(program, model, threads, slots, context, *options):
    """A llama-server that the user built; `context` tokens for each of its slots, and more of its options. Gives its address."""
    with socket.socket() as free:
        free.bind(("127.0.0.1", 0))
        port = free.getsockname()[1]
    command = [program, "--model", model, "--threads", str(threads), "--threads-batch", str(threads),
               "--parallel", str(slots), "--ctx-size", str(slots * context), "--port", str(port), *options]
    server = started(command, stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL)
    base = f"http://127.0.0.1:{port}"
    try:
        for _ in range(600):
            if server.poll() is not None:
                raise SystemExit(f"{program} ended at once: {' '.join(command)}")
            with contextlib.suppress(OSError), urllib.request.urlopen(base + "/health", timeout=5) as answer:
                if answer.status == 200:
                    break
            time.sleep(0.1)
        else:
            raise SystemExit(f"{program} didn't become ready within a minute")
        yield base
    finally:
        server.terminate()
        server.wait()
