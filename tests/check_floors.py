#!/usr/bin/env python3
"""server -> engine -> kernels, never upward, never skipping: every #include "..." of the product is checked against the
headers its floor may see. kernels/base is open to all. And what only a GPU understands stays in the device layer."""
import pathlib
import re
import sys

ROOT = pathlib.Path(__file__).resolve().parent.parent
MAY_SEE = {
    "server": ["server", "engine/include", "kernels/base"],
    "engine": ["engine", "kernels/include", "kernels/base"],
    "kernels": ["kernels"],
}
NEVER = {"kernels/base": ["kernels/include", "kernels/ref", "kernels/cpu", "kernels/fake"]}


# In a .cu file each of these has a name of our own in dev.cuh, so that the shim of tests/simt can run it.
DEVICE_ONLY = re.compile(r"\basm\b|__shared__|<<<|__sync\w+\s*\(|__shfl\w*|__ballot\w*|\batomic[A-Z]\w*|\bcuda[A-Z]\w*|cuda_\w+\.h")


def candidates(name, source):
    """Every header of the tree that this include could mean."""
    here = (source.parent / name).resolve()
    if here.is_file():
        return [here]
    return [h for top in MAY_SEE for h in (ROOT / top).rglob("*.h") if str(h).endswith("/" + name)]


def inside(path, folder):
    return str(path.relative_to(ROOT)).startswith(folder + "/")


def check(source, floor):
    problems = []
    for number, line in enumerate(source.read_text().splitlines(), 1):
        match = re.match(r'\s*#\s*include\s+"([^"]+)"', line)
        if not match:
            continue
        found = candidates(match[1], source)
        allowed = [h for h in found if any(inside(h, folder) for folder in MAY_SEE[floor])]
        base = inside(source, "kernels/base") and not any(inside(h, "kernels/base") for h in found)
        if found and (not allowed or base):
            problems.append(f"{source.relative_to(ROOT)}:{number}: {floor}/ must not include {match[1]}")
    return problems


def check_device(source):
    return [f"{source.relative_to(ROOT)}:{number}: {match[0]} belongs into dev_ptx.cuh"
            for number, line in enumerate(source.read_text().splitlines(), 1) for match in [DEVICE_ONLY.search(line)] if match]


def main():
    problems, n = [], 0
    for floor in MAY_SEE:
        for source in sorted(p for kind in ("*.[ch]", "*.cu", "*.cuh") for p in (ROOT / floor).rglob(kind)):
            problems += check(source, floor)
            n += 1
    for source in sorted((ROOT / "kernels/cuda").glob("*.cu")):
        problems += check_device(source)
    print("\n".join(problems) or f"{n} files keep to their floors")
    return 1 if problems else 0


sys.exit(main())
