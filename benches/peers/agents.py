#!/usr/bin/env python3
"""Conversations as agents send them, all of it again with every turn: `host serve` against llama.cpp's server.

Three ways, each server in turn with the same messages of the user and its own answers: a conversation turn by turn; its next turn
after the server was restarted; and several conversations at once, of which llama.cpp's server has slots for half. Measures the time
to the first piece of each answer, and gives the medians.

    benches/peers/agents.py --llama-server PATH target/release/host "$(target/release/host pull smollm2-135m-instruct)"

It serves the same GGUF file with the same number of threads over `/v1/chat/completions`, greedy, streamed. PATH is a llama-server
that was built for this machine.
"""

import argparse
import concurrent.futures
import json
import os
import statistics
import tempfile
import time

from servers import herald, llama_server, opened


def message(conversation, turn, words):
    """What the user says: text that no other turn begins with, about `words` words."""
    said = [f"Note {conversation}.{turn}:"]
    said += [f"ship {(word * 7919 + turn * 31 + conversation) % 9973} left harbour {word},"
             for word in range(words // 5)]
    return " ".join(said) + " Which ships do you remember?"


def ask(base, messages, answer):
    """The seconds to the first piece of the answer, and the answer."""
    body = {"messages": messages, "max_tokens": answer, "temperature": 0, "stream": True}
    start, first, text = time.perf_counter(), None, ""
    with opened(base, "/v1/chat/completions", body) as stream:
        for line in stream:
            if not line.startswith(b"data: {"):
                continue
            choices = json.loads(line[6:])["choices"]
            piece = choices[0]["delta"].get("content") if choices else None
            if piece:
                first = first or time.perf_counter() - start
                text += piece
    return first or time.perf_counter() - start, text


def turns(base, messages, conversation, numbers, given):
    """Runs these turns of a conversation, whose messages grow; the seconds of each to its first piece."""
    seconds = []
    for turn in numbers:
        messages.append({"role": "user", "content": message(conversation, turn, given.words)})
        first, text = ask(base, messages, given.answer)
        messages.append({"role": "assistant", "content": text})
        seconds.append(first)
    return seconds


def measure(server, given):
    """`server` makes a server with so many slots; each way's seconds."""
    with server(1) as base:
        messages = []
        appended = turns(base, messages, 0, range(given.turns), given)
    with server(1) as base:
        restarted = turns(base, messages, 0, [given.turns], given)
    with server(given.conversations // 2) as base:
        with concurrent.futures.ThreadPoolExecutor(given.conversations) as pool:
            numbers = range(1, given.conversations + 1)
            all_turns = pool.map(lambda number: turns(base, [], number, range(given.turns), given), numbers)
            at_once = [first for seconds in all_turns for first in seconds]
    return {"each turn appended": appended, "after a restart": restarted, "at once": at_once}


def main():
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("host")
    parser.add_argument("model")
    parser.add_argument("--llama-server", required=True, metavar="PATH")
    parser.add_argument("--turns", type=int, default=20)
    parser.add_argument("--words", type=int, default=200, help="words of the user's message in each turn")
    parser.add_argument("--answer", type=int, default=32, help="tokens of an answer")
    parser.add_argument("--conversations", type=int, default=8)
    parser.add_argument("--context", type=int, default=16384, help="tokens of llama.cpp's context for each slot")
    parser.add_argument("--threads", type=int, default=os.cpu_count())
    parser.add_argument("--cache-bytes", default="1GiB", help="RAM for HERALD's prefix cache")
    given = parser.parse_args()

    with tempfile.TemporaryDirectory() as folder:
        ours = measure(lambda slots: herald(given.host, given.model, given.threads, "--cache-dir", folder,
                                            "--cache-bytes", given.cache_bytes), given)
    theirs = measure(lambda slots: llama_server(given.llama_server, given.model, given.threads, slots,
                                                given.context), given)
    print("median seconds to the first piece of an answer")
    for way, seconds in ours.items():
        herald_s, llama_s = statistics.median(seconds), statistics.median(theirs[way])
        print(f"{way:20} HERALD {herald_s:8.3f}   llama.cpp {llama_s:8.3f}   {llama_s / herald_s:6.1f} times"
              f"   longest {max(seconds):8.3f} {max(theirs[way]):8.3f}")


if __name__ == "__main__":
    main()
