"""instructor."""

from steps import BASE, KEY, MODEL, run


def ask(mode):
    import instructor
    import openai
    import pydantic

    class Answer(pydantic.BaseModel):
        """An answer."""

        inhabitants: int
        is_capital: bool

    client = instructor.from_openai(openai.OpenAI(base_url=BASE, api_key=KEY, max_retries=0), mode=mode)
    answer = client.chat.completions.create(
        model=MODEL,
        messages=[{"role": "user", "content": "How large is Paris?"}],
        response_model=Answer,
        max_tokens=120,
        max_retries=1,
    )
    assert isinstance(answer, Answer)


def by_tools():
    import instructor

    ask(instructor.Mode.TOOLS)


def by_schema():
    import instructor

    ask(instructor.Mode.JSON_SCHEMA)


def stream():
    import instructor
    import openai
    import pydantic

    class Answer(pydantic.BaseModel):
        """An answer."""

        inhabitants: int

    client = instructor.from_openai(openai.OpenAI(base_url=BASE, api_key=KEY, max_retries=0))
    parts = list(
        client.chat.completions.create_partial(
            model=MODEL,
            messages=[{"role": "user", "content": "How large is Paris?"}],
            response_model=Answer,
            max_tokens=120,
        )
    )
    assert isinstance(parts[-1].inhabitants, int)


run("instructor", "instructor", by_tools, by_schema, stream)
