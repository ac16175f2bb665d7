"""A simulated cluster: a gateway that routes as `herald_engine.ray` does, and its replicas. Times are in seconds."""

from __future__ import annotations

import heapq
import itertools
import math
import random
from collections import deque
from collections.abc import Iterator
from dataclasses import asdict, dataclass, field, replace
from typing import Any, Callable, Optional

from ._prefix import IMBALANCE, PREFIX_CHARACTERS, ranked, spilled
from ._replica import Job, Replica
from ._step_times import StepTimes
from ._workload import Conversation, Workload, conversations


@dataclass(frozen=True)
class Settings:
    """The cluster. What `herald_engine.ray.app` has too has its name and default."""

    replicas: int = 1
    # By prefix; otherwise to the less loaded of two at random, as Ray Serve does by itself.
    by_prefix: bool = True
    prefix_characters: int = PREFIX_CHARACTERS
    imbalance: int = IMBALANCE
    parallel: int = 32
    # Bytes of each replica's prefix cache.
    cache_bytes: float = 512 * 2**20
    # Scale up to so many replicas, towards parallel / 2 requests for each; after that many seconds up, and down.
    most_replicas: Optional[int] = None
    upscale_seconds: float = 30
    downscale_seconds: float = 600
    # From a replica's start until it is ready, and from its end until it is missed.
    start_seconds: float = 10
    health_seconds: float = 5
    # When a replica ends; None: never.
    fail_at: Optional[float] = None
    # How long conversations come, and from when on what happens is counted.
    seconds: float = 600
    warmup: float = 120
    seed: int = 1


@dataclass
class Counts:
    """What happened after the warm-up."""

    first_token_seconds: list[float] = field(default_factory=list)
    requests: int = 0
    answer_tokens: int = 0
    prompt_tokens: int = 0
    cached_tokens: int = 0
    new_tokens: int = 0
    # Requests that were sent to a second replica, and streams that ended in their middle, because of a failure.
    retried: int = 0
    lost: int = 0
    busy: dict[str, float] = field(default_factory=dict)
    # Replicas times seconds.
    alive_seconds: float = 0.0
    most_alive: int = 0
    most_waiting: int = 0


