#!/usr/bin/env python3
"""A wider and deeper model that computes the same function: a Llama GGUF, such as the demo's target, to the shape of
Llama-3.2-1B (2048 channels, 16 layers, 32 heads over 8, feed-forward 8192), its vocabulary left as it is. Speculative
decoding can then be measured with the costs of a model of real size and the acceptance of a really trained one.

    python3 tests/bench/widen.py config/demo/target.gguf build/wide.gguf
    python3 tests/bench/widen.py IN.gguf OUT.gguf --embd 512 --layers 8 --heads 8 --kv-heads 4 --ffn 1024 --seed 1

Extra heads, channels and layers are filled with random numbers, and all that they compute is multiplied by zero where it
would join the residual stream, so extra channels stay exactly zero there. Real blocks of weights are copied bit for bit.
Extra layers come after the real ones: galley.early_exit_layer still names the same hidden states, but the exit is now
3 layers of 16 and not of 6, a cheaper draft than the demo's own.

Two things are not as in a real model: about a third of the weights multiply to zero, and so do all the extra channels'
activations. The bytes read and the operations are the same; a device whose clock follows its power may be a little faster.

Logits are equal to f32 rounding, and no closer unless the width grows by a power of 4 (--embd 1024, 4096): the norms'
weights are multiplied by the root of the ratio. Where a back end rounds activations to 8 bits, such a last bit now and then
tips one of them, and logits then differ by a part of what that rounding costs anyway.

Matrices may be Q8_0, F16 or F32. Needs numpy and gguf (config/demo/train/requirements.txt). tests/bench/test_widen.py
checks that logits stay equal. The default shape takes half a minute and a gigabyte of disk.
"""
import argparse
import sys
from dataclasses import dataclass
from pathlib import Path

import gguf
import numpy

UNIT = 32  # columns that are copied as one piece: a block of Q8_0, and as many of F16 and F32
SPREAD = 0.02  # standard deviation of random weights, as of real ones
KINDS = gguf.GGMLQuantizationType
SIZE_KEYS = {"embd": "embedding_length", "layers": "block_count", "heads": "attention.head_count",
             "kv_heads": "attention.head_count_kv", "ffn": "feed_forward_length"}
EPS_KEY = "attention.layer_norm_rms_epsilon"

# What the rows and columns of each matrix count, and whether its output must be silent outside of the real part: it must
# where it is added to the residual stream. The embedding is silent for the same reason, and the head where it is tied.
MATRICES = {"token_embd": ("vocab", "embd", True), "output": ("vocab", "embd", False),
            "attn_q": ("q", "embd", False), "attn_k": ("kv", "embd", False), "attn_v": ("kv", "embd", False),
            "attn_output": ("embd", "q", True), "ffn_gate": ("ffn", "embd", False), "ffn_up": ("ffn", "embd", False),
            "ffn_down": ("embd", "ffn", True)}
NORMS = ("attn_norm", "ffn_norm", "output_norm")


class Misfit(Exception):
    """The file or the shape asked for cannot be widened."""


@dataclass
class Shape:
    embd: int
    layers: int
    heads: int
    kv_heads: int
    ffn: int
    head_size: int
    vocab: int

    def axis(self, name):
        """How many rows or columns the axis of a matrix has."""
        heads = {"q": self.heads, "kv": self.kv_heads}
        return heads[name] * self.head_size if name in heads else getattr(self, name)


# ---- What the input is, and whether it fits ----

def field(reader, key, default=None):
    found = reader.get_field(key)
    return default if found is None else found.contents()


def stem(name):
    """blk.3.attn_q.weight -> attn_q, or None for a tensor that this tool does not know."""
    parts = name.split(".")
    if parts[0] == "blk" and len(parts) > 2:
        parts = parts[2:]
    return parts[0] if parts[1:] == ["weight"] and (parts[0] in MATRICES or parts[0] in NORMS) else None


def check_tensors(tensors):
    for t in tensors.values():
        known = stem(t.name)
        allowed = (KINDS.F32,) if known in NORMS else (KINDS.Q8_0, KINDS.F16, KINDS.F32)
        if not known or t.tensor_type not in allowed:
            raise Misfit(f"tensor {t.name} of type {t.tensor_type.name}: cannot widen it")


