"""Muon for matrices inside the blocks, AdamW for embeddings and norms.

Muon turns each update into the nearest orthogonal matrix, so that rare
directions are learnt as fast as common ones: the budget here is few tokens.
"""

import torch

QUINTIC = (3.4445, -4.7750, 2.0315)  # drives singular values to about one
ROUNDS = 5
BY_HAND, NORMS = 0.2, 8.0  # times the rate of the others


def orthogonal(matrix):
    """An approximation of U V^T where matrix = U S V^T."""
    a, b, c = QUINTIC
    tall = matrix.shape[0] > matrix.shape[1]
    x = matrix.T if tall else matrix
    x = x / (x.norm() + 1e-7)
    for _ in range(ROUNDS):
        square = x @ x.T
        x = a * x + (b * square + c * square @ square) @ x
    return x.T if tall else x


class Muon(torch.optim.Optimizer):
    def __init__(self, weights, lr, momentum=0.95, decay=0.01):
        super().__init__(weights, dict(lr=lr, momentum=momentum, decay=decay))

    @torch.no_grad()
    def step(self):
        for group in self.param_groups:
            for weight in group["params"]:
                self.update(weight, group)

    def update(self, weight, group):
        state = self.state[weight]
        if "sum" not in state:
            state["sum"] = torch.zeros_like(weight)
        state["sum"].lerp_(weight.grad, 1 - group["momentum"])
        ahead = weight.grad.lerp(state["sum"], group["momentum"])
        rows, columns = weight.shape
        scale = max(1.0, rows / columns) ** 0.5
        weight.mul_(1 - group["lr"] * group["decay"])
        weight.add_(orthogonal(ahead), alpha=-group["lr"] * scale)


def optimizers(model, matrix_rate, other_rate):
    """One optimizer per kind of weight; `peak` is kept for the schedule.

    The heads that induction.py sets by hand move slowly, or the large steps
    of the first minutes would wash the circuit out before it is relied on.
    """
    by_hand = [w for block in model.blk[:2] for name, w in block.named_parameters()
               if name.startswith("attn_") and w.dim() == 2]
    chosen = {id(w) for w in by_hand}
    learnt = [w for w in model.blk.parameters() if w.dim() == 2 and id(w) not in chosen]
    chosen |= {id(w) for w in learnt}
    others = [w for w in model.parameters() if id(w) not in chosen]
    norms = [w for w in others if w.dim() == 1]
    vocabulary = [w for w in others if w.dim() == 2]
    made = [Muon([{"params": learnt},
                  {"params": by_hand, "lr": BY_HAND * matrix_rate}], matrix_rate),
            torch.optim.AdamW([{"params": vocabulary},
                               {"params": norms, "lr": NORMS * other_rate}],
                              other_rate, betas=(0.9, 0.95), weight_decay=0.0)]
    for optimizer in made:
        for group in optimizer.param_groups:
            group["peak"] = group["lr"]
    return made
