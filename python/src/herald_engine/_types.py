"""What calls take and return."""

from __future__ import annotations

import enum
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any, Optional, TypedDict, Union

__all__ = [
    "Answer",
    "EngineInfo",
    "Finish",
    "GenerateOptions",
    "Hit",
    "LeakStats",
    "MemoryUsage",
    "Message",
    "Optimized",
    "Piece",
    "Prompt",
]

# A text, or token ids.
Prompt = Union[str, Sequence[int]]
# One turn of a conversation, as OpenAI's API has it: {"role": "user", "content": "..."}.
Message = Mapping[str, Any]


class Finish(str, enum.Enum):
    """Why a generation ended."""

    END_TOKEN = "end_token"
    STOP_TEXT = "stop_text"
    LENGTH = "length"
    CONTEXT_FULL = "context_full"
    CANCELLED = "cancelled"
    COMPLETE = "complete"
    DEADLINE = "deadline"


# By HERALD_FINISH_*.
FINISHES = {
    1: Finish.END_TOKEN,
    2: Finish.STOP_TEXT,
    3: Finish.LENGTH,
    4: Finish.CONTEXT_FULL,
    5: Finish.CANCELLED,
    6: Finish.COMPLETE,
    7: Finish.DEADLINE,
}


class GenerateOptions(TypedDict, total=False):
    """How to generate. What isn't given is off: the likeliest token each time, until the model ends."""

    # The most tokens to generate; None: until the model ends or the context is full.
    max_tokens: Optional[int]
    # Divides the logits before sampling; 0: greedy.
    temperature: float
    # Choose among so many of the likeliest tokens; 0: all.
    top_k: int
    # Choose among the likeliest tokens that have this probability together; 1: all.
    top_p: float
    # Leave out tokens less likely than this fraction of the likeliest.
    min_p: float
    # Choose among the most typical tokens that have this probability together; 1: all.
    typical_p: float
    # Divides the logits of recent tokens; 1: off.
    repetition_penalty: float
    # How many recent tokens that sees; -1: all.
    repeat_last_n: int
    # Taken from the logits of tokens that were generated.
    presence_penalty: float
    # Taken for each time that they were.
    frequency_penalty: float
    # The same seed, options and model give the same text; None: another one each time.
    seed: Optional[int]
    # Texts that end the answer and are not part of it.
    stop: Union[str, Sequence[str], None]
    # Tokens that end it, beside the model's own.
    stop_tokens: Sequence[int]
    # Added to tokens' logits; -inf bans one.
    logit_bias: Mapping[int, float]
    # Go on past the model's end.
    ignore_eos: bool
    # Write special tokens out as text.
    special: bool
    # Report so many of the likeliest tokens with each token.
    logprobs: int
    # A JSON schema that the answer matches: an object, or its text. At most one of this, regex and grammar.
    json_schema: Union[str, bool, Mapping[str, Any], None]
    # A regular expression that the whole answer matches.
    regex: Optional[str]
    # A grammar that the answer matches, in GBNF or Lark's form.
    grammar: Optional[str]
    # When it ends at the latest, in seconds from the call on, queue included.
    deadline: Optional[float]
    # Only generations with the same key share what prompts computed.
    cache_key: Optional[str]
    # The adapters that it is computed with, each with its scale, by their indices among those of the engine; the others are off.
    # None: as the sequence has them.
    loras: Optional[Mapping[int, float]]
    # Whose request it is: where places are short, all clients are served equally.
    client: Optional[str]


@dataclass(frozen=True)
class Piece:
    """A token, and the text that is certain with it; `str(piece)` is the text, which may be empty."""

    text: str
    # None for text that was held back until the end.
    token: Optional[int]
    # The token's natural log-probability under the model's own distribution.
    logprob: float
    # The likeliest tokens with their log-probabilities, best first, if they were asked for.
    top: tuple[tuple[int, float], ...] = ()

    def __str__(self) -> str:
        return self.text


@dataclass(frozen=True)
class Answer:
    """A finished generation; `str(answer)` is its text."""

    text: str
    finish: Finish
    # The pieces that it came in, one for each token.
    pieces: list[Piece] = field(repr=False)
    # The stop text that ended it.
    stop: Optional[str]
    # The token that ended it.
    end_token: Optional[int]
    # Tokens of the prompt, those of them from the prefix cache, and generated ones, with the one that ended it.
    prompt_tokens: int
    cached_tokens: int
    generated_tokens: int
    seed: int
    prompt_seconds: float
    decode_seconds: float

    def __str__(self) -> str:
        return self.text

    @property
    def tokens(self) -> list[int]:
        """The ids of the tokens that came in pieces."""
        return [piece.token for piece in self.pieces if piece.token is not None]


@dataclass(frozen=True)
class EngineInfo:
    """Facts about a loaded model."""

    # Number of tokens in the vocabulary, and of a token's logits.
    vocabulary: int
    # Maximum number of tokens of a sequence.
    context: int
    # Size of a token's activations.
    hidden: int
    blocks: int
    # The tokens that begin and end a text.
    bos: Optional[int]
    eos: Optional[int]
    threads: int
    load_seconds: float
    # The backend that computes most layers.
    backend: str


@dataclass(frozen=True)
class MemoryUsage:
    """What the memory tiers hold. Each layer counts its tokens separately; sizes are in bytes."""

    active_pages: int
    active_tokens: int
    active_bytes: int
    compressed_pages: int
    compressed_tokens: int
    compressed_bytes: int
    archived_pages: int
    archived_tokens: int
    archived_bytes: int
    memory_bytes: int
    hits: int
    misses: int
    prefix_bytes: int
    state_bytes: int
    exact_bytes: int
    ratio: float
    moved_pages: int


@dataclass(frozen=True)
class Optimized:
    """What `Memory.optimize` did; sizes are in bytes."""

    # Moves of pages from a tier to the one below.
    moved_pages: int
    # Dropped pages of the prefix cache that no context held, of contexts that others have too, and of unused room.
    unreferenced_pages: int
    merged_pages: int
    spare_pages: int
    # By how much the tiers' RAM, and the process's, went down.
    bytes_freed: int
    returned_bytes: int
    # Contexts that were left out because they were in use.
    busy_contexts: int
    # The unused share of the tiers' room for tokens.
    fragmentation_before: float
    fragmentation_after: float


@dataclass(frozen=True)
class LeakStats:
    """Pages that the tiers hold, beside those that can be reached; sizes are in bytes, growth is since the mark."""

    held_pages: int
    held_bytes: int
    reachable_pages: int
    reachable_bytes: int
    # The engine's sequences that aren't contexts, whose pages are unknown.
    other_sequences: int
    orphaned_pages: int
    orphaned_bytes: int
    grown_pages: int
    grown_bytes: int
    grown_rss_bytes: int


@dataclass(frozen=True)
class Hit:
    """A chunk that a search of documents found."""

    # Its text's number and name, and its index in that.
    document: int
    name: str
    chunk: int
    text: str = field(repr=False)
    # The sum of its reciprocal ranks.
    score: float
    # Its ranks, from 1, by meaning and by words; None if it has too few of the query's words.
    meaning_rank: int
    word_rank: Optional[int]


def usage_of(raw: Any) -> MemoryUsage:
    """A HeraldMemoryUsage as Python has it."""
    fields: dict[str, Any] = {name: getattr(raw, name) for name in MemoryUsage.__dataclass_fields__}
    return MemoryUsage(**fields)
