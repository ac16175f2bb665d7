"""A cluster on paper: what so many replicas would do with so many conversations.

python -m herald_engine.simulate run --replicas 1 10 100 --routing both
python -m herald_engine.simulate measure model.gguf > times.json      # of your machine, for run --times
python -m herald_engine.simulate check model.gguf                     # a real server beside the simulated one
"""

from __future__ import annotations

import argparse
import json
import math
import pathlib
import sys
from collections.abc import Sequence
from dataclasses import fields
from typing import Any, Optional

from . import _measure
from ._cluster import Settings, simulated
from ._step_times import StepTimes, read_measured
from ._workload import Workload
from .errors import HeraldError, InvalidArgumentError

# What was measured of one machine, which it names.
MEASURED = pathlib.Path(__file__).resolve().parent / "measured" / "smollm2-135m.json"

HELP = {
    "rate": "new conversations each second, for each replica",
    "burst": "how many of them come at once",
    "kinds": "kinds of agents, each with a system text of its own",
    "system_tokens": "tokens of that, tools included",
    "first_tokens": "tokens of a conversation's first message (mean)",
    "turn_tokens": "tokens that each further turn adds (mean)",
    "answer_tokens": "tokens of an answer (mean)",
    "turns": "turns of a conversation (mean)",
    "pause": "seconds from an answer to the next turn (mean)",
    "context": "tokens that a conversation may have",
    "prefix_characters": "as of herald_engine.ray.app",
    "imbalance": "as of herald_engine.ray.app",
    "parallel": "as of herald_engine.ray.app",
    "cache_bytes": "bytes of each replica's prefix cache",
    "most_replicas": "scale up to so many times as many replicas",
    "upscale_seconds": "how long more must have been asked for",
    "downscale_seconds": "how long fewer must have been asked for",
    "start_seconds": "how long a replica takes to start",
    "health_seconds": "how long until a replica that ended is missed",
    "fail_at": "when the replica with the most requests ends, in seconds",
    "seconds": "how long conversations come",
    "warmup": "seconds at the beginning that don't count",
    "seed": "of the random numbers; the same one gives the same result",
}


def add_fields(parser: argparse.ArgumentParser, kind: Any, leave_out: Sequence[str] = ()) -> None:
    """An option for each field of a dataclass."""
    for each in fields(kind):
        if each.name in leave_out:
            continue
        whole = each.type in ("int", "Optional[int]")
        parser.add_argument(
            "--" + each.name.replace("_", "-"),
            type=int if whole else float,
            default=each.default,
            metavar="N" if whole else "X",
            help=f"{HELP[each.name]} [default: {'none' if each.default is None else format(each.default, 'g')}]",
        )


def parser() -> argparse.ArgumentParser:
    """The command line."""
    made = argparse.ArgumentParser(
        prog="python -m herald_engine.simulate", description="What a cluster of replicas would do, by simulation."
    )
    commands = made.add_subparsers(dest="command", required=True)
    run = commands.add_parser("run", help="simulate clusters, and print a table")
    run.add_argument("--replicas", type=int, nargs="+", default=[1, 10, 100], help="how many [default: 1 10 100]")
    run.add_argument(
        "--routing", choices=["prefix", "load", "both"], default="both",
        help="by prefix, to the less loaded of two at random, or once each [default: both]",
    )  # fmt: skip
    run.add_argument(
        "--times",
        default=MEASURED,
        metavar="FILE",
        help="step times that `measure` wrote [default: those of one machine]",
    )
    run.add_argument("--json", action="store_true", help="print JSON instead of the table")
    add_fields(run, Workload)
    add_fields(run, Settings, ["replicas", "by_prefix"])
    measure = commands.add_parser("measure", help="measure the step times of a server on this machine, as JSON")
    check = commands.add_parser("check", help="measure, then compare a real server with the simulated one")
    for each in (measure, check):
        each.add_argument("model", help="a GGUF file, or the name of one that was pulled")
        each.add_argument("--threads", type=int, default=1, help="of the server [default: 1]")
        each.add_argument("--rounds", type=int, default=3, help="of which the least counts [default: 3]")
    check.add_argument("--times", metavar="FILE", help="step times that were measured before")
    check.add_argument(
        "--load", type=float, default=0.5, help="share of the time that the server is at work [default: 0.5]"
    )
    check.add_argument("--seconds", type=float, default=60, help="how long [default: 60]")
    check.add_argument("--seed", type=int, default=1, help="of the random numbers [default: 1]")
    check.add_argument("--tolerance", type=float, default=0.25, help="by how much figures may differ [default: 0.25]")
    return made


