#!/usr/bin/env python3
"""Conversations as agents send them, all of it again with every turn: `host serve` against llama.cpp's server.

A conversation begins with the definitions of two tools; what the client sends is a tool's result in every second turn. Three ways,
each server in turn with the same messages and its own answers:

- a conversation turn by turn;
- its next turn, after the server was restarted;
- several conversations at once, of which llama.cpp's server has slots for half, and HERALD's prefix cache RAM for half.

Measures the time to the first piece of each answer, and gives the medians.

    benches/peers/agents.py --llama-server PATH target/release/host "$(target/release/host pull smollm2-135m-instruct)"

It serves the same GGUF file with the same number of threads over `/v1/chat/completions`, greedy, streamed. PATH is a llama-server
that was built for this machine. Where that computes each prompt anew, 20 turns of 8 conversations take it hours:
`--their-turns 10,20` sends it these turns of the conversations at once alone, with the histories that HERALD was sent in them, and
compares with the same turns of HERALD's.
"""

import argparse
import concurrent.futures
import json
import os
import statistics
import tempfile
import time
from typing import NamedTuple

from servers import herald, llama_server, opened

TOOLS = """You are an agent that keeps the harbour's books. You may call these tools, one at a time, with a line of JSON between
<tool_call> and </tool_call>; the result comes back between <tool_response> and </tool_response>:
{"type": "function", "function": {"name": "find_ship", "description": "Finds a ship by its number.", "parameters": {"type": "object",
"properties": {"number": {"type": "integer"}}, "required": ["number"]}}}
{"type": "function", "function": {"name": "list_departures", "description": "Lists the ships that left a harbour.", "parameters":
{"type": "object", "properties": {"harbour": {"type": "integer"}, "limit": {"type": "integer"}}, "required": ["harbour"]}}}"""


class Turn(NamedTuple):
    """One request: its number among the conversation's, seconds to the first piece, and tokens as the server counts them."""

    number: int
    first_s: float
    prompt: int
    cached: int


