#!/usr/bin/env python3
"""Make the oracle of chat turns: the ids of whole conversations under each family's tokenizer and template.

    tools/make_chat_turns.py [--out DIR]

For each family this writes DIR/NAME.gguf, a vocabulary without a model, and DIR/NAME.json: the chat template and
conversations (system, user, assistant, tools, thinking) with the text that `transformers` renders and the ids that
`tokenizers` gives for it. The vocabularies are small and trained here; pre-tokenizers, normalizers and special tokens
are the families' own, and so are the templates' markers. Nothing is fetched.

The same versions (requirements.txt) give the same files.
"""

import argparse
import json
import sysconfig
from pathlib import Path

import gguf
from tokenizers import AddedToken, Regex, Tokenizer, decoders, models, normalizers, pre_tokenizers, trainers
from transformers import PreTrainedTokenizerFast

SPACE = "\u2581"
CONTROL, USER_DEFINED, NORMAL, UNKNOWN, BYTE = 3, 4, 1, 2, 6
SAID = [
    "Hello! How are you today?", "What's 12345 + 678? I'll wait.", "  leading and trailing spaces  ", "Zwölf Boxkämpfer, naïve café — 東京タワー 🗼",
    "def f(x):\n    return x ** 2\n\n\nprint(f(3))\n", "Привет, мир! Это ТЕСТ.", "你好，世界。今天是2024年", "line one\r\nline two\n\n\n  indented", "\ttabs\tand  spaces",
    "नमस्ते दुनिया १२३", "It's <b>HTML</b> & {\"json\": [1, 2.5, null]}", "안녕하세요 세계", "",
]
TOOLS = [{"type": "function", "function": {
    "name": "get_weather", "description": "The weather of a city.",
    "parameters": {"type": "object", "properties": {"city": {"type": "string", "description": "The city"}}, "required": ["city"]}}}]
CALL = {"role": "assistant", "content": "", "tool_calls": [
    {"type": "function", "function": {"name": "get_weather", "arguments": {"city": "Zürich"}}}]}


def conversations(thinking, tools, system):
    """Conversations, each with the tools that it has."""
    first = [{"role": "system", "content": "You are a helpful assistant.\nBe brief."}] if system else []
    for said in SAID:
        yield [{"role": "user", "content": said}], None
        yield [*first, {"role": "user", "content": said}, {"role": "assistant", "content": "Sure: " + said}, {"role": "user", "content": "And 9876543210?"}], None
    if thinking:
        thought = {"role": "assistant", "content": "It is 13023.", "reasoning_content": "12345 + 678\n= 13023"}
        yield [*first, {"role": "user", "content": "12345 + 678?"}, thought, {"role": "user", "content": "Thanks"}], None
    if tools:
        asked = [*first, {"role": "user", "content": "The weather in Zürich?"}]
        yield asked, TOOLS
        yield [*asked, CALL, {"role": "tool", "content": '{"celsius": 21.5}'}, {"role": "assistant", "content": "21.5 °C."}, {"role": "user", "content": "Danke!"}], TOOLS


