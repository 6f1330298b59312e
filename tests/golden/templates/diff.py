#!/usr/bin/env python3
"""Differential test: random templates through Python's jinja2 and through jinja_cli.

usage: diff.py JINJA_CLI FIRST_SEED N [--save FILE N_SAVED]
Prints every difference. --save keeps an even sample of the cases that agree, as goldens."""
import copy
import json
import re
import subprocess
import sys
import warnings

warnings.simplefilter("ignore")

import grammar  # noqa: E402
import reference  # noqa: E402


def ours(cli, templates):
    lines = "".join(json.dumps({"template": t, "vars": grammar.VARS}) + "\n" for t in templates)
    p = subprocess.run([cli], input=lines, capture_output=True, text=True, check=False)
    answers = [json.loads(line) for line in p.stdout.split("\n")[:-1]]
    if p.returncode or len(answers) != len(templates):
        print("CRASH rc", p.returncode, "after", len(answers), repr(templates[len(answers)]), p.stderr[-2000:])
        sys.exit(1)
    return answers


def incomparable(ref, got):
    """Python shows addresses, has integers of any size, and folds slices of constants, which then cannot fail."""
    text = ref.get("out", "")
    if re.search(r" at 0x[0-9a-f]+|<(generator|function|built-in)|transformers\.|\dj\)", text, re.I):
        return True
    folded = "64 bits", "not subscriptable", "unhashable type: 'slice'", "complex number"
    return "error" in got and "error" not in ref and any(x in got["error"] for x in folded)


def same(ref, got):
    if "out" in ref or "out" in got:
        return ref.get("out") == got.get("out")
    if ref["kind"] in ("UndefinedError", "SecurityError") and got["stage"] == "render":
        return re.sub(r"^line \d+: ", "", got["error"]).replace("namespace object", "NS") == re.sub(
            r"[\w.]+TemplateNamespace object", "NS", ref["error"])
    return ref["kind"] != "TemplateSyntaxError" or got["stage"] == "compile"


def main():
    cli, first, n = sys.argv[1], int(sys.argv[2]), int(sys.argv[3])
    save, n_save = (sys.argv[5], int(sys.argv[6])) if len(sys.argv) > 4 else (None, 0)
    n_diff = n_out = 0
    kept = []
    for at in range(first, first + n, 500):
        seeds = range(at, min(at + 500, first + n))
        templates = [grammar.template(seed) for seed in seeds]
        for t, got in zip(templates, ours(cli, templates)):
            ref = reference.render(t, copy.deepcopy(grammar.VARS))
            n_out += "out" in ref
            if incomparable(ref, got):
                continue
            if not same(ref, got):
                n_diff += 1
                if n_diff <= 40:
                    print("---", repr(t), "\n  py  ", ref, "\n  ours", got)
            elif len(t) < 200:
                kept.append({"template": t, **{k: v for k, v in ref.items() if k != "kind"}})
    print(f"{n} cases, {n_out} render in Python, {n_diff} differences")
    if save:
        step = max(1, len(kept) // n_save)
        with open(save, "w", encoding="utf-8") as f:
            f.write(json.dumps({"vars": grammar.VARS}, ensure_ascii=False) + "\n")
            for row in kept[::step][:n_save]:
                f.write(json.dumps(row, ensure_ascii=False) + "\n")
    return n_diff > 0


if __name__ == "__main__":
    sys.exit(main())
