"""The programs that cpu.py compares, all asked the same: tokens a second of one kind of work on one model file.

Every engine answers rate(model, item, args), one run of its own bench: warm-up and model loading are not in its figure.
Peers are folders with llama.cpp's llama-bench and llama-batched-bench, named by environment variables.
"""
import json
import os
import re
import subprocess
import tempfile
from dataclasses import dataclass
from pathlib import Path

DEPTH = 128  # tokens before decoded ones
TIMEOUT_S = 1800


class Failed(Exception):
    """An engine did not answer."""


@dataclass(frozen=True)
class Item:
    """What is measured: decode or batch of n sequences, or prefill of n tokens."""
    work: str
    n: int

    def repeat(self, args):
        """Repetitions in a sample. llama-batched-bench has none, and prompts are long enough alone."""
        return args.repeat if self.work == "decode" else 1

    def __str__(self):
        return f"prefill {self.n}" if self.work == "prefill" else f"decode x{self.n}"


def run(command):
    """In a folder of its own: ik_llama.cpp leaves a log where it runs."""
    try:
        with tempfile.TemporaryDirectory() as folder:
            done = subprocess.run([str(c) for c in command], capture_output=True, text=True, timeout=TIMEOUT_S, cwd=folder)
    except (OSError, subprocess.TimeoutExpired) as e:
        raise Failed(str(e)) from e
    if done.returncode:
        said = (done.stderr.strip() or done.stdout.strip() or "nothing").splitlines()[-1]
        raise Failed(f"{Path(command[0]).name} ended with {done.returncode}: {said}")
    return done


# ---- Galley ----

class Galley:
    name = "galley"

    def __init__(self, path):
        self.path = path

    def bench(self, model, args, repeat, prefill="none", depth="none", batch="none", verify="none"):
        """The rows of `galley bench --json`."""
        done = run([self.path, "bench", "--json", "--model", model, "--threads", args.threads, "--repeat", repeat,
                    "--steps", args.steps, "--prefill", prefill, "--depth", depth, "--batch", batch, "--verify", verify])
        return json.loads(done.stdout)["rows"]

    def rate(self, model, item, args):
        asked = {"prefill": item.n} if item.work == "prefill" else {"depth": DEPTH, "batch": item.n}
        return self.bench(model, args, item.repeat(args), **asked)[0]["tokens_per_s"]


# ---- Peers ----

class Peer:
    """llama.cpp and what descends from it."""
    bench_options = ()
    batched_options = ()

    def __init__(self, folder):
        self.folder = Path(folder).resolve()

    def missing(self):
        return [b for b in ("llama-bench", "llama-batched-bench") if not (self.folder / b).is_file()]

    def decode_options(self, steps):
        return ("-p", 0, "-n", steps, "-d", DEPTH)

    def bench(self, model, args, repeat, *options):
        done = run([self.folder / "llama-bench", "-m", model, "-t", args.threads, "-r", repeat, "-o", "json",
                    *self.bench_options, *options])
        text = done.stdout
        return json.loads(text[text.index("[\n"):])[-1]["avg_ts"]

    def batched(self, model, args, n):
        """Its table: |  PP |  TG |  B |  N_KV |  T_PP s | S_PP t/s |  T_TG s | S_TG t/s |  T s |  S t/s |"""
        room = -(-(DEPTH + args.steps) // 256) * 256 * n
        done = run([self.folder / "llama-batched-bench", "-m", model, "-t", args.threads, "-c", room, "-npp", DEPTH,
                    "-ntg", args.steps, "-npl", n, *self.batched_options])
        for line in (done.stdout + done.stderr).splitlines():
            cells = [c.strip() for c in line.strip().strip("|").split("|")]
            if len(cells) == 10 and re.fullmatch(r"\d+", cells[0]) and int(cells[2]) == n:
                return float(cells[7])
        raise Failed("llama-batched-bench printed no result")

    def rate(self, model, item, args):
        if item.work == "prefill":
            return self.bench(model, args, item.repeat(args), "-p", item.n, "-n", 0)
        if item.work == "decode":
            return self.bench(model, args, item.repeat(args), *self.decode_options(args.steps))
        return self.batched(model, args, item.n)


class LlamaCpp(Peer):
    name, variable = "llama.cpp", "GALLEY_PEER_LLAMACPP"


class Ik(Peer):
    """ik_llama.cpp: weights repacked at load; its llama-bench has no -d but -gp depth,tokens."""
    name, variable = "ik_llama.cpp", "GALLEY_PEER_IK"
    bench_options, batched_options = ("-rtr", 1), ("-rtr",)

    def decode_options(self, steps):
        return ("-p", 0, "-n", 0, "-gp", f"{DEPTH},{steps}")


def find_peers():
    """Those that the environment names; says which are left out."""
    found = []
    for kind in (LlamaCpp, Ik):
        folder = os.environ.get(kind.variable)
        peer = kind(folder) if folder else None
        if peer and not peer.missing():
            found.append(peer)
        else:
            why = f"{folder} has no {' and no '.join(peer.missing())}" if peer else f"{kind.variable} is not set"
            print(f"{kind.name} is left out: {why}")
    return found


# ---- The machine ----

class Roof:
    """tests/bench/roof, asked again and again: read GB/s and int8 GOP/s, medians of passes of one or two milliseconds."""

    def __init__(self, path, args):
        self.process = subprocess.Popen([path, "-w", "-n", str(args.threads), "-s", "0.3"], text=True,
                                        stdin=subprocess.PIPE, stdout=subprocess.PIPE)

    def read(self):
        self.process.stdin.write("\n")
        self.process.stdin.flush()
        line = self.process.stdout.readline()
        if not line:
            raise SystemExit("the roof program ended")
        told = json.loads(line)
        return {"read": told["read_gb_per_s"]["median"], "int8": told["int8_gop_per_s"]["median"]}

    def close(self):
        self.process.stdin.close()
        self.process.wait()
