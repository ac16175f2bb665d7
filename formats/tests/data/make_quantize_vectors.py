"""Writes quantize_vectors.safetensors: weights, and how well ggml's own quantisers keep them.

Tensors: "<set>" (float32), weights of a distribution; "<set>.<type>" (float32 [1]), the relative error
sqrt(sum((w' - w)^2) / sum(w^2)) of what ggml's quantiser for the type makes of them, read back by the `gguf` package's
numpy implementation; "importance" (float32), how much each column of rows as long counts, and "<set>.<type>.weighted", the
error where squares count so, and the quantiser knows. Run as: make_quantize_vectors.py LIBRARY, with a dynamic library that exports
ggml_quantize_chunk, such as libggml.so or a Python binding of llama.cpp (pip install gguf safetensors xllamacpp).
"""

import ctypes
import sys
from pathlib import Path

import numpy as np
from gguf import GGML_QUANT_SIZES, GGMLQuantizationType
from gguf.quants import dequantize
from safetensors.numpy import save_file

TYPES = "F16 BF16 Q4_0 Q4_1 Q5_0 Q5_1 Q8_0 Q2_K Q3_K Q4_K Q5_K Q6_K IQ4_NL IQ4_XS MXFP4 IQ3_S IQ2_S".split()
ROW = 4 * 256
COUNT = 6 * ROW


def main() -> None:
    ggml = ctypes.CDLL(sys.argv[1])
    quantize = ggml.ggml_quantize_chunk
    quantize.restype = ctypes.c_size_t
    quantize.argtypes = [ctypes.c_int, ctypes.c_void_p, ctypes.c_void_p] + 3 * [ctypes.c_int64] + [ctypes.c_void_p]
    rng = np.random.default_rng(7)
    sets = {
        "normal": rng.normal(0, 0.02, COUNT),
        "heavy_tails": rng.standard_t(4, COUNT) * 0.02,
        "one_sided": rng.uniform(0.01, 0.04, COUNT),
    }
    importance = np.exp(rng.normal(0, 1.5, ROW)).astype("<f4")
    tensors = {"importance": importance}
    for name, weights in sets.items():
        weights = weights.astype("<f4")
        tensors[name] = weights
        for kind in TYPES:
            dtype = GGMLQuantizationType[kind]
            block_len, block_bytes = GGML_QUANT_SIZES[dtype]
            row = np.zeros(COUNT // block_len * block_bytes, np.uint8)
            ggml.ggml_quantize_init(int(dtype))
            for suffix, columns in [("", None), (".weighted", importance)]:
                pointer = None if columns is None else columns.ctypes.data
                quantize(int(dtype), weights.ctypes.data, row.ctypes.data, 0, COUNT // ROW, ROW, pointer)
                off = dequantize(row, dtype).astype(np.float64) - weights
                counts = np.ones(COUNT) if columns is None else np.tile(columns.astype(np.float64), COUNT // ROW)
                error = np.sqrt((counts * off**2).sum() / (counts * weights.astype(np.float64) ** 2).sum())
                tensors[f"{name}.{kind}{suffix}"] = np.array([error], "<f4")
    save_file(tensors, Path(__file__).with_name("quantize_vectors.safetensors"))


if __name__ == "__main__":
    main()
