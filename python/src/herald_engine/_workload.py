"""Conversations as agents have them: all of it is sent again with every turn."""

from __future__ import annotations

import json
import random
from collections.abc import Iterator
from dataclasses import dataclass, fields

from ._prefix import prefix_key
from .errors import InvalidArgumentError

# English has about so many characters for each token.
CHARACTERS = 4


@dataclass(frozen=True)
class Workload:
    """What is asked of the replicas. Tokens and pauses are means; they are drawn from exponential distributions."""

    # New conversations each second, and how many come at once.
    rate: float = 0.08
    burst: int = 1
    # Kinds of agents, whose system texts and tools all their conversations begin with, and their tokens.
    kinds: int = 4
    system_tokens: int = 800
    # The first message, and what is added with each further turn: a tool's result, or the user's next message.
    first_tokens: int = 60
    turn_tokens: int = 120
    answer_tokens: int = 60
    turns: int = 6
    # From an answer's end to the next turn.
    pause: float = 5.0
    # Conversations end before they are longer.
    context: int = 8192

    def __post_init__(self) -> None:
        for each in fields(self):
            value, least = getattr(self, each.name), 0 if each.name in ("system_tokens", "pause") else 1e-9
            if not least <= value < float("inf"):
                wanted = "at least 0" if least == 0 else "above 0"
                raise InvalidArgumentError(f"{each.name} is {value}, where a number {wanted} was expected")


@dataclass(frozen=True)
class Turn:
    """A request of a conversation."""

    conversation: int
    kind: int
    # The prompt's first tokens, which all conversations of the kind share, all of them, and those to answer.
    system_tokens: int
    prompt_tokens: int
    answer_tokens: int
    # Tokens of the prompt that are neither the system text's nor the conversation's so far.
    new_tokens: int
    # From the end of the answer before it to this request.
    pause: float


@dataclass(frozen=True)
class Conversation:
    """Its requests, one after the other, and the key by which they are routed."""

    number: int
    start: float
    key: str
    turns: tuple[Turn, ...]


def conversations(workload: Workload, seed: int, prefix_characters: int) -> Iterator[Conversation]:
    """Conversations without end, in the order of their beginnings: a Poisson process, of bursts if they come so."""
    chance = random.Random(seed)
    now, number = 0.0, 0
    while True:
        now += chance.expovariate(workload.rate / workload.burst)
        for _ in range(workload.burst):
            kind = chance.randrange(workload.kinds)
            turns = tuple(turns_of(workload, chance, number, kind))
            yield Conversation(number, now, key_of(workload, number, kind, turns[0], prefix_characters), turns)
            number += 1


def turns_of(workload: Workload, chance: random.Random, conversation: int, kind: int) -> Iterator[Turn]:
    """A conversation's turns; at least one, however short the context is."""
    system, held = workload.system_tokens, 0
    for turn in range(drawn(chance, workload.turns)):
        new = drawn(chance, workload.turn_tokens if turn else workload.first_tokens)
        answer = drawn(chance, workload.answer_tokens)
        pause = chance.expovariate(1 / workload.pause) if turn and workload.pause else 0.0
        if turn and system + held + new + answer > workload.context:
            return
        held += new
        yield Turn(conversation, kind, system, system + held, answer, new, pause)
        held += answer


def drawn(chance: random.Random, mean: float) -> int:
    """A whole number from an exponential distribution, between 1 and four times its mean."""
    return max(1, min(round(chance.expovariate(1 / mean)), round(4 * mean)))


def key_of(workload: Workload, number: int, kind: int, first: Turn, prefix_characters: int) -> str:
    """The key of a client's request: each kind has a system text, each conversation a first message."""
    system = text(f"kind {kind}", workload.system_tokens)
    said = text(f"conversation {number}", first.prompt_tokens - workload.system_tokens)
    messages = [{"role": "system", "content": system}, {"role": "user", "content": said}]
    key = prefix_key(json.dumps({"messages": messages}).encode(), prefix_characters)
    assert key is not None
    return key


def text(begins: str, tokens: int) -> str:
    """A text of about so many tokens, unlike those that begin otherwise."""
    return f"{begins} ".ljust(tokens * CHARACTERS, "x")
