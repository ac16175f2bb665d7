#!/usr/bin/env python3
"""Compare `host convert` with llama.cpp's converter, key by key and tensor by tensor, to the bit.

    tools/check_convert.py [--keep DIR] HOST_BINARY [ARCH...]

For each ARCH this makes a small random checkpoint by `transformers`, with a tokenizer that is trained here, converts it with both,
and prints what differs. It does so in several ways: float32 kept; bfloat16 kept; float32 to float16; in shards; with the
configuration as `transformers` writes it, and as older checkpoints have it (`rope_theta` and `rope_scaling`, and without settings
that are as the class's defaults).

PyTorch's exponential function may be off by one unit in the last place, which decay rates (`ssm_a`) are allowed.

`--fixtures DIR` writes the checkpoints of the tests of `host/convert` there instead, with what llama.cpp's converter makes of each.
`--keep DIR` keeps the checkpoints and both files there. The architectures are those of the folder architectures that both know.
"""

import argparse
import dataclasses
import hashlib
import json
import logging
import os
import subprocess
import sys
import tempfile
import types
from pathlib import Path

import make_oracle
from architectures import ARCHITECTURES, REMOVED, VOCABULARY
from architectures.common import Architecture, attention, granite, kinds, rope, widths
from architectures.recurrent import granite_hybrid, granite_hybrid_for_converter

GPT2 = r"""'s|'t|'re|'ve|'m|'ll|'d| ?\p{L}+| ?\p{N}+| ?[^\s\p{L}\p{N}]+|\s+(?!\S)|\s+"""
LLAMA3 = r"""(?i:'s|'t|'re|'ve|'m|'ll|'d)|[^\r\n\p{L}\p{N}]?\p{L}+|\p{N}{1,3}| ?[^\s\p{L}\p{N}]+[\r\n]*|\s*[\r\n]+|\s+(?!\S)|\s+"""
QWEN2 = LLAMA3.replace("{1,3}", "")
QWEN35 = QWEN2.replace(r"\p{L}+", r"[\p{L}\p{M}]+").replace(r"[^\s\p{L}", r"[^\s\p{L}\p{M}")
U, W = r"[\p{Lu}\p{Lt}\p{Lm}\p{Lo}\p{M}]", r"[\p{Ll}\p{Lm}\p{Lo}\p{M}]"
P, C = r"[^\r\n\p{L}\p{N}]?", "(?i:'s|'t|'re|'ve|'m|'ll|'d)?"
TAIL = r"| ?[^\s\p{L}\p{N}]+[\r\n/]*|\s*[\r\n]+|\s+(?!\S)|\s+"
O200K = f"{P}{U}*{W}+{C}|{P}{U}+{W}*{C}|" + r"\p{N}{1,3}" + TAIL

