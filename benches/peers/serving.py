#!/usr/bin/env python3
"""Throughput of simultaneous requests: `host serve` against llama.cpp's server.

Both serve the same GGUF file over HTTP with the same number of threads. In each round, each server gets 16 requests at once,
with different prompts of 64 tokens and at most 64 tokens to generate, greedy. Measures generated tokens over the time from
the first request to the last answer; the servers take turns, and the median of the rounds counts.

    benches/peers/serving.py --llama-server PATH target/release/host "$(target/release/host pull smollm2-135m-instruct)"
    pip install xllamacpp                                # without PATH, a llama-server built for this machine: slower
    benches/peers/serving.py target/release/host "$(target/release/host pull smollm2-135m-instruct)"
"""

import argparse
import concurrent.futures
import contextlib
import json
import os
import statistics
import subprocess
import time

from servers import herald, llama_server, post


def prompts(host, model, count, tokens):
    """Prompts of `tokens` tokens that differ from their first tokens: pieces of one text."""
    text = " ".join(
        f"In the year {1800 + index} the old man walked along harbour {index} and looked at {index % 7 + 2} ships."
        for index in range(count * tokens // 16 + 1)
    )
    told = subprocess.run(
        [host, "--model", model, "tokenize", "--json", "--", text], capture_output=True, text=True, check=True
    )
    ids = json.loads(told.stdout)["ids"]
    return [ids[index * tokens:(index + 1) * tokens] for index in range(count)]


def measure(base, path, requests):
    with concurrent.futures.ThreadPoolExecutor(len(requests)) as pool:
        start = time.perf_counter()
        answers = list(pool.map(lambda body: post(base, path, body), requests))
        return answers, time.perf_counter() - start


def peer(given):
    """llama.cpp's server with as many slots as there are requests: gives its address."""
    context = given.prompt + given.generate + 16
    if given.llama_server:
        return llama_server(given.llama_server, given.model, given.threads, given.requests, context)
    import xllamacpp

    params = xllamacpp.CommonParams()
    params.model.path = given.model
    params.n_parallel = given.requests
    params.n_ctx = given.requests * context
    params.cont_batching = True
    params.cpuparams.n_threads = given.threads
    params.cpuparams_batch.n_threads = given.threads
    params.port = 0
    return contextlib.nullcontext(xllamacpp.Server(params).listening_address)


def main():
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("host")
    parser.add_argument("model")
    parser.add_argument("--llama-server", metavar="PATH", help="a native build, in place of xllamacpp's")
    parser.add_argument("--requests", type=int, default=16)
    parser.add_argument("--prompt", type=int, default=64)
    parser.add_argument("--generate", type=int, default=64)
    parser.add_argument("--rounds", type=int, default=3)
    parser.add_argument("--threads", type=int, default=os.cpu_count())
    given = parser.parse_args()

    given_ids = prompts(given.host, given.model, given.requests, given.prompt)
    ours = herald(given.host, given.model, given.threads, "--parallel", str(given.requests))
    with ours as base, peer(given) as peer_base:
        speeds = {"HERALD": [], "llama.cpp": []}
        for number in range(given.rounds):
            # Neither takes over what it computed in the round before.
            ours = [
                {"prompt": ids, "max_tokens": given.generate, "temperature": 0, "cache_salt": str(number)}
                for ids in given_ids
            ]
            answers, seconds = measure(base, "/v1/completions", ours)
            made = sum(answer["usage"]["completion_tokens"] for answer in answers)
            speeds["HERALD"].append(made / seconds)
            theirs = [
                {"prompt": ids, "n_predict": given.generate, "temperature": 0, "cache_prompt": False}
                for ids in given_ids
            ]
            answers, seconds = measure(peer_base, "/completion", theirs)
            made = sum(answer["tokens_predicted"] for answer in answers)
            speeds["llama.cpp"].append(made / seconds)
        medians = {name: statistics.median(values) for name, values in speeds.items()}
        for name, median in medians.items():
            print(f"{name}: {median:.1f} tokens/s ({', '.join(f'{speed:.1f}' for speed in speeds[name])})")
        print(f"HERALD over llama.cpp: {medians['HERALD'] / medians['llama.cpp']:.2f}")


if __name__ == "__main__":
    main()
