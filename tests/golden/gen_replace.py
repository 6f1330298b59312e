#!/usr/bin/env python3
"""Writes replace.txt: bytes in hex, and what bytes.decode('utf-8', 'replace') makes of them, in hex."""
import os
import random

PARTS = [b"a", b"z ", b"\xc3\xa9", b"\xe4\xbd\xa0", b"\xf0\x9f\x99\x82", b"\xc3", b"\xe4\xbd", b"\xe4", b"\xf0\x9f\x99", b"\xf0\x9f"]
PARTS += [b"\xf0", b"\x80", b"\xbf", b"\xc0\xaf", b"\xe0\x80\x80", b"\xed\xa0\x80", b"\xf4\x90\x80\x80", b"\xff", b"\xfe", b"\xc1"]
PARTS += [b"\xf0\x80\x80\x80", b"\xf5\x80\x80\x80", b"\xef\xbf\xbd", b"\xe0\xa0", b"\xed\x9f", b"\xf4\x8f\xbf"]


def main():
    rng = random.Random(9)
    cases = PARTS + [b"".join(rng.choice(PARTS) for _ in range(rng.randint(2, 8))) for _ in range(200)]
    path = os.path.join(os.path.dirname(os.path.abspath(__file__)), "replace.txt")
    with open(path, "w") as out:
        for case in cases:
            print(case.hex(), case.decode("utf-8", "replace").encode().hex(), file=out)


if __name__ == "__main__":
    main()
