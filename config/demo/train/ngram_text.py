"""Write the text of the demo's n-gram store to standard output, a document after another.

    python3 ngram_text.py 4000 | galley ngram build --model ../target.gguf \\
        --special --split @@@ --max-mb 2 --out ../ngram.bin -

The documents are new ones of the mixture that the models learn from, as they see them: with the marks of turns and ends.
"""

import sys

import corpus

SEPARATOR = "@@@"


def text(index):
    document = corpus.document(corpus.generator("ngram", index), progress=1.0)
    return "".join(piece[0] for piece in document)


def main(count):
    for index in range(count):
        sys.stdout.write(f"{text(index)}\n{SEPARATOR}\n")


if __name__ == "__main__":
    main(int(sys.argv[1]))
