"""What careful ways of decoding gain: the demo model's worked sums, with names and things it has never seen, on a server
that runs already. Accuracy with a 95% interval (Wilson), and the tokens computed for each sum.

    galley serve --port 8080 &
    python3 tests/bench/sums.py --port 8080 --count 1000
"""
import argparse
import concurrent.futures
import http.client
import json
import pathlib
import random
import sys

sys.path.insert(0, str(pathlib.Path(__file__).parents[2] / "config/demo/train"))
import sums  # noqa: E402

WAYS = {
    "greedy": {"temperature": 0},
    "sampling": {},
    "cautious": {"decoding": "cautious"},
    "vote of 5": {"decoding": {"strategy": "vote", "samples": 5, "answer": {"after": "Answer:"}}},
    "vote of 16": {"decoding": {"strategy": "vote", "samples": 16, "answer": {"after": "Answer:"}}},
    "the most complex 8 of 16": {"decoding": {"strategy": "vote", "samples": 16, "by": "complexity",
                                              "answer": {"after": "Answer:"}}},
}


def post(port, body):
    c = http.client.HTTPConnection("127.0.0.1", port, timeout=600)
    c.request("POST", "/v1/chat/completions", json.dumps(body), {"Content-Type": "application/json"})
    answer = json.loads(c.getresponse().read())
    c.close()
    return answer


def one(port, index, temperature, way):
    """Whether the answer was right, and the tokens computed for it."""
    question, worked = sums.word_sum(random.Random(f"held/{index}"), held=True)
    body = {"messages": [{"role": "user", "content": question}], "temperature": temperature, "seed": index,
            "max_tokens": 120, **way}
    answer = post(port, body)
    said = answer["choices"][0]["message"]["content"].splitlines()
    tokens = answer["usage"]["completion_tokens"]
    if body.get("decoding") == "cautious":
        tokens += answer["decoding"]["drafted"] - answer["decoding"]["accepted"]
    return said[-1:] == worked.splitlines()[-1:], tokens


def wilson(right, n, z=1.96):
    p, half = right / n, z * ((right / n * (1 - right / n) + z * z / (4 * n)) / n) ** 0.5
    return (p + z * z / (2 * n) - half) / (1 + z * z / n), (p + z * z / (2 * n) + half) / (1 + z * z / n)


def main():
    p = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    p.add_argument("--port", type=int, default=8080)
    p.add_argument("--count", type=int, default=1000)
    p.add_argument("--clients", type=int, default=16)
    p.add_argument("--temperature", type=float, nargs="+", default=[0.7, 1.0])
    p.add_argument("--ways", nargs="+", choices=WAYS, default=list(WAYS))
    args = p.parse_args()
    print("| temperature | way | right | 95% interval | tokens a sum |\n| --- | --- | --- | --- | --- |")
    for temperature in args.temperature:
        for name, way in WAYS.items():
            if name not in args.ways or name == "greedy" and temperature != args.temperature[0]:
                continue
            with concurrent.futures.ThreadPoolExecutor(args.clients) as pool:
                done = list(pool.map(lambda i: one(args.port, i, temperature, way), range(args.count)))
            right, tokens = sum(r for r, _ in done), sum(t for _, t in done)
            low, high = wilson(right, args.count)
            shown = 0 if name == "greedy" else temperature
            print(f"| {shown} | {name} | {right / args.count:.1%} | {low:.1%} - {high:.1%} | {tokens / args.count:.0f} |",
                  flush=True)


main()
