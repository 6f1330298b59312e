"""Asks a server the same things at temperature 0 and says how fast it was: kept, and then set beside another server's.

    python3 tests/bench/gpu_serve.py --url http://127.0.0.1:8080 --keep cpu.json
    python3 tests/bench/gpu_serve.py --url http://127.0.0.1:8081 --beside cpu.json

Two back ends round differently, so that a text may part where two tokens are almost as likely: it is said where, and
judged by the log-probability of the token that the other took. Fails where one is not among the likeliest at all, where an
answer is not one, or where asking many at a time changes a text's tokens by more than that.
"""

import argparse
import json
import sys
import time
import urllib.request
from concurrent.futures import ThreadPoolExecutor

QUESTIONS = ["Tell me a story about a fox and a lantern.", "Tell me a story about Mara and a boat.", "Hello!",
             "Tell me a story about an old clock.", "Tell me a story about two friends in the snow.", "What can you do?",
             "Tell me a short story.", "Tell me a story about a garden."]
NEAR = 0.1  # nats: more than the back ends' rounding moves a log-probability


def ask(url, question, **more):
    body = {"messages": [{"role": "user", "content": question}], "max_tokens": 120, "temperature": 0, "logprobs": True,
            "top_logprobs": 5, **more}
    request = urllib.request.Request(url + "/v1/chat/completions", json.dumps(body).encode(),
                                     {"Content-Type": "application/json"})
    with urllib.request.urlopen(request, timeout=120) as answer:
        return json.load(answer)["choices"][0]["logprobs"]["content"]


def part(ours, theirs):
    """None, or where two answers part and how much likelier our token was than theirs, in nats."""
    for i, (a, b) in enumerate(zip(ours, theirs)):
        if a["token"] != b["token"]:
            other = [t["logprob"] for t in a["top_logprobs"] if t["token"] == b["token"]]
            return i, a["logprob"] - other[0] if other else float("inf")
    return None


def compare(name, ours, theirs):
    n_bad = 0
    for question, a, b in zip(QUESTIONS, ours, theirs):
        at = part(a, b)
        if at is not None:
            n_bad += at[1] > NEAR
            print(f"{name}: '{question}' parts at token {at[0]}, {at[1]:.4f} nats apart{'' if at[1] <= NEAR else ': WRONG'}")
    same = sum(part(a, b) is None for a, b in zip(ours, theirs))
    print(f"{name}: {same} of {len(ours)} texts the same")
    return n_bad


def main():
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--url", required=True)
    parser.add_argument("--keep", metavar="FILE", help="writes the answers")
    parser.add_argument("--beside", metavar="FILE", help="compares them with those")
    args = parser.parse_args()
    start = time.monotonic()
    alone = [ask(args.url, q) for q in QUESTIONS]
    seconds = time.monotonic() - start
    start = time.monotonic()
    with ThreadPoolExecutor(len(QUESTIONS)) as pool:
        together = list(pool.map(lambda q: ask(args.url, q), QUESTIONS))
    seconds_together = time.monotonic() - start
    n_tok = sum(map(len, alone))
    print(f"{n_tok} tokens: {n_tok / seconds:.0f} a second one by one, {sum(map(len, together)) / seconds_together:.0f} together")
    n_bad = compare("together and alone", together, alone)
    if args.keep:
        with open(args.keep, "w") as f:
            json.dump(alone, f)
    if args.beside:
        with open(args.beside) as f:
            n_bad += compare("the other server", alone, json.load(f))
    sys.exit(n_bad > 0)


if __name__ == "__main__":
    main()
