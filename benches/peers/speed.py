#!/usr/bin/env python3
"""Speed of prompts and of decode: `host bench speed` against other engines, on the same GGUF files.

The engines take turns, round by round, each in a fresh process, with the same number of threads: so a ratio holds though a machine's
speed drifts. Decode is measured after the prompt. For each model and engine it prints the medians of the rounds in tokens/s, and
HERALD's ratio to each of the others.

    benches/peers/speed.py --llama-bench PATH --ik-llama-bench PATH target/release/host MODEL.gguf...

PATHs are the llama-bench of llama.cpp and of ik_llama.cpp, built for this machine (GGML_NATIVE=ON). Without them the Python packages
llama_cpp and ik_llama_cpp are measured where they can be imported, whose wheels run at 0.7 to 1.0 of native speed; the table says
which it was. OpenVINO GenAI is measured beside them where openvino_genai can be imported and reads the model.
"""

import argparse
import importlib.util
import json
import os
import random
import shlex
import statistics
import subprocess
import sys
import time


def json_of(command):
    """What a command prints, as JSON."""
    try:
        done = subprocess.run(command, capture_output=True, text=True)
    except OSError as error:
        raise SystemExit(f"{command[0]} can't be run: {error.strerror}") from error
    if done.returncode != 0:
        last = (done.stderr or done.stdout).strip().splitlines()[-1:]
        raise RuntimeError(f"{os.path.basename(command[0])} failed: {' '.join(last)}")
    return json.loads(done.stdout)


def herald(given, model, *options):
    """HERALD's speeds of a prompt and of decode after it."""
    told = json_of([
        given.host, "--model", model, "--threads", str(given.threads), *options, "bench", "speed", "-p", str(given.prompt),
        "-n", str(given.generate), "-r", "1", "--json",
    ])
    return told["prompt_tokens_per_s"], told["decode_tokens_per_s"]


def llama_bench(program, given, model, decode, options):
    """The same by a llama-bench, which the options `decode` have decode after the prompt."""
    base = [program, "-m", model, "-t", str(given.threads), "-r", "1", "-o", "json", *shlex.split(options)]
    told = json_of([*base, "-p", str(given.prompt), "-n", "0"])
    prompts = [test["avg_ts"] for test in told if test["n_prompt"] == given.prompt and test["n_gen"] == 0]
    told = json_of([*base, "-p", "0", *decode])
    decodes = [test["avg_ts"] for test in told if test["n_gen"] == given.generate]
    return prompts[0], decodes[0]


def token_ids(count):
    """Tokens of any model's vocabulary."""
    draw = random.Random(7)
    return [draw.randrange(300, 480) for _ in range(count)]


def timed(call, tokens):
    start = time.perf_counter()
    call()
    return tokens / (time.perf_counter() - start)


def by_llama_cpp(given, model):
    import llama_cpp

    loaded = llama_cpp.Llama(
        model, n_ctx=given.prompt + given.generate + 64, n_threads=given.threads, n_threads_batch=given.threads,
        flash_attn=True, verbose=False,
    )
    ids = token_ids(given.prompt)
    loaded.eval(ids[:32])
    loaded.reset()
    prompt = timed(lambda: loaded.eval(ids), len(ids))
    return prompt, timed(lambda: [loaded.eval([400]) for _ in range(given.generate)], given.generate)


def by_ik_llama_cpp(given, model):
    from ik_llama_cpp import _internals as ik

    context = ik.IkContext(ik.IkModel(model), n_ctx=given.prompt + given.generate + 64, n_threads=given.threads)
    ids = token_ids(given.prompt)
    context.decode(ik.make_batch_range(ids[:32], pos_start=0))
    context.kv_cache_clear()

    def prompt():
        for first in range(0, len(ids), 512):
            context.decode(ik.make_batch_range(ids[first:first + 512], pos_start=first))
        context.get_logits(-1)

    def decode():
        for index in range(given.generate):
            context.decode(ik.make_batch_single(400, len(ids) + index))
            context.get_logits(-1)

    return timed(prompt, len(ids)), timed(decode, given.generate)


def by_openvino(given, model):
    import numpy
    import openvino
    import openvino_genai

    pipeline = openvino_genai.LLMPipeline(model, "CPU", INFERENCE_NUM_THREADS=given.threads)
    how = openvino_genai.GenerationConfig()
    how.max_new_tokens, how.ignore_eos, how.do_sample = given.generate, True, False

    def run(ids):
        ids = numpy.array([[1, *ids]], numpy.int64)
        inputs = openvino_genai.TokenizedInputs(openvino.Tensor(ids), openvino.Tensor(numpy.ones_like(ids)))
        return pipeline.generate(inputs, how).perf_metrics

    run(token_ids(32))
    told = run(token_ids(given.prompt))
    return given.prompt / told.get_ttft().mean * 1000, told.get_throughput().mean


