#!/usr/bin/env python3
"""Servers that speak OpenAI's completions API, over HTTP: tokens a second, time to the first token and between tokens.

    galley serve --model FILE --port 8080 --threads 2 &
    llama-server -m FILE --port 8081 -t 2 -np 32 -c 32768 &
    python3 tests/bench/serve.py load --url galley=http://127.0.0.1:8080 --url llama=http://127.0.0.1:8081 --clients 1,8,32

    llama-server -m FILE --port 8081 -t 2 -np 4 -c 16384 &            # a slot has to hold the long prompt
    python3 tests/bench/serve.py stall --url galley=http://127.0.0.1:8080 --url llama=http://127.0.0.1:8081

Prompts are random token ids, so that their lengths are exact with every tokenizer and no prefix is cached; ids stay below
--vocab. Answers are sampled (temperature 1, top_k 40, top_p 0.95), so that a model of random weights does not repeat
itself, which Galley would draft from. Servers take turns, round by round. Only Python is needed. Where servers use every
core, `nice -n -5` keeps this program from waiting for one: its own delay would be measured.

load: each client sends its next request when an answer is complete: prompts of 16 to 512 tokens (short ones more often),
answers of 32 to 128, the same for every server and, in a round, for every number of clients. The time between tokens is
that between events with text. Ratios are of the first server's throughput to another's, in the same round.

stall: a stream runs alone, then a long prompt arrives: the longest pause of the stream until the long prompt's first token,
in the stream's own usual steps before it. And a short prompt just behind a long one: its time to the first token, beside
the long prompt's and beside its own when nothing else runs.
"""
import argparse
import asyncio
import json
import math
import random
import statistics
import sys
import time
import urllib.parse
from dataclasses import dataclass, field

PROMPT, ANSWER, BURST = (16, 512), (32, 128), 8
SAMPLING = {"temperature": 1, "top_k": 40, "top_p": 0.95, "seed": 1}


@dataclass
class Server:
    name: str
    host: str
    port: int
    path: str


@dataclass
class Reply:
    sent: float
    at: list = field(default_factory=list)  # when each event with text came
    tokens: int = 0

    def first(self):
        return self.at[0] - self.sent

    def gaps(self):
        return [b - a for a, b in zip(self.at, self.at[1:])]


# ---- One request ----

async def chunks(reader, chunked):
    """The body as it arrives."""
    while chunked:
        size = int((await reader.readline()).split(b";")[0], 16)
        data = await reader.readexactly(size + 2)
        if size == 0:
            return
        yield data[:-2]
    while data := await reader.read(1 << 16):
        yield data


async def events(reader, chunked):
    """Each `data:` line of an event stream, parsed."""
    buffer = b""
    async for data in chunks(reader, chunked):
        buffer += data
        *lines, buffer = buffer.split(b"\n")
        for line in lines:
            value = line.strip().removeprefix(b"data:").strip()
            if line.startswith(b"data:") and value != b"[DONE]":
                yield json.loads(value)


async def complete(server, prompt, answer, extra, on_text=None):
    """Streams an answer of exactly `answer` tokens; on_text(reply) is called at each event with text."""
    body = json.dumps({"prompt": prompt, "max_tokens": answer, "ignore_eos": True, "stream": True,
                       "stream_options": {"include_usage": True}, **SAMPLING, **extra}).encode()
    reply = Reply(time.monotonic(), tokens=answer)
    reader, writer = await asyncio.open_connection(server.host, server.port, limit=1 << 22)
    writer.write(f"POST {server.path}/v1/completions HTTP/1.1\r\nHost: {server.host}\r\nContent-Type: application/json\r\n"
                 f"Connection: close\r\nContent-Length: {len(body)}\r\n\r\n".encode() + body)
    head = await reader.readuntil(b"\r\n\r\n")
    if b" 200 " not in head.split(b"\r\n")[0]:
        raise RuntimeError(f"{server.name}: {head.splitlines()[0].decode()} {(await reader.read(500)).decode()}")
    async for event in events(reader, b"chunked" in head.lower()):
        if "error" in event:
            raise RuntimeError(f"{server.name}: {event['error']}")
        if event.get("usage"):
            reply.tokens = event["usage"]["completion_tokens"]
        if event["choices"] and event["choices"][0].get("text"):
            reply.at.append(time.monotonic())
            if on_text:
                on_text(reply)
    writer.close()
    if len(reply.at) < 2:
        raise RuntimeError(f"{server.name}: a stream of {len(reply.at)} events; are there tokens without text?")
    return reply


