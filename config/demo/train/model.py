"""The Llama architecture in plain PyTorch, small enough to read in one go.

Rotary embedding turns *adjacent* pairs (x[2i], x[2i+1]), which is what the
GGUF architecture "llama" means, so exporting needs no permutation of weights.
"""

from dataclasses import asdict, dataclass

import torch
import torch.nn.functional as F
from torch import nn

HEAD_SIZE = 64


@dataclass
class Shape:
    """Everything that fixes the weights' sizes; stored in each checkpoint."""

    width: int = 256
    layers: int = 6
    feed_forward: int = 768
    vocab: int = 4096
    context: int = 2048
    rope_base: float = 1000000.0
    norm_eps: float = 1e-5
    exit_layer: int = 0  # layers run before the early exit; 0 is no exit

    @property
    def heads(self):
        return self.width // HEAD_SIZE

    def to_dict(self):
        return asdict(self)


TARGET = Shape(exit_layer=3)
DRAFT = Shape(width=128, layers=2, feed_forward=256)


def rope_table(shape):
    """Cosines and sines as [context, HEAD_SIZE / 2] each."""
    power = torch.arange(0, HEAD_SIZE, 2).float() / HEAD_SIZE
    angle = torch.outer(torch.arange(shape.context).float(),
                        shape.rope_base ** -power)
    return angle.cos(), angle.sin()


def rotate(x, cos, sin):
    """Rotate adjacent pairs of x [batch, heads, time, HEAD_SIZE]."""
    even, odd = x[..., 0::2], x[..., 1::2]
    turned = torch.stack((even * cos - odd * sin, even * sin + odd * cos), -1)
    return turned.flatten(-2).to(x.dtype)


class Block(nn.Module):
    def __init__(self, shape):
        super().__init__()
        width, inner = shape.width, shape.feed_forward
        self.heads = shape.heads
        self.attn_norm = nn.RMSNorm(width, shape.norm_eps)
        self.attn_q = nn.Linear(width, width, bias=False)
        self.attn_k = nn.Linear(width, width, bias=False)
        self.attn_v = nn.Linear(width, width, bias=False)
        self.attn_output = nn.Linear(width, width, bias=False)
        self.ffn_norm = nn.RMSNorm(width, shape.norm_eps)
        self.ffn_gate = nn.Linear(width, inner, bias=False)
        self.ffn_up = nn.Linear(width, inner, bias=False)
        self.ffn_down = nn.Linear(inner, width, bias=False)

    def split(self, x):
        batch, time, _ = x.shape
        return x.view(batch, time, self.heads, HEAD_SIZE).transpose(1, 2)

    def forward(self, x, cos, sin, cache=None):
        h = self.attn_norm(x)
        q = rotate(self.split(self.attn_q(h)), cos, sin)
        k = rotate(self.split(self.attn_k(h)), cos, sin)
        v = self.split(self.attn_v(h))
        if cache is not None:
            k, v = cache.append(self, k, v)
        seen = F.scaled_dot_product_attention(q, k, v, is_causal=q.shape[2] > 1)
        x = x + self.attn_output(seen.transpose(1, 2).flatten(2))
        h = self.ffn_norm(x)
        return x + self.ffn_down(F.silu(self.ffn_gate(h)) * self.ffn_up(h))


class Cache:
    """Keys and values of the text so far, for greedy decoding of one batch.

    It is filled by one pass over the prompt and then one token at a time:
    the causal mask in Block.forward holds for these two cases only.
    """

    def __init__(self):
        self.length = 0
        self.kept = {}

    def append(self, block, k, v):
        if block in self.kept:
            old_k, old_v = self.kept[block]
            k, v = torch.cat((old_k, k), 2), torch.cat((old_v, v), 2)
        self.kept[block] = k, v
        return k, v


class Llama(nn.Module):
    """Submodules carry the GGUF tensor names, so export is a plain renaming."""

    def __init__(self, shape):
        super().__init__()
        self.shape = shape
        self.token_embd = nn.Embedding(shape.vocab, shape.width)
        self.blk = nn.ModuleList(Block(shape) for _ in range(shape.layers))
        self.output_norm = nn.RMSNorm(shape.width, shape.norm_eps)
        cos, sin = rope_table(shape)
        self.register_buffer("cos", cos, persistent=False)
        self.register_buffer("sin", sin, persistent=False)
        self.reset()

    def reset(self):
        """Small normal weights; each branch starts by adding almost nothing."""
        nn.init.normal_(self.token_embd.weight, std=0.02)
        for name, weight in self.blk.named_parameters():
            if weight.dim() == 2:
                nn.init.normal_(weight, std=0.5 * weight.shape[1] ** -0.5)
            if name.endswith(("attn_output.weight", "ffn_down.weight")):
                nn.init.zeros_(weight)

    def forward(self, ids, cache=None):
        """Hidden states after the last layer and at the early exit (or None)."""
        start = cache.length if cache else 0
        stop = start + ids.shape[1]
        cos, sin = self.cos[start:stop], self.sin[start:stop]
        x, early = self.token_embd(ids), None
        for index, block in enumerate(self.blk, 1):
            x = block(x, cos, sin, cache)
            if index == self.shape.exit_layer:
                early = x
        if cache:
            cache.length = stop
        return x, early

    def logits(self, hidden):
        """The head shared by the last layer and the early exit."""
        return F.linear(self.output_norm(hidden), self.token_embd.weight)
