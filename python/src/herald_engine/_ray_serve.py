# Ray has no complete types, and isn't there wherever this package is checked.
# mypy: disable-error-code="import-not-found, import-untyped, misc, no-any-return, untyped-decorator, unused-ignore"
"""The deployments of `herald_engine.ray`: replicas that run the bundled server, and the gateway before them."""

from __future__ import annotations

import asyncio
import json
import logging
import os
from collections.abc import AsyncIterator, Mapping
from typing import Any, Optional

import aiohttp
from ray.exceptions import RayActorError
from ray.serve.request_router import PendingRequest, RequestRouter, RunningReplica
from starlette.requests import Request
from starlette.responses import JSONResponse, Response, StreamingResponse

from ._options import Path
from ._prefix import IMBALANCE, prefix_key, ranked, spilled
from .server import Server

LOGGER = logging.getLogger("ray.serve")

# As the server itself takes.
MOST_BYTES = 8 << 20
# What is between two neighbours only, and what each hop says for itself.
HOP_BY_HOP = {
    "connection", "content-length", "expect", "host", "keep-alive", "te", "trailer", "transfer-encoding", "upgrade",
}  # fmt: skip
# What one replica would answer for all.
ONE_REPLICAS_OWN = {"/metrics", "/metrics.json", "/slots"}


class ReplicaLostError(Exception):
    """The server of a replica has ended."""


class PrefixRouter(RequestRouter):
    """Sends requests that begin alike to the same replica, whose prefix cache has their beginning.

    Where that has `imbalance` requests more than the next in line, or no place, the next one gets it.
    """

    def initialize_state(self, imbalance: int = IMBALANCE) -> None:
        """Takes what `app` configured."""
        self._imbalance = imbalance

    async def choose_replicas(
        self, candidate_replicas: list[RunningReplica], pending_request: Optional[PendingRequest] = None
    ) -> list[list[RunningReplica]]:
        """The replicas in the order in which they are asked."""
        key = None if pending_request is None else pending_request.kwargs.get("key")
        if key is None:
            return [list(candidate_replicas)]
        order = ranked(key, candidate_replicas, lambda each: each.replica_id.unique_id)
        return [[each] for each in spilled(order, self._load, self._imbalance)]

    def _load(self, replica: RunningReplica) -> int:
        return self.replica_queue_len_cache.get(replica.replica_id) or 0


class Replica:
    """Runs the bundled server with a model, and passes requests on to it."""

    def __init__(self, model: Path, drain_seconds: float, server_options: Mapping[str, Any]) -> None:
        self._drain_seconds = drain_seconds
        self._server = Server(model, **server_options)
        self._session: Optional[aiohttp.ClientSession] = None

    def _client(self) -> aiohttp.ClientSession:
        if self._session is None:
            # An answer takes as long as it takes; who waits for it ends it.
            self._session = aiohttp.ClientSession(
                auto_decompress=False,
                timeout=aiohttp.ClientTimeout(total=None, sock_connect=10),
                connector=aiohttp.TCPConnector(limit=0),
            )
        return self._session

    async def ask(
        self, method: str, target: str, headers: dict[str, str], body: bytes, *, key: Optional[str]
    ) -> AsyncIterator[Any]:
        """Passes a request on: first status and headers of the answer, then its bytes as they come.

        `key` is for the router, which sees what a replica is called with.
        """
        try:
            asked = self._client().request(method, self._server.url + target, headers=headers, data=body or None)
            async with asked as answer:
                kept = [(name, value) for name, value in answer.headers.items() if name.lower() not in HOP_BY_HOP]
                yield answer.status, kept
                async for chunk in answer.content.iter_any():
                    yield chunk
        except aiohttp.ClientError as error:
            if not self._server.running:
                # The router leaves out replicas that are gone at once, and those that fail only at the next check.
                LOGGER.error("the server of this replica has ended, and the replica with it")
                os._exit(1)
            raise ReplicaLostError(f"the server of a replica doesn't answer: {error}") from None

    async def check_health(self) -> None:
        """Serve asks this every few seconds, and replaces a replica that raises."""
        if not self._server.running:
            raise ReplicaLostError("the server of this replica has ended")
        async with self._client().get(f"{self._server.url}/health", timeout=aiohttp.ClientTimeout(total=10)) as answer:
            if answer.status != 200:
                raise ReplicaLostError(f"/health of this replica's server has status {answer.status}")

    def __del__(self) -> None:
        # Serve has waited for the running answers.
        if hasattr(self, "_server"):
            self._server.stop(self._drain_seconds)


