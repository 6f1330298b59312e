#!/usr/bin/env python3
"""A widened model must compute the logits of the model it was made from: both run through a forward pass in numpy, last
layer and early exit. Equal means that the largest difference is within 1e-4 of the largest logit, and each top token is
the same; exact it cannot be, as sums are taken in another order and the norms' weights are multiplied by a rounded root.

    python3 tests/bench/test_widen.py                      # small shapes, some seconds
    python3 tests/bench/test_widen.py A.gguf B.gguf        # the figures for two files, of any size

Needs numpy and gguf (config/demo/train/requirements.txt); says so and stops where they are missing.
"""
import hashlib
import pathlib
import sys
import tempfile
import unittest

try:
    import gguf
    import numpy
except ImportError as e:
    print(f"skipped: {e}")
    sys.exit(0)

HERE = pathlib.Path(__file__).resolve().parent
sys.path.insert(0, str(HERE))
import widen  # noqa: E402

DEMO = HERE.parent.parent / "config/demo/target.gguf"
TEXT = HERE.parent.parent / "config/demo/README.md"
N_TOK = 300
TOLERANCE = 1e-4
SMALL = dict(embd=512, layers=8, heads=8, kv_heads=4, ffn=1024)  # twice as wide: the norms' root is rounded
EXACT = dict(embd=1024, layers=7, heads=16, kv_heads=8, ffn=1536)  # four times: it is 1/2
SYNTHETIC = dict(embd=128, layers=3, heads=4, kv_heads=2, ffn=96)  # grouped already
SYNTHETIC_WIDE = dict(embd=288, layers=4, heads=9, kv_heads=3, ffn=160)


# ---- The model, plainly ----

class Model:
    """A Llama GGUF of which one matrix at a time is unpacked."""

    def __init__(self, path):
        self.reader = gguf.GGUFReader(path)
        self.tensors = {t.name: t for t in self.reader.tensors}
        self.shape = widen.read_shape(self.reader, self.tensors)
        self.eps = numpy.float32(self.key("llama.attention.layer_norm_rms_epsilon"))
        self.exit = self.key("galley.early_exit_layer")

    def key(self, name):
        return widen.field(self.reader, name)

    def weight(self, name):
        t = self.tensors[name + ".weight"]
        return gguf.quants.dequantize(t.data, t.tensor_type)

    def norm(self, x, name):
        return x / numpy.sqrt((x * x).mean(-1, keepdims=True) + self.eps) * self.weight(name)

    def heads(self, x, name):
        """[heads, tokens, head size]"""
        return (x @ self.weight(name).T).reshape(len(x), -1, self.shape.head_size).swapaxes(0, 1)

    def rotate(self, x):
        size = self.shape.head_size
        rate = self.key("llama.rope.freq_base") ** (-numpy.arange(0, size, 2) / size)
        angle = numpy.outer(numpy.arange(x.shape[1]), rate)
        cos, sin, out = numpy.cos(angle), numpy.sin(angle), numpy.empty_like(x)
        out[..., 0::2] = x[..., 0::2] * cos - x[..., 1::2] * sin
        out[..., 1::2] = x[..., 0::2] * sin + x[..., 1::2] * cos
        return out

    def attention(self, x, block):
        h = self.norm(x, block + "attn_norm")
        group = self.shape.heads // self.shape.kv_heads
        q = self.rotate(self.heads(h, block + "attn_q"))
        k = self.rotate(self.heads(h, block + "attn_k")).repeat(group, 0)
        v = self.heads(h, block + "attn_v").repeat(group, 0)
        score = q @ k.swapaxes(1, 2) / numpy.float32(self.shape.head_size ** 0.5)
        score[:, ~numpy.tri(len(x), dtype=bool)] = -numpy.inf
        share = numpy.exp(score - score.max(-1, keepdims=True))
        share /= share.sum(-1, keepdims=True)
        return (share @ v).swapaxes(0, 1).reshape(len(x), -1) @ self.weight(block + "attn_output").T

    def feed_forward(self, x, block):
        h = self.norm(x, block + "ffn_norm")
        gate = h @ self.weight(block + "ffn_gate").T
        return gate / (1 + numpy.exp(-gate)) * (h @ self.weight(block + "ffn_up").T) @ self.weight(block + "ffn_down").T

    def head(self, x):
        name = "output" if "output.weight" in self.tensors else "token_embd"
        return self.norm(x, "output_norm") @ self.weight(name).T

    def logits(self, ids):
        """Of the last layer, and of the early exit where the model has one."""
        x, out = self.weight("token_embd")[ids], {}
        for layer in range(self.shape.layers):
            x = x + self.attention(x, f"blk.{layer}.")
            x = x + self.feed_forward(x, f"blk.{layer}.")
            if layer + 1 == self.exit:
                out["early exit"] = self.head(x)
        out["last layer"] = self.head(x)
        return out


