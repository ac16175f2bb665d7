#!/usr/bin/env python3
"""Make an oracle of adapters: a random LoRA for one of the small models, and what `peft` computes with it.

    tools/make_lora_oracle.py MODEL.gguf NAME [--out DIR] [--seed N] [--rank N] [--alpha N]

MODEL.gguf is a small Llama in F32 as make_oracle.py writes them, with its MODEL.expected.safetensors beside it, whose prompt
is used. This writes

- DIR/NAME.gguf: the adapter, as llama.cpp's converter lays adapters out, for all projections of attention and MLPs,
- DIR/NAME.expected.safetensors: `ids`, i32 [T], and `logits`, f32 [T, V], what transformers and peft compute in float32,
- DIR/NAME.peft: the same adapter as peft saves it.

The model's weights are read back out of its file, and checked by computing its own expected logits first.
"""

import argparse
import sys
from pathlib import Path

# What files call the projections, and what transformers calls them.
PROJECTIONS = {
    "attn_q": "self_attn.q_proj",
    "attn_k": "self_attn.k_proj",
    "attn_v": "self_attn.v_proj",
    "attn_output": "self_attn.o_proj",
    "ffn_gate": "mlp.gate_proj",
    "ffn_up": "mlp.up_proj",
    "ffn_down": "mlp.down_proj",
}
# The largest difference from the model's own expected logits.
BOUND = 1e-4


def main():
    options = parse_arguments()
    import gguf
    import torch
    from safetensors.torch import load_file, save_file

    reader = gguf.GGUFReader(options.model)
    model = llama(reader)
    expected = load_file(str(options.model).replace(".f32.gguf", ".expected.safetensors"))
    ids = expected["ids"]
    off = (logits(model, ids) - expected["logits"]).abs().max().item()
    if not off <= BOUND:
        raise SystemExit(f"{options.model}: read back, its logits are off by {off}")
    torch.manual_seed(options.seed)
    model = with_adapter(model, options.rank, options.alpha)
    options.out.mkdir(parents=True, exist_ok=True)
    model.save_pretrained(options.out / f"{options.name}.peft")
    adapted = logits(model, ids)
    save_file({"ids": ids, "logits": adapted}, options.out / f"{options.name}.expected.safetensors")
    write_adapter(reader, model, options.alpha, options.out / f"{options.name}.gguf")
    changed = (adapted - expected["logits"]).abs().mean().item()
    print(f"{options.name}: the adapter changes logits by {changed:.3f} on average, of {expected['logits'].std().item():.3f}")
    return 0


def parse_arguments():
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("model", type=Path, metavar="MODEL.gguf", help="a small Llama in F32")
    parser.add_argument("name", metavar="NAME", help="what to call the adapter's files")
    parser.add_argument("--out", type=Path, default=Path("."), metavar="DIR", help="where to write [default: here]")
    parser.add_argument("--seed", type=int, default=11, metavar="N", help="seed of the adapter [default: 11]")
    parser.add_argument("--rank", type=int, default=4, metavar="N", help="the adapter's rank [default: 4]")
    parser.add_argument("--alpha", type=int, default=6, metavar="N", help="the adapter's alpha [default: 6]")
    return parser.parse_args()


def number(reader, key):
    return reader.fields[f"llama.{key}"].contents()


def heads(reader, projection):
    """The heads whose rows llama.cpp's converter reorders, since it rotates neighbours where transformers rotates halves; or none."""
    count = {"attn_q": "attention.head_count", "attn_k": "attention.head_count_kv"}.get(projection)
    return count and number(reader, count)


def halves(rows, n_heads):
    """Rows in the file's order in the order of transformers."""
    return rows.view(n_heads, -1, 2, rows.shape[-1]).swapaxes(1, 2).reshape(rows.shape)


def neighbours(rows, n_heads):
    """The other way round."""
    return rows.view(n_heads, 2, -1, rows.shape[-1]).swapaxes(1, 2).reshape(rows.shape)


