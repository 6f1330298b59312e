#!/usr/bin/env python3
"""Many concurrent streams against a running server: every stream must be complete, and its text must equal, byte for byte,
the answer to the same request without streaming. Prints events a second and the server's memory before and after.

    build/release/tests/http/galley-fake --port 8091 --log-level warn --max-seqs 1024 --max-batch-tokens 4096 &
    python3 tests/bench/streams.py --port 8091 --streams 1000 --tokens 200 --pid $!
"""
import argparse
import asyncio
import json
import sys
import time


def body(i, tokens, stream):
    return json.dumps({"prompt": f"stream number {i}", "max_tokens": tokens, "temperature": 1, "seed": i, "ignore_eos": True,
                       "stream": stream}).encode()


async def post(port, payload):
    reader, writer = await asyncio.open_connection("127.0.0.1", port, limit=1 << 22)
    writer.write(b"POST /v1/completions HTTP/1.1\r\nHost: localhost\r\nContent-Type: application/json\r\nConnection: close\r\n"
                 b"Content-Length: %d\r\n\r\n" % len(payload) + payload)
    raw = await reader.read(-1)
    writer.close()
    head, _, rest = raw.partition(b"\r\n\r\n")
    if not head.startswith(b"HTTP/1.1 200"):
        raise RuntimeError(head.split(b"\r\n")[0].decode() + " " + rest[:200].decode(errors="replace"))
    if b"chunked" in head.lower():
        rest = dechunk(rest)
    return rest


def dechunk(data):
    out, at = [], 0
    while True:
        end = data.index(b"\r\n", at)
        size = int(data[at:end], 16)
        if size == 0:
            return b"".join(out)
        out.append(data[end + 2:end + 2 + size])
        at = end + 2 + size + 2


def stream_text(raw):
    """The text of a stream and its number of events; raises when it is not exactly as it should be."""
    events = raw.decode().split("\n\n")
    if events[-1] != "" or events[-2] != "data: [DONE]":
        raise RuntimeError("the stream does not end in [DONE]")
    text, finish = [], None
    for event in events[:-2]:
        if event == ":":
            continue
        choice = json.loads(event.removeprefix("data: "))["choices"][0]
        text.append(choice["text"])
        finish = choice["finish_reason"] or finish
    if finish != "length":
        raise RuntimeError(f"finish_reason {finish}")
    return "".join(text), len(events) - 2


def resident_mib(pid):
    with open(f"/proc/{pid}/status") as f:
        return next(int(line.split()[1]) for line in f if line.startswith("VmRSS")) / 1024


async def main():
    p = argparse.ArgumentParser()
    p.add_argument("--port", type=int, default=8091)
    p.add_argument("--streams", type=int, default=1000)
    p.add_argument("--tokens", type=int, default=200)
    p.add_argument("--check", type=int, default=100, help="streams compared with their answer without streaming")
    p.add_argument("--pid", type=int)
    a = p.parse_args()

    wanted = [json.loads(await post(a.port, body(i, a.tokens, False)))["choices"][0]["text"] for i in range(a.check)]
    before = resident_mib(a.pid) if a.pid else 0
    start = time.monotonic()
    raws = await asyncio.gather(*(post(a.port, body(i, a.tokens, True)) for i in range(a.streams)))
    seconds = time.monotonic() - start
    n_event, wrong = 0, 0
    for i, raw in enumerate(raws):
        text, n = stream_text(raw)
        n_event += n
        if i < a.check and text != wanted[i]:
            wrong += 1
    print(f"{a.streams} streams of {a.tokens} tokens in {seconds:.2f} s: {n_event / seconds:.0f} events/s; "
          f"{wrong} of {min(a.check, a.streams)} differ from the unstreamed answer")
    if a.pid:
        await asyncio.sleep(1)
        print(f"server memory: {before:.1f} MiB before, {resident_mib(a.pid):.1f} MiB after")
    return 1 if wrong else 0


sys.exit(asyncio.run(main()))