def token_ids(model):
    """Real text by the longest token each time: not how a tokenizer cuts it, but near enough to run both models on."""
    ids = {token: i for i, token in enumerate(model.key("tokenizer.ggml.tokens"))}
    text, out, at = TEXT.read_text().replace(" ", "Ġ").replace("\n", "Ċ"), [], 0
    while len(out) < N_TOK and at < len(text):
        size = next((n for n in range(16, 0, -1) if text[at:at + n] in ids), 0)
        if size:
            out.append(ids[text[at:at + size]])
        at += size or 1
    return numpy.array(out)


def differences(a, b, ids):
    """For each place where logits are taken: the largest difference as a share of the largest logit, top tokens unequal."""
    ours, theirs = a.logits(ids), b.logits(ids)
    assert ours.keys() == theirs.keys()
    return {where: (float(abs(ours[where] - theirs[where]).max() / abs(ours[where]).max()),
                    int((ours[where].argmax(-1) != theirs[where].argmax(-1)).sum())) for where in ours}


# ---- A source with what the demo's has not: grouped heads, a head of its own, F16 and F32 ----

def write_synthetic(path, kind):
    shape = widen.Shape(**SYNTHETIC, head_size=32, vocab=160)
    writer, rng = gguf.GGUFWriter(path, "llama"), numpy.random.default_rng(3)
    for name, key in widen.SIZE_KEYS.items():
        writer.add_uint32("llama." + key, SYNTHETIC[name])
    writer.add_layer_norm_rms_eps(1e-3)
    writer.add_rope_freq_base(10000.0)
    writer.add_uint32("galley.early_exit_layer", 2)
    blocks = [f"blk.{i}.{n}" for i in range(shape.layers) for n in [*widen.MATRICES, *widen.NORMS]
              if n not in ("token_embd", "output", "output_norm")]
    for name in ["token_embd", *blocks, "output_norm", "output"]:
        base = name.split(".")[-1]
        axes = widen.MATRICES.get(base, ("embd",))[:2]
        values = rng.standard_normal([shape.axis(a) for a in axes], numpy.float32)
        values = values / 8 if len(axes) == 2 else 1 + values / 8
        packed = gguf.quants.quantize(values, kind if len(axes) == 2 else gguf.GGMLQuantizationType.F32)
        writer.add_tensor(name + ".weight", packed)
    writer.write_header_to_file()
    writer.write_kv_data_to_file()
    writer.write_tensors_to_file()
    writer.close()