class Cluster:
    """Runs conversations through replicas; `run` gives what it counted."""

    def __init__(
        self, settings: Settings, workload: Workload, times: StepTimes, source: Optional[Iterator[Conversation]] = None
    ) -> None:
        """`source`: conversations in order of their start, in place of random ones."""
        self._settings, self._times = settings, times
        self._source = source or conversations(workload, settings.seed, settings.prefix_characters)
        self._chance = random.Random(settings.seed + 1)
        self._events: list[tuple[float, int, Callable[..., None], tuple[Any, ...]]] = []
        self._serial = itertools.count()
        self._numbers = itertools.count()
        self._now = 0.0
        self._replicas: list[Replica] = []
        # With those that are gone.
        self._every: list[Replica] = []
        self._starting = 0
        self._waiting: deque[Job] = deque()
        self._conversations: dict[int, Conversation] = {}
        # Each key's order of replicas, as long as these stay the same.
        self._orders: dict[str, list[Replica]] = {}
        self._wanted_since: Optional[tuple[int, float]] = None
        self._counted_until = settings.warmup
        self.counts = Counts()
        # When the last thing happened.
        self.last = 0.0

    def run(self) -> Counts:
        """Simulates until the settings' end. Requests that are on their way then don't count."""
        settings = self._settings
        for _ in range(settings.replicas):
            self._ready()
        self._next_conversation()
        if settings.most_replicas is not None:
            self._at(1.0, self._scale)
        if settings.fail_at is not None:
            self._at(settings.fail_at, self._fail)
        self._at(settings.warmup, self._count_from_here)
        while self._events and self._events[0][0] <= settings.seconds:
            self._now, _, what, arguments = heapq.heappop(self._events)
            what(*arguments)
        self.last = self._now
        self._now = min(settings.seconds, 1e300)
        self._count_alive()
        for replica in self._every:
            self._count_busy(replica)
        return self.counts

    def _at(self, when: float, what: Callable[..., None], *arguments: Any) -> None:
        heapq.heappush(self._events, (when, next(self._serial), what, arguments))

    # --- Conversations ---

    def _next_conversation(self) -> None:
        conversation = next(self._source, None)
        if conversation is not None:
            self._at(conversation.start, self._begin, conversation)

    def _begin(self, conversation: Conversation) -> None:
        self._conversations[conversation.number] = conversation
        self._at(self._now + self._times.request_seconds, self._arrive, conversation, 0)
        self._next_conversation()

    def _arrive(self, conversation: Conversation, turn: int) -> None:
        self._send(Job(conversation.turns[turn], self._now - self._times.request_seconds))

    def _answered(self, job: Job) -> None:
        turn = job.turn
        if job.arrived >= self._settings.warmup:
            counts = self.counts
            counts.requests += 1
            counts.answer_tokens += turn.answer_tokens
            counts.prompt_tokens += turn.prompt_tokens
            counts.cached_tokens += job.cached
            counts.new_tokens += turn.new_tokens
        self._after(job)

    def _after(self, job: Job) -> None:
        """Has the next turn come, if there is one."""
        conversation = self._conversations[job.turn.conversation]
        position = conversation.turns.index(job.turn) + 1
        if position == len(conversation.turns):
            del self._conversations[conversation.number]
            return
        pause = conversation.turns[position].pause + self._times.request_seconds
        self._at(self._now + pause, self._arrive, conversation, position)

    # --- The gateway ---

    def _send(self, job: Job) -> None:
        if self._waiting or not self._give(job):
            self._waiting.append(job)
            self.counts.most_waiting = max(self.counts.most_waiting, len(self._waiting))

    def _give(self, job: Job) -> bool:
        """Gives a request to the first replica, in the order in which they are asked, that has a place."""
        for replica in self._order(self._conversations[job.turn.conversation].key):
            if replica.load < self._settings.parallel:
                if replica.take(job, self._now):
                    self._await_end(replica)
                elif replica.run is None:
                    # What comes at the same time shares the first pass.
                    self._at(self._now, self._begin_passes, replica)
                return True
        return False

    def _order(self, key: str) -> list[Replica]:
        replicas = self._replicas
        if not self._settings.by_prefix:
            for _ in range(10):
                two = self._chance.sample(replicas, min(2, len(replicas)))
                if any(each.load < self._settings.parallel for each in two):
                    return sorted(two, key=lambda each: each.load)
            return sorted(replicas, key=lambda each: each.load)
        order = self._orders.get(key)
        if order is None:
            order = self._orders[key] = ranked(key, replicas, lambda each: each.name)
        return spilled(order, lambda each: each.load, self._settings.imbalance)

    def _send_waiting(self) -> None:
        while self._waiting and self._give(self._waiting[0]):
            self._waiting.popleft()

    # --- Replicas ---

    def _begin_passes(self, replica: Replica) -> None:
        if replica.alive and replica.run is None:
            replica.begin(self._now)
            self._await_end(replica)

    def _await_end(self, replica: Replica) -> None:
        if replica.run is not None:
            self._at(replica.run.end, self._end_passes, replica, replica.run.end)

    def _end_passes(self, replica: Replica, end: float) -> None:
        # Its run has been cut shorter since, or it is gone.
        if not replica.alive or replica.run is None or replica.run.end != end:
            return
        ended = replica.end()
        for job in ended.first_tokens:
            if job.arrived >= self._settings.warmup:
                self.counts.first_token_seconds.append(self._now - job.arrived)
        for job in ended.jobs:
            self._answered(job)
        self._send_waiting()
        self._begin_passes(replica)

    def _ready(self) -> None:
        """A replica has started."""
        replica = Replica(next(self._numbers), self._times, self._settings.cache_bytes)
        self._count_alive()
        self._replicas.append(replica)
        self._every.append(replica)
        self._orders.clear()
        self.counts.most_alive = max(self.counts.most_alive, len(self._replicas))
        self._send_waiting()

    def _started(self) -> None:
        self._starting -= 1
        self._ready()

    def _leave(self, replica: Replica) -> None:
        self._count_alive()
        self._replicas.remove(replica)
        self._orders.clear()

    def _fail(self) -> None:
        """The replica with the most requests ends, and another one starts in its place once that is seen."""
        replica = max(self._replicas, key=lambda each: each.load)
        replica.die(self._now)
        self._leave(replica)
        self._starting += 1
        self._at(self._now + self._settings.health_seconds + self._settings.start_seconds, self._started)
        for job in replica.jobs:
            if job.answered or job.retried:
                self.counts.lost += 1
                self._after(job)
            else:
                self.counts.retried += 1
                job.restart()
                self._send(job)

    def _scale(self) -> None:
        """Once a second, as Ray Serve: so many replicas as the requests ask for, once they have done so for a while."""
        settings = self._settings
        self._at(self._now + 1.0, self._scale)
        requests = len(self._waiting) + sum(replica.load for replica in self._replicas)
        most = settings.most_replicas or settings.replicas
        wanted = min(most, max(settings.replicas, math.ceil(requests / max(1, settings.parallel // 2))))
        now = len(self._replicas) + self._starting
        direction = (wanted > now) - (wanted < now)
        if direction == 0:
            self._wanted_since = None
            return
        if self._wanted_since is None or self._wanted_since[0] != direction:
            self._wanted_since = (direction, self._now)
        delay = settings.upscale_seconds if direction > 0 else settings.downscale_seconds
        if self._now - self._wanted_since[1] < delay:
            return
        self._wanted_since = None
        for _ in range(wanted - now):
            self._starting += 1
            self._at(self._now + settings.start_seconds, self._started)
        for replica in sorted(self._replicas, key=lambda each: each.load)[: max(0, now - wanted)]:
            # What it runs goes on to its end.
            self._leave(replica)

    # --- Counting ---

    def _count_from_here(self) -> None:
        for replica in self._replicas:
            replica.busy_seconds = 0.0
        self.counts.most_waiting = len(self._waiting)

    def _count_alive(self) -> None:
        """Adds the time since the last change of the number of replicas."""
        if self._now > self._counted_until:
            self.counts.alive_seconds += len(self._replicas) * (self._now - self._counted_until)
            self._counted_until = self._now

    def _count_busy(self, replica: Replica) -> None:
        busy = replica.busy_seconds
        if replica.run is not None:
            busy += min(self._now, replica.run.end) - max(replica.run.start, self._settings.warmup)
        self.counts.busy[replica.name] = max(0.0, busy)


def simulated(settings: Settings, workload: Workload, times: StepTimes) -> dict[str, Any]:
    """Runs a cluster, whose replicas together get their number times the workload's rate, and sums up."""
    together = replace(workload, rate=workload.rate * settings.replicas)
    return summary(settings, Cluster(settings, together, times).run())


def summary(settings: Settings, counts: Counts) -> dict[str, Any]:
    """What was counted, in the terms in which servers are compared."""
    counted = settings.seconds - settings.warmup
    computed = counts.prompt_tokens - counts.cached_tokens
    first = sorted(counts.first_token_seconds)
    mean_busy = sum(counts.busy.values()) / counts.alive_seconds if counts.alive_seconds else None
    return {
        "settings": asdict(settings),
        "replicas": settings.replicas,
        "most_replicas": counts.most_alive,
        "by_prefix": settings.by_prefix,
        "requests": counts.requests,
        "requests_per_second": counts.requests / counted,
        "answer_tokens_per_second": counts.answer_tokens / counted,
        "first_token_seconds": {"median": quantile(first, 0.5), "p99": quantile(first, 0.99)},
        "prompt_tokens": counts.prompt_tokens,
        "cached_share": counts.cached_tokens / counts.prompt_tokens if counts.prompt_tokens else None,
        "computed_over_new": computed / counts.new_tokens if counts.new_tokens else None,
        "utilisation": mean_busy,
        "busiest": max(counts.busy.values(), default=0.0) / counted,
        "most_waiting": counts.most_waiting,
        "retried": counts.retried,
        "lost": counts.lost,
    }


def quantile(ordered: list[float], share: float) -> Optional[float]:
    """The value that this share of them is at most; None without any."""
    if not ordered:
        return None
    return ordered[min(len(ordered) - 1, math.ceil(share * len(ordered)) - 1)]
