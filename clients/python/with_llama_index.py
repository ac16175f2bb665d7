"""llama-index."""

from steps import BASE, KEY, MODEL, QUESTION, check_weather, run


def model():
    from llama_index.llms.openai_like import OpenAILike

    return OpenAILike(
        model=MODEL,
        api_base=BASE,
        api_key=KEY,
        is_chat_model=True,
        is_function_calling_model=True,
        max_tokens=120,
        max_retries=0,
        timeout=300,
        context_window=2048,
    )


def message(text):
    from llama_index.core.llms import ChatMessage

    return ChatMessage(role="user", content=text)


def chat():
    assert model().chat([message("What is gravity?")], max_tokens=16).message.content


def stream():
    parts = [part.delta for part in model().stream_chat([message("What is gravity?")], max_tokens=16)]
    assert "".join(parts)


def weather_tool():
    from typing import Annotated, Literal

    from llama_index.core.tools import FunctionTool
    from pydantic import Field

    def get_weather(
        city: Annotated[str, Field(max_length=20)], unit: Literal["celsius", "fahrenheit"]
    ) -> str:
        """The weather in a city."""
        return "18 degrees"

    return FunctionTool.from_defaults(get_weather)


def tools():
    from llama_index.core.llms import ChatMessage

    llm, tool = model(), weather_tool()
    answer = llm.chat_with_tools([tool], user_msg=QUESTION, tool_required=True)
    calls = llm.get_tool_calls_from_response(answer)
    check_weather(calls[0].tool_kwargs)
    history = [message(QUESTION), answer.message]
    history += [
        ChatMessage(role="tool", content="18 degrees", additional_kwargs={"tool_call_id": call.tool_id})
        for call in calls
    ]
    assert llm.chat_with_tools([tool], chat_history=history, max_tokens=24)


def structured():
    import pydantic
    from llama_index.core.prompts import PromptTemplate

    class Answer(pydantic.BaseModel):
        """An answer."""

        inhabitants: int
        is_capital: bool

    answer = model().structured_predict(
        Answer, PromptTemplate("How large is Paris?"), llm_kwargs={"tool_choice": "required"}
    )
    assert isinstance(answer, Answer)


def embeddings():
    from llama_index.embeddings.openai_like import OpenAILikeEmbedding

    embedder = OpenAILikeEmbedding(model_name=MODEL, api_base=BASE, api_key=KEY)
    assert len(embedder.get_text_embedding("a text")) > 8


run("llama_index", "llama_index.llms.openai_like", chat, stream, tools, structured, embeddings)
