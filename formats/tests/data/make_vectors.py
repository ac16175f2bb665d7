"""Writes quant_vectors.safetensors: a row of blocks of every element type, and the weights that they stand for.

The weights are what the `gguf` package's numpy implementation gives (pip install gguf safetensors), so that the Rust
one is tested against another. Tensors: "<type>.row" (uint8) and "<type>.weights" (float32), and "<type>.codebook" (int8
[points, coordinates]). Run it anywhere; it always writes the same file, next to itself.
"""

from pathlib import Path

import numpy as np
from gguf import GGML_QUANT_SIZES, GGMLQuantizationType, quants
from gguf.quants import dequantize
from safetensors.numpy import save_file

# Where each type's blocks keep their float16 scales.
SCALES = {
    "Q4_0": [0],
    "Q4_1": [0, 2],
    "Q5_0": [0],
    "Q5_1": [0, 2],
    "Q8_0": [0],
    "Q2_K": [80, 82],
    "Q3_K": [108],
    "Q4_K": [0, 2],
    "Q5_K": [0, 2],
    "Q6_K": [208],
    "IQ4_NL": [0],
    "IQ4_XS": [0],
    "MXFP4": [],
    "NVFP4": [],
    "IQ1_S": [0],
    "IQ1_M": [48],
    "IQ2_XXS": [0],
    "IQ2_XS": [0],
    "IQ2_S": [0],
    "IQ3_XXS": [0],
    "IQ3_S": [0],
    "TQ1_0": [52],
    "TQ2_0": [64],
}

# Types whose weights are points of a codebook that the `gguf` package has.
CODEBOOKS = ["IQ1_S", "IQ2_XXS", "IQ2_XS", "IQ2_S", "IQ3_XXS", "IQ3_S"]

# The largest exponent with which no weight overflows, in types whose blocks begin with one.
LARGEST_EXPONENTS = {"MXFP4": 252}

# Zeros, a one, the smallest and largest subnormals and normals, of either sign.
NOTABLE_SCALES = np.array(
    [0x0000, 0x8000, 0x3C00, 0xBC00, 0x0001, 0x83FF, 0x0400, 0x7BFF, 0xFBFF], dtype="<u2"
)


def blocks_of(name: str, rng: np.random.Generator) -> np.ndarray:
    block_len, block_bytes = GGML_QUANT_SIZES[GGMLQuantizationType[name]]
    count = 16 if block_len == 256 else 32
    blocks = rng.integers(0, 256, (count, block_bytes), dtype=np.uint8)
    # All codes (and small scales) at their least, and all at their most.
    blocks[0], blocks[1] = 0x00, 0xFF
    if name in LARGEST_EXPONENTS:
        blocks[:, 0] = np.minimum(blocks[:, 0], LARGEST_EXPONENTS[name])
    for offset in SCALES[name]:
        magnitudes = rng.integers(0x0400, 0x5000, count, dtype=np.uint16)
        scales = magnitudes | (rng.integers(0, 2, count, dtype=np.uint16) << 15)
        # Shuffled, so that blocks of two scales meet them in different pairs.
        scales[2 : 2 + len(NOTABLE_SCALES)] = rng.permutation(NOTABLE_SCALES)
        if name == "IQ1_M":
            # A scale's four bits are the highest of four words.
            for i in range(4):
                high = blocks[:, offset + 2 * i + 1]
                high[:] = (high & 0x0F) | ((scales >> 4 * i & 0x0F) << 4)
        else:
            blocks[:, offset : offset + 2] = scales.astype("<u2").view(np.uint8).reshape(count, 2)
    return blocks


def floats_of(name: str, rng: np.random.Generator) -> np.ndarray:
    _, size = GGML_QUANT_SIZES[GGMLQuantizationType[name]]
    row = rng.integers(0, 256, (64, size), dtype=np.uint8)
    row[:, -1] &= 0xBF  # No NaN: its bits are nobody's business.
    row[0], row[1] = 0, [0] * (size - 1) + [0x80]
    return row


def main() -> None:
    rng = np.random.default_rng(20240229)
    tensors = {}
    for name in ["F32", "F16", "BF16", *SCALES]:
        row = blocks_of(name, rng) if name in SCALES else floats_of(name, rng)
        weights = dequantize(row, GGMLQuantizationType[name]).astype(np.float32)
        assert np.isfinite(weights).all(), name
        tensors[f"{name}.row"] = row.reshape(-1)
        tensors[f"{name}.weights"] = np.ascontiguousarray(weights).reshape(-1)
    for name in CODEBOOKS:
        kind = getattr(quants, name)
        kind.init_grid()
        tensors[f"{name}.codebook"] = np.ascontiguousarray(kind.grid.reshape(kind.grid_shape)).astype(np.int8)
    save_file(tensors, Path(__file__).with_name("quant_vectors.safetensors"))


if __name__ == "__main__":
    main()