def message(conversation, turn, words):
    """What the client says: text that no other turn begins with, about `words` words; a tool's result in every second turn."""
    name = f"{conversation}.{turn}"
    ships = [(word * 7919 + turn * 31 + conversation) % 9973 for word in range(words // 5)]
    if turn % 2 == 0:
        said = ", ".join(f"ship {ship} left harbour {number}" for number, ship in enumerate(ships))
        return f"Note {name}: {said}. Which ships do you remember?"
    found = json.dumps([{"ship": ship, "harbour": number} for number, ship in enumerate(ships[: len(ships) // 2])])
    return f'<tool_response>\n{{"call": "{name}", "departures": {found}}}\n</tool_response>'


def ask(base, messages, answer):
    """The seconds to the first piece of the answer, the answer, and the tokens of the prompt: all, and those from a cache."""
    body = {"messages": messages, "max_tokens": answer, "temperature": 0, "stream": True,
            "stream_options": {"include_usage": True}}
    start, first, text, usage = time.perf_counter(), None, "", {}
    with opened(base, "/v1/chat/completions", body) as stream:
        for line in stream:
            if not line.startswith(b"data: {"):
                continue
            event = json.loads(line[6:])
            usage = event.get("usage") or usage
            choices = event.get("choices")
            piece = choices[0]["delta"].get("content") if choices else None
            if piece:
                first = first or time.perf_counter() - start
                text += piece
    cached = (usage.get("prompt_tokens_details") or {}).get("cached_tokens") or 0
    return first or time.perf_counter() - start, text, usage.get("prompt_tokens", 0), cached


def turns(base, messages, conversation, numbers, given):
    """Runs these turns of a conversation, whose messages grow."""
    done = []
    for turn in numbers:
        messages.append({"role": "user", "content": message(conversation, turn, given.words)})
        first, text, prompt, cached = ask(base, messages, given.answer)
        messages.append({"role": "assistant", "content": text})
        done.append(Turn(turn, first, prompt, cached))
    return done


def again(base, messages, numbers, given):
    """Sends the requests that these turns of a conversation were; what it was answered then is left as it is."""
    done = []
    for turn in numbers:
        first, _, prompt, cached = ask(base, messages[: 2 * turn + 2], given.answer)
        done.append(Turn(turn, first, prompt, cached))
    return done


def begun():
    return [{"role": "system", "content": TOOLS}]


def alone(server, given):
    """One conversation: its turns, and the one after a restart. `server` makes a server with so many slots."""
    messages = begun()
    with server(1) as base:
        appended = turns(base, messages, 0, range(given.turns), given)
    with server(1) as base:
        restarted = turns(base, messages, 0, [given.turns], given)
    return {"each turn appended": appended, "after a restart": restarted}


def together(server, histories, given, numbers=None):
    """All conversations at once, into `histories`; or, of those that are there, these turns again."""
    def one(number):
        if numbers is not None:
            return again(base, histories[number - 1], numbers, given)
        return turns(base, histories[number - 1], number, range(given.turns), given)

    with server(given.conversations // 2) as base:
        with concurrent.futures.ThreadPoolExecutor(given.conversations) as pool:
            return [turn for done in pool.map(one, range(1, given.conversations + 1)) for turn in done]


def options():
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("host")
    parser.add_argument("model")
    parser.add_argument("--llama-server", required=True, metavar="PATH")
    parser.add_argument("--turns", type=int, default=20)
    parser.add_argument("--words", type=int, default=200, help="words of the client's message in each turn")
    parser.add_argument("--answer", type=int, default=32, help="tokens of an answer")
    parser.add_argument("--conversations", type=int, default=8)
    parser.add_argument("--context", type=int, default=16384, help="tokens that a conversation may have")
    parser.add_argument("--threads", type=int, default=os.cpu_count())
    parser.add_argument("--cache-bytes", default="1GiB", help="RAM for HERALD's prefix cache: what half of the conversations take")
    parser.add_argument("--chat-template", metavar="NAME", help="for a file that has none, such as those of `host synth`")
    parser.add_argument("--their-turns", metavar="N,N", type=lambda text: [int(number) - 1 for number in text.split(",")],
                        help="of the conversations at once, only these turns for llama.cpp, from 1")
    parser.add_argument("--their-options", default="", metavar="TEXT",
                        help="more options of llama-server, such as '--cache-ram 0', by which it keeps slots' caches alone")
    parser.add_argument("--json", action="store_true", help="print each request's figures too")
    return parser.parse_args()


def main():
    given = options()
    template = ["--chat-template", given.chat_template] if given.chat_template else []

    def theirs_of(slots):
        return llama_server(given.llama_server, given.model, given.threads, slots, given.context, *template,
                            *given.their_options.split())

    def ours_of(folder):
        serve = ["--context", str(given.context), "--cache-dir", folder, "--cache-bytes", given.cache_bytes, *template]
        return lambda slots: herald(given.host, given.model, given.threads, *serve)

    histories = [begun() for _ in range(given.conversations)]
    with tempfile.TemporaryDirectory() as folder:
        ours = alone(ours_of(folder), given)
    theirs = alone(theirs_of, given)
    with tempfile.TemporaryDirectory() as folder:
        ours["at once"] = together(ours_of(folder), histories, given)
    if given.their_turns is None:
        theirs["at once"] = together(theirs_of, [begun() for _ in histories], given)
    else:
        theirs["at once"] = together(theirs_of, histories, given, given.their_turns)
    if given.json:
        print(json.dumps({"herald": ours, "llama.cpp": theirs}))
    print("median seconds to the first piece of an answer")
    for way, done in theirs.items():
        sent = {turn.number for turn in done}
        mine = [turn for turn in ours[way] if turn.number in sent]
        herald_s, llama_s = (statistics.median(turn.first_s for turn in some) for some in (mine, done))
        computed, longest = (sum(turn.prompt - turn.cached for turn in ours[way]), max(turn.prompt for turn in ours[way]))
        print(f"{way:20} HERALD {herald_s:8.3f}   llama.cpp {llama_s:8.3f}   {llama_s / herald_s:6.1f} times"
              f"   longest {max(turn.first_s for turn in mine):8.3f} {max(turn.first_s for turn in done):8.3f}"
              f"   longest prompt {longest} tokens; HERALD computed {computed}")


if __name__ == "__main__":
    main()
