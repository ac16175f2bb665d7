"""Step times of a real server, and that server beside the simulated one."""

from __future__ import annotations

import argparse
import http.client
import itertools
import json
import math
import os
import pathlib
import platform
import random
import statistics
import threading
import time
from collections.abc import Iterator
from dataclasses import dataclass, replace
from typing import Any, Callable, Optional

from ._cluster import Cluster, Counts, Settings, quantile
from ._options import Path
from ._step_times import StepTimes
from ._workload import Conversation, Workload, conversations
from .errors import HeraldError
from .server import Server

# Sizes that are measured: sequences that decode, tokens of a prompt's pass, and tokens before a token.
SEQUENCES = (1, 2, 4, 8, 16, 32)
PROMPTS = (8, 16, 32, 64, 128, 256, 512)
CONTEXTS = (512, 1024, 2048)
# Tokens of a prompt's piece behind those, those before answers that decode together, and of such an answer.
PIECE = 64
BEFORE = 16
ANSWER = 16


@dataclass(frozen=True)
class Answered:
    """What a client saw of a request: when the first token came and the answer was complete, and what it was."""

    first: float
    end: float
    tokens: list[int]
    cached: int


class Client:
    """Asks a server by its native API, which takes token ids and returns them."""

    def __init__(self, server: Server) -> None:
        self._place = server.url.partition("://")[2]

    def get(self, path: str) -> str:
        """A resource's text."""
        return self._ask("GET", path, None).read().decode()

    def complete(self, ids: list[int], tokens: int, first: Callable[[], object] = lambda: None) -> Answered:
        """Has a prompt answered with so many tokens; calls `first` when the first one comes."""
        body = {
            "prompt": ids, "n_predict": tokens, "temperature": 0, "ignore_eos": True, "stream": True,
            "return_tokens": True,
        }  # fmt: skip
        begun = 0.0
        for line in self._ask("POST", "/completion", body):
            if not line.startswith(b"data: "):
                continue
            event = json.loads(line[6:])
            if "error" in event:
                raise HeraldError(f"the server failed: {event['error']}")
            if not begun:
                begun = time.monotonic()
                first()
            if event["stop"]:
                return Answered(begun, time.monotonic(), event["tokens"], event["timings"]["cache_n"])
        raise HeraldError("an answer ended in its middle, where its end was expected")

    def _ask(self, method: str, path: str, body: Any) -> http.client.HTTPResponse:
        connection = http.client.HTTPConnection(self._place, timeout=600)
        try:
            connection.request(
                method, path, None if body is None else json.dumps(body), {"Content-Type": "application/json"}
            )
            answer = connection.getresponse()
        except OSError as error:
            raise HeraldError(f"the server doesn't answer: {error}") from None
        if answer.status != 200:
            raise HeraldError(f"{path} has status {answer.status}: {answer.read(1000).decode('utf-8', 'replace')}")
        return answer

    def passes(self) -> Passes:
        """What its passes took so far."""
        found = dict.fromkeys(("step_seconds_sum", "step_seconds_count", "batch_tokens_sum", "cache_bytes"), 0.0)
        for line in self.get("/metrics").splitlines():
            name, _, value = line.partition(" ")
            name, _, labels = name.removeprefix("herald_").partition("{")
            if name in found and "files" not in labels:
                found[name] = float(value)
        return Passes(*found.values())


@dataclass(frozen=True)
class Passes:
    """Seconds of all passes, their number and their tokens, and the bytes of the prefix cache."""

    seconds: float
    count: float
    tokens: float
    cache_bytes: float

    def since(self, before: Passes) -> Passes:
        """What came after an earlier look."""
        return Passes(
            self.seconds - before.seconds, self.count - before.count, self.tokens - before.tokens,
            self.cache_bytes - before.cache_bytes,
        )  # fmt: skip


