"""openai-agents."""

from typing import Literal

from steps import BASE, KEY, MODEL, QUESTION, run


def agent(api, **arguments):
    import agents
    import openai

    client = openai.AsyncOpenAI(base_url=BASE, api_key=KEY, max_retries=0)
    agents.set_tracing_disabled(True)
    kind = agents.OpenAIChatCompletionsModel if api == "chat" else agents.OpenAIResponsesModel
    settings = agents.ModelSettings(max_tokens=arguments.pop("max_tokens", 120), **arguments.pop("settings", {}))
    return agents.Agent(
        name="Helper", instructions="Be brief.", model=kind(MODEL, client), model_settings=settings, **arguments
    )


def chat():
    import agents

    for api in ("chat", "responses"):
        assert agents.Runner.run_sync(agent(api, max_tokens=16), "What is gravity?").final_output, api


def stream():
    import asyncio

    import agents

    async def streamed(api):
        # It takes an answer that was cut off for a failure, so this one must come to its end.
        result = agents.Runner.run_streamed(agent(api, max_tokens=400), "Say hello.")
        return [event.type async for event in result.stream_events()]

    for api in ("chat", "responses"):
        assert "raw_response_event" in asyncio.run(streamed(api)), api


def tools():
    import agents

    for api in ("chat", "responses"):
        called = []

        @agents.function_tool
        def get_weather(city: Literal["Paris", "Rome"], unit: Literal["celsius", "fahrenheit"]) -> str:
            """The weather in a city."""
            called.append((city, unit))
            return "18 degrees"

        helper = agent(api, tools=[get_weather], settings={"tool_choice": "required", "parallel_tool_calls": False})
        result = agents.Runner.run_sync(helper, QUESTION, max_turns=5)
        assert called and result.final_output is not None, api


def structured():
    import agents
    import pydantic

    class Answer(pydantic.BaseModel):
        """An answer."""

        inhabitants: int
        is_capital: bool

    for api in ("chat", "responses"):
        result = agents.Runner.run_sync(agent(api, output_type=Answer), "How large is Paris?")
        assert isinstance(result.final_output, Answer), api


run("openai_agents", "agents", chat, stream, tools, structured)