def read_shape(reader, tensors):
    if field(reader, "general.architecture") != "llama":
        raise Misfit("only the architecture 'llama' can be widened")
    check_tensors(tensors)
    sizes = {name: field(reader, "llama." + key) for name, key in SIZE_KEYS.items()}
    sizes["kv_heads"] = sizes["kv_heads"] or sizes["heads"]
    for name in [n for n in sizes if not sizes[n]]:
        raise Misfit(f"llama.{SIZE_KEYS[name]} is missing")
    head_size = int(tensors["blk.0.attn_q.weight"].shape[1]) // sizes["heads"]
    return Shape(**sizes, head_size=head_size, vocab=int(tensors["token_embd.weight"].shape[1]))


def check_fit(real, wide):
    for name in SIZE_KEYS:
        if getattr(wide, name) < getattr(real, name):
            raise Misfit(f"--{name.replace('_', '-')} {getattr(wide, name)}: the model has {getattr(real, name)} already")
    for name, size in (("head size", real.head_size), ("width", real.embd), ("feed-forward", real.ffn),
                       ("--embd", wide.embd), ("--ffn", wide.ffn)):
        if size % UNIT:
            raise Misfit(f"{name} {size} is not a multiple of {UNIT}")
    if wide.embd != wide.heads * wide.head_size:
        raise Misfit(f"--embd {wide.embd} is not --heads {wide.heads} of {wide.head_size}")
    if wide.heads % wide.kv_heads:
        raise Misfit(f"--heads {wide.heads} is not a multiple of --kv-heads {wide.kv_heads}")
    if wide.heads // wide.kv_heads < real.heads // real.kv_heads:
        raise Misfit(f"--heads {wide.heads} over --kv-heads {wide.kv_heads} leaves no room for the model's "
                     f"{real.heads} over {real.kv_heads}")


# ---- Where the real part goes, and what stands around it ----

