"""ollama."""

import json

from steps import ADDRESS, MODEL, QUESTION, TOOL, WEATHER, check_weather, run

FEW = {"num_predict": 16, "temperature": 0}


def client():
    import ollama

    return ollama.Client(host=ADDRESS)


def chat():
    answer = client().chat(MODEL, [{"role": "user", "content": "What is gravity?"}], options=FEW)
    assert answer.message.content and answer.done_reason == "length" and answer.eval_count == 16
    assert client().generate(MODEL, "What is gravity?", options=FEW).response
    assert client().list().models and client().show(MODEL).details


def stream():
    messages = [{"role": "user", "content": "What is gravity?"}]
    parts = list(client().chat(MODEL, messages, options=FEW, stream=True))
    assert "".join(part.message.content for part in parts) and parts[-1].done
    parts = list(client().generate(MODEL, "What is gravity?", options=FEW, stream=True))
    assert "".join(part.response for part in parts)


def tools():
    # This API has no way to ask for a call, and so small a model seldom makes one: what counts is that the tools, a call of
    # before and its result are taken.
    messages = [{"role": "user", "content": QUESTION}]
    answer = client().chat(MODEL, messages, tools=[TOOL], options={"num_predict": 60, "temperature": 0})
    for call in answer.message.tool_calls or []:
        assert call.function.name == "get_weather"
    messages += [
        {
            "role": "assistant",
            "content": "",
            "tool_calls": [
                {"function": {"name": "get_weather", "arguments": {"city": "Paris", "unit": "celsius"}}}
            ],
        },
        {"role": "tool", "tool_name": "get_weather", "content": "18 degrees"},
    ]
    assert client().chat(MODEL, messages, tools=[TOOL], options=FEW).done


def structured():
    messages = [{"role": "user", "content": QUESTION}]
    answer = client().chat(MODEL, messages, format=WEATHER, options={"num_predict": 120})
    check_weather(json.loads(answer.message.content))


def embeddings():
    answer = client().embed(MODEL, ["one text", "another"])
    assert len(answer.embeddings) == 2 and len(answer.embeddings[0]) > 8
    assert len(client().embeddings(MODEL, "one text").embedding) > 8


run("ollama", "ollama", chat, stream, tools, structured, embeddings)