# Templates: the families' markers and turns, in short.
CHATML = """{%- if tools %}{{- '<|im_start|>system\\n' }}{%- if messages[0].role == 'system' %}{{- messages[0].content + '\\n\\n' }}{%- endif %}
{{- "# Tools\\n\\nYou may call one or more functions to assist with the user query.\\n\\n<tools>" }}{%- for tool in tools %}{{- "\\n" }}{{- tool | tojson }}{%- endfor %}
{{- "\\n</tools><|im_end|>\\n" }}{%- endif %}
{%- for m in messages %}
{%- if m.role == 'tool' %}{{- '<|im_start|>user\\n<tool_response>\\n' + m.content + '\\n</tool_response><|im_end|>\\n' }}
{%- elif not (tools and loop.first and m.role == 'system') %}{{- '<|im_start|>' + m.role + '\\n' }}
{%- if m.reasoning_content %}{{- '<think>\\n' + m.reasoning_content.strip('\\n') + '\\n</think>\\n\\n' }}{%- endif %}{{- m.content }}
{%- if m.tool_calls %}{%- for call in m.tool_calls %}{{- '\\n<tool_call>\\n{"name": "' + call.function.name + '", "arguments": ' + (call.function.arguments | tojson) + '}\\n</tool_call>' }}{%- endfor %}{%- endif %}
{{- '<|im_end|>\\n' }}{%- endif %}{%- endfor %}
{%- if add_generation_prompt %}{{- '<|im_start|>assistant\\n' }}{%- endif %}"""
LLAMA3 = """{{- bos_token }}{%- for m in messages %}{{- '<|start_header_id|>' + ('ipython' if m.role == 'tool' else m.role) + '<|end_header_id|>\\n\\n' }}
{%- if tools and loop.first %}{{- 'Environment: ipython\\n\\n' }}{%- for tool in tools %}{{- tool | tojson(indent=4) }}{{- '\\n\\n' }}{%- endfor %}{%- endif %}
{%- if m.tool_calls %}{{- '{"name": "' + m.tool_calls[0].function.name + '", "parameters": ' }}{{- m.tool_calls[0].function.arguments | tojson }}{{- '}' }}{%- else %}{{- m.content | trim }}{%- endif %}
{{- '<|eot_id|>' }}{%- endfor %}{%- if add_generation_prompt %}{{- '<|start_header_id|>assistant<|end_header_id|>\\n\\n' }}{%- endif %}"""
HARMONY = """{{- '<|start|>system<|message|>You are ChatGPT.\\n\\nReasoning: medium\\n\\n# Valid channels: analysis, commentary, final.<|end|>' }}
{%- if tools %}{{- '<|start|>developer<|message|># Tools\\n\\nnamespace functions {\\n' }}{%- for tool in tools %}{{- '// ' + tool.function.description + '\\ntype ' + tool.function.name + ' = (_: any) => any;\\n' }}{%- endfor %}{{- '}<|end|>' }}{%- endif %}
{%- for m in messages %}{%- if m.role == 'system' %}{{- '<|start|>developer<|message|># Instructions\\n\\n' + m.content + '<|end|>' }}
{%- elif m.tool_calls %}{{- '<|start|>assistant to=functions.' + m.tool_calls[0].function.name + '<|channel|>commentary json<|message|>' }}{{- m.tool_calls[0].function.arguments | tojson }}{{- '<|call|>' }}
{%- elif m.role == 'tool' %}{{- '<|start|>functions.get_weather to=assistant<|channel|>commentary<|message|>' + m.content + '<|end|>' }}
{%- elif m.role == 'assistant' %}{%- if m.reasoning_content %}{{- '<|start|>assistant<|channel|>analysis<|message|>' + m.reasoning_content + '<|end|>' }}{%- endif %}{{- '<|start|>assistant<|channel|>final<|message|>' + m.content + '<|end|>' }}
{%- else %}{{- '<|start|>' + m.role + '<|message|>' + m.content + '<|end|>' }}{%- endif %}{%- endfor %}{%- if add_generation_prompt %}{{- '<|start|>assistant' }}{%- endif %}"""
GEMMA = """{{ bos_token }}{% for m in messages %}{{ '<start_of_turn>' + ('model' if m.role == 'assistant' else m.role) + '\\n' }}{{ m.content | trim }}{{ '<end_of_turn>\\n' }}{% endfor %}
{%- if add_generation_prompt %}{{ '<start_of_turn>model\\n' }}{% endif %}"""
GEMMA4 = """{{ bos_token }}{%- if tools %}{{- '<|turn>system\\n' }}{%- for tool in tools %}{{- '<|tool>declaration:' + tool.function.name + '{description:<|"|>' + tool.function.description + '<|"|>}<tool|>' }}{%- endfor %}{{- '<turn|>\\n' }}{%- endif %}
{%- for m in messages %}{{- '<|turn>' + ('model' if m.role == 'assistant' else m.role) + '\\n' }}{%- if m.reasoning_content %}{{- '<|channel>thought\\n' + m.reasoning_content + '<channel|>' }}{%- endif %}
{%- if m.tool_calls %}{{- '<|tool_call>call:' + m.tool_calls[0].function.name + '{city:<|"|>' + m.tool_calls[0].function.arguments.city + '<|"|>}<tool_call|>' }}{%- elif m.role == 'tool' %}{{- '<|tool_response>' + m.content + '<tool_response|>' }}{%- else %}{{- m.content | trim }}{%- endif %}{{- '<turn|>\\n' }}{%- endfor %}
{%- if add_generation_prompt %}{{- '<|turn>model\\n' }}{%- endif %}"""
PHI3 = """{% for m in messages %}{{ '<|' + m.role + '|>\\n' + m.content + '<|end|>\\n' }}{% endfor %}{% if add_generation_prompt %}{{ '<|assistant|>\\n' }}{% else %}{{ eos_token }}{% endif %}"""
LLAMA2 = """{% for m in messages %}{% if m.role == 'system' %}{{ bos_token + '[INST] <<SYS>>\\n' + m.content + '\\n<</SYS>>\\n\\n' }}{% elif m.role == 'user' %}{{ ('' if loop.index > 1 and messages[loop.index0 - 1].role == 'system' else bos_token + '[INST] ') + m.content.strip() + ' [/INST]' }}{% else %}{{ ' ' + m.content.strip() + ' ' + eos_token }}{% endif %}{% endfor %}"""
MISTRAL = """{{- bos_token }}{%- if tools %}{{- '[AVAILABLE_TOOLS]' }}{{- tools | tojson }}{{- '[/AVAILABLE_TOOLS]' }}{%- endif %}
{%- for m in messages %}{%- if m.role == 'system' %}{{- '[SYSTEM_PROMPT]' + m.content + '[/SYSTEM_PROMPT]' }}{%- elif m.role == 'user' %}{{- '[INST]' + m.content + '[/INST]' }}
{%- elif m.role == 'tool' %}{{- '[TOOL_RESULTS]' + m.content + '[/TOOL_RESULTS]' }}{%- elif m.tool_calls %}{{- '[TOOL_CALLS]' + m.tool_calls[0].function.name + '[ARGS]' }}{{- m.tool_calls[0].function.arguments | tojson }}{{- eos_token }}
{%- else %}{%- if m.reasoning_content %}{{- '[THINK]' + m.reasoning_content + '[/THINK]' }}{%- endif %}{{- m.content + eos_token }}{%- endif %}{%- endfor %}"""
DEEPSEEK = """{{- bos_token }}{%- for m in messages %}{%- if m.role == 'system' %}{{- m.content }}{%- elif m.role == 'user' %}{{- '<｜User｜>' + m.content }}{%- elif m.role == 'tool' %}{{- '<｜tool▁output▁begin｜>' + m.content + '<｜tool▁output▁end｜>' }}
{%- else %}{{- '<｜Assistant｜>' }}{%- if m.reasoning_content %}{{- '<think>' + m.reasoning_content + '</think>' }}{%- endif %}{{- m.content }}{%- if m.tool_calls %}{{- '<｜tool▁call▁begin｜>' + m.tool_calls[0].function.name + '<｜tool▁sep｜>' }}{{- m.tool_calls[0].function.arguments | tojson }}{{- '<｜tool▁call▁end｜>' }}{%- endif %}{{- '<｜end▁of▁sentence｜>' }}{%- endif %}{%- endfor %}
{%- if add_generation_prompt %}{{- '<｜Assistant｜>' }}{%- endif %}"""
GLM4 = """[gMASK]<sop>{%- if tools %}<|system|>
{%- for tool in tools %}{{ '\\n' + (tool | tojson(ensure_ascii=False)) }}{%- endfor %}{%- endif %}
{%- for m in messages %}{%- if m.role == 'tool' %}<|observation|>{{ '\\n<tool_response>\\n' + m.content + '\\n</tool_response>' }}{%- else %}{{ '<|' + m.role + '|>\\n' }}{%- if m.reasoning_content %}{{ '<think>' + m.reasoning_content + '</think>\\n' }}{%- endif %}{{ m.content }}{%- if m.tool_calls %}{{ '\\n<tool_call>' + m.tool_calls[0].function.name + '</tool_call>' }}{%- endif %}{%- endif %}{%- endfor %}
{%- if add_generation_prompt %}<|assistant|>{%- endif %}"""
KIMI = """{%- if tools %}{{- '<|im_system|>tool_declare<|im_middle|>' }}{{- tools | tojson(separators=(',', ':')) }}{{- '<|im_end|>' }}{%- endif %}
{%- for m in messages %}{{- '<|im_' + ('system' if m.role in ['system', 'tool'] else m.role) + '|>' + m.role + '<|im_middle|>' }}{%- if m.reasoning_content %}{{- '<think>' + m.reasoning_content + '</think>' }}{%- endif %}{{- m.content }}
{%- if m.tool_calls %}{{- '<|tool_calls_section_begin|>' }}{{- m.tool_calls[0].function.arguments | tojson }}{{- '<|tool_calls_section_end|>' }}{%- endif %}{{- '<|im_end|>' }}{%- endfor %}{%- if add_generation_prompt %}{{- '<|im_assistant|>assistant<|im_middle|>' }}{%- endif %}"""