def chosen(arguments: argparse.Namespace, kind: Any, **others: Any) -> dict[str, Any]:
    """The fields of a dataclass as the command line has them."""
    return {each.name: getattr(arguments, each.name) for each in fields(kind) if hasattr(arguments, each.name)} | others


def run(arguments: argparse.Namespace) -> None:
    """Simulates, and prints what came of it."""
    times = StepTimes.read(arguments.times)
    workload = Workload(**chosen(arguments, Workload))
    found = []
    for replicas in arguments.replicas:
        for by_prefix in {"prefix": [True], "load": [False], "both": [False, True]}[arguments.routing]:
            fields_of = chosen(arguments, Settings, replicas=replicas, by_prefix=by_prefix)
            if arguments.most_replicas is not None:
                fields_of["most_replicas"] = arguments.most_replicas * replicas
            settings = checked(Settings(**fields_of))
            found.append(simulated(settings, workload, times))
            if not arguments.json:
                print_row(found[-1], first=len(found) == 1)
    if arguments.json:
        print(
            json.dumps({"times": read_measured(arguments.times), "workload": vars(workload), "runs": found}, indent=1)
        )


def checked(settings: Settings) -> Settings:
    """Settings that can be simulated."""
    least = {"replicas": 1, "parallel": 1, "imbalance": 1, "prefix_characters": 1, "seconds": 1e-9}
    for name, value in vars(settings).items():
        if value is not None and not isinstance(value, bool) and not least.get(name, 0) <= value < math.inf:
            raise InvalidArgumentError(f"{name} is {value}, where at least {least.get(name, 0)} was expected")
    if settings.warmup >= settings.seconds:
        raise InvalidArgumentError(
            f"warmup is {settings.warmup}, where less than seconds, {settings.seconds}, was expected"
        )
    return settings


COLUMNS = (
    "replicas",
    "routing",
    "requests/s",
    "tokens/s",
    "first token p50",
    "p99",
    "cached",
    "computed/new",
    "busy",
    "busiest",
)


def print_row(found: dict[str, Any], first: bool) -> None:
    """A row of a Markdown table, and its head before the first."""
    if first:
        print("| " + " | ".join(COLUMNS) + " |")
        print("|" + " ---: |" * len(COLUMNS))
    seconds = found["first_token_seconds"]
    cells = [
        f"{found['replicas']}"
        + (f" to {found['most_replicas']}" if found["most_replicas"] > found["replicas"] else ""),
        "prefix" if found["by_prefix"] else "load",
        *(f"{float(f'{found[name]:.3g}'):,g}" for name in ("requests_per_second", "answer_tokens_per_second")),
        *(shown(seconds[name], "{:.2f} s") for name in ("median", "p99")),
        shown(found["cached_share"], "{:.1%}"),
        shown(found["computed_over_new"], "{:.2f}"),
        shown(found["utilisation"], "{:.0%}"),
        f"{found['busiest']:.0%}",
    ]
    print("| " + " | ".join(cells) + " |", flush=True)


def shown(value: Optional[float], form: str) -> str:
    """A number, or a dash for none."""
    return "-" if value is None else form.format(value)


def main(words: Optional[Sequence[str]] = None) -> int:
    """The program; returns its exit code."""
    arguments = parser().parse_args(words)
    try:
        if arguments.command == "run":
            run(arguments)
        elif arguments.command == "measure":
            print(json.dumps(_measure.measure(arguments.model, arguments.threads, arguments.rounds), indent=1))
        else:
            return 0 if _measure.check(arguments) else 1
    except HeraldError as error:
        print(f"error: {error}", file=sys.stderr)
        return 1
    return 0


if __name__ == "__main__":
    sys.exit(main())