def real_heads(real, wide):
    """Query heads keep their key/value head: head i of a group of the model is head i of the same, larger group."""
    group, wide_group = real.heads // real.kv_heads, wide.heads // wide.kv_heads
    return [i // group * wide_group + i % group for i in range(real.heads)]


def place(real, wide, axis):
    """For each index of the model's axis, its index in the wide one."""
    if axis != "q":
        return numpy.arange(real.axis(axis))
    first = numpy.array(real_heads(real, wide)) * real.head_size
    return (first[:, None] + numpy.arange(real.head_size)).ravel()


def pieces(data, rows):
    """A matrix of any type as bytes [rows, columns / UNIT, bytes of a piece]."""
    return numpy.ascontiguousarray(data).view(numpy.uint8).reshape(rows, -1, piece_bytes(data))


def piece_bytes(data):
    return gguf.GGML_QUANT_SIZES[KINDS.Q8_0][1] if data.dtype == numpy.uint8 else UNIT * data.itemsize


def random_matrix(rng, rows, cols, kind):
    values = rng.standard_normal((rows, cols), numpy.float32)
    values *= SPREAD
    return pieces(gguf.quants.quantize(values, kind), rows)


def silence(matrix, kind):
    """Make all weights zero. A block of Q8_0 keeps its random digits under a scale of zero: an integer kernel has them to
    multiply, as with a real model."""
    if kind == KINDS.Q8_0:
        matrix[:, :, :2] = 0
    else:
        matrix[:] = 0


def wide_matrix(rng, real, wide, name, kind, data):
    """The matrix in the wide model as bytes [rows, bytes of a row]; data is None in an extra layer."""
    row_axis, col_axis, silent = MATRICES[name]
    matrix = random_matrix(rng, wide.axis(row_axis), wide.axis(col_axis), kind)
    if silent:
        silence(matrix, kind)
    if data is not None:
        rows, units = place(real, wide, row_axis), place(real, wide, col_axis)[::UNIT] // UNIT
        matrix[rows[:, None], units] = pieces(data, len(rows))
    return matrix.reshape(matrix.shape[0], -1)


def wide_norm(real, wide, data):
    """With zeros in the extra channels the mean of squares is real/wide of what it was; a weight of that root undoes it."""
    weight = numpy.ones(wide.embd)
    if data is not None:
        weight[:real.embd] = data
    return (weight * numpy.sqrt(real.embd / wide.embd)).astype(numpy.float32)


# ---- The output ----

def wide_names(tensors, wide):
    """Every tensor of the wide model: its name, the model's tensor that it holds or None, and one whose type it takes."""
    first = [n for n in tensors if n.startswith("blk.0.")]
    names = [n for n in tensors if not n.startswith("blk.")]
    names[1:1] = [n.replace("blk.0.", f"blk.{i}.") for i in range(wide.layers) for n in first]
    return [(n, tensors.get(n), tensors.get(n) or tensors[f"blk.0.{stem(n)}.weight"]) for n in names]


def write_metadata(writer, reader, real, wide, name):
    changed = {"llama." + key: getattr(wide, size) for size, key in SIZE_KEYS.items()}
    changed["llama." + EPS_KEY] = field(reader, "llama." + EPS_KEY, 1e-5) * real.embd / wide.embd
    changed["general.name"] = name
    types = {str: gguf.GGUFValueType.STRING, int: gguf.GGUFValueType.UINT32, float: gguf.GGUFValueType.FLOAT32}
    for f in reader.fields.values():
        # The writer has its own words for these.
        if f.name.startswith("GGUF.") or f.name in changed or f.name in ("general.architecture", "general.alignment"):
            continue
        writer.add_key_value(f.name, f.contents(), f.types[0], f.types[-1] if len(f.types) > 1 else None)
    for key, value in changed.items():
        writer.add_key_value(key, value, types[type(value)])


def announce(writer, wide, name, kind):
    if stem(name) in NORMS:
        writer.add_tensor_info(name, (wide.embd,), numpy.dtype(numpy.float32), 4 * wide.embd)
        return
    row_axis, col_axis, _ = MATRICES[stem(name)]
    size = gguf.quant_shape_to_byte_shape((wide.axis(row_axis), wide.axis(col_axis)), kind)
    writer.add_tensor_info(name, size, numpy.dtype(numpy.uint8), size[0] * size[1], kind)


def write_tensors(writer, real, wide, todo, seed):
    """One tensor at a time: the largest and its random numbers are all that is in memory."""
    rng = numpy.random.default_rng(seed)
    for name, source, pattern in todo:
        announce(writer, wide, name, pattern.tensor_type)
    writer.write_header_to_file()
    writer.write_kv_data_to_file()
    writer.write_ti_data_to_file()
    for name, source, pattern in todo:
        data = None if source is None else source.data
        writer.write_tensor_data(wide_norm(real, wide, data) if stem(name) in NORMS else
                                 wide_matrix(rng, real, wide, stem(name), pattern.tensor_type, data))


def widen(source, target, sizes, seed=1, name="demo-widened-1b"):
    """Write target; sizes are those of SIZE_KEYS. Raises Misfit before anything is written."""
    if Path(source).resolve() == Path(target).resolve():
        raise Misfit("the output would replace the input")
    reader = gguf.GGUFReader(source)
    tensors = {t.name: t for t in reader.tensors}
    real = read_shape(reader, tensors)
    wide = Shape(**sizes, head_size=real.head_size, vocab=real.vocab)
    check_fit(real, wide)
    writer = gguf.GGUFWriter(target, "llama")
    write_metadata(writer, reader, real, wide, name)
    write_tensors(writer, real, wide, wide_names(tensors, wide), seed)
    writer.close()


def main():
    p = argparse.ArgumentParser(description=__doc__.split("\n\n")[0])
    p.add_argument("source", metavar="IN.gguf")
    p.add_argument("target", metavar="OUT.gguf")
    p.add_argument("--embd", type=int, default=2048, help="channels (%(default)s)")
    p.add_argument("--layers", type=int, default=16, help="(%(default)s)")
    p.add_argument("--heads", type=int, default=32, help="query heads (%(default)s)")
    p.add_argument("--kv-heads", type=int, default=8, help="(%(default)s)")
    p.add_argument("--ffn", type=int, default=8192, help="feed-forward channels (%(default)s)")
    p.add_argument("--seed", type=int, default=1, help="of the random weights (%(default)s)")
    p.add_argument("--name", default="demo-widened-1b", help="general.name of the output (%(default)s)")
    a = p.parse_args()
    try:
        widen(a.source, a.target, {size: getattr(a, size) for size in SIZE_KEYS}, a.seed, a.name)
    except (Misfit, OSError, ValueError) as e:
        sys.exit(f"widen.py: {e}")


if __name__ == "__main__":
    main()