# Pre-tokenizers' expressions, as each family publishes them.
GPT2 = r"""'s|'t|'re|'ve|'m|'ll|'d| ?\p{L}+| ?\p{N}+| ?[^\s\p{L}\p{N}]+|\s+(?!\S)|\s+"""
CL100K = r"""(?i:'s|'t|'re|'ve|'m|'ll|'d)|[^\r\n\p{L}\p{N}]?\p{L}+|\p{N}{1,3}| ?[^\s\p{L}\p{N}]+[\r\n]*|\s*[\r\n]+|\s+(?!\S)|\s+"""
QWEN2 = CL100K.replace("{1,3}", "")
QWEN35 = QWEN2.replace(r"\p{L}+", r"[\p{L}\p{M}]+").replace(r"[^\s\p{L}", r"[^\s\p{L}\p{M}")
U, W = r"[\p{Lu}\p{Lt}\p{Lm}\p{Lo}\p{M}]", r"[\p{Ll}\p{Lm}\p{Lo}\p{M}]"
P, C = r"[^\r\n\p{L}\p{N}]?", "(?i:'s|'t|'re|'ve|'m|'ll|'d)?"
TAIL = r"| ?[^\s\p{L}\p{N}]+[\r\n/]*|\s*[\r\n]+|\s+(?!\S)|\s+"
O200K = f"{P}{U}*{W}+{C}|{P}{U}+{W}*{C}|" + r"\p{N}{1,3}" + TAIL
TEKKEN = f"{P}{U}*{W}+|{P}{U}+{W}*|" + r"\p{N}" + TAIL
H = r"(?!\p{Han})"
KIMI_K2 = r"[\p{Han}]+|" + f"{P}(?:{H}{U})*(?:{H}{W})+{C}|{P}(?:{H}{U})+(?:{H}{W})*{C}|" + r"\p{N}{1,3}" + TAIL.replace("/", "")
DEEPSEEK_V3 = [r"\p{N}{1,3}", "[\u4e00-\u9fa5\u3040-\u309f\u30a0-\u30ff]+",
               r"""[!"#$%&'()*+,\-./:;<=>?@\[\\\]^_`{|}~][A-Za-z]+|[^\r\n\p{L}\p{P}\p{S}]?[\p{L}\p{M}]+| ?[\p{P}\p{S}]+[\r\n]*|\s*[\r\n]+|\s+(?!\S)|\s+"""]

