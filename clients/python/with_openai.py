"""openai-python."""

import json
from typing import Literal

from steps import BASE, KEY, MODEL, QUESTION, TOOL, check_weather, run


def client():
    import openai

    return openai.OpenAI(base_url=BASE, api_key=KEY, max_retries=0)


def chat():
    answer = client().chat.completions.create(
        model=MODEL, messages=[{"role": "user", "content": "What is gravity?"}], max_tokens=16, temperature=0
    )
    assert answer.choices[0].message.content and answer.usage.completion_tokens == 16


def stream():
    chunks = list(
        client().chat.completions.create(
            model=MODEL,
            messages=[{"role": "user", "content": "What is gravity?"}],
            max_tokens=16,
            temperature=0,
            stream=True,
            stream_options={"include_usage": True},
        )
    )
    text = "".join(c.choices[0].delta.content or "" for c in chunks if c.choices)
    assert text and chunks[-1].usage.completion_tokens == 16


def nulls_and_logprobs():
    answer = client().chat.completions.create(
        model=MODEL,
        messages=[{"role": "user", "content": "Hi"}],
        max_tokens=4,
        n=2,
        seed=7,
        logprobs=True,
        top_logprobs=3,
        extra_body={"tools": None, "logit_bias": None, "user": None, "echo": None, "top_k": -1},
    )
    assert [c.index for c in answer.choices] == [0, 1]
    assert len(answer.choices[0].logprobs.content[0].top_logprobs) == 3


def completions():
    answer = client().completions.create(
        model=MODEL, prompt=["Once upon", "The capital of France is"], max_tokens=4, echo=True, logprobs=2
    )
    assert len(answer.choices) == 2 and answer.choices[1].text.startswith("The capital of France is")
    assert answer.choices[0].logprobs.token_logprobs[0] is None
    text = "".join(
        c.choices[0].text
        for c in client().completions.create(model=MODEL, prompt="Once upon", max_tokens=4, stream=True)
    )
    assert text


def tools():
    messages = [{"role": "user", "content": QUESTION}]
    answer = client().chat.completions.create(
        model=MODEL, messages=messages, tools=[TOOL], tool_choice="required", parallel_tool_calls=False, max_tokens=120
    )
    message = answer.choices[0].message
    assert answer.choices[0].finish_reason == "tool_calls", answer
    call = message.tool_calls[0]
    assert call.function.name == "get_weather"
    check_weather(json.loads(call.function.arguments))
    messages += [
        message.model_dump(),
        {"role": "tool", "tool_call_id": call.id, "content": "18 degrees, cloudy"},
    ]
    answer = client().chat.completions.create(model=MODEL, messages=messages, tools=[TOOL], max_tokens=24)
    assert answer.choices[0].message.content or answer.choices[0].message.tool_calls


def tools_streamed():
    with client().chat.completions.stream(
        model=MODEL,
        messages=[{"role": "user", "content": QUESTION}],
        tools=[TOOL],
        tool_choice={"type": "function", "function": {"name": "get_weather"}},
        parallel_tool_calls=False,
        max_tokens=120,
    ) as stream:
        events = [event.type for event in stream]
        message = stream.get_final_completion().choices[0].message
    assert "tool_calls.function.arguments.delta" in events, events
    check_weather(json.loads(message.tool_calls[0].function.arguments))


def structured():
    import pydantic

    class Answer(pydantic.BaseModel):
        city: Literal["Paris", "Rome"]
        inhabitants: int

    answer = client().chat.completions.parse(
        model=MODEL,
        messages=[{"role": "user", "content": "What is the capital of France?"}],
        response_format=Answer,
        max_tokens=60,
    )
    assert isinstance(answer.choices[0].message.parsed, Answer)
    grammar = client().completions.create(
        model=MODEL, prompt="Is the sky blue?", max_tokens=5, extra_body={"grammar": 'root ::= "yes" | "no"'}
    )
    assert grammar.choices[0].text in ("yes", "no"), grammar


def embeddings():
    answer = client().embeddings.create(model=MODEL, input=["one text", "another"], dimensions=8)
    assert len(answer.data) == 2 and len(answer.data[1].embedding) == 8
    floats = client().embeddings.create(model=MODEL, input="one text", dimensions=8, encoding_format="float")
    assert max(abs(a - b) for a, b in zip(floats.data[0].embedding, answer.data[0].embedding)) < 1e-3


def responses():
    import pydantic

    class City(pydantic.BaseModel):
        city: Literal["Paris", "Rome"]

    answer = client().responses.create(model=MODEL, input="What is gravity?", max_output_tokens=16)
    assert answer.output_text and answer.status == "incomplete"
    # The client takes only a response that isn't cut off for a final one: a schema's answer ends whatever the model says.
    with client().responses.stream(model=MODEL, input="What is the capital of France?", text_format=City) as stream:
        text = "".join(event.delta for event in stream if event.type == "response.output_text.delta")
        final = stream.get_final_response()
        assert final.output_text == text and final.output_parsed.city in ("Paris", "Rome"), final
    with client().responses.stream(model=MODEL, input="What is gravity?", max_output_tokens=16) as stream:
        events = list(stream)
        text = "".join(event.delta for event in events if event.type == "response.output_text.delta")
        assert events[-1].type == "response.incomplete" and events[-1].response.output_text == text, events[-1]
    tool = {"type": "function", "strict": True, **TOOL["function"]}
    call = client().responses.create(
        model=MODEL, input=QUESTION, tools=[tool], tool_choice="required", parallel_tool_calls=False, max_output_tokens=120
    ).output[0]
    check_weather(json.loads(call.arguments))
    after = client().responses.create(
        model=MODEL,
        input=[
            {"role": "user", "content": QUESTION},
            call.model_dump(),
            {"type": "function_call_output", "call_id": call.call_id, "output": "18 degrees"},
        ],
        tools=[tool],
        max_output_tokens=24,
    )
    assert after.output


def refusals():
    import openai

    for field in ("max_token", "modalities"):
        try:
            client().chat.completions.create(
                model=MODEL, messages=[{"role": "user", "content": "Hi"}], extra_body={field: ["audio"]}
            )
            raise AssertionError(f"{field} was taken")
        except openai.BadRequestError as error:
            assert error.param == field, error


run(
    "openai",
    "openai",
    chat,
    stream,
    nulls_and_logprobs,
    completions,
    tools,
    tools_streamed,
    structured,
    embeddings,
    responses,
    refusals,
)
