"""Streams an answer: `python chat.py [MODEL.gguf]`."""

import sys

import herald_engine

model = sys.argv[1] if len(sys.argv) > 1 else herald_engine.pull("smollm2-135m-instruct")
with herald_engine.Engine(model) as engine:
    messages = [{"role": "user", "content": "What do bees do?"}]
    with engine.chat(messages, stream=True, max_tokens=60) as request:
        for piece in request:
            print(piece, end="", flush=True)
        answer = request.result()
    print(f"\n[{answer.generated_tokens} tokens in {answer.decode_seconds:.1f} s, {answer.finish.value}]")