def make_prompt(rng, n, vocab):
    return [rng.randrange(vocab // 2, vocab) for _ in range(n)]


def make_requests(seed, n, vocab):
    """Prompts and lengths of answers. Lengths of prompts are uniform in their logarithm."""
    rng = random.Random(seed)
    lengths = [round(math.exp(rng.uniform(*map(math.log, PROMPT)))) for _ in range(n)]
    return [(make_prompt(rng, length, vocab), rng.randint(*ANSWER)) for length in lengths]


# ---- Many clients ----

async def run_load(server, clients, requests, extra):
    """All replies, and the seconds that they took together."""
    waiting, replies = iter(requests), []

    async def client():
        for prompt, answer in waiting:
            replies.append(await complete(server, prompt, answer, extra))

    start = time.monotonic()
    await asyncio.gather(*(client() for _ in range(clients)))
    return replies, time.monotonic() - start


def percentile(values, p):
    values = sorted(values)
    return values[min(len(values) - 1, int(p / 100 * len(values)))]


def latency(values):
    return f"{1e3 * percentile(values, 50):.0f} / {1e3 * percentile(values, 99):.0f}"


def spread(values):
    return f"{statistics.median(values):.2f} ({min(values):.2f}-{max(values):.2f})"


def load_line(clients, name, runs, first):
    rates = [sum(r.tokens for r in replies) / seconds for replies, seconds in runs]
    replies = [r for run, _ in runs for r in run]
    gaps = [gap for r in replies for gap in r.gaps()]
    ratio = spread([f / r for f, r in zip(first, rates)]) if first else "-"
    print(f"| {clients} | {name} | {len(replies)} | {statistics.median(rates):.1f} | {ratio} | "
          f"{latency([r.first() for r in replies])} | {latency(gaps)} |", flush=True)
    return rates


async def load(args):
    print("| clients | server | requests | tokens/s | first / this | first token, ms p50 / p99 | "
          "between tokens, ms p50 / p99 |\n|" + " --- |" * 7)
    for clients in args.clients:
        runs = {s.name: [] for s in args.url}
        for i in range(args.rounds):
            turn = i % len(args.url)
            for server in args.url[turn:] + args.url[:turn]:
                requests = make_requests(f"{args.seed}/{i}", max(args.requests * clients, args.least), args.vocab)
                runs[server.name].append(await run_load(server, clients, requests, args.extra))
        first = None
        for server in args.url:
            rates = load_line(clients, server.name, runs[server.name], first)
            first = first or rates


# ---- A long prompt beside others ----

def usual_step(at):
    """Median time of a token, over BURST of them: a client that waits for a core reads several at once."""
    return statistics.median((b - a) / BURST for a, b in zip(at, at[BURST:]))


async def pause(server, rng, args):
    """The stream's usual step, its longest pause while the long prompt is taken in, and the long prompt's first token."""
    calm, running = asyncio.Event(), None

    def watch(reply):
        nonlocal running
        running = reply
        if len(reply.at) > max(args.calm, 2 * BURST):
            calm.set()

    stream = asyncio.create_task(complete(server, make_prompt(rng, 16, args.vocab), args.stream, args.extra, watch))
    started = asyncio.create_task(calm.wait())
    await asyncio.wait([stream, started], return_when=asyncio.FIRST_COMPLETED)
    if stream.done():
        await stream
        raise RuntimeError(f"{server.name}: the stream ended after {args.stream} tokens; --stream more")
    before = len(running.at)
    long = await complete(server, make_prompt(rng, args.long, args.vocab), 8, args.extra)
    if stream.done():
        print(f"{server.name}: the stream ended before the long prompt's first token: --stream more", file=sys.stderr)
    await stream
    step = usual_step(running.at[:before])
    until = long.at[0]
    beside = [b - a for a, b in zip(running.at, running.at[1:]) if b > long.sent and a < until]
    return step, max(beside, default=float("nan")), long.first()


async def behind(server, rng, args):
    """Times to the first token: of a short prompt alone, of one just behind a long prompt, and of the long prompt."""
    alone = await complete(server, make_prompt(rng, 16, args.vocab), 4, args.extra)
    task = asyncio.create_task(complete(server, make_prompt(rng, args.long, args.vocab), 4, args.extra))
    await asyncio.sleep(0.05)
    short = await complete(server, make_prompt(rng, 16, args.vocab), 4, args.extra)
    return alone.first(), short.first(), (await task).first()


async def stall(args):
    print(f"long prompts of {args.long} tokens, {args.rounds} rounds: medians (least-largest)\n\n"
          "| server | usual step, ms | longest pause, steps | long prompt's first token, s | short prompt's alone, s | "
          "behind a long one, s | of the long one's wait |\n|" + " --- |" * 7)
    pauses, waits = {s.name: [] for s in args.url}, {s.name: [] for s in args.url}
    for i in range(args.rounds):
        for server in args.url:
            rng = random.Random(f"{args.seed}/{i}/{server.name}")
            pauses[server.name].append(await pause(server, rng, args))
            waits[server.name].append(await behind(server, rng, args))
    for name in pauses:
        step, longest, long = zip(*pauses[name])
        alone, short, long_behind = zip(*waits[name])
        print(f"| {name} | {spread([1e3 * s for s in step])} | {spread([p / s for p, s in zip(longest, step)])} | "
              f"{spread(long)} | {spread(alone)} | {spread(short)} | "
              f"{spread([s / w for s, w in zip(short, long_behind)])} |")


# ---- The command line ----

def server(text):
    name, _, url = text.rpartition("=")
    parts = urllib.parse.urlsplit(url)
    if not parts.hostname:
        raise argparse.ArgumentTypeError(f"{text}: NAME=http://HOST:PORT")
    return Server(name or parts.netloc, parts.hostname, parts.port or 80, parts.path.rstrip("/"))


def main():
    p = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    sub = p.add_subparsers(dest="mode", required=True)
    modes = {"load": sub.add_parser("load"), "stall": sub.add_parser("stall")}
    for mode in modes.values():
        mode.add_argument("--url", action="append", type=server, required=True, metavar="[NAME=]URL")
        mode.add_argument("--rounds", type=int, default=3)
        mode.add_argument("--seed", default="serve")
        mode.add_argument("--vocab", type=int, default=32000, help="token ids are the upper half of these (%(default)s)")
        mode.add_argument("--extra", type=json.loads, default={}, help="JSON object: more fields of every request")
    modes["load"].add_argument("--clients", type=lambda text: [int(n) for n in text.split(",")], default=[1, 8, 32])
    modes["load"].add_argument("--requests", type=int, default=4, help="of each client in a round (%(default)s)")
    modes["load"].add_argument("--least", type=int, default=12, help="requests of all clients in a round (%(default)s)")
    modes["stall"].add_argument("--long", type=int, default=2048, help="tokens of the long prompt (%(default)s)")
    modes["stall"].add_argument("--calm", type=int, default=40, help="tokens before it arrives (%(default)s)")
    modes["stall"].add_argument("--stream", type=int, default=600, help="tokens of the running stream (%(default)s)")
    args = p.parse_args()
    asyncio.run(load(args) if args.mode == "load" else stall(args))


if __name__ == "__main__":
    main()
