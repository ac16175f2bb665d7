"""Chooses tokens by itself, from logits that are written in place: `python own_sampler.py [MODEL.gguf]`."""

import sys

import numpy

import herald_engine

model = sys.argv[1] if len(sys.argv) > 1 else herald_engine.pull("smollm2-135m-instruct")
random = numpy.random.default_rng(7)
with herald_engine.Engine(model) as engine, engine.sequence() as sequence:
    chosen: list[int] = []
    logits = sequence.prefill(engine.tokenize("Once upon a time"))
    while len(chosen) < 20 and not (chosen and engine.token_ends(chosen[-1])):
        if chosen:
            sequence.decode(chosen[-1], out=logits)
        weights = numpy.exp((logits - logits.max()) / 0.7)
        chosen.append(int(random.choice(len(weights), p=weights / weights.sum())))
    print(engine.detokenize(chosen, continues=True))
