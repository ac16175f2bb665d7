"""The share of exact attention that the pages hold which `host bench choices` reports as selected.

    host bench choices -f text.txt -p 8192 -n 64 --active-tokens 1024 --save-state exact.state > choices.json
    python3 benches/attention_share.py model.gguf exact.state choices.json

Runs the selecting tokens through the model in numpy, with exact attention over the saved pages, and adds up each head's
softmax over the pages that the layer attended to: the first, the active ones, and the selected ones. Needs numpy and gguf;
reads models of the architecture llama.
"""

import json
import struct
import sys

import numpy as np
from gguf import GGUFReader
from gguf.quants import dequantize


def main(model_path, state_path, choices_path):
    reader = GGUFReader(model_path)
    fields = {name: field.contents() for name, field in reader.fields.items() if name.startswith("llama.")}
    tensors = {tensor.name: tensor for tensor in reader.tensors}

    def weights(name):
        tensor = tensors[name]
        return dequantize(tensor.data, tensor.tensor_type).astype(np.float32)

    n_layers, n_heads = fields["llama.block_count"], fields["llama.attention.head_count"]
    n_kv, dim = fields["llama.attention.head_count_kv"], fields["llama.embedding_length"] // n_heads
    eps, base = fields["llama.attention.layer_norm_rms_epsilon"], fields["llama.rope.freq_base"]
    group = n_heads // n_kv

    choices = json.load(open(choices_path))
    depth, page_tokens = choices["depth"], choices["page_tokens"]
    queries = choices["queries"]
    saved, metadata = saved_parts(state_path)

    def norm(x, weight):
        return x / np.sqrt(np.mean(x * x, axis=-1, keepdims=True) + eps) * weight

    positions = depth + np.arange(len(queries))
    angles = positions[:, None] * base ** (-np.arange(0, dim, 2) / dim)
    cos, sin = np.cos(angles)[:, None], np.sin(angles)[:, None]

    def rope(x):
        even, odd = x[..., 0::2], x[..., 1::2]
        rotated = np.empty_like(x)
        rotated[..., 0::2], rotated[..., 1::2] = even * cos - odd * sin, even * sin + odd * cos
        return rotated

    # Each block has two layers after the embedding: attention, then the MLP.
    x = weights("token_embd.weight")[[query["token"] for query in queries]]
    shares = []
    for block in range(n_layers):
        part = lambda name: weights(f"blk.{block}.{name}.weight")
        layer = 1 + 2 * block
        h = norm(x, part("attn_norm"))
        q = rope((h @ part("attn_q").T).reshape(len(x), n_heads, dim))
        k = rope((h @ part("attn_k").T).reshape(len(x), n_kv, dim))
        v = (h @ part("attn_v").T).reshape(len(x), n_kv, dim)
        keys = np.concatenate([pages(saved, layer, depth, page_tokens, n_kv, dim, "keys"), k])
        values = np.concatenate([pages(saved, layer, depth, page_tokens, n_kv, dim, "values"), v])
        attended = np.empty((len(x), n_heads, dim), np.float32)
        for index, query in enumerate(queries):
            end = depth + index + 1
            choice = next(choice for choice in query["choices"] if choice["layer"] == layer)
            attended_pages = np.ones((end + page_tokens - 1) // page_tokens, bool)
            attended_pages[choice["selectable"][0] : choice["selectable"][1]] = False
            selectable = ~attended_pages
            attended_pages[choice["selected"]] = True
            for head in range(n_heads):
                scores = keys[:end, head // group] @ q[index, head] / np.sqrt(dim)
                mass = np.exp(scores - scores.max())
                mass /= mass.sum()
                by_page = np.bincount(np.arange(end) // page_tokens, weights=mass)
                of_selectable = by_page[selectable].sum()
                selected = by_page[selectable & attended_pages].sum() / of_selectable
                shares.append((layer, by_page[attended_pages].sum(), selected, of_selectable))
                attended[index, head] = mass @ values[:end, head // group]
        x = x + attended.reshape(len(x), -1) @ part("attn_output").T
        h = norm(x, part("ffn_norm"))
        gate = h @ part("ffn_gate").T
        x = x + (gate / (1 + np.exp(-gate)) * (h @ part("ffn_up").T)) @ part("ffn_down").T
    shares = np.array(shares)
    print(f"{len(queries)} queries at a depth of {depth}, {n_layers} layers, {n_heads} heads:")
    print(f"attended pages hold {shares[:, 1].mean():.2%} of exact attention")
    print(f"(selectable pages have {shares[:, 3].mean():.2%} of it, of which the selected hold {shares[:, 2].mean():.2%})")
    by_layer = [shares[shares[:, 0] == layer, 1].mean() for layer in np.unique(shares[:, 0])]
    print("by block:", " ".join(f"{share:.3f}" for share in by_layer))


def saved_parts(path):
    data = np.memmap(path, np.uint8, "r")
    (length,) = struct.unpack("<Q", data[:8].tobytes())
    header = json.loads(data[8 : 8 + length].tobytes())
    metadata = header.pop("__metadata__", {})
    begin = 8 + length
    parts = {name: data[begin + part["data_offsets"][0] : begin + part["data_offsets"][1]] for name, part in header.items()}
    return parts, metadata


def pages(saved, layer, depth, page_tokens, n_kv, dim, part):
    """Keys or values [depth, n_kv, dim]: each head of each token has a scale and int16 codes."""
    rows = []
    for page in range((depth + page_tokens - 1) // page_tokens):
        data = saved[f"layer.{layer}.page.{page}.{part}"].tobytes()
        slots = n_kv * page_tokens
        scales = np.frombuffer(data, np.float32, slots).reshape(n_kv, page_tokens, 1)
        codes = np.frombuffer(data, np.int16, slots * dim, 4 * slots).reshape(n_kv, page_tokens, dim)
        rows.append((scales * codes).transpose(1, 0, 2))
    return np.concatenate(rows)[:depth]


main(*sys.argv[1:])
