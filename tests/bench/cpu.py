#!/usr/bin/env python3
"""Galley's cpu back end against its peers and against what the machine can do, on models of real shapes.

    ninja -C build/release tests/bench/roof
    python3 tests/bench/cpu.py make build/models --galley build/release/server/galley
    export GALLEY_PEER_LLAMACPP=.../llama.cpp/build/bin GALLEY_PEER_IK=.../ik_llama.cpp/build/bin
    python3 tests/bench/cpu.py run --galley build/release/server/galley --models build/models --save build/cpu.jsonl
    python3 tests/bench/cpu.py run ... --shape qwen3-0.6b --formats Q8_0,Q4_0 --work decode,batch --batch 8,32 --rounds 5
    python3 tests/bench/cpu.py run ... --formats Q8_0 --work decode,verify --steps 4 --repeat 1 --rounds 1    # does it work

`make` needs numpy and gguf, `run` only Python. Peers need llama-bench and llama-batched-bench; one that is missing is left
out. What is measured:

    decode   one sequence, --steps tokens behind 128                  llama-bench -n -d (ik: -gp)
    batch    --batch sequences, each behind 128 tokens of its own     llama-batched-bench -npp 128 -ntg
    prefill  --prefill tokens                                         llama-bench -p
    verify   a step of --verify rows of one sequence, a draw each, against a step of one row        Galley alone
    depth    a step behind 8,192 tokens against one behind none, one sequence                       Galley alone

In each round every engine takes its turn, in another order; a figure is the median of the rounds, a ratio the median of
the rounds' own ratios with the least and the largest. Read bandwidth and int8 peak are measured just before and after each
sample; a round in which one of them differs by more than 10% is repeated, up to --retries times, then it counts and is
marked. A share is of the matrix products alone: bytes of weights of the read bandwidth in `decode`, operations of the int8
peak elsewhere (prefill without the head); not shown for BF16, which is not multiplied as int8.
"""
import argparse
import json
import os
import statistics
import sys
import time
from pathlib import Path

sys.path.insert(0, str(Path(__file__).resolve().parent))
import cpu_engines  # noqa: E402
import cpu_models  # noqa: E402
from cpu_engines import DEPTH, Failed, Item  # noqa: E402

SAME = 1.1  # roofs that differ by no more are the same machine
DEEP = 8192
WORKS = ("decode", "batch", "prefill", "verify", "depth")


# ---- Samples ----

class Session:
    """Engines, the machine's roofs, and where samples are kept."""

    def __init__(self, args):
        self.args = args
        self.galley = cpu_engines.Galley(args.galley)
        peers = bool({"decode", "batch", "prefill"} & set(args.work))
        self.engines = [self.galley] + (cpu_engines.find_peers() if peers else [])
        self.roof = cpu_engines.Roof(args.roof, args)

    def sample(self, measure, **about):
        """What measure() returns, between two readings of the roofs."""
        before, start = self.roof.read(), time.time()
        value = measure()
        sample = about | {"value": value, "roofs": [before, self.roof.read()], "at": round(start)}
        if self.args.save:
            with open(self.args.save, "a") as f:
                f.write(json.dumps(sample) + "\n")
        return sample

    def steady(self, samples):
        """Whether the machine was the same all along."""
        for kind in ("read", "int8"):
            seen = [r[kind] for s in samples for r in s["roofs"]]
            if max(seen) > SAME * min(seen):
                return False
        return True

    def round(self, take):
        """One round, repeated while the machine changes; returns its samples and whether it was steady."""
        for _ in range(self.args.retries + 1):
            samples = take()
            if self.steady(samples):
                return samples, True
        return samples, False

    def rounds(self, take):
        """take(i): the samples of round i. Returns the rounds, and how many of them were not steady."""
        done = [self.round(lambda i=i: take(i)) for i in range(self.args.rounds)]
        return [samples for samples, _ in done], sum(not ok for _, ok in done)


def spread(values, digits=2):
    """Median (least-largest)."""
    if not values:
        return "-"
    return f"{statistics.median(values):.{digits}f} ({min(values):.{digits}f}-{max(values):.{digits}f})"


def roofs(rounds):
    """Median read bandwidth and int8 peak of all samples, as two cells."""
    seen = [r for samples in rounds for s in samples for r in s["roofs"]]
    return [f"{statistics.median(r[kind] for r in seen):.{digits}f}" for kind, digits in (("read", 1), ("int8", 0))]


