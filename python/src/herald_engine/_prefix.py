"""Which requests begin alike: the key by which they are sent to the same replica."""

from __future__ import annotations

import hashlib
import json
from collections.abc import Iterable, Mapping
from typing import Any, Callable, Optional, TypeVar

T = TypeVar("T")

# By how much of a prompt's beginning requests are sent to the same replica. It has to reach beyond the system text and
# tools, which all conversations of an agent share: otherwise one replica would get them all.
PREFIX_CHARACTERS = 65_536
# How many requests more than the next a replica may have before that gets its requests.
IMBALANCE = 8


def prefix_key(body: bytes, characters: int) -> Optional[str]:
    """A hash of the first characters of what a request's prompt begins with; None where it has none.

    Of a conversation it is what stays as it grows: tools, what comes before the first answer, and no more.
    """
    try:
        request = json.loads(body)
    except (ValueError, RecursionError):
        return None
    if not isinstance(request, Mapping):
        return None
    prompt = text_of(request)[:characters]
    if not prompt:
        return None
    # What isn't shared in the replica's cache needs no common place.
    apart = json.dumps([request.get("model"), request.get("cache_salt")], default=str)
    return hashlib.sha256(f"{apart}\0{prompt}".encode("utf-8", "replace")).hexdigest()


def text_of(request: Mapping[str, Any]) -> str:
    """The beginning of a request's prompt, in the order in which templates write it."""
    parts = [
        json.dumps(request[name], default=str) for name in ("tools", "system", "instructions") if request.get(name)
    ]
    messages = request.get("messages", request.get("input"))
    if isinstance(messages, list) and all(isinstance(message, Mapping) for message in messages):
        parts += first_turn(messages)
    else:
        for name in ("prompt", "input"):
            if request.get(name):
                parts.append(json.dumps(request[name], default=str))
    return "\0".join(parts)


def first_turn(messages: Iterable[Mapping[str, Any]]) -> Iterable[str]:
    """The messages before the first answer."""
    for message in messages:
        if message.get("role") == "assistant":
            return
        yield json.dumps([message.get("role"), message.get("content")], default=str)


def weight(key: str, replica: str) -> bytes:
    """How well a replica suits a key: the highest is its home (rendezvous hashing, Thaler and Ravishankar 1996).

    When a replica comes or goes, only the keys move that it has or had.
    """
    return hashlib.sha256(f"{key}\0{replica}".encode()).digest()


def ranked(key: str, replicas: Iterable[T], name: Callable[[T], str]) -> list[T]:
    """The replicas, its home first, then where its requests go when that has no place, and so on."""
    return sorted(replicas, key=lambda each: weight(key, name(each)), reverse=True)


def spilled(order: list[T], load: Callable[[T], int], imbalance: int) -> list[T]:
    """The order in which replicas are asked: the second goes first if the first has `imbalance` requests more."""
    if len(order) > 1 and load(order[0]) >= load(order[1]) + imbalance:
        return [order[1], order[0], *order[2:]]
    return order