# Families of byte-level BPE: pre-tokenizer's name in GGUF and its expressions, special tokens in order (those that begin
# with "+" are user-defined), BOS, EOS, the template, and what its conversations have.
BYTE_LEVEL = {
    "llama3": ("llama-bpe", [CL100K], ["<|begin_of_text|>", "<|end_of_text|>", "<|start_header_id|>", "<|end_header_id|>", "<|eom_id|>", "<|eot_id|>", "<|python_tag|>"],
               "<|begin_of_text|>", "<|eot_id|>", LLAMA3, dict(thinking=False, tools=True)),
    "qwen3": ("qwen2", [QWEN2], ["<|endoftext|>", "<|im_start|>", "<|im_end|>", "+<tool_call>", "+</tool_call>", "+<tool_response>", "+</tool_response>", "+<think>", "+</think>"],
              None, "<|im_end|>", CHATML, dict(thinking=True, tools=True)),
    "qwen35": ("qwen35", [QWEN35], ["<|endoftext|>", "<|im_start|>", "<|im_end|>", "+<tool_call>", "+</tool_call>", "+<tool_response>", "+</tool_response>", "+<think>", "+</think>"],
               None, "<|im_end|>", CHATML, dict(thinking=True, tools=True)),
    "smollm": ("smollm", [r"\p{N}", GPT2], ["<|endoftext|>", "<|im_start|>", "<|im_end|>"], None, "<|im_end|>", CHATML, dict(thinking=False, tools=False)),
    "gpt_oss": ("gpt-4o", [O200K], ["<|startoftext|>", "<|endoftext|>", "<|return|>", "<|constrain|>", "<|channel|>", "<|start|>", "<|end|>", "<|message|>", "<|call|>"],
                "<|startoftext|>", "<|return|>", HARMONY, dict(thinking=True, tools=True)),
    "mistral_tekken": ("tekken", [TEKKEN], ["<unk>", "<s>", "</s>", "[INST]", "[/INST]", "[AVAILABLE_TOOLS]", "[/AVAILABLE_TOOLS]", "[TOOL_RESULTS]", "[/TOOL_RESULTS]", "[TOOL_CALLS]", "[SYSTEM_PROMPT]", "[/SYSTEM_PROMPT]", "[ARGS]", "[THINK]", "[/THINK]"],
                       "<s>", "</s>", MISTRAL, dict(thinking=True, tools=True)),
    "deepseek_v3": ("deepseek-v3", DEEPSEEK_V3, ["<｜begin▁of▁sentence｜>", "<｜end▁of▁sentence｜>", "+<｜User｜>", "+<｜Assistant｜>", "+<think>", "+</think>", "+<｜tool▁call▁begin｜>", "+<｜tool▁call▁end｜>", "+<｜tool▁sep｜>", "+<｜tool▁output▁begin｜>", "+<｜tool▁output▁end｜>"],
                    "<｜begin▁of▁sentence｜>", "<｜end▁of▁sentence｜>", DEEPSEEK, dict(thinking=True, tools=True)),
    "glm4": ("glm4", [CL100K], ["<|endoftext|>", "[gMASK]", "<sop>", "<|system|>", "<|user|>", "<|assistant|>", "<|observation|>", "+<think>", "+</think>", "+<tool_call>", "+</tool_call>", "+<tool_response>", "+</tool_response>"],
             None, "<|endoftext|>", GLM4, dict(thinking=True, tools=True)),
    "kimi_k2": ("kimi-k2", [KIMI_K2], ["[BOS]", "[EOS]", "<|im_end|>", "<|im_user|>", "<|im_assistant|>", "<|im_system|>", "<|im_middle|>", "<|tool_calls_section_begin|>", "<|tool_calls_section_end|>", "<think>", "</think>"],
                "[BOS]", "<|im_end|>", KIMI, dict(thinking=True, tools=True)),
}
# Which of them split words that are tokens as a whole no further.
WHOLE = ("llama3", "mistral_tekken", "glm4")