class Gateway:
    """Takes requests from clients and has a replica answer each. One whose replica ends is sent to another, once."""

    def __init__(self, replicas: Any, prefix_characters: int) -> None:
        self._replicas = replicas.options(stream=True)
        self._prefix_characters = prefix_characters

    async def __call__(self, request: Request) -> Response:
        """Answers a client's request."""
        path = request.url.path.removeprefix(request.scope.get("root_path", ""))
        if path in ONE_REPLICAS_OWN:
            return failed(
                404, f"{path} is each replica's own; Ray's metrics have the requests of all", "invalid_request"
            )
        body = await bounded_body(request)
        if body is None:
            return failed(
                413, f"the body has more than {MOST_BYTES} bytes, where at most as many were expected", "too_large"
            )
        headers = {name: value for name, value in request.headers.items() if name.lower() not in HOP_BY_HOP}
        target = f"{path}?{request.url.query}" if request.url.query else path
        key = prefix_key(body, self._prefix_characters) if body else None
        for attempt in (1, 2):
            try:
                return await self._answer(request.method, target, headers, body, key)
            except (RayActorError, ReplicaLostError) as error:
                LOGGER.warning("attempt %d of a request ended with its replica: %s", attempt, error)
        return failed(503, "two replicas ended while they answered: ask again", "server_error", {"Retry-After": "1"})

    async def _answer(
        self, method: str, target: str, headers: dict[str, str], body: bytes, key: Optional[str]
    ) -> Response:
        """One attempt. A replica that ends before a byte of the answer has gone to the client raises."""
        chunks = self._replicas.ask.remote(method, target, headers, body, key=key)
        status, answered = await chunks.__anext__()
        kind = dict((name.lower(), value) for name, value in answered).get("content-type", "")
        streams = kind.startswith(("text/event-stream", "application/x-ndjson"))
        if streams:
            # The first piece may take as long as the prompt, and can still come from another replica.
            first = await anext_or_end(chunks)
            made: Response = StreamingResponse(rest_of(first, chunks, kind), status)
        else:
            made = Response(b"".join([chunk async for chunk in chunks]), status)
        made.raw_headers = [
            *((name.lower().encode("latin-1"), value.encode("latin-1")) for name, value in answered),
            *((name, value) for name, value in made.raw_headers if name == b"content-length"),
        ]
        return made


async def anext_or_end(chunks: AsyncIterator[bytes]) -> bytes:
    """The next bytes of an answer; none at its end."""
    try:
        return await chunks.__anext__()
    except StopAsyncIteration:
        return b""


async def rest_of(first: bytes, chunks: AsyncIterator[bytes], kind: str) -> AsyncIterator[bytes]:
    """The bytes of a stream. Where its replica ends, the client is told in the stream's own form."""
    try:
        yield first
        async for chunk in chunks:
            yield chunk
    except (RayActorError, ReplicaLostError):
        message = "the replica that answered has ended in the middle of the answer: ask again"
        if kind.startswith("application/x-ndjson"):
            yield json.dumps({"error": message}).encode() + b"\n"
        else:
            error = {"error": {"message": message, "type": "server_error", "param": None, "code": "replica_lost"}}
            yield b"event: error\ndata: " + json.dumps(error).encode() + b"\n\n"
    except asyncio.CancelledError:
        # The client has hung up: the replica's request ends with the generator.
        raise


async def bounded_body(request: Request) -> Optional[bytes]:
    """A request's body; None if it is too large."""
    body = bytearray()
    async for chunk in request.stream():
        body += chunk
        if len(body) > MOST_BYTES:
            return None
    return bytes(body)


def failed(status: int, message: str, kind: str, headers: Optional[Mapping[str, str]] = None) -> Response:
    """An error as OpenAI's API has it."""
    error = {"message": message, "type": kind, "param": None, "code": None}
    return JSONResponse({"error": error}, status, headers=dict(headers or {}))
