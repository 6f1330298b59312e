#!/usr/bin/env python3
"""Writes dtype.bin: random blocks of every tensor type and what the `gguf` package (pip install gguf) makes of them.

Records, little-endian: u32 type, u32 n elements, u32 n bytes, the bytes, n x f32.
"""
import os
import struct
import sys

import numpy as np
from gguf import GGML_QUANT_SIZES, GGMLQuantizationType as Type, quants

N = 512
TYPES = (Type.F32, Type.F16, Type.BF16, Type.Q8_0, Type.Q4_0, Type.Q4_K, Type.Q5_K, Type.Q6_K, Type.MXFP4)


def random_blocks(rng, qtype):
    """All bytes random, drawn again until every value is finite."""
    block_len, block_bytes = GGML_QUANT_SIZES[qtype]
    while True:
        raw = rng.integers(0, 256, (N // block_len, block_bytes), dtype=np.uint8)
        if qtype in (Type.F32, Type.F16, Type.BF16):
            raw = quants.quantize(rng.standard_normal((1, N)).astype(np.float32), qtype).view(np.uint8)
        values = quants.dequantize(raw, qtype).ravel()
        if np.isfinite(values).all():
            return raw, values


def main():
    rng = np.random.default_rng(7)
    path = os.path.join(os.path.dirname(os.path.abspath(__file__)), "dtype.bin")
    with open(path if len(sys.argv) < 2 else sys.argv[1], "wb") as out:
        for qtype in TYPES:
            raw, values = random_blocks(rng, qtype)
            out.write(struct.pack("<III", int(qtype), N, raw.nbytes))
            out.write(raw.tobytes())
            out.write(values.astype("<f4").tobytes())


if __name__ == "__main__":
    main()
