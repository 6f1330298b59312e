"""Golden texts: contrastive search and (diverse) beam search, written down plainly over transformers' forward pass of the
tiny Llama of golden/logits, in float64 and without any cache. Needs torch, transformers and gguf; run once, the result is
committed.

    python3 tests/golden/ways/make.py > tests/golden/ways/llama.txt

Each line is a way, four numbers (k or beams, alpha or diversity, groups, length penalty), and the tokens said after the
prompt (token ids 3, 10, 17, ...). The margins that go to stderr, by which the closest decision was made, say how exact a
computation must be to agree.
"""
import pathlib
import sys

import torch
from transformers import AutoModelForCausalLM

LOGITS = pathlib.Path(__file__).parent.parent / "logits"
N_PROMPT, N_OUT = 20, 24
ENDS = (45, 146, 167, 236)
PROMPT = [(3 + 7 * i) % 250 for i in range(N_PROMPT)]


def forward(model, ids):
    """Log-probabilities behind the last token, and the unit-length last hidden states of all."""
    with torch.inference_mode():
        out = model(torch.tensor([ids]), output_hidden_states=True)
    hidden = out.hidden_states[-1][0]
    return torch.log_softmax(out.logits[0, -1], -1), hidden / hidden.norm(dim=-1, keepdim=True)


def contrastive(model, k, alpha):
    ids, margin = list(PROMPT), 1e9
    for _ in range(N_OUT):
        logp, context = forward(model, ids)
        top = torch.topk(logp, k + 1)
        scores = []
        for token, lp in zip(top.indices[:k].tolist(), top.values[:k].tolist()):
            _, hidden = forward(model, ids + [token])
            likeness = (hidden[:-1] @ hidden[-1]).max().item()
            scores.append(((1 - alpha) * torch.exp(torch.tensor(lp)).item() - alpha * likeness, token))
        scores.sort(key=lambda s: -s[0])
        if k > 1:
            margin = min(margin, scores[0][0] - scores[1][0], (top.values[k - 1] - top.values[k]).item())
        ids.append(scores[0][1])
    return ids[N_PROMPT:], margin


def beams(model, width, groups, diversity, ends=(), length_penalty=1.0):
    """Of a group's 2 * per best, those of the first `per` that end are results; the first `per` others go on. A group is
    over once it has `per` results and its best beam, divided by its present length, is no better than the last of them."""
    per, margin = width // groups, 1e9
    alive = [[([], 0.0)] for _ in range(groups)]
    results = [[] for _ in range(groups)]

    def final(said, score):
        return score / len(said) ** length_penalty

    for step in range(N_OUT):
        used = []
        for g in range(groups):
            if not alive[g]:
                continue
            found = []
            for b, (said, score) in enumerate(alive[g]):
                logp, _ = forward(model, PROMPT + said)
                for token, lp in enumerate(logp.tolist()):
                    found.append((score + lp - diversity * used.count(token), -b, -token, said + [token]))
            found.sort(key=lambda f: f[:3], reverse=True)
            margin = min(margin, *(found[i][0] - found[i + 1][0] for i in range(2 * per)))
            last, alive[g] = step == N_OUT - 1, []
            for i, (score, _, _, said) in enumerate(found[:2 * per]):
                end = said[-1] in ends
                if len(alive[g]) == per or (end and i >= per):
                    continue
                used.append(said[-1])
                if end or last:
                    results[g] = sorted(results[g] + [(said, score)], key=lambda r: -final(*r))[:per]
                if not end:
                    alive[g].append((said, score))
            if last or (len(results[g]) == per and final(*alive[g][0]) <= final(*results[g][-1])):
                alive[g] = []
    return [results[g][i][0] for i in range(per) for g in range(groups)], margin


def main():
    model = AutoModelForCausalLM.from_pretrained(LOGITS, gguf_file="llama.gguf", dtype=torch.float32).double().eval()
    for k, alpha in ((4, 0.6), (8, 0.9), (3, 0.3)):
        said, margin = contrastive(model, k, alpha)
        print("contrastive", k, alpha, 1, 1.0, *said)
        print(f"contrastive k={k} alpha={alpha}: margin {margin:.2g}", file=sys.stderr)
    for width, groups, diversity in ((4, 1, 0.0), (6, 3, 0.5), (4, 4, 1.5)):
        texts, margin = beams(model, width, groups, diversity)
        for c, said in enumerate(texts):
            print("beam", width, diversity, groups, 1.0, *said)
        print(f"beam {width}/{groups}/{diversity}: margin {margin:.2g}", file=sys.stderr)
    for width, groups, diversity, penalty in ((4, 1, 0.0, 0.6), (6, 2, 0.4, 1.0), (3, 1, 0.0, 2.0)):
        texts, margin = beams(model, width, groups, diversity, ENDS, penalty)
        for c, said in enumerate(texts):
            print("ends", width, diversity, groups, penalty, *said)
        print(f"ends {width}/{groups}/{diversity}: margin {margin:.2g}", file=sys.stderr)


if __name__ == "__main__":
    main()