def corpus():
    """Something to train on: the standard library's own sources, and what is said."""
    library = Path(sysconfig.get_path("stdlib"))
    return [(library / name).read_text() for name in ("textwrap.py", "colorsys.py")] + SAID * 20


def byte_level(name):
    pre, expressions, special, bos, eos, template, has = BYTE_LEVEL[name]
    alphabet = pre_tokenizers.ByteLevel.alphabet()
    split = [pre_tokenizers.Split(Regex(e), "isolated") for e in expressions]
    t = Tokenizer(models.BPE(ignore_merges=name in WHOLE))
    t.pre_tokenizer = pre_tokenizers.Sequence([*split, pre_tokenizers.ByteLevel(add_prefix_space=False, use_regex=False)])
    t.decoder = decoders.ByteLevel()
    t.train_from_iterator(corpus(), trainers.BpeTrainer(vocab_size=700, initial_alphabet=alphabet, show_progress=False))
    t.add_tokens([AddedToken(s.removeprefix("+"), special=not s.startswith("+"), normalized=False) for s in special])
    model = json.loads(t.to_str())["model"]
    tokens = sorted(t.get_vocab(), key=t.get_vocab().get)
    types = {s.removeprefix("+"): USER_DEFINED if s.startswith("+") else CONTROL for s in special}
    merges = [" ".join(m) if isinstance(m, list) else m for m in model["merges"]]
    return dict(tokenizer=t, model="gpt2", pre=pre, tokens=tokens, types=[types.get(x, NORMAL) for x in tokens], merges=merges,
                bos=bos, eos=eos, template=template, system=True, **has)


