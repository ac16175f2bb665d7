"""Two replicas of a tiny model on one machine: answers, places, and what becomes of requests whose replica dies."""

from __future__ import annotations

import asyncio
import contextlib
import json
import os
import pathlib
import signal
import socket
import time
from collections.abc import Iterator
from typing import Any

import aiohttp
import pytest
import ray
import ray.data
from ray import serve

import herald_engine
import herald_engine.ray
from herald_engine._prefix import prefix_key, weight

MODEL = pathlib.Path(__file__).resolve().parents[2] / "host" / "tests" / "data" / "tiny" / "llama.f32.gguf"
TOKENS = 80


@pytest.fixture(scope="module")
def cluster() -> Iterator[None]:
    os.environ["RAY_USAGE_STATS_ENABLED"] = "0"
    # A busy machine of two cores starts processes slowly.
    os.environ["RAY_SERVE_PROXY_READY_CHECK_TIMEOUT_S"] = "120"
    os.environ["RAY_SERVE_PROXY_HEALTH_CHECK_TIMEOUT_S"] = "60"
    # Two of them are the replicas'; the others are for what takes no time.
    ray.data.DataContext.get_current().enable_progress_bars = False
    ray.init(num_cpus=4, include_dashboard=False, log_to_driver=False, object_store_memory=200 << 20)
    yield
    ray.shutdown()


@pytest.fixture(scope="module")
def url(cluster: None) -> Iterator[str]:
    with socket.socket() as free:
        free.bind(("127.0.0.1", 0))
        port = free.getsockname()[1]
    serve.start(http_options={"host": "127.0.0.1", "port": port})
    serve.run(herald_engine.ray.app(MODEL, replicas=2, threads=1, health_seconds=1))
    yield f"http://127.0.0.1:{port}"
    serve.shutdown()


@pytest.fixture(scope="module")
def engine() -> Iterator[herald_engine.Engine]:
    with herald_engine.Engine(MODEL, threads=1) as loaded:
        yield loaded


def asked(first: int, **others: Any) -> dict[str, Any]:
    return {"prompt": [first, 6, 7], "max_tokens": TOKENS, "temperature": 0, "ignore_eos": True, **others}


async def whole(session: aiohttp.ClientSession, url: str, body: dict[str, Any]) -> tuple[int, Any]:
    async with session.post(f"{url}/v1/completions", json=body) as answer:
        return answer.status, await answer.json()


async def streamed(
    session: aiohttp.ClientSession, url: str, body: dict[str, Any], begun: list[int], n: int = 0
) -> tuple[str, str]:
    """A stream's text, and how it ended: with its end, or with an error's sentence. Each line adds `n` to `begun`."""
    text = ""
    async with session.post(f"{url}/v1/completions", json={**body, "stream": True}) as answer:
        if answer.status != 200:
            return text, json.loads(await answer.read())["error"]["message"]
        async for line in answer.content:
            begun.append(n)
            if not line.startswith(b"data: "):
                continue
            if line.strip() == b"data: [DONE]":
                return text, "done"
            event = json.loads(line.removeprefix(b"data: "))
            if "error" in event:
                return text, event["error"]["message"]
            text += "".join(choice["text"] for choice in event["choices"])
    return text, "lost"


def processes() -> Iterator[tuple[int, list[bytes]]]:
    """The processes that this one's cluster runs, with their arguments."""
    for folder in pathlib.Path("/proc").iterdir():
        if folder.name.isdigit() and is_ours(int(folder.name)):
            with contextlib.suppress(OSError):
                yield int(folder.name), (folder / "cmdline").read_bytes().split(b"\0")


def replicas() -> list[int]:
    """The processes of the replicas."""
    names = ((process, words[0]) for process, words in processes())
    return sorted(
        process
        for process, name in names
        if name.startswith(b"ray::ServeReplica:default:herald") and b"gateway" not in name
    )


def servers() -> list[int]:
    """The processes of their servers."""
    return [process for process, words in processes() if words[0].endswith(b"/native/host") and b"serve" in words]


def is_ours(process: int) -> bool:
    """Whether this process is above another."""
    while process > 1:
        if process == os.getpid():
            return True
        try:
            process = int(pathlib.Path(f"/proc/{process}/stat").read_text().rsplit(")", 1)[1].split()[1])
        except OSError:
            return False
    return False


def test_answers_are_the_engines(url: str, engine: herald_engine.Engine) -> None:
    expected = engine.generate([5, 6, 7], max_tokens=TOKENS, ignore_eos=True).text

    async def work() -> None:
        async with aiohttp.ClientSession() as session:
            status, answer = await whole(session, url, asked(5))
            assert status == 200 and answer["choices"][0]["text"] == expected
            assert await streamed(session, url, asked(5), []) == (expected, "done")
            status, answer = await whole(session, url, {"no_such_field": 1})
            assert status == 400 and "no_such_field" in answer["error"]["message"]
            async with session.get(f"{url}/v1/models") as models:
                assert models.status == 200
            async with session.get(f"{url}/metrics") as metrics:
                assert metrics.status == 404

    asyncio.run(work())


def test_what_begins_alike_goes_to_the_same_replica(url: str) -> None:
    async def work() -> None:
        async with aiohttp.ClientSession() as session:
            for first in range(5, 11):
                prompt = [first, *range(6, 206)]
                cached = []
                for _ in range(3):
                    _, answer = await whole(session, url, {"prompt": prompt, "max_tokens": 1})
                    cached.append(answer["usage"]["prompt_tokens_details"]["cached_tokens"])
                assert cached[0] < 150 and min(cached[1:]) > 150, cached

    asyncio.run(work())