def mark(unsteady, args):
    return f"{unsteady} of {args.rounds}" if unsteady else "none"


def table(*names):
    print("\n| " + " | ".join(names) + " |\n|" + " --- |" * len(names), flush=True)


def line(*cells):
    print("| " + " | ".join(str(c) for c in cells) + " |", flush=True)


# ---- Against the peers ----

def share(item, shape, kind, path, sample):
    """What part of the roof Galley's products reach: of bandwidth where one sequence is decoded, of int8 elsewhere."""
    roof = {k: statistics.mean(r[k] for r in sample["roofs"]) for k in ("read", "int8")}
    if item.work == "decode":
        return cpu_models.weight_bytes(path, shape) * sample["value"] * 1e-9 / roof["read"]
    if kind == "BF16" or not roof["int8"]:
        return None
    return shape.ops_per_token(head=item.work != "prefill") * sample["value"] * 1e-9 / roof["int8"]


def compare(session, name, kind, item):
    """A line: Galley and every peer on one kind of work."""
    path, failed = cpu_models.path_of(session.args.models, name, kind), {}

    def take(i):
        turn = i % len(session.engines)
        samples = []
        for engine in session.engines[turn:] + session.engines[:turn]:
            if engine.name in failed:
                continue
            try:
                samples.append(session.sample(lambda e=engine: e.rate(path, item, session.args), engine=engine.name,
                                              model=path.name, work=item.work, n=item.n))
            except Failed as e:
                failed[engine.name] = str(e)
        return samples

    rounds, unsteady = session.rounds(take)
    found = [{s["engine"]: s for s in samples} for samples in rounds]
    rates = {e.name: [f[e.name]["value"] for f in found if e.name in f] for e in session.engines}
    own = session.galley.name
    ratios = [[f[own]["value"] / f[e.name]["value"] for f in found if own in f and e.name in f]
              for e in session.engines[1:]]
    shares = [share(item, cpu_models.SHAPES[name], kind, path, f[own]) for f in found if own in f]
    shares = [s for s in shares if s is not None]
    line(name, kind, item, *(f"{statistics.median(r):.1f}" if r else "failed" for r in rates.values()),
         *(spread(r) for r in ratios), spread(shares), *roofs(rounds), mark(unsteady, session.args))
    for engine, why in failed.items():
        print(f"{engine}, {name} {kind}, {item}: {why}", file=sys.stderr)


def compare_all(session, files, items):
    names = [e.name for e in session.engines]
    table("model", "format", "work", *(f"{n} tok/s" for n in names), *(f"{names[0]} / {n}" for n in names[1:]),
          "share of the roof", "read GB/s", "int8 GOP/s", "unsteady rounds")
    for name, kind in files:
        for item in items:
            compare(session, name, kind, item)


# ---- Galley against itself ----

def bench_rounds(session, path, **options):
    """Rounds of one sample each, whose value is the rows of `galley bench`."""
    def measure():
        return session.galley.bench(path, session.args, session.args.repeat, **options)

    return session.rounds(lambda i: [session.sample(measure, engine="galley", model=path.name, work=str(options))])


def verify(session, name, kind):
    path, rows = cpu_models.path_of(session.args.models, name, kind), session.args.verify
    wanted = ",".join(str(n) for n in [1] + [n for n in rows if n != 1])
    rounds, unsteady = bench_rounds(session, path, depth=DEPTH, verify=wanted)
    found = [{r["rows"]: r["step_ms"] for r in samples[0]["value"]} for samples in rounds]
    for n in rows:
        line(name, kind, n, spread([f[n] for f in found]), spread([f[n] / f[1] for f in found]), *roofs(rounds),
             mark(unsteady, session.args))


def depth(session, name, kind):
    """The loss against what K and V take to read at 0.8 of the bandwidth measured beside it."""
    path = cpu_models.path_of(session.args.models, name, kind)
    rounds, unsteady = bench_rounds(session, path, depth=f"0,{DEEP}", batch=1)
    size = DEEP * cpu_models.SHAPES[name].kv_bytes_per_token()
    found = [{r["depth"]: r["step_ms"] for r in samples[0]["value"]} for samples in rounds]
    explained = [size / (0.8 * statistics.mean(r["read"] for r in samples[0]["roofs"])) * 1e-6 for samples in rounds]
    line(name, kind, spread([f[0] for f in found]), spread([f[DEEP] for f in found]), f"{size / 1e6:.0f}",
         spread(explained), spread([(f[DEEP] - f[0]) / e for f, e in zip(found, explained)]), *roofs(rounds),
         mark(unsteady, session.args))