class Measurement:
    """Measures one server. Of several rounds the least counts: what else the machine does only adds to it."""

    def __init__(self, client: Client, seed: int = 1) -> None:
        self._client = client
        self._chance = random.Random(seed)
        self._found: dict[str, dict[float, list[float]]] = {}
        most = json.loads(client.get("/props"))["default_generation_settings"]["n_ctx"]
        self._contexts = [context for context in CONTEXTS if context + PIECE + ANSWER < most]
        if not self._contexts:
            raise HeraldError(
                f"the server's context has {most} tokens, where over {CONTEXTS[0] + PIECE + ANSWER} were expected"
            )

    def ids(self, count: int) -> list[int]:
        """A prompt that no other begins like. The numbers are tokens of any vocabulary."""
        return [self._chance.randrange(5, 400) for _ in range(count)]

    def cache(self) -> None:
        """Measures what the prefix cache keeps of a token; the cache must be empty."""
        tokens = CONTEXTS[0]
        before = self._client.passes()
        self._client.complete(self.ids(tokens), 1)
        self._add("cache_bytes_per_token", 0, self._client.passes().since(before).cache_bytes / tokens)

    def round(self) -> None:
        """Measures each size once."""
        for sequences in SEQUENCES:
            self._add("decode_pass", sequences, self._decode([self.ids(BEFORE) for _ in range(sequences)]))
        for tokens in PROMPTS:
            took = self._prompt(self.ids(tokens))
            if took is not None:
                self._add("prompt_pass", tokens, took)
        for context in self._contexts:
            ids = self.ids(context)
            self._client.complete(ids, 1)
            took = self._prompt(ids + self.ids(PIECE))
            if took is not None:
                self._add("piece_at", context + PIECE / 2, took)
            self._add("answer_at", context, self._decode([ids]))
        for _ in range(5):
            before, start = self._client.passes(), time.monotonic()
            first = self._client.complete(self.ids(8), 1).first
            took = self._client.passes().since(before).seconds
            self._add("request_seconds", 0, max(0.0, first - start - took))

    def _prompt(self, ids: list[int]) -> Optional[float]:
        """Seconds of a prompt's pass; none where it took several."""
        before = self._client.passes()
        self._client.complete(ids, 1)
        passes = self._client.passes().since(before)
        return passes.seconds if passes.count == 1 else None

    def _decode(self, prompts: list[list[int]]) -> float:
        """Seconds of a pass over a token of each sequence, from when all have begun until the first one ends."""
        length = ANSWER + len(prompts)
        for _ in range(4):
            passes = self._together(prompts, length)
            if passes.count >= ANSWER / 4:
                return passes.seconds / passes.count
            # A small model's answers are over before all clients have seen theirs begin.
            length *= 3
        raise HeraldError(f"{len(prompts)} answers didn't run together, where they were expected to")

    def _together(self, prompts: list[list[int]], length: int) -> Passes:
        """What passes took from when all these prompts' answers had begun until the first one of them ended."""
        begun = threading.Semaphore(0)
        ended: list[Passes] = []
        failures: list[BaseException] = []

        def answer(ids: list[int]) -> None:
            try:
                self._client.complete(ids, length, begun.release)
                ended.append(self._client.passes())
            except BaseException as failure:
                failures.append(failure)
                begun.release()

        threads = [threading.Thread(target=answer, args=(ids,)) for ids in prompts]
        for thread in threads:
            thread.start()
        for _ in threads:
            begun.acquire()
        before = self._client.passes()
        for thread in threads:
            thread.join()
        if failures:
            raise failures[0]
        return min(ended, key=lambda each: each.count).since(before)

    def _add(self, name: str, size: float, value: float) -> None:
        self._found.setdefault(name, {}).setdefault(size, []).append(value)

    def _least(self, name: str, size: float = 0) -> float:
        return min(self._found[name][size])

    def tables(self) -> dict[str, Any]:
        """What was found, as the simulation reads it."""
        sizes = {name: sorted(by_size) for name, by_size in self._found.items()}
        piece, answer = self._least("prompt_pass", PIECE), self._least("decode_pass", 1)
        later = [[size, (self._least("piece_at", size) - piece) / PIECE] for size in sizes.get("piece_at", [])]
        return {
            "prompt_pass": rounded([[size, self._least("prompt_pass", size)] for size in sizes["prompt_pass"]]),
            "decode_pass": rounded([[size, self._least("decode_pass", size)] for size in sizes["decode_pass"]]),
            "prompt_token_at": rounded([[PIECE, 0.0], *later]),
            "decode_token_at": rounded(
                [[BEFORE, 0.0], *([size, self._least("answer_at", size) - answer] for size in sizes["answer_at"])]
            ),
            "request_seconds": float(f"{statistics.median(self._found['request_seconds'][0]):.4g}"),
            "cache_bytes_per_token": round(self._least("cache_bytes_per_token")),
        }


def rounded(points: list[list[float]]) -> list[list[float]]:
    """Sizes and seconds, which aren't below 0 and have no more digits than were measured."""
    return [[size, float(f"{max(0.0, seconds):.4g}")] for size, seconds in points]


def measure(model: Path, threads: int, rounds: int) -> dict[str, Any]:
    """Starts a server, measures it, and says on what."""
    with serving(model, threads) as server:
        return measured(Client(server), model, threads, rounds)


def serving(model: Path, threads: int) -> Server:
    """A server that drafts nothing: what drafts bring is the text's, and not the machine's."""
    return Server(model, threads=threads, max_draft=0)


def measured(client: Client, model: Path, threads: int, rounds: int) -> dict[str, Any]:
    """The step times of a server that runs."""
    measurement = Measurement(client)
    measurement.cache()
    for _ in range(max(1, rounds)):
        measurement.round()
    facts = {
        "model": pathlib.Path(model).name,
        "threads": threads,
        "processor": processor(),
        "processors": os.cpu_count(),
        "rounds": rounds,
        "load_before": [round(load, 2) for load in os.getloadavg()],
    }
    return {"measured_on": facts, **measurement.tables()}