PACKAGES = {"llama_cpp": by_llama_cpp, "ik_llama_cpp": by_ik_llama_cpp, "openvino_genai": by_openvino}


def by_package(name, given, model):
    """Measures a Python package in a process of its own."""
    shape = ["--prompt", str(given.prompt), "--generate", str(given.generate), "--threads", str(given.threads)]
    told = json_of([sys.executable, __file__, given.host, model, "--package", name, *shape])
    return told["prompt"], told["decode"]


def peers(given):
    """Each peer's name, and what measures it on a model."""
    found = {}
    if given.llama_bench:
        at_depth = ["-n", str(given.generate), "-d", str(given.prompt)]
        found["llama.cpp (native)"] = lambda model: llama_bench(
            given.llama_bench, given, model, at_depth, given.llama_options
        )
    elif importlib.util.find_spec("llama_cpp"):
        found["llama.cpp (Python package)"] = lambda model: by_package("llama_cpp", given, model)
    if given.ik_llama_bench:
        after_prompt = ["-n", "0", "-gp", f"{given.prompt},{given.generate}"]
        found["ik_llama.cpp (native)"] = lambda model: llama_bench(
            given.ik_llama_bench, given, model, after_prompt, given.ik_llama_options
        )
    elif importlib.util.find_spec("ik_llama_cpp"):
        found["ik_llama.cpp (Python package)"] = lambda model: by_package("ik_llama_cpp", given, model)
    if importlib.util.find_spec("openvino_genai"):
        found["OpenVINO GenAI"] = lambda model: by_package("openvino_genai", given, model)
    return found


def measured(given, model):
    """The speeds of each engine on a model, by the engine's name: of prompts and of decode, a number for each round."""
    engines = {}
    for precision in given.activations.split(","):
        engines[f"HERALD, {precision}"] = lambda model, how=precision: herald(given, model, "--activations", how)
    engines |= peers(given)
    speeds = {name: [] for name in engines}
    for number in range(given.rounds):
        for name, measure in list(engines.items()):
            try:
                prompt, decode = measure(model)
            except RuntimeError as error:
                print(f"{model}: {name}: {error}", file=sys.stderr)
                del engines[name], speeds[name]
                continue
            speeds[name].append((prompt, decode))
            print(f"{model}, round {number + 1}: {name}: {prompt:.1f} / {decode:.1f}", file=sys.stderr, flush=True)
    return speeds


def main():
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("host")
    parser.add_argument("models", nargs="+", metavar="model")
    parser.add_argument("--llama-bench", metavar="PATH", help="llama.cpp's, built for this machine")
    parser.add_argument("--llama-options", default="-fa 1", metavar="OPTIONS", help="more for it [%(default)s]")
    parser.add_argument("--ik-llama-bench", metavar="PATH", help="ik_llama.cpp's, built for this machine")
    parser.add_argument("--ik-llama-options", default="-fa 1", metavar="OPTIONS", help="more for it [%(default)s]")
    parser.add_argument("--activations", default="int16,int8", help="HERALD's, one or both [%(default)s]")
    parser.add_argument("-p", "--prompt", type=int, default=512, help="tokens [%(default)s]")
    parser.add_argument("-n", "--generate", type=int, default=64, help="tokens [%(default)s]")
    parser.add_argument("-t", "--threads", type=int, default=os.cpu_count())
    parser.add_argument("-r", "--rounds", type=int, default=5)
    parser.add_argument("--json", action="store_true", help="print all rounds, as JSON")
    parser.add_argument("--package", choices=PACKAGES, help=argparse.SUPPRESS)
    given = parser.parse_args()
    if given.package:
        prompt, decode = PACKAGES[given.package](given, given.models[0])
        print(json.dumps({"prompt": prompt, "decode": decode}), flush=True)
        # Some of the packages fail in their destructors.
        os._exit(0)

    rounds = {model: measured(given, model) for model in given.models}
    if given.json:
        print(json.dumps(rounds))
        return
    for model, speeds in rounds.items():
        medians = {name: [statistics.median(column) for column in zip(*all)] for name, all in speeds.items() if all}
        print(f"{model}: a prompt of {given.prompt} / {given.generate} tokens after it, tokens/s")
        for name, (prompt, decode) in medians.items():
            ours = [(other, of) for other, of in medians.items() if other.startswith("HERALD") and not name.startswith("HERALD")]
            ratios = "".join(f"; {other} {of[0] / prompt:.2f} / {of[1] / decode:.2f} of it" for other, of in ours)
            print(f"  {name}: {prompt:.1f} / {decode:.1f}{ratios}")


if __name__ == "__main__":
    main()
