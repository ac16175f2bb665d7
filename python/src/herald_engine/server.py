"""The bundled HTTP server as a context manager, for clients of OpenAI's, Anthropic's or Ollama's API."""

from __future__ import annotations

import atexit
import contextlib
import http.client
import os
import queue
import signal
import subprocess
import tempfile
import threading
import time
import weakref
from collections.abc import Mapping, Sequence
from typing import IO, TYPE_CHECKING, Any, Optional, Union

from ._native import NATIVE
from ._options import Path
from .errors import DeadlineError, HeraldError, InvalidArgumentError

if TYPE_CHECKING:
    from typing_extensions import Self

# Runs the server until it ends, or this process does, however that comes: then its end of stdin closes.
_WATCH = """
exec 3<&0
"$@" 3<&- </dev/null & server=$!
{ cat <&3 >/dev/null; kill -TERM "$server"; } 2>/dev/null & watch=$!
exec 3<&-
wait "$server"; code=$?
kill "$watch" 2>/dev/null
exit "$code"
"""

_running: weakref.WeakSet[Server] = weakref.WeakSet()


class Server:
    """`host serve` on a free port of this machine.

        with Server("model.gguf", threads=4) as server:
            client = openai.OpenAI(base_url=server.openai_url, api_key="none")

    It is stopped by `stop()`, at the end of `with`, and when this process ends, even if that is killed.
    """

    def __init__(
        self,
        model: Union[Path, Sequence[Path], None] = None,
        *,
        address: str = "127.0.0.1",
        port: int = 0,
        api_key: Optional[str] = None,
        ready_seconds: float = 300,
        log: Optional[IO[bytes]] = None,
        **options: Any,
    ) -> None:
        """Starts it, and waits until it is ready.

        model: a file, a folder, a name that `pull` knows, or several of them; None: as the configuration says.
        port: 0: any free one.
        api_key: what clients must send; None: anybody on this machine may use it.
        ready_seconds: how long loading may take.
        log: a file for what the server writes to stderr; None: it is kept for the sentence of a failed start.
        options: those of `host serve`, with underscores: `threads=4`, `cache_dir="..."`, `archive_lz4=True`.
        """
        models = [] if model is None else [model] if isinstance(model, (str, os.PathLike)) else list(model)
        arguments = ["serve", "--address", address, "--port", str(port)]
        for each in models:
            arguments += ["--model", os.fspath(each)]
        arguments += option_arguments(options)
        environment = dict(os.environ)
        # As an option it would show in the list of processes.
        environment.pop("HERALD_API_KEY", None)
        if api_key is not None:
            environment["HERALD_API_KEY"] = api_key
        self._log = log if log is not None else tempfile.TemporaryFile()  # noqa: SIM115
        self._owns_log = log is None
        self._process = subprocess.Popen(
            ["sh", "-c", _WATCH, "sh", str(NATIVE / "host"), *arguments],
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            stderr=self._log,
            env=environment,
            # Ctrl-C is for this process, which stops the server in turn.
            start_new_session=True,
        )
        _running.add(self)
        try:
            until = time.monotonic() + ready_seconds
            self.url = self._address(until)
            self._wait_until_ready(until)
        except BaseException:
            self.kill()
            raise

    @property
    def openai_url(self) -> str:
        """The base URL for clients of OpenAI's API."""
        return f"{self.url}/v1"

    @property
    def running(self) -> bool:
        """Whether its process runs."""
        return self._process.poll() is None

    def _address(self, until: float) -> str:
        """The address that the server prints when it listens."""
        lines: queue.Queue[bytes] = queue.Queue()
        stdout = self._process.stdout
        assert stdout is not None

        def read() -> None:
            for line in stdout:
                lines.put(line)
            lines.put(b"")

        threading.Thread(target=read, name="herald-server", daemon=True).start()
        try:
            line = lines.get(timeout=max(0.0, until - time.monotonic()))
        except queue.Empty:
            raise DeadlineError("the server didn't listen in time: ready_seconds says how long that may take") from None
        address = line.decode().strip()
        if not address.startswith(("http://", "https://")):
            raise HeraldError(f"the server didn't start: {self._said() or 'it wrote nothing to stderr'}")
        return address

    def _wait_until_ready(self, until: float) -> None:
        """Asks `/ready` until the answer is 200. Over TLS the address is enough: it is printed after loading."""
        scheme, _, place = self.url.partition("://")
        while scheme == "http":
            connection = http.client.HTTPConnection(place, timeout=5)
            with contextlib.suppress(OSError, http.client.HTTPException), contextlib.closing(connection):
                connection.request("GET", "/ready")
                if connection.getresponse().status == 200:
                    return
            if not self.running:
                raise HeraldError(f"the server ended before it was ready: {self._said()}")
            if time.monotonic() >= until:
                raise DeadlineError("the server wasn't ready in time: ready_seconds says how long that may take")
            time.sleep(0.05)

    def _said(self) -> str:
        """What the server wrote to stderr."""
        if not self._owns_log:
            return "its log says why"
        with contextlib.suppress(subprocess.TimeoutExpired):
            self._process.wait(10)
        self._log.seek(0)
        return self._log.read(4096).decode("utf-8", "replace").strip()

    def stop(self, grace: float = 35) -> None:
        """Has it end after the running answers, and ends it after `grace` seconds in any case. May be called again."""
        self._stop_reading()
        with contextlib.suppress(subprocess.TimeoutExpired):
            self._process.wait(grace)
        self.kill()

    def _stop_reading(self) -> None:
        if self._process.stdin is not None:
            with contextlib.suppress(OSError):
                self._process.stdin.close()

    def kill(self) -> None:
        """Ends it at once."""
        self._stop_reading()
        # The group is the watching shell's and the server's; it is empty where both have ended.
        with contextlib.suppress(ProcessLookupError, PermissionError):
            if self._process.poll() is None:
                os.killpg(self._process.pid, signal.SIGKILL)
        self._process.wait()
        _running.discard(self)
        if self._owns_log:
            self._log.close()

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_: object) -> None:
        self.stop()


def option_arguments(options: Mapping[str, Any]) -> list[str]:
    """Options as the program's arguments: `cache_dir="x"` becomes `--cache-dir x`."""
    arguments = []
    for name, value in options.items():
        if name.startswith("_"):
            raise InvalidArgumentError(f"{name} is no option of host serve")
        option = f"--{name.replace('_', '-')}"
        if value is None or value is False:
            continue
        if value is True:
            arguments.append(option)
        else:
            values = value if isinstance(value, (list, tuple)) else [value]
            arguments += [f"{option}={os.fspath(each) if isinstance(each, os.PathLike) else each}" for each in values]
    return arguments


def _stop_all() -> None:
    for server in list(_running):
        server.stop(5)


atexit.register(_stop_all)