def test_a_killed_replica_loses_no_request(url: str, engine: herald_engine.Engine) -> None:
    # Twelve long streams, which are in their middle then, 88 short ones, and 100 answers as a whole.
    bodies = {n: asked(n, max_tokens=2000 if n < 17 else TOKENS) for n in range(5, 205)}
    expected = {
        n: engine.generate(body["prompt"], max_tokens=body["max_tokens"], ignore_eos=True).text
        for n, body in bodies.items()
    }
    before = replicas()
    assert len(before) == 2

    async def work() -> list[Any]:
        begun: list[int] = []

        async def kill() -> None:
            while len({n for n in begun if n < 17}) < 12:
                await asyncio.sleep(0.01)
            os.kill(before[0], signal.SIGKILL)

        async def ask(n: int) -> Any:
            if n < 105:
                return await streamed(session, url, bodies[n], begun, n)
            return await whole(session, url, bodies[n])

        timeout = aiohttp.ClientTimeout(total=240)
        async with aiohttp.ClientSession(timeout=timeout, connector=aiohttp.TCPConnector(limit=0)) as session:
            ends = await asyncio.gather(kill(), *map(ask, bodies))
        return ends[1:]

    told = 0
    for n, end in zip(bodies, asyncio.run(work())):
        if n >= 105:
            # Nothing of these had gone out when their replica ended, so they were asked for again.
            status, answer = end
            assert status == 200 and answer["choices"][0]["text"] == expected[n], answer
        elif end[1] == "done":
            assert end[0] == expected[n]
        else:
            assert "has ended in the middle of the answer" in end[1] and expected[n].startswith(end[0]), end
            told += 1
    assert 1 <= told <= 64, told

    # Serve puts another replica in its place.
    until = time.monotonic() + 60
    while len(set(replicas()) - {before[0]}) < 2 or len(servers()) < 2:
        assert time.monotonic() < until, "no new replica came"
        time.sleep(0.2)
    test_answers_are_the_engines(url, engine)


def test_a_replica_whose_server_ends_is_replaced(url: str, engine: herald_engine.Engine) -> None:
    os.kill(servers()[0], signal.SIGKILL)

    async def work() -> None:
        async with aiohttp.ClientSession() as session:
            for first in range(5, 15):
                status, answer = await whole(session, url, asked(first))
                assert status == 200, answer

    asyncio.run(work())


def test_running_answers_go_on_while_the_application_is_taken_down(url: str, engine: herald_engine.Engine) -> None:
    tokens = 3000
    expected = engine.generate([5, 6, 7], max_tokens=tokens, ignore_eos=True).text

    async def work() -> tuple[str, str]:
        begun: list[int] = []
        async with aiohttp.ClientSession() as session:
            stream = asyncio.create_task(streamed(session, url, asked(5, max_tokens=tokens), begun))
            while not begun:
                await asyncio.sleep(0.01)
            await asyncio.to_thread(serve.delete, "default")
            return await stream

    assert asyncio.run(work()) == (expected, "done")
    assert replicas() == []


def test_replicas_scale_between_two_numbers() -> None:
    made = herald_engine.ray.app(MODEL, replicas=(0, 3), parallel=8, autoscaling={"upscale_delay_s": 1})
    # The gateway's first argument is the application of the replicas.
    config = made._bound_deployment.init_args[0]._bound_deployment._deployment_config.autoscaling_config
    assert (config.min_replicas, config.max_replicas, config.upscale_delay_s) == (0, 3, 1)
    assert config.target_ongoing_requests == 4
    # As a configuration file has it.
    same = herald_engine.ray.configured({"model": str(MODEL), "replicas": [0, 3], "parallel": 8})
    config = same._bound_deployment.init_args[0]._bound_deployment._deployment_config.autoscaling_config
    assert (config.min_replicas, config.max_replicas, config.target_ongoing_requests) == (0, 3, 4)


def test_a_dataset_gets_its_answers(cluster: None, engine: herald_engine.Engine) -> None:
    texts = ["a", "b c", "the", "d"] * 5
    dataset = ray.data.from_items([{"prompt": text} for text in texts])
    answered = herald_engine.ray.batch(dataset, MODEL, batch_size=10, max_tokens=8).take_all()
    expected = {text: engine.generate(text, max_tokens=8).text for text in texts}
    assert sorted((row["prompt"], row["generated"]) for row in answered) == sorted(
        (text, expected[text]) for text in texts
    )


def test_a_conversation_keeps_its_key_as_it_grows() -> None:
    first = {"messages": [{"role": "system", "content": "s"}, {"role": "user", "content": "u"}]}
    answer = [{"role": "assistant", "content": "a"}, {"role": "user", "content": "v"}]
    later = {"messages": first["messages"] + answer, "temperature": 1}
    other = {"messages": [{"role": "system", "content": "s"}, {"role": "user", "content": "w"}]}
    keys = [prefix_key(json.dumps(body).encode(), 1024) for body in (first, later, other)]
    assert keys[0] == keys[1] != keys[2] and None not in keys
    assert prefix_key(json.dumps({**first, "cache_salt": "x"}).encode(), 1024) != keys[0]
    long = [{"prompt": "p" * 1024 + end} for end in "ab"]
    assert len({prefix_key(json.dumps(body).encode(), 1024) for body in long}) == 1
    for broken in (b"", b"[", b"[]", b"{}", b"[" * 100_000, b"\xff", b'{"messages": 3}', b'{"messages": [3]}'):
        assert prefix_key(broken, 1024) is None
    # Where a replica goes, only its keys move.
    homes = {key: max("abc", key=lambda replica: weight(key, replica)) for key in map(str, range(300))}
    moved = {key: max("ab", key=lambda replica: weight(key, replica)) for key in homes}
    assert all(moved[key] == home for key, home in homes.items() if home != "c")
    assert min(list(homes.values()).count(replica) for replica in "abc") > 60
