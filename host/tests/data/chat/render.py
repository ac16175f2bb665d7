"""Writes expected.json: what Jinja2, set up as the Python package `transformers` does, makes of each template here; and
into snippets.json, what it makes of each `source` there (null: an error).

Needs `pip install jinja2`. Run it in this folder after a change to a template or to the conversations below.
"""

import json
import pathlib

import jinja2
import jinja2.ext
import jinja2.nodes
import jinja2.sandbox


class Generation(jinja2.ext.Extension):
    """The tag around an assistant's words, which marks them for training and prints them."""

    tags = {"generation"}

    def parse(self, parser):
        line = next(parser.stream).lineno
        body = parser.parse_statements(["name:endgeneration"], drop_needle=True)
        return jinja2.nodes.CallBlock(self.call_method("_body"), [], [], body).set_lineno(line)

    def _body(self, caller):
        return caller()


def tojson(x, ensure_ascii=False, indent=None, separators=None, sort_keys=False):
    return json.dumps(x, ensure_ascii=ensure_ascii, indent=indent, separators=separators, sort_keys=sort_keys)


def raise_exception(message):
    raise jinja2.exceptions.TemplateError(message)


environment = jinja2.sandbox.ImmutableSandboxedEnvironment(
    trim_blocks=True, lstrip_blocks=True, extensions=[Generation, jinja2.ext.loopcontrols]
)
environment.filters["tojson"] = tojson
environment.globals["raise_exception"] = raise_exception
environment.globals["strftime_now"] = lambda format: "now"

SYSTEM = {"role": "system", "content": "You are terse.\n"}
USER = {"role": "user", "content": "  What is 2 + 2?\n"}
ASSISTANT = {"role": "assistant", "content": "Four \U0001f980 <b>é</b>"}
THOUGHT = {"role": "assistant", "content": "<think>\nhmm, 2 + 2\n</think>\n\nFour."}
AGAIN = {"role": "user", "content": "Why?"}
TOOL = {"role": "tool", "content": "<4>"}

CONVERSATIONS = [
    [USER],
    [SYSTEM, USER],
    [SYSTEM, USER, ASSISTANT, AGAIN],
    [USER, THOUGHT],
    [USER, THOUGHT, AGAIN, THOUGHT],
    [USER, ASSISTANT, TOOL, TOOL, ASSISTANT],
    [USER, USER],
]

here = pathlib.Path(__file__).parent
cases = []
for path in sorted(here.glob("*.jinja")):
    template = environment.from_string(path.read_text())
    for messages in CONVERSATIONS:
        for prompt in (False, True):
            case = {"template": path.name, "messages": messages, "add_generation_prompt": prompt}
            try:
                case["expected"] = template.render(
                    messages=messages,
                    tools=None,
                    documents=None,
                    add_generation_prompt=prompt,
                    bos_token="<bos>",
                    eos_token="<eos>",
                )
            except jinja2.exceptions.TemplateError as error:
                case["raises"] = error.message
            cases.append(case)
(here / "expected.json").write_text(json.dumps(cases, indent=1, ensure_ascii=False) + "\n")

path = here / "snippets.json"
snippets = json.loads(path.read_text())
for snippet in snippets:
    try:
        snippet["expected"] = environment.from_string(snippet["source"]).render(
            messages=[{"role": "user", "content": "hello"}],
            tools=None,
            documents=None,
            add_generation_prompt=True,
            bos_token="<bos>",
            eos_token="<eos>",
        )
    except Exception:
        snippet["expected"] = None
path.write_text(json.dumps(snippets, indent=1, ensure_ascii=False) + "\n")