def sentencepiece(name):
    """SentencePiece's BPE, as `transformers` converts it: ranked merges of characters, of which GGUF keeps scores."""
    prefix = name != "gemma3"
    special = {
        "llama2": ["<unk>", "<s>", "</s>"], "phi3": ["<unk>", "<s>", "</s>"], "gemma3": ["<unk>", "<bos>", "<eos>", "<pad>", "<start_of_turn>", "<end_of_turn>"],
    }[name]
    added = ["<|endoftext|>", "<|assistant|>", "<|system|>", "<|end|>", "<|user|>"] if name == "phi3" else []
    bytes_ = [f"<0x{b:02X}>" for b in range(256)]
    t, model = characters([*special, *bytes_])
    vocab, merges = model["vocab"], [tuple(m) if isinstance(m, list) else tuple(m.split(" ")) for m in model["merges"]]
    t = Tokenizer(models.BPE(vocab=vocab, merges=merges, byte_fallback=True, fuse_unk=True, unk_token="<unk>"))
    replace = normalizers.Replace(" ", SPACE)
    t.normalizer = normalizers.Sequence([normalizers.Prepend(SPACE), replace]) if prefix else replace
    # Phi-3's markers take the white space on their right with them, but for three.
    strips = lambda s: name == "phi3" and s in ("</s>", "<|assistant|>", "<|system|>", "<|end|>", "<|user|>")
    t.add_special_tokens([AddedToken(s, special=True, normalized=False, rstrip=strips(s)) for s in special + added])
    tokens = sorted(t.get_vocab(), key=t.get_vocab().get)
    # SentencePiece's scores are ranks: a token's is that of the first merge that makes it.
    ranks = {}
    for rank, (left, right) in enumerate(merges):
        ranks.setdefault(left + right, -float(rank))
    kind = lambda x: UNKNOWN if x == "<unk>" else CONTROL if x in special + added else BYTE if x in bytes_ else NORMAL
    template = {"llama2": LLAMA2, "phi3": PHI3, "gemma3": GEMMA}[name]
    return dict(tokenizer=t, model="llama", pre="default", tokens=tokens, types=[kind(x) for x in tokens], scores=[ranks.get(x, -1e6) for x in tokens],
                bos="<bos>" if name == "gemma3" else "<s>", eos={"llama2": "</s>", "phi3": "<|end|>", "gemma3": "<end_of_turn>"}[name], template=template,
                architecture="phi3" if name == "phi3" else "llama", add_bos=name != "phi3", add_space_prefix=prefix, system=name != "gemma3", thinking=False, tools=False)


def characters(special):
    """Merges of characters with spaces as SentencePiece has them."""
    t = Tokenizer(models.BPE(byte_fallback=True, fuse_unk=True, unk_token="<unk>"))
    t.normalizer = normalizers.Replace(" ", SPACE)
    t.pre_tokenizer = pre_tokenizers.Sequence([
        pre_tokenizers.Split(Regex(r"\n+"), "isolated"), pre_tokenizers.Split(Regex(SPACE + "+"), "merged_with_next")])
    t.train_from_iterator(corpus(), trainers.BpeTrainer(vocab_size=900, special_tokens=special, limit_alphabet=150, show_progress=False))
    return t, json.loads(t.to_str())["model"]


