"""Model files for cpu.py: real models' shapes, random weights, in the formats that are compared.

BF16 is written here, a few thousand rows of a tensor at a time, so that the largest tensor in BF16 is all that is in
memory; `galley quantize` makes the other formats of it. The vocabulary has real size: GPT-2's bytes, one merge, one end
token, and made-up words that encoding never reaches but that a random model says all the time. Prompts are best given as
token ids. Needs numpy and gguf (config/demo/train/requirements.txt), and only for writing.
"""
import itertools
import subprocess
import sys
from dataclasses import dataclass
from pathlib import Path

FORMATS = ("BF16", "Q8_0", "Q4_0", "Q4_K_M")
N_BYTE, CHUNK = 256, 4096  # CHUNK: rows


@dataclass(frozen=True)
class Shape:
    arch: str
    layers: int
    embd: int
    ffn: int
    heads: int
    kv_heads: int
    head_size: int
    vocab: int
    rope_base: float
    eps: float
    context: int

    def matrices(self):
        """Of one layer: name, rows, columns."""
        q, kv = self.heads * self.head_size, self.kv_heads * self.head_size
        return (("attn_q", q, self.embd), ("attn_k", kv, self.embd), ("attn_v", kv, self.embd),
                ("attn_output", self.embd, q), ("ffn_gate", self.ffn, self.embd), ("ffn_up", self.ffn, self.embd),
                ("ffn_down", self.embd, self.ffn))

    def norms(self):
        """Of one layer: name, length."""
        own = (("attn_q_norm", self.head_size), ("attn_k_norm", self.head_size)) if self.arch == "qwen3" else ()
        return (("attn_norm", self.embd), ("ffn_norm", self.embd)) + own

    def ops_per_token(self, head):
        """Multiplications and additions of the matrix products of a token, the output head's counted if asked."""
        body = self.layers * sum(rows * cols for _, rows, cols in self.matrices())
        return 2 * (body + (self.vocab * self.embd if head else 0))

    def kv_bytes_per_token(self):
        return 2 * 2 * self.layers * self.kv_heads * self.head_size  # K and V, f16


SHAPES = {"llama-1b": Shape("llama", 16, 2048, 8192, 32, 8, 64, 128256, 500000.0, 1e-5, 131072),
          "qwen3-0.6b": Shape("qwen3", 28, 1024, 3072, 16, 8, 128, 151936, 1000000.0, 1e-6, 40960)}


def path_of(folder, shape, kind):
    return Path(folder) / f"{shape}-{kind.lower()}.gguf"


# ---- BF16 ----

def byte_tokens():
    """GPT-2's alphabet: each byte as a printable character."""
    printable = list(range(33, 127)) + list(range(161, 173)) + list(range(174, 256))
    rest = iter(range(256, 512))
    return [chr(b) if b in printable else chr(next(rest)) for b in range(N_BYTE)]


def made_up_words():
    for n in range(3, 6):
        for letters in itertools.product("aeionrstlmdk", repeat=n):
            yield "\u0120" + "".join(letters)


def vocabulary(n):
    tokens = byte_tokens() + ["<|endoftext|>", "th"]
    return tokens + list(itertools.islice(made_up_words(), n - len(tokens)))


def weight_bytes(path, shape):
    """A file without its vocabulary: each token's length, bytes and type. What else is there is a kilobyte."""
    return path.stat().st_size - sum(8 + len(t.encode()) + 4 for t in vocabulary(shape.vocab))


def write_tokenizer(writer, vocab):
    writer.add_tokenizer_model("gpt2")
    writer.add_tokenizer_pre("gpt-2")
    writer.add_token_list(vocabulary(vocab))
    writer.add_token_types([3 if i == N_BYTE else 1 for i in range(vocab)])
    writer.add_token_merges(["t h"])
    writer.add_eos_token_id(N_BYTE)
    writer.add_add_bos_token(False)


def write_metadata(writer, name, shape):
    writer.add_name(f"{name} random")
    writer.add_context_length(shape.context)
    writer.add_embedding_length(shape.embd)
    writer.add_block_count(shape.layers)
    writer.add_feed_forward_length(shape.ffn)
    writer.add_head_count(shape.heads)
    writer.add_head_count_kv(shape.kv_heads)
    writer.add_key_length(shape.head_size)
    writer.add_value_length(shape.head_size)
    writer.add_rope_dimension_count(shape.head_size)
    writer.add_rope_freq_base(shape.rope_base)
    writer.add_layer_norm_rms_eps(shape.eps)
    writer.add_vocab_size(shape.vocab)
    write_tokenizer(writer, shape.vocab)


def tensors(shape):
    """All of the file: name, rows (0: a norm), columns. The head is the embedding."""
    yield "token_embd", shape.vocab, shape.embd
    for i in range(shape.layers):
        for name, n in shape.norms():
            yield f"blk.{i}.{name}", 0, n
        for name, rows, cols in shape.matrices():
            yield f"blk.{i}.{name}", rows, cols
    yield "output_norm", 0, shape.embd


def random_bf16(numpy, rng, rows, cols):
    """Of variance 1 / cols, so that activations keep their size from layer to layer."""
    out = numpy.empty((rows, cols), numpy.uint16)
    for at in range(0, rows, CHUNK):
        some = rng.standard_normal((min(CHUNK, rows - at), cols), numpy.float32)
        some *= cols ** -0.5
        bits = some.view(numpy.uint32)
        bits += 0x8000  # to the nearest
        bits >>= 16
        out[at:at + len(some)] = bits
    return out.view(numpy.uint8)


def write_bf16(path, name, shape, seed):
    import gguf
    import numpy
    rng = numpy.random.default_rng(seed)
    kind, u8, f32 = gguf.GGMLQuantizationType.BF16, numpy.dtype(numpy.uint8), numpy.dtype(numpy.float32)
    writer = gguf.GGUFWriter(path, shape.arch)
    write_metadata(writer, name, shape)
    for tensor, rows, cols in tensors(shape):
        if rows:
            writer.add_tensor_info(f"{tensor}.weight", (rows, 2 * cols), u8, 2 * rows * cols, kind)
        else:
            writer.add_tensor_info(f"{tensor}.weight", (cols,), f32, 4 * cols)
    writer.write_header_to_file()
    writer.write_kv_data_to_file()
    writer.write_ti_data_to_file()
    for _, rows, cols in tensors(shape):
        writer.write_tensor_data(random_bf16(numpy, rng, rows, cols) if rows else numpy.ones(cols, f32))
    writer.close()


# ---- All of them ----

def make(folder, galley, shapes, formats, seed=1):
    """Writes what is missing. A file gets its name when it is complete."""
    Path(folder).mkdir(parents=True, exist_ok=True)
    for shape in shapes:
        source = path_of(folder, shape, "BF16")
        for kind in ["BF16"] + [f for f in formats if f != "BF16"]:
            path = path_of(folder, shape, kind)
            if path.exists():
                print(f"{path}: is there")
                continue
            part = path.with_suffix(".part")
            if kind == "BF16":
                write_bf16(part, shape, SHAPES[shape], seed)
            elif subprocess.run([galley, "quantize", source, part, kind], stdout=subprocess.DEVNULL).returncode:
                sys.exit(f"{path}: galley quantize failed")
            part.rename(path)
            print(f"{path}: {path.stat().st_size / 1e6:.0f} MB", flush=True)
