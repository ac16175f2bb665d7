"""The simulated cluster beside what queueing theory says, and what must hold of any."""

from __future__ import annotations

import itertools
import json
import math
import pathlib
import random
from collections.abc import Iterator
from typing import Any

import pytest

import herald_engine
from herald_engine import simulate
from herald_engine._cluster import Cluster, Settings, simulated
from herald_engine._measure import Client, drive, measured
from herald_engine._replica import PrefixCache
from herald_engine._step_times import StepTimes
from herald_engine._workload import Conversation, Turn, Workload, conversations
from herald_engine.server import Server

from .conftest import tiny_model

# A pass takes 10 ms and 1 ms for each token, whatever it is of.
PLAIN: dict[str, Any] = {
    "prompt_pass": [[0, 0.01], [512, 0.522]],
    "decode_pass": [[0, 0.01], [512, 0.522]],
    "prompt_token_at": [[0, 0.0]],
    "decode_token_at": [[0, 0.0]],
    "request_seconds": 0.0,
    "cache_bytes_per_token": 1000,
}


def single_requests(rate: float, seed: int) -> Iterator[Conversation]:
    """Conversations of one turn, all alike, as a Poisson process: 40 new tokens, and one token to answer."""
    chance, now = random.Random(seed), 0.0
    for number in itertools.count():
        now += chance.expovariate(rate)
        yield Conversation(number, now, str(number), (Turn(number, 0, 0, 40, 1, 40, 0.0),))


@pytest.mark.parametrize("busy", [0.3, 0.6, 0.8])
def test_one_place_waits_as_the_queue_m_d_1_does(busy: float) -> None:
    times = StepTimes(PLAIN)
    service = times.seconds([], [(40, 0)])
    assert service == pytest.approx(0.05)
    settings = Settings(parallel=1, seconds=1500, warmup=50, by_prefix=False)
    counts = Cluster(settings, Workload(), times, single_requests(busy / service, 3)).run()
    # Pollaczek and Khinchine: the mean time in the queue before a service of constant length.
    expected = busy * service / (2 * (1 - busy))
    waited = sum(counts.first_token_seconds) / len(counts.first_token_seconds) - service
    assert waited == pytest.approx(expected, rel=0.05)
    assert sum(counts.busy.values()) / counts.alive_seconds == pytest.approx(busy, rel=0.02)


def test_several_replicas_wait_as_the_queue_m_m_c_does() -> None:
    # Answers of exponential length, one at a time on each of four replicas, which share a queue.
    per_second, rate, replicas = 2.0, 6.0, 4
    slow = {**PLAIN, "prompt_pass": [[0, 0.0]], "decode_pass": [[0, 0.02]]}

    def source() -> Iterator[Conversation]:
        chance, now = random.Random(5), 0.0
        for number in itertools.count():
            now += chance.expovariate(rate)
            tokens = 1 + round(chance.expovariate(per_second) * 50)
            yield Conversation(number, now, str(number), (Turn(number, 0, 0, 2, tokens, 2, 0.0),))

    settings = Settings(replicas=replicas, parallel=1, seconds=3000, warmup=50)
    counts = Cluster(settings, Workload(), StepTimes(slow), source()).run()
    load = rate / per_second
    queued = load**replicas / math.factorial(replicas) * replicas / (replicas - load)
    erlang = queued / (sum(load**n / math.factorial(n) for n in range(replicas)) + queued)
    expected = erlang / (replicas * per_second - rate)
    # The first token takes no time by itself here.
    waited = sum(counts.first_token_seconds) / len(counts.first_token_seconds)
    assert waited == pytest.approx(expected, rel=0.08)


def test_the_same_seed_gives_the_same_and_nothing_is_lost() -> None:
    settings = Settings(replicas=3, seconds=math.inf, warmup=0)
    workload = Workload(rate=0.3)
    chosen = list(itertools.islice(conversations(workload, 7, settings.prefix_characters), 60))
    runs = [Cluster(settings, workload, StepTimes(PLAIN), iter(chosen)).run() for _ in range(2)]
    assert runs[0] == runs[1]
    turns = [turn for each in chosen for turn in each.turns]
    assert runs[0].requests == len(turns) == len(runs[0].first_token_seconds)
    assert runs[0].answer_tokens == sum(turn.answer_tokens for turn in turns)
    assert runs[0].prompt_tokens == sum(turn.prompt_tokens for turn in turns)
    # A prompt's last token is always computed; with room for all, what was there before never is.
    assert runs[0].prompt_tokens - runs[0].cached_tokens >= runs[0].new_tokens


def test_routing_by_prefix_computes_less() -> None:
    workload = Workload(rate=0.05)
    found = {
        by_prefix: simulated(Settings(replicas=8, by_prefix=by_prefix, seconds=400), workload, StepTimes(PLAIN))
        for by_prefix in (False, True)
    }
    assert found[True]["computed_over_new"] < 1.3 < found[False]["computed_over_new"]
    assert found[True]["cached_share"] > found[False]["cached_share"]
    assert found[True]["first_token_seconds"]["median"] < found[False]["first_token_seconds"]["median"]