def processor() -> str:
    """The CPU's name, where the system says it."""
    try:
        lines = pathlib.Path("/proc/cpuinfo").read_text().splitlines()
    except OSError:
        lines = []
    names = [line.partition(":")[2].strip() for line in lines if line.startswith("model name")]
    return names[0] if names else platform.machine()


# --- A real server beside the simulated one ---


def check(arguments: argparse.Namespace) -> bool:
    """Drives a server and its simulation with the same conversations, and prints both; true if they agree."""
    settings = Settings(warmup=0, seconds=math.inf, seed=arguments.seed)
    with serving(arguments.model, arguments.threads) as server:
        client = Client(server)
        if arguments.times:
            times = StepTimes.read(arguments.times)
        else:
            times = StepTimes(measured(client, arguments.model, arguments.threads, arguments.rounds))
        chosen = some(settings, times, arguments.load, arguments.seconds)
        before, start = client.passes(), time.monotonic()
        real = drive(client, chosen)
        took, passes = time.monotonic() - start, client.passes().since(before)
    cluster = Cluster(settings, Workload(), times, iter(chosen))
    paper = cluster.run()
    rows = [
        ("requests", float(real.requests), float(paper.requests)),
        ("seconds at work", passes.seconds, sum(paper.busy.values())),
        ("seconds until all is answered", took, cluster.last),
        ("first token, mean", statistics.fmean(real.first_token_seconds), statistics.fmean(paper.first_token_seconds)),
        ("first token, median", at(real, 0.5), at(paper, 0.5)),
        ("first token, p90", at(real, 0.9), at(paper, 0.9)),
        ("cached share of prompts", real.cached_tokens / real.prompt_tokens, paper.cached_tokens / paper.prompt_tokens),
    ]
    agree = True
    for name, was, simulated in rows:
        differs = abs(simulated / was - 1) if was else float(simulated != 0)
        agree = agree and differs <= arguments.tolerance
        print(f"{name:31} real {was:9.4g}   simulated {simulated:9.4g}   {simulated / (was or 1) - 1:+7.1%}")
    print(f"all within {arguments.tolerance:.0%}" if agree else f"not all within {arguments.tolerance:.0%}")
    return agree


def at(counts: Counts, share: float) -> float:
    """A quantile of the times to the first token."""
    return quantile(sorted(counts.first_token_seconds), share) or 0.0


def some(settings: Settings, times: StepTimes, load: float, seconds: float) -> list[Conversation]:
    """Conversations that begin within so many seconds, and keep a server at work for this share of them."""
    workload = Workload(
        rate=0.01, kinds=2, system_tokens=300, first_tokens=40, turn_tokens=60, answer_tokens=24, turns=4, pause=2
    )

    def of(rate: float, until: float) -> list[Conversation]:
        drawn = conversations(replace(workload, rate=rate), settings.seed, settings.prefix_characters)
        return list(itertools.takewhile(lambda each: each.start < until, drawn))

    # What a conversation takes by itself.
    alone = of(0.01, 20_000.0)
    each = sum(Cluster(settings, workload, times, iter(alone)).run().busy.values()) / len(alone)
    return of(load / each, seconds)


def drive(client: Client, chosen: list[Conversation]) -> Counts:
    """Has a real server answer conversations, each when it is its time."""
    counts, lock = Counts(), threading.Lock()
    chance = random.Random(2)
    kinds = {turn.kind: turn.system_tokens for each in chosen for turn in each.turns}
    systems = {kind: [chance.randrange(5, 400) for _ in range(tokens)] for kind, tokens in kinds.items()}
    failures: list[BaseException] = []
    start = time.monotonic() + 0.5

    def converse(conversation: Conversation) -> None:
        try:
            for answered, sent, turn in turns(conversation):
                with lock:
                    counts.requests += 1
                    counts.prompt_tokens += turn.prompt_tokens
                    counts.cached_tokens += answered.cached
                    counts.first_token_seconds.append(answered.first - sent)
        except BaseException as failure:
            failures.append(failure)

    def turns(conversation: Conversation) -> Iterator[tuple[Answered, float, Any]]:
        own = random.Random(1000 + conversation.number)
        ids = list(systems[conversation.turns[0].kind])
        time.sleep(max(0.0, start + conversation.start - time.monotonic()))
        for turn in conversation.turns:
            time.sleep(turn.pause)
            ids += [own.randrange(5, 400) for _ in range(turn.prompt_tokens - len(ids))]
            sent = time.monotonic()
            answered = client.complete(ids, turn.answer_tokens)
            ids += answered.tokens
            yield answered, sent, turn

    threads = [threading.Thread(target=converse, args=(each,)) for each in chosen]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    if failures:
        raise failures[0]
    return counts