def llama(reader):
    """The file's model."""
    import torch
    import transformers

    tensors = {tensor.name: torch.from_numpy(tensor.data.copy()) for tensor in reader.tensors}
    config = transformers.LlamaConfig(
        vocab_size=tensors["token_embd.weight"].shape[0],
        hidden_size=number(reader, "embedding_length"),
        intermediate_size=number(reader, "feed_forward_length"),
        num_hidden_layers=number(reader, "block_count"),
        num_attention_heads=number(reader, "attention.head_count"),
        num_key_value_heads=number(reader, "attention.head_count_kv"),
        rms_norm_eps=number(reader, "attention.layer_norm_rms_epsilon"),
        max_position_embeddings=number(reader, "context_length"),
        rope_parameters=dict(rope_type="default", rope_theta=number(reader, "rope.freq_base")),
        tie_word_embeddings="output.weight" not in tensors,
    )
    names = {"model.embed_tokens.weight": "token_embd.weight", "model.norm.weight": "output_norm.weight"}
    names["lm_head.weight"] = "output.weight" if "output.weight" in tensors else "token_embd.weight"
    weights = {theirs: tensors[ours] for theirs, ours in names.items()}
    for block in range(config.num_hidden_layers):
        place = f"model.layers.{block}"
        weights[f"{place}.input_layernorm.weight"] = tensors[f"blk.{block}.attn_norm.weight"]
        weights[f"{place}.post_attention_layernorm.weight"] = tensors[f"blk.{block}.ffn_norm.weight"]
        for ours, theirs in PROJECTIONS.items():
            rows, n_heads = tensors[f"blk.{block}.{ours}.weight"], heads(reader, ours)
            weights[f"{place}.{theirs}.weight"] = halves(rows, n_heads) if n_heads else rows
    model = transformers.LlamaForCausalLM._from_config(config, attn_implementation="eager", dtype=torch.float32)
    model.load_state_dict(weights, strict=True)
    return model.eval()


def with_adapter(model, rank, alpha):
    """The model with a random adapter."""
    import peft
    import torch

    targets = [theirs.rpartition(".")[2] for theirs in PROJECTIONS.values()]
    config = peft.LoraConfig(r=rank, lora_alpha=alpha, target_modules=targets, task_type="CAUSAL_LM")
    model = peft.get_peft_model(model, config).eval()
    with torch.no_grad():
        for name, weight in model.named_parameters():
            if ".lora_" in name:
                weight.copy_(0.6 * torch.randn(weight.shape) / weight.shape[1] ** 0.5)
    return model


def logits(model, ids):
    import torch

    with torch.inference_mode():
        return model(ids[None].long()).logits[0].float().contiguous().clone()


def write_adapter(reader, model, alpha, path):
    """Writes the adapter as llama.cpp's convert_lora_to_gguf.py does."""
    import gguf

    writer = gguf.GGUFWriter(path, "llama")
    writer.add_type("adapter")
    writer.add_string("adapter.type", "lora")
    writer.add_float32("adapter.lora.alpha", float(alpha))
    weights = {name: weight.detach() for name, weight in model.named_parameters()}
    for block in range(number(reader, "block_count")):
        for ours, theirs in PROJECTIONS.items():
            place = f"base_model.model.model.layers.{block}.{theirs}"
            down, up = (weights[f"{place}.lora_{side}.default.weight"] for side in "AB")
            n_heads = heads(reader, ours)
            up = neighbours(up, n_heads) if n_heads else up
            writer.add_tensor(f"blk.{block}.{ours}.weight.lora_a", down.contiguous().numpy())
            writer.add_tensor(f"blk.{block}.{ours}.weight.lora_b", up.contiguous().numpy())
    writer.write_header_to_file()
    writer.write_kv_data_to_file()
    writer.write_tensors_to_file()
    writer.close()


if __name__ == "__main__":
    sys.exit(main())
