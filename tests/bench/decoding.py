"""What each way of decoding gains: tokens a second against plain decoding, in one run, on a server that runs already.

    galley serve --model target.gguf --draft-model draft.gguf --port 8080 &
    python3 tests/bench/decoding.py --url http://127.0.0.1:8080 --count 6 --temperature 0 --concurrency 1

Prompts come from the demo model's own generator (config/demo/train), with names and words it never saw: stories to
tell, stories to edit (rename someone, mend typos), and the same edits with the unedited story as `prediction`. Every
answer is compared with plain decoding's: at temperature 0 and with a seed it has to be the same text. The ways take
turns prompt by prompt, so that a noisy machine disturbs all alike; figures are sums over prompts, medians over --rounds.
Use widen.py to give the demo target the size and cost of a real model. A way may carry a threshold for its drafts,
"model:0.5". The way "mixed" is all exact ways in turn, trees and a copy that falls back on the model among them, in one
batch: with a small --kv-mem they are preempted as well.
"""

import argparse
import http.client
import json
import random
import statistics
import sys
import time
import urllib.parse
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

sys.path.insert(0, str(Path(__file__).resolve().parents[2] / "config/demo/train"))
import chat  # noqa: E402
import editing  # noqa: E402
from stories import make_story  # noqa: E402

WAYS = ("off", "copy", "trigram", "early_exit", "model", "auto")
MIXED = ("auto", "model", "off", "copy", "early_exit", "trigram", {"strategy": "copy", "draft": {"fallback": "model"}},
         {"strategy": "model", "draft": {"tree": {"nodes": 24, "width": 3}}}, {"strategy": "speculative", "draft": {"max": 64}},
         {"strategy": "early_exit", "draft": {"tree": {"nodes": 12, "width": 2}}})


def tell(rng):
    return {"question": chat.tell(rng, held=True)[0]}


def story_with_names(rng):
    while True:
        story = make_story(rng, held=True)
        if story.mentions()["characters"]:
            return story


def rename(rng):
    story = story_with_names(rng)
    old = rng.choice(story.mentions()["characters"])
    new = editing.words.person(rng, held=True)[0]
    wish = rng.choice(editing.RENAME).format(old=old, new=new)
    return {"question": f"{wish}\n\n{story.text}", "source": story.text}


def mend(rng):
    story = story_with_names(rng)
    keep = {word for kind in story.mentions().values() for word in kind}
    wrong = editing.add_typos(rng, story.text, keep, 0.05)
    return {"question": f"{rng.choice(editing.MEND)}\n\n{wrong}", "source": wrong}


def predicted(rng):
    case = rename(rng)
    return case | {"prediction": case["source"]}


TASKS = {"story": tell, "rename": rename, "typos": mend, "predicted": predicted}


def post(url, body):
    host = urllib.parse.urlsplit(url)
    connection = http.client.HTTPConnection(host.hostname, host.port, timeout=600)
    connection.request("POST", "/v1/chat/completions", json.dumps(body), {"Content-Type": "application/json"})
    reply = connection.getresponse()
    answer = json.loads(reply.read())
    connection.close()
    if reply.status != 200:
        raise SystemExit(f"HTTP {reply.status}: {answer}")
    return answer


def decoding(way, seed):
    if way == "mixed":
        return MIXED[seed % len(MIXED)]
    strategy, _, threshold = way.partition(":")
    return {"strategy": strategy, "draft": {"threshold": float(threshold)}} if threshold else strategy


def request(case, way, args, seed):
    body = {"messages": [{"role": "user", "content": case["question"]}], "temperature": args.temperature,
            "max_tokens": args.max_tokens, "seed": seed, "decoding": decoding(way, seed)}
    if "prediction" in case and way in ("auto", "copy", "speculative"):
        body["prediction"] = {"type": "content", "content": case["prediction"]}
    return body


def run_batch(cases, way, args):
    """All cases, `concurrency` at a time; returns answers and seconds."""
    bodies = [request(case, way, args, seed) for seed, case in enumerate(cases)]
    began = time.monotonic()
    with ThreadPoolExecutor(args.concurrency) as pool:
        answers = list(pool.map(lambda body: post(args.url, body), bodies))
    return answers, time.monotonic() - began


class Tally:
    def __init__(self):
        self.tokens = self.steps = self.drafted = self.accepted = self.different = 0
        self.seconds = 0.0

    def add(self, answers, seconds, plain):
        self.seconds += seconds
        for answer, expected in zip(answers, plain):
            told = answer["decoding"]
            self.tokens += answer["usage"]["completion_tokens"]
            self.steps += told["steps"]
            self.drafted += told["drafted"]
            self.accepted += told["accepted"]
            self.different += answer["choices"][0]["message"]["content"] != expected["choices"][0]["message"]["content"]


def measure(task, args, ways, round_number):
    rng = random.Random(f"decoding/{task}")
    cases = [TASKS[task](rng) for _ in range(args.count)]
    tallies = {way: Tally() for way in ways}
    step = args.concurrency
    for at in range(0, len(cases), step):
        some = cases[at:at + step]
        for case in some:  # every way finds its prompts alike: cached
            post(args.url, request(case, "off", args, 0) | {"max_tokens": 1})
        order = list(ways)
        random.Random(f"{round_number}/{at}").shuffle(order)
        done = {way: run_batch(some, way, args) for way in order}
        for way in ways:
            tallies[way].add(*done[way], done["off"][0])
    return tallies


def main():
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--url", default="http://127.0.0.1:8080")
    parser.add_argument("--tasks", default=",".join(TASKS))
    parser.add_argument("--ways", default=",".join(WAYS))
    parser.add_argument("--count", type=int, default=8)
    parser.add_argument("--rounds", type=int, default=1)
    parser.add_argument("--concurrency", type=int, default=1)
    parser.add_argument("--temperature", type=float, default=0)
    parser.add_argument("--max-tokens", type=int, default=300)
    args = parser.parse_args()
    ways = args.ways.split(",")
    if "off" not in ways:
        ways.insert(0, "off")
    print(f"temperature {args.temperature:g}, {args.concurrency} at a time, {args.count} prompts, "
          f"median of {args.rounds}\n")
    print("| task | way | tokens/s | against off | tokens a step | accepted of drafted | other text |")
    print("| --- | --- | --- | --- | --- | --- | --- |")
    for task in args.tasks.split(","):
        rounds = [measure(task, args, ways, i) for i in range(args.rounds)]
        for way in ways:
            speed = statistics.median(r[way].tokens / r[way].seconds for r in rounds)
            ratio = statistics.median(r[way].tokens / r[way].seconds / (r["off"].tokens / r["off"].seconds)
                                      for r in rounds)
            t = rounds[-1][way]
            share = f"{t.accepted / t.drafted:.0%} of {t.drafted}" if t.drafted else "-"
            print(f"| {task} | {way} | {speed:.1f} | {ratio:.2f} | {t.tokens / t.steps:.2f} | {share} | "
                  f"{t.different} |", flush=True)


if __name__ == "__main__":
    main()
