"""Answers in the shapes of OpenAI's API, as `llama_cpp.Llama` returns them."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from typing import Any, Optional

from ._types import Answer, Finish, Piece
from .engine import Engine
from .scheduler import Request

# Where OpenAI's API has a word.
FINISH_REASONS = {Finish.LENGTH: "length", Finish.CONTEXT_FULL: "length"}


def finish_reason(answer: Answer) -> str:
    """OpenAI's word for why an answer ended."""
    return FINISH_REASONS.get(answer.finish, "stop")


def usage(answer: Answer) -> dict[str, int]:
    """The tokens that an answer took."""
    return {
        "prompt_tokens": answer.prompt_tokens,
        "completion_tokens": answer.generated_tokens,
        "total_tokens": answer.prompt_tokens + answer.generated_tokens,
    }


def token_text(engine: Engine, token: int) -> str:
    """What a token adds to a text; a part of a character is U+FFFD."""
    return engine.token_bytes(token).decode("utf-8", "replace")


def top_of(engine: Engine, piece: Piece) -> dict[str, float]:
    """The likeliest tokens beside a token, and itself."""
    assert piece.token is not None
    likely = {token_text(engine, token): logprob for token, logprob in piece.top}
    return {**likely, token_text(engine, piece.token): piece.logprob}


def completion_logprobs(
    engine: Engine, pieces: Sequence[Piece], offset: int, wanted: Optional[int]
) -> Optional[dict[str, Any]]:
    """Log-probabilities in the form of completions; `offset`: characters before the first piece's text."""
    if wanted is None:
        return None
    chosen = [piece for piece in pieces if piece.token is not None]
    offsets = []
    for piece in chosen:
        offsets.append(offset)
        offset += len(token_text(engine, piece.token or 0))
    return {
        "tokens": [token_text(engine, piece.token or 0) for piece in chosen],
        "text_offset": offsets,
        "token_logprobs": [piece.logprob for piece in chosen],
        "top_logprobs": [top_of(engine, piece) for piece in chosen],
    }


def completion(
    engine: Engine, head: dict[str, Any], answer: Answer, prompt: str, logprobs: Optional[int]
) -> dict[str, Any]:
    """A text completion; `prompt` stands before the text."""
    choice = {
        "text": prompt + answer.text,
        "index": 0,
        "logprobs": completion_logprobs(engine, answer.pieces, len(prompt), logprobs),
        "finish_reason": finish_reason(answer),
    }
    return {**head, "choices": [choice], "usage": usage(answer)}


def completion_chunks(
    engine: Engine, head: dict[str, Any], request: Request, prompt: str, logprobs: Optional[int]
) -> Iterator[dict[str, Any]]:
    """A text completion in chunks."""
    offset = len(prompt)

    def chunk(text: str, found: Optional[dict[str, Any]], reason: Optional[str]) -> dict[str, Any]:
        return {**head, "choices": [{"text": text, "index": 0, "logprobs": found, "finish_reason": reason}]}

    with request:
        if prompt:
            yield chunk(prompt, None, None)
        for piece in request:
            if piece.text or logprobs is not None:
                yield chunk(piece.text, completion_logprobs(engine, [piece], offset, logprobs), None)
            offset += len(piece.text)
        yield chunk("", None, finish_reason(request.result()))


def chat_logprobs(engine: Engine, pieces: Sequence[Piece]) -> dict[str, Any]:
    """Log-probabilities in the form of chat completions."""

    def entry(token: int, logprob: float) -> dict[str, Any]:
        raw = engine.token_bytes(token)
        return {"token": raw.decode("utf-8", "replace"), "logprob": logprob, "bytes": list(raw)}

    content = [
        {**entry(piece.token, piece.logprob), "top_logprobs": [entry(*likely) for likely in piece.top]}
        for piece in pieces
        if piece.token is not None
    ]
    return {"content": content, "refusal": None}


def chat_completion(engine: Engine, head: dict[str, Any], answer: Answer, logprobs: bool) -> dict[str, Any]:
    """A chat completion."""
    choice = {
        "index": 0,
        "message": {"role": "assistant", "content": answer.text},
        "logprobs": chat_logprobs(engine, answer.pieces) if logprobs else None,
        "finish_reason": finish_reason(answer),
    }
    return {**head, "choices": [choice], "usage": usage(answer)}


def chat_chunks(engine: Engine, head: dict[str, Any], request: Request, logprobs: bool) -> Iterator[dict[str, Any]]:
    """A chat completion in chunks: the role, the text, the end."""

    def chunk(delta: dict[str, str], found: Optional[dict[str, Any]], reason: Optional[str]) -> dict[str, Any]:
        return {**head, "choices": [{"index": 0, "delta": delta, "logprobs": found, "finish_reason": reason}]}

    with request:
        yield chunk({"role": "assistant"}, None, None)
        for piece in request:
            if piece.text or logprobs:
                found = chat_logprobs(engine, [piece]) if logprobs else None
                yield chunk({"content": piece.text}, found, None)
        yield chunk({}, None, finish_reason(request.result()))