def test_a_prefix_within_what_all_share_sends_all_to_one() -> None:
    few, workload = Settings(replicas=8, prefix_characters=1000, seconds=400), Workload(rate=0.05, kinds=1)
    found = [simulated(each, workload, StepTimes(PLAIN)) for each in (few, Settings(replicas=8, seconds=400))]
    assert found[0]["busiest"] > 1.5 * found[1]["busiest"]
    assert found[0]["utilisation"] < 0.8 * found[0]["busiest"]


def test_a_replica_that_ends_is_replaced_and_its_requests_are_asked_again() -> None:
    settings = Settings(replicas=2, fail_at=200, seconds=400, warmup=0)
    found = simulated(settings, Workload(rate=0.3), StepTimes(PLAIN))
    assert found["lost"] + found["retried"] > 0
    same = simulated(Settings(replicas=2, seconds=400, warmup=0), Workload(rate=0.3), StepTimes(PLAIN))
    assert same["lost"] == same["retried"] == 0
    assert found["requests"] > 0.9 * same["requests"]


def test_replicas_come_when_they_are_needed() -> None:
    settings = Settings(most_replicas=6, parallel=4, upscale_seconds=5, seconds=600, warmup=0)
    workload = Workload(rate=0.8)
    found = simulated(settings, workload, StepTimes(PLAIN))
    alone = simulated(Settings(parallel=4, seconds=600, warmup=0), workload, StepTimes(PLAIN))
    assert 1 < found["most_replicas"] <= 6
    assert found["first_token_seconds"]["p99"] < alone["first_token_seconds"]["p99"]


def test_the_cache_keeps_what_was_used_last_and_beginnings_longest() -> None:
    cache = PrefixCache(100)
    first, second = (Turn(number, 0, 20, 60, 10, 40, 0.0) for number in range(2))
    cache.keep(first, 60)
    assert cache.cached(first) == 59
    assert cache.cached(second) == 20
    cache.keep(second, 80)
    # 20 of the system text and 60 of the second leave 20 of the first's own 40.
    assert cache.cached(second) == 59
    assert cache.cached(first) == 40


def test_a_real_server_finds_in_its_cache_what_the_simulated_one_does() -> None:
    workload = Workload(
        rate=4, kinds=2, system_tokens=150, first_tokens=20, turn_tokens=30, answer_tokens=4, pause=0.02
    )
    chosen = list(itertools.islice(conversations(workload, 4, 1000), 8))
    with Server(tiny_model("llama"), threads=1, max_draft=0) as server:
        real = drive(Client(server), chosen)
    settings = Settings(seconds=math.inf, warmup=0)
    paper = Cluster(settings, workload, StepTimes({**PLAIN, "prompt_pass": [[1, 1e-4]]}), iter(chosen)).run()
    assert (real.requests, real.prompt_tokens) == (paper.requests, paper.prompt_tokens)
    # Two that begin at once may each compute what they share, which time decides.
    assert real.cached_tokens == pytest.approx(paper.cached_tokens, rel=0.1)
    assert len(real.first_token_seconds) == len(paper.first_token_seconds)


def test_step_times_are_measured_of_a_server() -> None:
    with Server(tiny_model("llama"), threads=1, max_draft=0) as server:
        found = measured(Client(server), "llama.gguf", 1, 1)
    StepTimes(found)
    assert [size for size, _ in found["decode_pass"]] == [1, 2, 4, 8, 16, 32]
    assert min(seconds for _, seconds in found["prompt_pass"] + found["decode_pass"]) > 0
    assert found["cache_bytes_per_token"] > 0 and found["measured_on"]["model"] == "llama.gguf"


def test_faulty_input_is_one_sentence(tmp_path: pathlib.Path, capsys: pytest.CaptureFixture[str]) -> None:
    times = tmp_path / "times.json"
    for text, sentence in [
        ("{}", "lack prompt_pass"),
        ("[]", "no JSON object"),
        ("{", "is no JSON"),
        (json.dumps({**PLAIN, "prompt_pass": [[1]]}), "prompt_pass is"),
        (json.dumps({**PLAIN, "decode_pass": [[1, -1]]}), "decode_pass is"),
        (json.dumps({**PLAIN, "request_seconds": "1"}), "request_seconds is '1'"),
    ]:
        times.write_text(text)
        assert simulate.main(["run", "--times", str(times)]) == 1
        said = capsys.readouterr().err
        assert said.startswith("error: ") and sentence in said and said.count("\n") == 1, said
    wrong = [["--rate", "0"], ["--replicas", "0"], ["--seconds", "60"], ["--turns", "-1"], ["--times", "/nowhere"]]
    for words in wrong:
        assert simulate.main(["run", *words]) == 1, words
        assert capsys.readouterr().err.startswith("error: ")
    with pytest.raises(herald_engine.InvalidArgumentError):
        Workload(rate=float("nan"))


def test_a_table_and_json(capsys: pytest.CaptureFixture[str]) -> None:
    words = ["run", "--replicas", "2", "--seconds", "200"]
    assert simulate.main(words) == 0
    table = capsys.readouterr().out.splitlines()
    assert len(table) == 4 and table[2].startswith("| 2 | load |") and table[3].startswith("| 2 | prefix |")
    assert simulate.main([*words, "--json"]) == 0
    found = json.loads(capsys.readouterr().out)
    assert [each["by_prefix"] for each in found["runs"]] == [False, True]
    assert found["times"]["measured_on"]["model"] and found["workload"]["rate"] > 0
