"""A simulated server: slots, passes over all that runs, and its prefix cache. Times are in seconds."""

from __future__ import annotations

from collections import OrderedDict
from dataclasses import dataclass, field
from typing import Optional

from ._step_times import StepTimes
from ._workload import Turn

# As `host serve` has them: tokens of a pass, what prompts may take of one, and the grain of their pieces.
PASS_TOKENS = 512
PROMPT_SECONDS = 0.2
GRAIN = 64
# How many passes are taken together where answers alone run: their contexts hardly grow meanwhile.
TOGETHER = 16


@dataclass
class Job:
    """A request on its way."""

    turn: Turn
    arrived: float
    # Tokens of its prompt that have been run or were cached, those that were cached, and tokens of its answer.
    done: int = 0
    cached: int = 0
    answered: int = 0
    retried: bool = False

    def restart(self) -> None:
        """Begins anew, on another replica."""
        self.done = self.cached = self.answered = 0
        self.retried = True


class PrefixCache:
    """What a replica has computed: system texts, and conversations behind them. What is least in use goes first."""

    def __init__(self, tokens: int) -> None:
        """Has room for so many tokens."""
        self._room = tokens
        self._held = 0
        self._parts: OrderedDict[tuple[str, int], int] = OrderedDict()

    def cached(self, turn: Turn) -> int:
        """How many tokens of a prompt are there. The last one is run anyway, for its logits."""
        found = self._used(("system", turn.kind))
        if found >= turn.system_tokens:
            found = turn.system_tokens + self._used(("conversation", turn.conversation))
        return min(found, turn.prompt_tokens - 1)

    def keep(self, turn: Turn, tokens: int) -> None:
        """Keeps so many tokens of a conversation."""
        system = min(tokens, turn.system_tokens)
        self._put(("conversation", turn.conversation), tokens - system)
        # It is under each of its conversations, so it is used with them, and later than they.
        self._put(("system", turn.kind), system)
        while self._held > self._room:
            part, held = next(iter(self._parts.items()))
            gone = min(held, self._held - self._room)
            self._held -= gone
            if gone == held:
                del self._parts[part]
            else:
                # The ends go first: without a beginning they are of no use.
                self._parts[part] = held - gone

    def _used(self, part: tuple[str, int]) -> int:
        if part not in self._parts:
            return 0
        self._parts.move_to_end(part)
        return self._parts[part]

    def _put(self, part: tuple[str, int], tokens: int) -> None:
        before = self._parts.get(part, 0)
        if max(before, tokens):
            self._parts[part] = max(before, tokens)
            self._parts.move_to_end(part)
            self._held += self._parts[part] - before


@dataclass
class Run:
    """Passes of equal length, one after the other."""

    start: float
    seconds: float
    passes: int
    # Each prompt's tokens in the one pass; none where answers alone run.
    shares: list[tuple[Job, int]] = field(default_factory=list)

    @property
    def end(self) -> float:
        """When the last one is done."""
        return self.start + self.seconds * self.passes


@dataclass
class Ended:
    """What a run of passes brought to an end."""

    first_tokens: list[Job] = field(default_factory=list)
    jobs: list[Job] = field(default_factory=list)


class Replica:
    """One server. Its owner calls `begin` when it is idle and `end` at the time that `run.end` says."""

    def __init__(self, number: int, times: StepTimes, cache_bytes: float) -> None:
        """An idle one with an empty cache."""
        self.name = f"replica-{number}"
        self._times = times
        per_token = times.cache_bytes_per_token
        self.cache = PrefixCache(int(cache_bytes / per_token) if per_token else 1 << 60)
        self.jobs: list[Job] = []
        # Those of them that have a place in the passes.
        self._placed = 0
        self.run: Optional[Run] = None
        self.busy_seconds = 0.0
        self.alive = True
        self._turn = 0
        self._pace: Optional[float] = None

    @property
    def load(self) -> int:
        """How many requests it has."""
        return len(self.jobs)

    def take(self, job: Job, now: float) -> bool:
        """Gives it a request. True: the run of passes ends earlier now, after the pass that runs."""
        self.jobs.append(job)
        run = self.run
        if run is None or run.passes == 1:
            return False
        passes = min(run.passes, int((now - run.start) / run.seconds) + 1)
        shorter = passes < run.passes
        run.passes = passes
        return shorter

    def begin(self, now: float) -> None:
        """Begins the next passes, if there is anything to run."""
        for job in self.jobs[self._placed :]:
            job.cached = job.done = self.cache.cached(job.turn)
        self._placed = len(self.jobs)
        self.run = None
        if not self.jobs:
            return
        answers = [job for job in self.jobs if job.answered]
        prompts = [job for job in self.jobs if not job.answered]
        after = [job.turn.prompt_tokens + job.answered for job in answers]
        if prompts:
            shares = self._shares(prompts, len(answers))
            seconds = self._times.seconds(after, [(tokens, job.done) for job, tokens in shares])
            self.run = Run(now, seconds, 1, shares)
        else:
            passes = min(TOGETHER, *(job.turn.answer_tokens - job.answered for job in answers))
            self.run = Run(now, self._times.seconds(after, []), passes)

    def die(self, now: float) -> None:
        """Ends in the middle of what it does."""
        self.alive = False
        if self.run is not None:
            self.busy_seconds += now - self.run.start
            self.run = None

    def _shares(self, prompts: list[Job], answers: int) -> list[tuple[Job, int]]:
        """Divides a pass's tokens evenly among prompts, as the scheduler does."""
        pace = 2 * GRAIN if self._pace is None else max(1, int(PROMPT_SECONDS / self._pace) // GRAIN) * GRAIN
        budget = min(PASS_TOKENS - answers, pace)
        self._turn += 1
        first = self._turn % len(prompts)
        order = prompts[first:] + prompts[:first]
        shares = dict.fromkeys(range(len(order)), 0)
        left = [job.turn.prompt_tokens - job.done for job in order]
        budget = min(budget, sum(left))
        while budget > 0:
            hungry = [index for index in shares if shares[index] < left[index]]
            equal = max(1, budget // len(hungry))
            for index in hungry:
                more = min(equal, left[index] - shares[index], budget)
                shares[index] += more
                budget -= more
        return [(order[index], share) for index, share in shares.items() if share]

    def end(self) -> Ended:
        """Counts what the run of passes did."""
        run, ended = self.run, Ended()
        assert run is not None
        self.busy_seconds += run.seconds * run.passes
        for job in self.jobs[: self._placed]:
            if job.answered:
                job.answered += run.passes
        for job, tokens in run.shares:
            job.done += tokens
            if job.done == job.turn.prompt_tokens:
                job.answered = 1
                self.cache.keep(job.turn, job.done)
                ended.first_tokens.append(job)
        tokens = sum(tokens for _, tokens in run.shares)
        if tokens >= GRAIN // 2:
            pace = run.seconds / tokens
            self._pace = pace if self._pace is None else self._pace + 0.25 * (pace - self._pace)
        ended.jobs = [job for job in self.jobs[: self._placed] if job.answered >= job.turn.answer_tokens]
        for job in ended.jobs:
            # The last token has not been run.
            self.cache.keep(job.turn, job.turn.prompt_tokens + job.answered - 1)
            self.jobs.remove(job)
        self._placed -= len(ended.jobs)
        self.run = None
        return ended
