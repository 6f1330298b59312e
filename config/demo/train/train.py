"""Train the target or the draft; stops and resumes at any step.

    python3 train.py target --work build-demo --steps 4000 --polish 1100

The learning rate stays flat and then falls to nothing over --steps, so that
they may be lowered on resuming to finish sooner, or raised to go on. Then come
--polish steps at a lower rate, in which most names and nouns are invented.
"""

import argparse
import os
import time
from pathlib import Path

import torch
import torch.nn.functional as F
from tokenizers import Tokenizer

import corpus
import gguf_model
import induction
from model import DRAFT, TARGET, Llama, Shape
from muon import optimizers

WARM_UP = 40
DECAY_FROM = 0.6
POLISH_RATE = 0.5
# Rows of the last part take turns: in short ones more documents begin where a request of a user does, at the very start.
POLISH_PACKING = ((16, 256), (4, 1024), (8, 512), (16, 256))
EXIT_WEIGHT = 0.3
FIRST_TOKENS, FIRST_WEIGHT = 6, 4.0
SAVE_EVERY = 25
# Rows and their length; long rows come last, since attention makes them dear.
PACKING = ((0.5, 8, 512), (0.9, 5, 768), (1.0, 2, 2048))


def arguments():
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("role", choices=("target", "draft"))
    parser.add_argument("--work", type=Path, default=Path("build-demo"))
    parser.add_argument("--steps", type=int, default=1200)
    parser.add_argument("--polish", type=int, default=0)
    parser.add_argument("--weights", help="GGUF to go on from where there is no checkpoint: only --polish is run")
    parser.add_argument("--threads", type=int, default=2)
    parser.add_argument("--matrix-rate", type=float, default=0.01)
    parser.add_argument("--other-rate", type=float, default=0.001)
    return parser.parse_args()


def rate(step, args):
    """The share of the full learning rate at this step."""
    if step >= args.steps:
        return POLISH_RATE * max(1 - (step - args.steps) / args.polish, 0.01)
    remaining = (1 - step / args.steps) / (1 - DECAY_FROM)
    return min(1.0, (step + 1) / WARM_UP, max(remaining, 0.01))


def packing(progress):
    return next((rows, length) for upto, rows, length in PACKING if progress <= upto)


def emphasis(learnt):
    """More weight for the first tokens of an answer.

    They are few, and they alone decide whether the model does what was asked.
    """
    before = F.pad(learnt.float(), (FIRST_TOKENS, 0), value=1.0)
    settled = before.unfold(-1, FIRST_TOKENS, 1)[..., :-1, :].amin(-1)
    return torch.where(settled > 0, 1.0, FIRST_WEIGHT)


def cross_entropy(model, hidden, targets, weights):
    """The loss at the learnt positions; the head is not run anywhere else."""
    learnt = targets >= 0
    weight = (weights * emphasis(learnt))[learnt]
    loss = F.cross_entropy(model.logits(hidden[learnt]), targets[learnt],
                           reduction="none")
    return (loss * weight).sum() / weight.sum()


def losses(model, ids, targets, weights, step):
    """Loss at the last layer, and at the early exit for one of the rows."""
    hidden, early = model(ids)
    last = cross_entropy(model, hidden, targets, weights)
    if early is None:
        return last, None
    row = step % len(ids)
    return last, cross_entropy(model, early[row], targets[row], weights[row])


def save(path, model, opts, step, tokens, seconds):
    """Write beside the old file first: a kill in between loses nothing."""
    state = {"shape": model.shape.to_dict(), "model": model.state_dict(),
             "optimizers": [o.state_dict() for o in opts],
             "step": step, "tokens": tokens, "seconds": seconds}
    torch.save(state, path.with_suffix(".part"))
    os.replace(path.with_suffix(".part"), path)


def load(path):
    """The model of a checkpoint, and the checkpoint."""
    state = torch.load(path, weights_only=True)
    model = Llama(Shape(**state["shape"]))
    model.load_state_dict(state["model"])
    return model, state


def start(args, path):
    """A model and its optimizers, fresh or as the last run left them."""
    torch.manual_seed(corpus.SEED)
    state = {"step": 0, "tokens": 0, "seconds": 0.0}
    if path.exists():
        model, state = load(path)
    elif args.weights:
        model, state["step"] = gguf_model.read(args.weights)[0], args.steps
    else:
        model = Llama(TARGET if args.role == "target" else DRAFT)
        induction.install(model)
    opts = optimizers(model, args.matrix_rate, args.other_rate)
    for optimizer, kept in zip(opts, state.get("optimizers", ())):
        optimizer.load_state_dict(kept)
    return model, opts, state["step"], state["tokens"], state["seconds"]


def train_step(model, opts, tokenizer, step, args):
    """One batch, one update; returns both losses and the batch's tokens."""
    last, progress = step >= args.steps, min(1.0, step / max(args.steps, 1))
    rows, length = POLISH_PACKING[step % len(POLISH_PACKING)] if last else packing(progress)
    ids, targets, weights = corpus.batch(tokenizer, step, progress, rows, length, last=last)
    loss, early = losses(model, ids, targets, weights, step)
    (loss if early is None else loss + EXIT_WEIGHT * early).backward()
    for optimizer in opts:
        for group in optimizer.param_groups:
            group["lr"] = group["peak"] * rate(step, args)
        optimizer.step()
        optimizer.zero_grad()
    return loss.item(), 0.0 if early is None else early.item(), ids.numel()


def main():
    args = arguments()
    torch.set_num_threads(args.threads)
    path = args.work / f"{args.role}.pt"
    vocabulary = args.work / "tokenizer.json"
    if args.weights and not vocabulary.exists():
        gguf_model.read(args.weights)[1].save(str(vocabulary))
    tokenizer = Tokenizer.from_file(str(vocabulary))
    model, opts, step, tokens, seconds = start(args, path)
    smooth, smooth_early = 0.0, 0.0
    end = args.steps + args.polish
    while step < end:
        began = time.monotonic()
        last, early, seen = train_step(model, opts, tokenizer, step, args)
        step, tokens = step + 1, tokens + seen
        took = time.monotonic() - began
        seconds += took
        smooth = 0.95 * smooth + 0.05 * last if smooth else last
        smooth_early = 0.95 * smooth_early + 0.05 * early if smooth_early else early
        if step % 10 == 0:
            print(f"{args.role} step {step}/{end} loss {smooth:.3f} "
                  f"exit {smooth_early:.3f} tokens {tokens / 1e6:.2f}M "
                  f"{seen / took:.0f}/s {seconds / 60:.1f} min", flush=True)
        if step % SAVE_EVERY == 0 or step == end:
            save(path, model, opts, step, tokens, seconds)


if __name__ == "__main__":
    main()
