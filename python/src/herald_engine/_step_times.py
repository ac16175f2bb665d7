"""What a server's passes take, by what was measured of one."""

from __future__ import annotations

import json
import math
from bisect import bisect_right
from collections.abc import Mapping, Sequence
from typing import Any

from ._options import Path
from .errors import InvalidArgumentError

# What the file of a measured machine has: tables of [size, seconds], and numbers.
TABLES = ("prompt_pass", "decode_pass", "prompt_token_at", "decode_token_at")
NUMBERS = ("request_seconds", "cache_bytes_per_token")


class Line:
    """Straight lines from point to point, constant before the first, and on along the last line behind."""

    def __init__(self, name: str, points: Any) -> None:
        """Takes [size, seconds] in any order; of equal sizes the last."""
        try:
            pairs = sorted({float(size): float(seconds) for size, seconds in points}.items())
        except (TypeError, ValueError):
            pairs = []
        if not pairs or not all(math.isfinite(number) and number >= 0 for pair in pairs for number in pair):
            raise InvalidArgumentError(f"{name} is {points!r}, where a list of [size, seconds] was expected")
        self._x = [pair[0] for pair in pairs]
        self._y = [pair[1] for pair in pairs]

    def at(self, x: float) -> float:
        """The seconds at a size."""
        if x <= self._x[0] or len(self._x) == 1:
            return self._y[0]
        after = min(bisect_right(self._x, x), len(self._x) - 1)
        (x0, x1), (y0, y1) = self._x[after - 1 : after + 1], self._y[after - 1 : after + 1]
        return max(0.0, y0 + (y1 - y0) * (x - x0) / (x1 - x0))


class StepTimes:
    """How long a pass takes, given its tokens and what they attend to."""

    def __init__(self, measured: Mapping[str, Any]) -> None:
        """Reads what `measure` wrote."""
        missing = [name for name in (*TABLES, *NUMBERS) if name not in measured]
        if missing:
            raise InvalidArgumentError(f"the step times lack {', '.join(missing)}, which `measure` writes")
        # A pass over so many tokens of one prompt, from its beginning.
        self._prompt = Line("prompt_pass", measured["prompt_pass"])
        # A pass over one token of so many sequences, shortly after their beginning.
        self._decode = Line("decode_pass", measured["decode_pass"])
        # What a token takes more after so many others: of a prompt, and of an answer.
        self._prompt_at = Line("prompt_token_at", measured["prompt_token_at"])
        self._decode_at = Line("decode_token_at", measured["decode_token_at"])
        numbers = []
        for name in NUMBERS:
            value = measured[name]
            if isinstance(value, bool) or not isinstance(value, (int, float)) or not 0 <= value < math.inf:
                raise InvalidArgumentError(f"{name} is {value!r}, where a number of at least 0 was expected")
            numbers.append(float(value))
        # What a request takes beside its passes, and what the prefix cache keeps of a token.
        self.request_seconds, self.cache_bytes_per_token = numbers

    @classmethod
    def read(cls, path: Path) -> StepTimes:
        """Reads a file that `measure` wrote."""
        return cls(read_measured(path))

    def seconds(self, decoding: Sequence[int], prompts: Sequence[tuple[int, int]]) -> float:
        """A pass's seconds. `decoding`: after how many tokens each answer's is. `prompts`: (tokens, after how many)."""
        answers = len(decoding)
        tokens = sum(count for count, _ in prompts)
        if tokens:
            # All tokens share one reading of the weights; an answer's token has the output head's work beside it.
            took = self._prompt.at(tokens + answers)
            if answers:
                took += max(0.0, self._decode.at(answers) - self._prompt.at(answers))
        else:
            took = self._decode.at(answers)
        took += sum(self._decode_at.at(after) for after in decoding)
        return took + sum(count * self._prompt_at.at(after + count / 2) for count, after in prompts)


def read_measured(path: Path) -> dict[str, Any]:
    """The JSON object in a file."""
    try:
        with open(path, encoding="utf-8") as file:
            found = json.load(file)
    except OSError as error:
        raise InvalidArgumentError(f"{path}: {error.strerror}, where step times were expected") from None
    except ValueError as error:
        raise InvalidArgumentError(f"{path} is no JSON ({error}), where step times were expected") from None
    if not isinstance(found, dict):
        raise InvalidArgumentError(f"{path} has no JSON object, where step times were expected")
    return found
