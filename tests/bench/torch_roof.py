"""What the GPU at hand can do, by PyTorch: bytes a second that it reads and writes, and its bf16 matrix rate.

    python3 tests/bench/torch_roof.py [FILE]

Prints both, and writes them to FILE as "GB/s TFLOP/s", which bench_cuda takes as -w and -f. Each is the best of several
kernels and the median of their runs: a figure to set shares against, not a specification.
"""

import statistics
import sys


def seconds(torch, run, n=20):
    for _ in range(3):
        run()
    took = []
    for _ in range(n):
        begin, end = torch.cuda.Event(enable_timing=True), torch.cuda.Event(enable_timing=True)
        begin.record()
        run()
        end.record()
        torch.cuda.synchronize()
        took.append(begin.elapsed_time(end) * 1e-3)
    return statistics.median(took)


def bandwidth(torch):
    n = 1 << 30  # floats: 4 GiB, far beyond any cache
    x, y = torch.zeros(n, device="cuda"), torch.empty(n, device="cuda")
    rates = {
        "copy": 2 * 4 * n / seconds(torch, lambda: y.copy_(x)),
        "fill": 4 * n / seconds(torch, lambda: y.fill_(1)),
        "sum": 4 * n / seconds(torch, lambda: torch.sum(x)),
        "max": 4 * n / seconds(torch, lambda: torch.max(x)),
    }
    for name, rate in rates.items():
        print(f"{name}: {rate * 1e-9:.0f} GB/s")
    return max(rates["copy"], rates["sum"], rates["max"])  # a product reads: what only writes does not count


def matrix_rate(torch):
    best = 0
    for m, n, k in ((8192, 8192, 8192), (8192, 14336, 4096), (4096, 4096, 16384)):
        a = torch.randn(m, k, device="cuda", dtype=torch.bfloat16)
        b = torch.randn(n, k, device="cuda", dtype=torch.bfloat16)
        rate = 2 * m * n * k / seconds(torch, lambda: torch.matmul(a, b.t()))
        print(f"{m} x {n} x {k}: {rate * 1e-12:.0f} TFLOP/s")
        best = max(best, rate)
    return best


def main():
    try:
        import torch
    except ImportError:
        sys.exit("torch_roof: PyTorch is not installed")
    if not torch.cuda.is_available():
        sys.exit("torch_roof: PyTorch sees no GPU")
    print(f"torch {torch.__version__}, {torch.cuda.get_device_name()}")
    roof = f"{bandwidth(torch) * 1e-9:.1f} {matrix_rate(torch) * 1e-12:.1f}"
    print(f"roof: {roof} (GB/s, TFLOP/s)")
    if len(sys.argv) > 1:
        with open(sys.argv[1], "w") as f:
            f.write(roof + "\n")


if __name__ == "__main__":
    main()
