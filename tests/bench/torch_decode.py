"""Decoding steps and prefill of an 8B-shaped model in PyTorch, to stand beside bench_cuda: the same shapes and jobs,
random bf16 weights, torch.compile with CUDA graphs, scaled_dot_product_attention over a static cache.

    python3 tests/bench/torch_decode.py [--layers N] [--seconds S] decode=BATCH:CONTEXT prefill=TOKENS ...

A step is embedding, all layers, the final norm, the head and an argmax; contexts are not computed, their cache is random.
Jobs whose cache does not fit beside the weights are left out, saying so.
"""

import argparse
import statistics
import sys
import time

VOCAB, EMBD, FF, HEADS, KV_HEADS, DIM = 128256, 4096, 14336, 32, 8, 128


def random_model(torch, n_layer):
    def weight(n_out, n_in):
        return torch.randn(n_out, n_in, device="cuda", dtype=torch.bfloat16) * 0.02

    layers = [{"qkv": weight((HEADS + 2 * KV_HEADS) * DIM, EMBD), "o": weight(EMBD, HEADS * DIM),
               "gate_up": weight(2 * FF, EMBD), "down": weight(EMBD, FF)} for _ in range(n_layer)]
    return {"embd": weight(VOCAB, EMBD), "out": weight(VOCAB, EMBD), "layers": layers,
            "ones": torch.ones(EMBD, device="cuda", dtype=torch.bfloat16)}


def rotate(torch, x, cos, sin):
    a, b = x.chunk(2, dim=-1)
    return torch.cat((a * cos - b * sin, b * cos + a * sin), dim=-1)


def make_step(torch, model, caches, at, n_tok):
    """tok [batch, n_tok] at positions at.. -> the next token of each sequence. caches None: a prompt that is all there is."""
    f = torch.nn.functional
    inv = 500000 ** (-torch.arange(0, DIM, 2, device="cuda").float() / DIM)
    angle = torch.arange(at, at + n_tok, device="cuda").float()[:, None] * inv
    cos, sin = angle.cos().bfloat16(), angle.sin().bfloat16()

    def step(tok):
        batch = tok.shape[0]
        x = f.embedding(tok, model["embd"])
        for i, w in enumerate(model["layers"]):
            h = f.rms_norm(x, (EMBD,), model["ones"], 1e-5)
            q, k, v = (h @ w["qkv"].t()).split((HEADS * DIM, KV_HEADS * DIM, KV_HEADS * DIM), dim=-1)
            q = rotate(torch, q.view(batch, n_tok, HEADS, DIM).transpose(1, 2), cos, sin)
            k = rotate(torch, k.view(batch, n_tok, KV_HEADS, DIM).transpose(1, 2), cos, sin)
            v = v.view(batch, n_tok, KV_HEADS, DIM).transpose(1, 2)
            if caches is not None:
                keys, values = caches[i]
                keys[:, :, at:at + n_tok] = k
                values[:, :, at:at + n_tok] = v
                k, v = keys, values
            o = f.scaled_dot_product_attention(q, k, v, is_causal=caches is None, enable_gqa=True)
            x = x + o.transpose(1, 2).reshape(batch, n_tok, HEADS * DIM) @ w["o"].t()
            h = f.rms_norm(x, (EMBD,), model["ones"], 1e-5)
            gate, up = (h @ w["gate_up"].t()).chunk(2, dim=-1)
            x = x + (f.silu(gate) * up) @ w["down"].t()
        h = f.rms_norm(x[:, -1], (EMBD,), model["ones"], 1e-5)
        return (h @ model["out"].t()).argmax(-1)

    return torch.compile(step, mode="reduce-overhead")


def median_ms(torch, run, seconds):
    for _ in range(5):
        run()
    torch.cuda.synchronize()
    took, end = [], time.monotonic() + seconds
    while len(took) < 3 or time.monotonic() < end:
        start = time.perf_counter()
        run()
        torch.cuda.synchronize()
        took.append(time.perf_counter() - start)
    return statistics.median(took) * 1e3


def run_decode(torch, model, batch, context, seconds):
    n_layer = len(model["layers"])
    need = n_layer * 2 * batch * KV_HEADS * (context + 1) * DIM * 2
    if need > torch.cuda.mem_get_info()[0] * 0.9:
        return print(f"decode batch={batch} context={context} left out: a cache of {need >> 30} GiB does not fit", flush=True)

    def part():
        return torch.randn(batch, KV_HEADS, context + 1, DIM, device="cuda", dtype=torch.bfloat16)

    caches = [(part(), part()) for _ in range(n_layer)]
    step, tok = make_step(torch, model, caches, context, 1), torch.zeros(batch, 1, dtype=torch.long, device="cuda")
    ms = median_ms(torch, lambda: step(tok), seconds)
    print(f"decode batch={batch} context={context} ms={ms:.3f} tok_s={batch / ms * 1e3:.1f}", flush=True)


def run_prefill(torch, model, n_tok, seconds):
    step, tok = make_step(torch, model, None, 0, n_tok), torch.zeros(1, n_tok, dtype=torch.long, device="cuda")
    ms = median_ms(torch, lambda: step(tok), seconds)
    print(f"prefill tokens={n_tok} ms={ms:.2f} tok_s={n_tok / ms * 1e3:.0f}", flush=True)


def main():
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--layers", type=int, default=32)
    parser.add_argument("--seconds", type=float, default=1)
    parser.add_argument("jobs", nargs="+", metavar="decode=BATCH:CONTEXT|prefill=TOKENS")
    args = parser.parse_args()
    try:
        import torch
    except ImportError:
        sys.exit("torch_decode: PyTorch is not installed")
    if not torch.cuda.is_available():
        sys.exit("torch_decode: PyTorch sees no GPU")
    print(f"torch {torch.__version__}, {torch.cuda.get_device_name()}, {args.layers} layers")
    with torch.no_grad():
        model = random_model(torch, args.layers)
        for job in args.jobs:
            kind, numbers = job.split("=")
            if kind == "decode":
                run_decode(torch, model, *map(int, numbers.split(":")), args.seconds)
            else:
                run_prefill(torch, model, int(numbers), args.seconds)
            torch._dynamo.reset()
            torch.cuda.empty_cache()


if __name__ == "__main__":
    main()
