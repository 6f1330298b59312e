#!/usr/bin/env python3
"""How a command gets on beside others: alone, twice at once, and beside one busy loop for each processor but one, then for
each. What it measures is the first number it prints, or "tokens_per_s" of its JSON.

    tests/bench/neighbours.py --rounds 5 build/release/tests/bench/bench_pool 1 2 20
    tests/bench/neighbours.py build/release/server/galley bench --model FILE --json --prefill 0 --depth 128 --batch 1 --repeat 12

With N processors and as many workers fair shares are: 1/2 twice at once, about 1/2 beside N busy loops. A round in which
anybody else used more than --foreign of the processors is repeated, at most --tries times."""
import argparse
import os
import re
import resource
import statistics
import subprocess
import time

BUSY = ["sh", "-c", "while :; do :; done"]


def all_cpu():
    """(busy, all) seconds of the machine's processors since it started."""
    with open("/proc/stat") as f:
        ticks = [int(t) for t in f.readline().split()[1:9]]
    hz = os.sysconf("SC_CLK_TCK")
    return (sum(ticks) - ticks[3] - ticks[4]) / hz, sum(ticks) / hz


def own_cpu():
    r = resource.getrusage(resource.RUSAGE_CHILDREN)
    return r.ru_utime + r.ru_stime


def figure(text):
    found = re.search(r'"tokens_per_s":([0-9.]+)', text) or re.search(r"([0-9]+(\.[0-9]+)?)", text)
    return float(found[1])


def once(command, n_command, n_busy):
    """(what each command printed, what share of the processors others used)"""
    (busy, total), own = all_cpu(), own_cpu()
    loops = [subprocess.Popen(BUSY) for _ in range(n_busy)]
    running = [subprocess.Popen(command, stdout=subprocess.PIPE, text=True) for _ in range(n_command)]
    figures = [figure(p.communicate()[0]) for p in running]
    for p in loops:
        p.kill()
        p.wait()
    (busy1, total1), own1 = all_cpu(), own_cpu()
    return figures, max(0, busy1 - busy - own1 + own) / max(1e-9, total1 - total)


def main():
    p = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    p.add_argument("--rounds", type=int, default=3)
    p.add_argument("--foreign", type=float, default=0.08)
    p.add_argument("--tries", type=int, default=100)
    p.add_argument("command", nargs=argparse.REMAINDER)
    a = p.parse_args()
    n = os.cpu_count()
    scenes = {"alone": (1, 0), "two at once": (2, 0), f"beside {n - 1} busy": (1, n - 1), f"beside {n} busy": (1, n)}
    got, tries = {name: [] for name in scenes}, a.tries
    for _ in range(a.rounds):
        for name, (n_command, n_busy) in scenes.items():
            figures, foreign = once(a.command, n_command, n_busy)
            while foreign > a.foreign and tries:
                tries -= 1
                time.sleep(1)
                figures, foreign = once(a.command, n_command, n_busy)
            got[name] += figures
    alone = statistics.median(got["alone"])
    for name, figures in got.items():
        m = statistics.median(figures)
        print(f"{name:16} {m:12.1f}  {m / alone:5.2f} of alone   ({min(figures):.1f} to {max(figures):.1f})")
    if not tries:
        print("others used the machine all the time: these figures are not of a quiet one")


main()