class Widened(unittest.TestCase):
    def setUp(self):
        folder = tempfile.TemporaryDirectory()
        self.addCleanup(folder.cleanup)
        self.dir = pathlib.Path(folder.name)
        self.out = self.dir / "wide.gguf"

    def assert_equal_logits(self, source, ids):
        for where, (difference, n_other) in differences(Model(source), Model(self.out), ids).items():
            print(f"{self.id().split('.')[-1]}, {where}: {difference:.1e} of the largest logit")
            self.assertLessEqual(difference, TOLERANCE)
            self.assertEqual(n_other, 0)

    def test_demo(self):
        for sizes in (SMALL, EXACT):
            widen.widen(DEMO, self.out, sizes)
            self.assert_equal_logits(DEMO, token_ids(Model(DEMO)))

    def test_other_types_grouped_heads_and_untied_head(self):
        for kind in (gguf.GGMLQuantizationType.F16, gguf.GGMLQuantizationType.F32):
            source = self.dir / f"{kind.name}.gguf"
            write_synthetic(source, kind)
            widen.widen(source, self.out, SYNTHETIC_WIDE)
            self.assert_equal_logits(source, numpy.arange(100) * 7 % 160)

    def test_extra_parts_are_random_and_real_ones_are_not_touched(self):
        widen.widen(DEMO, self.out, SMALL)
        real, wide = Model(DEMO), Model(self.out)
        for name in ("blk.0.attn_q", "blk.5.attn_v", "blk.7.attn_k", "blk.0.ffn_up", "blk.7.ffn_gate"):
            self.assertAlmostEqual(wide.weight(name)[:, 256:].std(), widen.SPREAD, 3, name)
        for name in ("blk.4.ffn_down", "blk.4.ffn_gate", "blk.4.attn_k", "token_embd"):
            data = real.tensors[name + ".weight"].data
            corner = wide.tensors[name + ".weight"].data[:data.shape[0], :data.shape[1]]
            self.assertTrue((corner == data).all(), name)
        self.assertFalse(wide.weight("blk.7.ffn_down").any())
        self.assertFalse(wide.weight("token_embd")[:, 256:].any())

    def test_keys(self):
        widen.widen(DEMO, self.out, SMALL, name="a name")
        real, wide = Model(DEMO), Model(self.out)
        changed = {k for k in real.reader.fields if not k.startswith("GGUF.") and real.key(k) != wide.key(k)}
        self.assertEqual(changed, {"general.name", "llama.attention.layer_norm_rms_epsilon", "llama.attention.head_count",
                                   *("llama." + widen.SIZE_KEYS[k] for k in ("embd", "layers", "ffn"))})
        self.assertEqual(wide.key("general.name"), "a name")
        self.assertEqual([real.reader.fields[k].types for k in real.reader.fields],
                         [wide.reader.fields[k].types for k in real.reader.fields])

    def test_seed_decides_the_bytes(self):
        digests = []
        for seed in (1, 1, 2):
            widen.widen(DEMO, self.out, SMALL, seed)
            digests.append(hashlib.sha256(self.out.read_bytes()).hexdigest())
        self.assertEqual(digests[0], digests[1])
        self.assertNotEqual(digests[0], digests[2])

    def test_shapes_that_do_not_fit(self):
        for change, words in ((dict(embd=128, heads=2), "has 256 already"), (dict(layers=5), "--layers 5"),
                              (dict(embd=520), "multiple of 32"), (dict(ffn=1000), "multiple of 32"),
                              (dict(embd=544), "is not --heads 8 of 64"), (dict(kv_heads=5), "--kv-heads 5"),
                              (dict(kv_heads=2), "--kv-heads 2")):
            with self.assertRaisesRegex(widen.Misfit, words):
                widen.widen(DEMO, self.out, {**SMALL, **change})
        with self.assertRaisesRegex(widen.Misfit, "replace the input"):
            widen.widen(DEMO, DEMO, SMALL)
        self.assertFalse(self.out.exists())


def compare(a, b):
    for where, (difference, n_other) in differences(Model(a), Model(b), token_ids(Model(a))).items():
        print(f"{where}: largest difference {difference:.1e} of the largest logit, {n_other} of {N_TOK} top tokens differ")


if __name__ == "__main__":
    if len(sys.argv) == 3:
        compare(*sys.argv[1:])
    else:
        unittest.main()