# Configurations that make other keys and tensors than those of make_oracle.py do.
MORE = {
    "granite_4": Architecture(
        "granitemoehybrid",
        lambda h: {
            **granite_hybrid(h, "AA"),
            **widths(h),
            "num_local_experts": 0,
            "num_experts_per_tok": 0,
            "position_embedding_type": "rope",
        },
        "Granite 4 without Mamba-2",
        granite_hybrid_for_converter,
    ),
    "granite_shared": Architecture(
        "granitemoeshared",
        lambda h: dict(num_hidden_layers=2, num_local_experts=4, num_experts_per_tok=2, shared_intermediate_size=h, **rope(1e4), **granite(), **widths(h)),
        "experts and an MLP beside them",
    ),
    "phi3_long": Architecture(
        "phi3",
        lambda h: dict(
            num_hidden_layers=2,
            max_position_embeddings=4096,
            original_max_position_embeddings=1024,
            **rope(1e4, "longrope", short_factor=[1.0 + i / 8 for i in range(h // 8)], long_factor=[2.0 + i for i in range(h // 8)], partial_rotary_factor=1.0),
            **widths(h),
            num_attention_heads=4,
            num_key_value_heads=2,
        ),
        "LongRoPE",
    ),
    "gemma3_large": Architecture(
        "gemma3_text",
        lambda h: dict(
            num_hidden_layers=7,
            head_dim=h // 4,
            query_pre_attn_scalar=h // 4,
            sliding_window=32,
            rope_parameters=dict(
                sliding_attention=dict(rope_type="default", rope_theta=1e4), full_attention=dict(rope_type="linear", factor=8.0, rope_theta=1e6)
            ),
            **widths(h),
            **attention(),
        ),
        "positions of blocks without a window scaled by 8",
    ),
    "lfm2_adjusted": Architecture(
        "lfm2",
        lambda h: dict(num_hidden_layers=4, full_attn_idxs=[1, 3], block_multiple_of=16, block_ffn_dim_multiplier=1.5, tie_word_embeddings=True, **widths(h), **attention()),
        "a width that is computed",
    ),
    "llama_characters": ARCHITECTURES["llama_tied"],
}
ARCHITECTURES = {**ARCHITECTURES, **MORE}

# Each architecture's tokenizer: the name of its pre-tokenizer and the expressions, or the kind of another tokenizer. A name ending
# in "!" ignores merges of words that are tokens.
TOKENIZERS = {
    "llama": ("smollm", [r"\p{N}", GPT2]),
    "llama_tied": "sentencepiece",
    "llama_linear": ("llama-bpe!", [LLAMA3]),
    "llama_llama3": ("llama-bpe!", [LLAMA3]),
    "mistral": "sentencepiece",
    "mixtral": "sentencepiece",
    "qwen2": ("qwen2", [QWEN2]),
    "qwen2_moe": ("qwen2", [QWEN2]),
    "qwen3": ("qwen2", [QWEN2]),
    "qwen3_yarn": ("qwen2", [QWEN2]),
    "qwen3_embedding": ("qwen2", [QWEN2]),
    "qwen3_moe": ("qwen2", [QWEN2]),
    "qwen35": ("qwen35", [QWEN35]),
    "qwen35moe": ("qwen35", [QWEN35]),
    "qwen3next": ("qwen2", [QWEN2]),
    "gemma": "sentencepiece",
    "gemma2": "sentencepiece",
    "gemma3": "sentencepiece",
    "phi3": "sentencepiece",
    "olmo2": ("dbrx", [LLAMA3]),
    "olmo3": ("dbrx", [LLAMA3]),
    "granite": ("refact", [r"\p{N}", GPT2]),
    "granite_moe": ("refact", [r"\p{N}", GPT2]),
    "granite_hybrid": ("dbrx", [LLAMA3]),
    "granite_hybrid_dense": ("dbrx", [LLAMA3]),
    "lfm2": ("lfm2!", [LLAMA3]),
    "mamba2": ("gpt-2", [GPT2]),
    "falcon_h1": ("falcon-h1!", [LLAMA3]),
    "gpt2": ("gpt-2", [GPT2]),
    "smollm3": ("llama-bpe!", [LLAMA3]),
    "glm4": ("glm4", [LLAMA3]),
    "gpt_oss": ("gpt-4o", [O200K]),
    "gpt_oss.mxfp4": ("gpt-4o", [O200K]),
    "bert": "pieces",
    "bert_mean": "pieces",
    "granite_4": ("dbrx", [LLAMA3]),
    "granite_shared": ("refact", [r"\p{N}", GPT2]),
    "phi3_long": "sentencepiece",
    "gemma3_large": "sentencepiece",
    "lfm2_adjusted": ("lfm2!", [LLAMA3]),
    "llama_characters": "characters",
}
# What both write of a model as a whole by their own heuristics.
GUESSES = {"general.name", "general.basename", "general.finetune", "general.version", "general.organization", "general.size_label"}
# Texts for the tokenizers.
TEXTS = ["abc def", "the 1234567 words, isn't it?", "caf\u00e9 \u4f60\u597d\n\n x"]
# Keys that theirs has where HERALD's engine refuses them, and those of a vocabulary that they make otherwise: all tokens of merges get
# the same score, and added tokens aren't special.
THEIRS_ALONE = {"granite_4": ("granite.ssm.",), "llama_characters": ("tokenizer.ggml.scores", "tokenizer.ggml.token_type")}
TEMPLATE = "{% for m in messages %}<|im_start|>{{ m.role }}\n{{ m.content }}<|im_end|>\n{% endfor %}"
# The tests' checkpoints: hidden size, tokens, type, the configuration's style, and whether in shards.
FIXTURES = {
    "llama_llama3": (32, 304, "bf16", "old", True),
    "mistral": (16, 512, "f16", "new", False),
    "qwen3_moe": (16, 304, "bf16", "new", False),
    "gemma2": (16, 512, "bf16", "new", False),
    "phi3": (16, 512, "bf16", "old", False),
    "granite_hybrid_dense": (16, 304, "bf16", "new", False),
    "qwen35": (16, 304, "bf16", "new", False),
    "gpt_oss.mxfp4": (32, 304, "bf16", "old", False),
    "bert": (16, 304, "f16", "new", False),
}


def main():
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("host", type=Path, nargs="?", help="the program")
    parser.add_argument("architectures", nargs="*", metavar="ARCH", help="architectures [default: all]")
    parser.add_argument("--keep", type=Path, metavar="DIR", help="keep checkpoints and files here")
    parser.add_argument("--fixtures", type=Path, metavar="DIR", help="write the tests' checkpoints here instead")
    parser.add_argument("--llama-cpp", type=Path, metavar="DIR", help="llama.cpp's sources [default: fetched once]")
    parser.add_argument("--hidden", type=int, metavar="N", help="hidden size [default: the architecture's]")
    options = parser.parse_args()
    if not options.host and not options.fixtures:
        parser.error("give the program, or --fixtures")
    unknown = [name for name in options.architectures if name not in TOKENIZERS]
    if unknown:
        parser.error(f"unknown architecture {unknown[0]}; known: {', '.join(TOKENIZERS)}")
    os.environ.setdefault("TQDM_DISABLE", "1")
    logging.disable(logging.WARNING)
    make_oracle.use_converter(options.llama_cpp or make_oracle.fetch_converter())
    if options.fixtures:
        for name in options.architectures or FIXTURES:
            write_fixture(name, options.fixtures / name)
        return 0
    failed = 0
    for name in options.architectures or TOKENIZERS:
        with tempfile.TemporaryDirectory() as temporary:
            folder = options.keep or Path(temporary)
            failed += not check(name, folder / name, options)
    return 1 if failed else 0


def two_blocks(config):
    """The configuration with its first two blocks alone."""
    return {**config, "num_hidden_layers": 2, "layer_types": config["layer_types"][:2]}


def write_fixture(name, folder):
    """Writes a small checkpoint, and what llama.cpp's converter makes of it."""
    global VOCABULARY
    import gguf
    import torch

    hidden, VOCABULARY, dtype, style, sharded = FIXTURES[name]
    make_oracle.VOCABULARY = make_oracle.COMMON["vocab_size"] = VOCABULARY
    architecture = ARCHITECTURES[name]
    if "layer_types" in architecture.config(hidden) and "linear_num_key_heads" not in architecture.config(hidden):
        architecture = dataclasses.replace(architecture, config=lambda h: two_blocks(ARCHITECTURES[name].config(h)))
    torch.manual_seed(architecture.seed)
    model = make_oracle.random_model(architecture, hidden)
    folder.mkdir(parents=True)
    kinds = dict(bf16=torch.bfloat16, f16=torch.float16, f32=torch.float32)
    save(model.to(kinds[dtype]), architecture, folder, sharded)
    write_tokenizer(name, folder, model.config)
    raw = configure(architecture, folder, style)
    for path in folder.glob("*.json"):
        path.write_text(json.dumps(json.loads(path.read_text()), ensure_ascii=False, separators=(",", ":")) + "\n")
    with tempfile.TemporaryDirectory() as temporary:
        path = Path(temporary) / "theirs.gguf"
        convert(name, folder, dtype, path, raw)
        reader = gguf.GGUFReader(path)
        skipped = GUESSES - {"general.size_label"}
        fields = {key: field for key, field in reader.fields.items() if not key.startswith("GGUF.") and key not in skipped}
        metadata = {key: [[kind.name for kind in field.types[:2]], field.contents()] for key, field in fields.items()}
        digest = lambda tensor: hashlib.sha256(tensor.data.tobytes()).hexdigest()
        tensors = {tensor.name: [tensor.tensor_type.name, tensor.shape.tolist(), digest(tensor)] for tensor in reader.tensors}
    expected = dict(metadata=metadata, tensors=tensors)
    (folder / "expected.json").write_text(json.dumps(expected, ensure_ascii=False, separators=(",", ":")) + "\n")
    for path in folder.rglob("*"):
        path.chmod(0o755 if path.is_dir() else 0o644)
    print(f"{name}: {sum(path.stat().st_size for path in folder.rglob('*') if path.is_file())} bytes", flush=True)


def check(name, folder, options):
    """Compares all ways to convert an architecture, and returns whether nothing differs."""
    import torch

    architecture = ARCHITECTURES[name]
    torch.manual_seed(architecture.seed)
    model = make_oracle.random_model(architecture, options.hidden or architecture.hidden)
    counts, differences = [], []
    ways = [("f32", None, "new", False), ("bf16", None, "old", True), ("f32", "f16", "new", False)]
    for dtype, wanted, style, sharded in ways:
        way = f"{dtype}-{wanted or 'kept'}-{style}"
        checkpoint = folder / way / "checkpoint"
        checkpoint.mkdir(parents=True)
        save(model.to(torch.bfloat16 if dtype == "bf16" else torch.float32), architecture, checkpoint, sharded)
        write_tokenizer(name, checkpoint, model.config)
        theirs, ours = folder / way / "theirs.gguf", folder / way / "ours.gguf"
        raw = configure(architecture, checkpoint, style)
        convert(name, checkpoint, wanted or dtype, theirs, raw)
        command = [options.host, "--quiet", "convert", checkpoint, ours, *(["--type", wanted] if wanted else [])]
        run = subprocess.run(command, text=True, capture_output=True)
        if run.returncode:
            differences.append(f"{way}: {run.stderr.strip()}")
            continue
        keys, tensors, found = compare(theirs, ours, THEIRS_ALONE.get(name, ()))
        found += runs(options.host, architecture, ours) + tokens(options.host, name, checkpoint, ours)
        counts.append(f"{keys} keys and {tensors} tensors")
        differences += [f"{way}: {difference}" for difference in found]
    print(f"{name}: {'; '.join(dict.fromkeys(counts))}; " + (f"{len(differences)} differ" if differences else "all equal"), flush=True)
    for difference in differences:
        print(f"  {difference[:400]}", flush=True)
    return not differences


def runs(host, architecture, path):
    """Whether HERALD runs the model: a list of what it says against that."""
    if architecture.pooling:
        command = ["embed", "--json", "--model", path, "a text"]
    else:
        command = ["generate", "--model", path, "--max-tokens", "4", "--temperature", "0", "a text"]
    run = subprocess.run([host, "--quiet", *command], text=True, capture_output=True)
    return [f"host {command[0]}: {run.stderr.strip()}"] if run.returncode else []


def tokens(host, name, folder, path):
    """Where HERALD's tokens of some texts aren't those of the checkpoint's tokenizer."""
    if TOKENIZERS[name] == "sentencepiece":
        import sentencepiece

        tokenizer = sentencepiece.SentencePieceProcessor(model_file=str(folder / "tokenizer.model"))
        encode = tokenizer.encode
    else:
        from tokenizers import Tokenizer

        tokenizer = Tokenizer.from_file(str(folder / "tokenizer.json"))
        encode = lambda text: tokenizer.encode(text, add_special_tokens=False).ids
    wrong = []
    # The tokenizer that was trained here has a space before each text, which Gemma's have not.
    has_space = not (TOKENIZERS[name] == "sentencepiece" and name.startswith("gemma"))
    for text in TEXTS if has_space else []:
        run = subprocess.run([host, "--quiet", "tokenize", "--json", "--model", path, "--", text], text=True, capture_output=True)
        found = json.loads(run.stdout)["ids"] if run.returncode == 0 else run.stderr
        if found != encode(text):
            wrong.append(f"tokens of {text!r}: {encode(text)}, ours {found}")
    return wrong


def save(model, architecture, folder, sharded):
    if architecture.experts_in:
        make_oracle.save(model, architecture, folder)
        publish_blocks(folder)
        return
    if not sharded:
        make_oracle.save(model, architecture, folder)
        return
    model.save_pretrained(folder, max_shard_size="20KB")
    if architecture.pooling in ("cls", "mean", "last"):
        with tempfile.TemporaryDirectory() as other:
            make_oracle.save(model, architecture, Path(other))
            for path in ("modules.json", "1_Pooling/config.json"):
                (folder / path).parent.mkdir(exist_ok=True)
                (folder / path).write_bytes((Path(other) / path).read_bytes())


def publish_blocks(folder):
    """Has a checkpoint's experts in MXFP4 as gpt-oss is published: random codes, and scales about those of its weights."""
    import torch
    from safetensors.torch import load_file, save_file

    path = folder / "model.safetensors"
    tensors = load_file(path)
    for name in [name for name in tensors if name.endswith(("gate_up_proj", "down_proj")) and ".experts." in name]:
        experts, inputs, outputs = tensors.pop(name).shape
        tensors[f"{name}_blocks"] = torch.randint(256, (experts, outputs, inputs // 32, 16), dtype=torch.uint8)
        tensors[f"{name}_scales"] = torch.randint(121, 125, (experts, outputs, inputs // 32), dtype=torch.uint8)
    save_file(tensors, path, metadata={"format": "pt"})
    config = json.loads((folder / "config.json").read_text())
    config["quantization_config"] = dict(quant_method="mxfp4", modules_to_not_convert=["lm_head"])
    (folder / "config.json").write_text(json.dumps(config))


def configure(architecture, folder, style):
    """Rewrites the configuration, and returns whether the converter must read it as it stands."""
    import transformers

    path = folder / "config.json"
    config = json.loads(path.read_text())
    changes = architecture.for_converter(config)
    for key, value in changes.items():
        config.pop(key, None) if value is REMOVED else config.update({key: value})
    # A configuration that the converter must read as it stands has no class to fill it.
    if style == "old" and not changes:
        defaults = transformers.AutoConfig.for_model(config["model_type"]).to_dict()
        rope = config.pop("rope_parameters", None)
        if rope and "full_attention" in rope:
            config["rope_theta"] = rope["full_attention"]["rope_theta"]
            if config["model_type"].startswith("gemma"):
                config["rope_local_base_freq"] = rope["sliding_attention"]["rope_theta"]
        elif rope:
            config["rope_theta"] = rope.pop("rope_theta")
            if "partial_rotary_factor" in rope:
                config["partial_rotary_factor"] = rope.pop("partial_rotary_factor")
            config["rope_scaling"] = rope if rope.get("rope_type", "default") != "default" or "mrope_section" in rope else None
        kept = ("architectures", "model_type", "vocab_size", "tie_word_embeddings", "norm_topk_prob", "layer_types")
        # Their converter asks no class for the settings of models with Mamba-2.
        if config["model_type"] not in ("falcon_h1", "mamba2"):
            config = {k: v for k, v in config.items() if k in kept or k not in defaults or defaults[k] != v}
    path.write_text(json.dumps(config, indent=1))
    return bool(changes)


def write_tokenizer(name, folder, config):
    kind = TOKENIZERS[name]
    if kind == "sentencepiece":
        write_sentencepiece(folder)
    elif kind == "pieces":
        write_pieces(folder)
    elif kind == "characters":
        write_characters(folder)
    else:
        write_bytes(folder, *kind)
    sampling = dict(bos_token_id=1, eos_token_id=[1, 2], do_sample=True, temperature=0.7, top_k=20, top_p=0.8, repetition_penalty=1.05)
    (folder / "generation_config.json").write_text(json.dumps(sampling))


SPECIAL = ["<|endoftext|>", "<|im_start|>", "<|im_end|>", "<|user|>"]


def write_bytes(folder, pre, expressions):
    """A byte-level BPE; some ids are left out, and some tokens are added that aren't special."""
    from tokenizers import AddedToken, Regex, Tokenizer, decoders, models, pre_tokenizers, processors
    from transformers import PreTrainedTokenizerFast

    tokens, merges = make_oracle.vocabulary()
    vocabulary = {token: number for number, token in enumerate(tokens[3:-20])}
    merges = [tuple(merge.split(" ")) for merge in merges if merge.replace(" ", "") in vocabulary]
    tokenizer = Tokenizer(models.BPE(vocab=vocabulary, merges=merges, ignore_merges=pre.endswith("!")))
    digits = [pre_tokenizers.Digits(individual_digits=True)] if expressions[0] == r"\p{N}" else []
    if expressions[-1] == GPT2:
        steps = [*digits, pre_tokenizers.ByteLevel(add_prefix_space=False)]
    else:
        steps = [pre_tokenizers.Split(Regex(e), "isolated") for e in expressions]
        steps.append(pre_tokenizers.ByteLevel(add_prefix_space=False, use_regex=False))
    tokenizer.pre_tokenizer = pre_tokenizers.Sequence(steps) if len(steps) > 1 else steps[0]
    tokenizer.decoder = decoders.ByteLevel()
    tokenizer.add_tokens([AddedToken(token, special=True, normalized=False) for token in SPECIAL])
    tokenizer.add_tokens([AddedToken("<think>", special=False, normalized=False), AddedToken("  ", special=False, normalized=True)])
    named = dict(eos_token="<|im_end|>", pad_token="<|endoftext|>")
    if pre.endswith("!"):
        # A token before each text, as Llama 3 has it.
        start = tokenizer.token_to_id("<|endoftext|>")
        tokenizer.post_processor = processors.TemplateProcessing(
            single="<|endoftext|> $A", pair="<|endoftext|> $A <|endoftext|> $B", special_tokens=[("<|endoftext|>", start)])
        named["bos_token"] = "<|endoftext|>"
    else:
        tokenizer.post_processor = processors.ByteLevel(trim_offsets=False)
    fast = PreTrainedTokenizerFast(tokenizer_object=tokenizer, **named)
    fast.chat_template = TEMPLATE
    fast.save_pretrained(folder)


def write_sentencepiece(folder):
    """SentencePiece's BPE, with tokens that `tokenizer_config.json` adds, as Llama 2, Gemma and Phi-3 have them."""
    import io

    import sentencepiece

    out = io.BytesIO()
    sentences = [source.read_text() for source in sorted(Path(__file__).parent.glob("*.py"))]
    sentencepiece.SentencePieceTrainer.train(
        sentence_iterator=iter(line for text in sentences for line in text.split("\n") if line), model_writer=out, model_type="bpe",
        vocab_size=VOCABULARY - 20, normalization_rule_name="identity", byte_fallback=True, hard_vocab_limit=False, character_coverage=0.98, minloglevel=2)
    (folder / "tokenizer.model").write_bytes(out.getvalue())
    count = VOCABULARY - 20
    added = {"0": ("<unk>", True), "1": ("<s>", True), "2": ("</s>", True), str(count): ("<|user|>", False), str(count + 1): ("\u2581\u2581", False)}
    decoder = {k: dict(content=c, special=s, lstrip=False, rstrip=False, normalized=False, single_word=False) for k, (c, s) in added.items()}
    settings = dict(added_tokens_decoder=decoder, bos_token="<s>", eos_token="</s>", unk_token="<unk>", add_bos_token=True, add_eos_token=False,
                    add_prefix_space=True, chat_template=TEMPLATE, tokenizer_class="LlamaTokenizer")
    (folder / "tokenizer_config.json").write_text(json.dumps(settings))
    added = [dict(id=int(k), content=v[0], special=v[1]) for k, v in added.items()]
    (folder / "tokenizer.json").write_text(json.dumps(dict(added_tokens=added, model=dict(type="BPE", vocab={}, merges=[]))))


def write_characters(folder):
    """SentencePiece's BPE without its own file: merges of characters, and bytes for others."""
    from tokenizers import AddedToken, Tokenizer, decoders, models, normalizers
    from transformers import PreTrainedTokenizerFast

    letters = "\u2581abcdefghijklmnopqrstuvwxyz"
    tokens = ["<unk>", "<s>", "</s>"] + [f"<0x{byte:02X}>" for byte in range(256)] + list(letters)
    merges = [(a, b) for a in letters for b in letters][: VOCABULARY - len(tokens) - 4]
    tokens += [a + b for a, b in merges]
    tokenizer = Tokenizer(models.BPE(
        vocab={t: i for i, t in enumerate(tokens)}, merges=merges, byte_fallback=True, fuse_unk=True, unk_token="<unk>"))
    tokenizer.normalizer = normalizers.Sequence([normalizers.Prepend("\u2581"), normalizers.Replace(" ", "\u2581")])
    tokenizer.decoder = decoders.Sequence([decoders.Replace("\u2581", " "), decoders.ByteFallback(), decoders.Fuse()])
    tokenizer.add_tokens([AddedToken(t, special=True, normalized=False) for t in ("<unk>", "<s>", "</s>", "<|end|>", "<|user|>")])
    tokenizer.add_tokens([AddedToken("<think>", special=False, normalized=False), AddedToken("</think>", special=False, normalized=False)])
    fast = PreTrainedTokenizerFast(tokenizer_object=tokenizer, bos_token="<s>", eos_token="</s>", unk_token="<unk>")
    fast.chat_template = TEMPLATE
    fast.save_pretrained(folder)


def write_pieces(folder):
    """BERT's pieces of words."""
    from tokenizers import Tokenizer, decoders, models, normalizers, pre_tokenizers, processors
    from transformers import PreTrainedTokenizerFast

    special = ["[PAD]", "[UNK]", "[CLS]", "[SEP]", "[MASK]"]
    letters = "abcdefghijklmnopqrstuvwxyz0123456789.,!?"
    tokens = special + list(letters) + ["##" + letter for letter in letters]
    tokens += [a + b for a in letters for b in letters][: VOCABULARY - len(tokens)]
    tokenizer = Tokenizer(models.WordPiece(vocab={t: i for i, t in enumerate(tokens)}, unk_token="[UNK]"))
    tokenizer.normalizer = normalizers.BertNormalizer(lowercase=True)
    tokenizer.pre_tokenizer = pre_tokenizers.BertPreTokenizer()
    tokenizer.decoder = decoders.WordPiece()
    ids = {t: tokens.index(t) for t in special}
    tokenizer.post_processor = processors.TemplateProcessing(
        single="[CLS] $A [SEP]", pair="[CLS] $A [SEP] $B:1 [SEP]:1", special_tokens=[("[CLS]", ids["[CLS]"]), ("[SEP]", ids["[SEP]"])])
    fast = PreTrainedTokenizerFast(tokenizer_object=tokenizer, unk_token="[UNK]", pad_token="[PAD]", cls_token="[CLS]", sep_token="[SEP]", mask_token="[MASK]")
    fast.save_pretrained(folder)


def convert(name, folder, outtype, path, raw):
    """Converts a checkpoint with llama.cpp's converter."""
    import gguf
    import torch
    from conversion import get_model_class
    from conversion.base import ModelBase

    if not hasattr(ModelBase, "their_load_hparams"):
        ModelBase.their_load_hparams = staticmethod(ModelBase.load_hparams)
    as_it_stands = staticmethod(lambda folder, *_, **__: json.loads((folder / "config.json").read_text()))
    ModelBase.load_hparams = as_it_stands if raw else ModelBase.their_load_hparams
    kind = TOKENIZERS[name]
    pre = "jina-v2-en" if kind == "pieces" else "default" if isinstance(kind, str) else kind[0].rstrip("!")
    known = get_model_class(json.loads((folder / "config.json").read_text())["architectures"][0])
    # It knows pre-tokenizers by what they make of a text with the published vocabulary. Layers that predict further tokens are left out.
    ours = type(known.__name__, (known,), dict(model_arch=known.model_arch, get_vocab_base_pre=lambda *_: pre, no_mtp=True))
    kinds = dict(f32=gguf.LlamaFileType.ALL_F32, f16=gguf.LlamaFileType.MOSTLY_F16, bf16=gguf.LlamaFileType.MOSTLY_BF16)
    with torch.inference_mode():
        model = ours(folder, kinds[outtype], path)
        inner = getattr(model, "impl", model)
        inner.get_vocab_base_pre = types.MethodType(lambda *_: pre, inner)
        model.write()


def compare(theirs, ours, skipped):
    """How many keys and tensors their file has, and what differs in ours, but for keys that begin so."""
    import gguf
    import numpy

    theirs, ours = gguf.GGUFReader(theirs), gguf.GGUFReader(ours)
    differences = []
    keys = [{key: field for key, field in file.fields.items() if not key.startswith("GGUF.") and key not in GUESSES} for file in (theirs, ours)]
    for key in {key: None for of in keys for key in of if not key.startswith(skipped)}:
        values = [(tuple(kind.name for kind in of[key].types[:2]), of[key].contents()) if key in of else "missing" for of in keys]
        if values[0] != values[1]:
            shown = values
            if all(isinstance(value, tuple) and isinstance(value[1], list) for value in values):
                shown = [(value[0], len(value[1]), [pair for pair in enumerate(value[1]) if pair not in list(enumerate(other[1]))][:5])
                         for value, other in (values, values[::-1])]
            differences.append(f"{key}: {shown[0]!r}, ours {shown[1]!r}")
    tensors = [{tensor.name: tensor for tensor in file.tensors} for file in (theirs, ours)]
    for name in {**tensors[0], **tensors[1]}:
        if not all(name in of for of in tensors):
            differences.append(f"{name}: missing in {'ours' if name in tensors[0] else 'theirs'}")
            continue
        facts = [(of[name].tensor_type.name, of[name].shape.tolist()) for of in tensors]
        if facts[0] != facts[1]:
            differences.append(f"{name}: {facts[0]}, ours {facts[1]}")
        elif hashlib.sha256(tensors[0][name].data.tobytes()).digest() != hashlib.sha256(tensors[1][name].data.tobytes()).digest():
            if name.endswith("ssm_a") and numpy.allclose(tensors[0][name].data, tensors[1][name].data, rtol=1.2e-7, atol=0):
                continue
            differences.append(f"{name}: {bits(tensors[0][name].data, tensors[1][name].data)}")
    return len(keys[0]), len(tensors[0]), differences


def bits(theirs, ours):
    """How far the values of two tensors are from each other."""
    import numpy

    if theirs.dtype == numpy.uint8:
        return "its bytes differ"
    differ = int((theirs != ours).sum())
    apart = numpy.abs(theirs.astype(numpy.float64) - ours.astype(numpy.float64))
    relative = apart / numpy.maximum(numpy.abs(theirs.astype(numpy.float64)), 1e-30)
    return f"{differ} of {theirs.size} values differ, by {relative.max():.2e} of a value at most"


if __name__ == "__main__":
    sys.exit(main())
