"""LangChain's ChatOpenAI, OpenAI and OpenAIEmbeddings."""

from steps import BASE, KEY, MODEL, QUESTION, WEATHER, check_weather, run


def model(**arguments):
    from langchain_openai import ChatOpenAI

    return ChatOpenAI(base_url=BASE, api_key=KEY, model=MODEL, max_tokens=120, max_retries=0, **arguments)


def chat():
    assert model().invoke("What is gravity?", max_tokens=16).content


def stream():
    chunks = list(model(stream_usage=True).stream("What is gravity?", max_tokens=16))
    assert "".join(chunk.content for chunk in chunks)


def completion():
    from langchain_openai import OpenAI

    plain = OpenAI(base_url=BASE, api_key=KEY, model=MODEL, max_tokens=8, max_retries=0)
    assert plain.invoke("Once upon a time")
    assert len(plain.generate(["Once upon", "The capital of"]).generations) == 2
    assert "".join(plain.stream("Once upon a time"))


def tools():
    from langchain_core.messages import HumanMessage, ToolMessage

    tool = {"title": "get_weather", "description": "The weather in a city.", **WEATHER}
    bound = model().bind_tools([tool], tool_choice="any")
    messages = [HumanMessage(QUESTION)]
    answer = bound.invoke(messages)
    assert answer.tool_calls[0]["name"] == "get_weather"
    check_weather(answer.tool_calls[0]["args"])
    messages.append(answer)
    messages += [ToolMessage("18 degrees", tool_call_id=call["id"]) for call in answer.tool_calls]
    assert model().bind_tools([tool]).invoke(messages, max_tokens=24)


def structured():
    import pydantic

    class Answer(pydantic.BaseModel):
        """An answer."""

        inhabitants: int
        is_capital: bool

    for method in ("json_schema", "function_calling"):
        answer = model().with_structured_output(Answer, method=method).invoke("How large is Paris?")
        assert isinstance(answer, Answer), method


def embeddings():
    from langchain_openai import OpenAIEmbeddings

    # It counts tokens with another model's tokenizer unless it is told not to, and sends texts then.
    embedder = OpenAIEmbeddings(base_url=BASE, api_key=KEY, model=MODEL, check_embedding_ctx_length=False)
    assert len(embedder.embed_documents(["one", "two"])) == 2


run("langchain", "langchain_openai", chat, stream, completion, tools, structured, embeddings)
