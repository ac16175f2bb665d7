"""litellm."""

import json

from steps import BASE, KEY, MODEL, QUESTION, TOOL, check_weather, run

CALL = {"model": f"openai/{MODEL}", "api_base": BASE, "api_key": KEY, "max_tokens": 120}


def completion(**arguments):
    import litellm

    litellm.telemetry = False
    return litellm.completion(**{**CALL, **arguments})


def chat():
    answer = completion(messages=[{"role": "user", "content": "What is gravity?"}], max_tokens=16)
    assert answer.choices[0].message.content


def stream():
    chunks = completion(messages=[{"role": "user", "content": "What is gravity?"}], max_tokens=16, stream=True)
    assert "".join(chunk.choices[0].delta.content or "" for chunk in chunks)


def tools():
    messages = [{"role": "user", "content": QUESTION}]
    message = completion(messages=messages, tools=[TOOL], tool_choice="required").choices[0].message
    check_weather(json.loads(message.tool_calls[0].function.arguments))
    messages.append(message.model_dump())
    for call in message.tool_calls:
        messages.append({"role": "tool", "tool_call_id": call.id, "content": "18 degrees"})
    assert completion(messages=messages, tools=[TOOL], max_tokens=24).choices[0].message


def structured():
    schema = {
        "type": "object",
        "properties": {"city": {"type": "string", "maxLength": 20}},
        "required": ["city"],
        "additionalProperties": False,
    }
    answer = completion(
        messages=[{"role": "user", "content": "What is the capital of France?"}],
        response_format={"type": "json_schema", "json_schema": {"name": "a", "schema": schema, "strict": True}},
    )
    assert set(json.loads(answer.choices[0].message.content)) == {"city"}


def embeddings():
    import litellm

    answer = litellm.embedding(model=f"openai/{MODEL}", input=["a text"], api_base=BASE, api_key=KEY)
    assert len(answer.data[0]["embedding"]) > 8


run("litellm", "litellm", chat, stream, tools, structured, embeddings)
