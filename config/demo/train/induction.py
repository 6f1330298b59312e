"""Start the first two layers as a copying circuit instead of from noise.

To edit a text a model must copy it: find where the current word stood before
and say what came next. Transformers discover this ("induction heads") only
after tens of millions of tokens, more than the whole budget here, so one head
of each of the first two layers is set by hand. In layer 0 it looks at the
previous token and notes it in dimensions kept free for that; in layer 1 it
looks for the place whose note equals the current token and passes on the
token found there. Training is free to change all of it.
"""

import torch

from model import HEAD_SIZE

NOTE = 32  # dimensions of the residual stream that hold the previous token
NEAR = 8  # fast-turning pairs: they tell one step back from two
EMBEDDING_STD, CONSTANT = 0.05, 0.25
SHARPNESS_NEAR, SHARPNESS_MATCH = 2.0, 1.7
NOTE_SCALE, COPY_SCALE = 0.05, 0.1


def random_rows(count, size):
    """Rows at right angles to each other: a projection that keeps angles."""
    return torch.linalg.qr(torch.randn(size, count))[0].T


@torch.no_grad()
def lay_out(model):
    """Embeddings: a constant first, then content, and an empty note."""
    weight = model.token_embd.weight
    weight.normal_(std=EMBEDDING_STD)
    weight[:, 0] = CONSTANT
    weight[:, -NOTE:] = 0
    model.output_norm.weight.fill_(0.5)


@torch.no_grad()
def look_back(block, cos, sin, projection):
    """Head 0: attend one step back, write what stands there into the note."""
    q, k = block.attn_q.weight[:HEAD_SIZE], block.attn_k.weight[:HEAD_SIZE]
    q.zero_()
    k.zero_()
    # Turned back by one step, the query meets the key of the step before.
    q[0:2 * NEAR:2, 0] = SHARPNESS_NEAR * cos[1, :NEAR]
    q[1:2 * NEAR:2, 0] = -SHARPNESS_NEAR * sin[1, :NEAR]
    k[0:2 * NEAR:2, 0] = SHARPNESS_NEAR
    value = block.attn_v.weight[:HEAD_SIZE]
    value.zero_()
    value[:NOTE, 1:-NOTE] = projection
    block.attn_output.weight[-NOTE:, :NOTE] = NOTE_SCALE * torch.eye(NOTE)


@torch.no_grad()
def match(block, projection):
    """Head 0: attend where the note equals this token, pass that token on."""
    q, k = block.attn_q.weight[:HEAD_SIZE], block.attn_k.weight[:HEAD_SIZE]
    q.zero_()
    k.zero_()
    # The slow-turning half of the head: there, distance hardly counts.
    q[-NOTE:, 1:-NOTE] = SHARPNESS_MATCH * projection
    k[-NOTE:, -NOTE:] = SHARPNESS_MATCH * torch.eye(NOTE)
    content = block.attn_v.weight.shape[1] - 1 - NOTE
    passed = random_rows(HEAD_SIZE, content)
    value = block.attn_v.weight[:HEAD_SIZE]
    value.zero_()
    value[:, 1:-NOTE] = passed
    block.attn_output.weight[1:-NOTE, :HEAD_SIZE] = COPY_SCALE * passed.T


def install(model):
    content = model.shape.width - 1 - NOTE
    projection = random_rows(NOTE, content)
    lay_out(model)
    look_back(model.blk[0], model.cos, model.sin, projection)
    match(model.blk[1], projection)
