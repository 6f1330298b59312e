"""What a vote gains: sums that the demo model answers right, by one sample and by the votes of many, on a server that
runs already.

    galley serve --model config/demo/target.gguf --port 8080 &
    python3 tests/bench/voting.py --port 8080 --count 40 --samples 16
"""
import argparse
import http.client
import json
import random


def decode(port, body):
    c = http.client.HTTPConnection("127.0.0.1", port, timeout=300)
    c.request("POST", "/v1/chat/completions", json.dumps(body), {"Content-Type": "application/json"})
    answer = json.loads(c.getresponse().read())
    c.close()
    return answer["decoding"]


def measure(port, count, samples, temperature):
    """Shares of right answers: of one sample (the mean over all), of a majority, of the most complex half."""
    rng, right = random.Random(4), [0.0, 0, 0]
    for seed in range(count):
        a, b = rng.randint(11, 89), rng.randint(11, 89)
        question = f"Anna has {a} apples and gets {b} more. How many apples does she have?"
        body = {"messages": [{"role": "user", "content": question}], "temperature": temperature, "seed": seed, "max_tokens": 80}
        for by in ("majority", "complexity"):
            d = decode(port, {**body, "decoding": {"strategy": "vote", "samples": samples, "by": by}})
            right[1 + (by == "complexity")] += d["winner"] == str(a + b)
            if by == "majority":
                right[0] += sum(v["votes"] for v in d["votes"] if v["answer"] == str(a + b)) / samples
    return [r / count for r in right]


def main():
    p = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    p.add_argument("--port", type=int, default=8080)
    p.add_argument("--count", type=int, default=40)
    p.add_argument("--samples", type=int, default=16)
    p.add_argument("--temperature", type=float, nargs="+", default=[0.7, 1.0, 1.4])
    args = p.parse_args()
    print(f"{args.count} sums, {args.samples} samples: one sample, majority, complexity")
    for t in args.temperature:
        print(f"temperature {t}:", " ".join(f"{100 * r:.1f}%" for r in measure(args.port, args.count, args.samples, t)), flush=True)


main()