def gemma4():
    special = ["<pad>", "<eos>", "<bos>", "<unk>"]
    markers = ["<|turn>", "<turn|>", "<|channel>", "<channel|>", "<|tool>", "<tool|>", "<|tool_call>", "<tool_call|>", "<|tool_response>", "<tool_response|>", '<|"|>']
    bytes_ = [f"<0x{b:02X}>" for b in range(256)]
    _, model = characters([*special, *bytes_])
    merges = [tuple(m) if isinstance(m, list) else tuple(m.split(" ")) for m in model["merges"]]
    t = Tokenizer(models.BPE(vocab=model["vocab"], merges=merges, byte_fallback=True, fuse_unk=True, unk_token="<unk>"))
    t.normalizer = normalizers.Replace(" ", SPACE)
    t.add_special_tokens([AddedToken(s, special=True, normalized=False) for s in special + markers])
    tokens = sorted(t.get_vocab(), key=t.get_vocab().get)
    kind = lambda x: UNKNOWN if x == "<unk>" else CONTROL if x in special + markers else BYTE if x in bytes_ else NORMAL
    return dict(tokenizer=t, model="gemma4", pre="gemma4", tokens=tokens, types=[kind(x) for x in tokens], merges=[" ".join(m) for m in merges],
                bos="<bos>", eos="<turn|>", template=GEMMA4, system=True, thinking=True, tools=True)


def write_gguf(path, family):
    writer = gguf.GGUFWriter(path, family.get("architecture", "llama"))
    writer.add_name("Phi-3 Mini" if family.get("architecture") == "phi3" else "turns")
    writer.add_tokenizer_model(family["model"])
    writer.add_tokenizer_pre(family["pre"])
    writer.add_token_list(family["tokens"])
    writer.add_token_types(family["types"])
    if "scores" in family:
        writer.add_token_scores(family["scores"])
        writer.add_add_space_prefix(family["add_space_prefix"])
    if "merges" in family:
        writer.add_token_merges(family["merges"])
    place = family["tokens"].index
    if family["bos"]:
        writer.add_bos_token_id(place(family["bos"]))
    writer.add_eos_token_id(place(family["eos"]))
    if "add_bos" in family:
        writer.add_add_bos_token(family["add_bos"])
    writer.add_chat_template(family["template"])
    writer.write_header_to_file()
    writer.write_kv_data_to_file()
    writer.write_tensors_to_file()
    writer.close()


def turns(family):
    """What `transformers` makes of each conversation."""
    names = {"eos_token": family["eos"], **({"bos_token": family["bos"]} if family["bos"] else {})}
    t = PreTrainedTokenizerFast(tokenizer_object=family["tokenizer"], **names)
    t.chat_template = family["template"]
    for messages, tools in conversations(family["thinking"], family["tools"], family["system"]):
        text = t.apply_chat_template(messages, tools=tools, tokenize=False, add_generation_prompt=True)
        ids = t(text, add_special_tokens=False)["input_ids"]
        plain = tools is None and all(set(m) == {"role", "content"} for m in messages)
        yield {"messages": messages if plain else [], "text": text, "ids": ids}


def main():
    parser = argparse.ArgumentParser(description=__doc__.split("\n")[0])
    parser.add_argument("--out", type=Path, default=Path(__file__).parent.parent / "host/tests/data/turns", help="where to write")
    out = parser.parse_args().out
    out.mkdir(parents=True, exist_ok=True)
    families = {name: byte_level(name) for name in BYTE_LEVEL}
    families |= {name: sentencepiece(name) for name in ("llama2", "phi3", "gemma3")}
    families["gemma4"] = gemma4()
    for name, family in families.items():
        write_gguf(out / f"{name}.gguf", family)
        cases = list(turns(family))
        bos = family["bos"] or ""
        document = {"template": family["template"], "bos": bos, "eos": family["eos"], "cases": cases}
        (out / f"{name}.json").write_text(json.dumps(document, ensure_ascii=True, separators=(",", ":")) + "\n")
        print(f"{name}: {len(cases)} conversations, {sum(len(c['ids']) for c in cases)} ids of {len(family['tokens'])} tokens")


if __name__ == "__main__":
    main()
