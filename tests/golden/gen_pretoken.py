#!/usr/bin/env python3
"""Writes pretoken.txt: how Hugging Face's `tokenizers` (pip install tokenizers) cuts texts into words.

One line a case: name of the pre-tokenizer, the text in hex, the ends of its pieces in bytes.
"""
import os
import random

from tokenizers import Regex, pre_tokenizers as pre

LLAMA3 = (
    r"(?i:'s|'t|'re|'ve|'m|'ll|'d)|[^\r\n\p{L}\p{N}]?\p{L}+|\p{N}{1,3}"
    r"| ?[^\s\p{L}\p{N}]+[\r\n]*|\s*[\r\n]+|\s+(?!\S)|\s+"
)
CAPITALS, SMALL = r"[\p{Lu}\p{Lt}\p{Lm}\p{Lo}\p{M}]", r"[\p{Ll}\p{Lm}\p{Lo}\p{M}]"
CONTRACTION = r"(?i:'s|'t|'re|'ve|'m|'ll|'d)?"
GPT4O = (
    rf"[^\r\n\p{{L}}\p{{N}}]?{CAPITALS}*{SMALL}+{CONTRACTION}|[^\r\n\p{{L}}\p{{N}}]?{CAPITALS}+{SMALL}*{CONTRACTION}"
    r"|\p{N}{1,3}| ?[^\s\p{L}\p{N}]+[\r\n/]*|\s*[\r\n]+|\s+(?!\S)|\s+"
)
FAMILIES = {
    "gpt-2": pre.ByteLevel(add_prefix_space=False),
    "smollm": pre.Sequence([pre.Digits(individual_digits=True), pre.ByteLevel(add_prefix_space=False)]),
    "llama-bpe": pre.Split(Regex(LLAMA3), "isolated"),
    "gpt-4o": pre.Split(Regex(GPT4O), "isolated"),
    "qwen2": pre.Split(Regex(LLAMA3.replace("{1,3}", "")), "isolated"),
}
FIXED = [
    "Hello world", " Hello  world ", "don't I'LL we'Ve 'd it'S", "'\u017f '\u017fx", "1 22 333 4444 55555", "a 1  2   b",
    "\r\n\r\n x\n\n\n", " \n \n a", "\t\tx\t y", "\u3000\u3000a\u00a0b", "x\u180ey \u180e", "a\u0085b\u2028c", "!?...\n\n--> {",
    "na\u0301\u00efve \u00dcn\u00efcode", "\u4f60\u597d\uff0c\u4e16\u754c 3\u4e2a", "\U0001f468\u200d\U0001f469\u200d\U0001f467 ok",
    "\u0663\u0664 \u00bd \u2460", "\u0926\u0947\u0935\u0928\u093e\u0917\u0930\u0940", "foo_bar(x, y);  // c\n", "\x00\x01 \x1f",
]
ALPHABET = list("abcXYZ019 \t\n\r'.,!_-") + ["  ", "\n\n", "'s", "'LL", "\u00e9", "\u0301", "\u00a0", "\u4e2d", "\U0001f642", "\u00b2"]


def ends(text, family):
    """Ends of the pieces in bytes: offsets come in characters, and ByteLevel may repeat them for split ones."""
    return [len(text[:end].encode()) for _, (_, end) in FAMILIES[family].pre_tokenize_str(text)]


def main():
    rng = random.Random(5)
    texts = FIXED + ["".join(rng.choice(ALPHABET) for _ in range(rng.randint(1, 24))) for _ in range(150)]
    path = os.path.join(os.path.dirname(os.path.abspath(__file__)), "pretoken.txt")
    with open(path, "w") as out:
        for family in FAMILIES:
            for text in texts:
                print(family, text.encode().hex(), *ends(text, family), file=out)


if __name__ == "__main__":
    main()
