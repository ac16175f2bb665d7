"""anthropic."""

from steps import ADDRESS, KEY, MODEL, QUESTION, WEATHER, check_weather, run


def client():
    import anthropic

    return anthropic.Anthropic(base_url=ADDRESS, api_key=KEY, max_retries=0)


def create(**arguments):
    return client().messages.create(**{"model": MODEL, "max_tokens": 120, **arguments})


TOOLS = [{"name": "get_weather", "description": "The weather in a city.", "input_schema": WEATHER}]


def chat():
    answer = create(
        system="Be brief.", messages=[{"role": "user", "content": "What is gravity?"}], max_tokens=16
    )
    assert answer.content[0].text and answer.stop_reason == "max_tokens"
    count = client().messages.count_tokens(model=MODEL, messages=[{"role": "user", "content": "What is gravity?"}])
    assert count.input_tokens > 4


def stream():
    messages = [{"role": "user", "content": [{"type": "text", "text": "What is gravity?"}]}]
    with client().messages.stream(model=MODEL, max_tokens=16, messages=messages) as events:
        text = "".join(events.text_stream)
        assert events.get_final_message().content[0].text == text


def tools():
    messages = [{"role": "user", "content": QUESTION}]
    answer = create(messages=messages, tools=TOOLS, tool_choice={"type": "any", "disable_parallel_tool_use": True})
    assert answer.stop_reason == "tool_use", answer
    use = answer.content[-1]
    check_weather(use.input)
    result = {"type": "tool_result", "tool_use_id": use.id, "content": "18 degrees"}
    messages += [
        {"role": "assistant", "content": answer.content},
        {"role": "user", "content": [result]},
    ]
    assert create(messages=messages, tools=TOOLS, max_tokens=24).content


def tools_streamed():
    with client().messages.stream(
        model=MODEL,
        max_tokens=120,
        messages=[{"role": "user", "content": QUESTION}],
        tools=TOOLS,
        tool_choice={"type": "tool", "name": "get_weather", "disable_parallel_tool_use": True},
    ) as events:
        check_weather(events.get_final_message().content[-1].input)


run("anthropic", "anthropic", chat, stream, tools, tools_streamed)