def alone(session, files, measure):
    for name, kind in files:
        try:
            measure(session, name, kind)
        except Failed as e:
            print(f"galley, {name} {kind}: {e}", file=sys.stderr)


# ---- The command line ----

def find_files(args):
    """The shapes and formats that there are files of."""
    wanted = [(s, f) for s in args.shape for f in args.formats]
    there = [w for w in wanted if cpu_models.path_of(args.models, *w).exists()]
    for name, kind in [w for w in wanted if w not in there]:
        print(f"{name} {kind} is left out: no {cpu_models.path_of(args.models, name, kind)} (cpu.py make)")
    return there


def measure_all(args):
    files = find_files(args)
    session = Session(args)
    print(f"{args.threads} threads, {args.rounds} rounds, {args.repeat} repetitions of {args.steps} steps")
    if os.getloadavg()[0] > 0.5:
        print(f"the machine is busy with other things: load average {os.getloadavg()[0]:.1f}")
    items = {"decode": [Item("decode", 1)], "batch": [Item("batch", n) for n in args.batch],
             "prefill": [Item("prefill", n) for n in args.prefill]}
    items = [item for work in args.work for item in items.get(work, [])]
    if items:
        compare_all(session, files, items)
    if "verify" in args.work:
        table("model", "format", "rows", "step ms", "against 1 row", "read GB/s", "int8 GOP/s", "unsteady rounds")
        alone(session, files, verify)
    if "depth" in args.work:
        table("model", "format", "step ms, depth 0", f"depth {DEEP}", "K/V MB", "ms they explain at 0.8",
              "loss / explained", "read GB/s", "int8 GOP/s", "unsteady rounds")
        alone(session, files, depth)
    session.roof.close()


def words(known):
    def parse(text):
        chosen = text.split(",")
        wrong = [w for w in chosen if w.lower() not in [k.lower() for k in known]]
        if wrong:
            raise argparse.ArgumentTypeError(f"{wrong[0]}: not one of {', '.join(known)}")
        return [k for k in known if k.lower() in text.lower().split(",")]
    return parse


def numbers(text):
    return [int(n) for n in text.split(",")]


def parse_args():
    p = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    sub = p.add_subparsers(dest="command", required=True)
    make = sub.add_parser("make", help="write the model files that are missing")
    make.add_argument("folder", metavar="DIR")
    run = sub.add_parser("run", help="measure")
    for s in (make, run):
        s.add_argument("--galley", required=True, metavar="PATH", type=lambda path: str(Path(path).resolve()))
        s.add_argument("--shape", type=words(cpu_models.SHAPES), default=list(cpu_models.SHAPES))
        s.add_argument("--formats", type=words(cpu_models.FORMATS), default=list(cpu_models.FORMATS))
    run.add_argument("--models", required=True, metavar="DIR", type=lambda path: str(Path(path).resolve()))
    run.add_argument("--roof", metavar="PATH", help="tests/bench/roof of Galley's own build if not given")
    run.add_argument("--work", type=words(WORKS), default=list(WORKS))
    run.add_argument("--batch", type=numbers, default=[4, 8, 16, 32])
    run.add_argument("--prefill", type=numbers, default=[512, 2048])
    run.add_argument("--verify", type=numbers, default=[1, 2, 4, 8, 16])
    run.add_argument("--rounds", type=int, default=3)
    run.add_argument("--retries", type=int, default=3, help="of a round in which the roofs differ (%(default)s)")
    run.add_argument("--steps", type=int, default=32, help="decoded tokens of a sequence (%(default)s)")
    run.add_argument("--repeat", type=int, default=3, help="in a sample of decode, verify, depth (%(default)s)")
    run.add_argument("--threads", type=int, default=len(os.sched_getaffinity(0)))
    run.add_argument("--save", metavar="FILE", help="append every sample as a line of JSON")
    return p.parse_args()


def main():
    args = parse_args()
    if args.command == "make":
        return cpu_models.make(args.folder, args.galley, args.shape, args.formats)
    args.roof = args.roof or str(Path(args.galley).parents[1] / "tests/bench/roof")
    if not Path(args.roof).is_file():
        sys.exit(f"{args.roof} is not there: ninja -C BUILD tests/bench/roof")
    return measure_all(args)


if __name__ == "__main__":
    sys.exit(main())
