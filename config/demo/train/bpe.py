"""Train the byte-level BPE vocabulary of 4,096 tokens on the project's own text.

    python3 bpe.py tokenizer.json
"""

import sys

from tokenizers import Regex, Tokenizer, decoders, models, pre_tokenizers, trainers

import corpus
from turns import SPECIAL

VOCABULARY = 4096
SAMPLE_DOCUMENTS = 12000
# Qwen2's way of cutting text, so that loaders know it by name. Digits stand
# alone, which lets sums be worked column by column.
QWEN2 = (r"(?i:'s|'t|'re|'ve|'m|'ll|'d)|[^\r\n\p{L}\p{N}]?\p{L}+|\p{N}"
         r"| ?[^\s\p{L}\p{N}]+[\r\n]*|\s*[\r\n]+|\s+(?!\S)|\s+")


def sample_text():
    """Documents of every kind, without the special tokens."""
    for index in range(SAMPLE_DOCUMENTS):
        document = corpus.document(corpus.generator("bpe", index), progress=1.0)
        text = "".join(piece.text for piece in document)
        for token in SPECIAL:
            text = text.replace(token, "\n")
        yield text


def train():
    tokenizer = Tokenizer(models.BPE())
    tokenizer.pre_tokenizer = pre_tokenizers.Sequence([
        pre_tokenizers.Split(Regex(QWEN2), "isolated"),
        pre_tokenizers.ByteLevel(add_prefix_space=False, use_regex=False)])
    tokenizer.decoder = decoders.ByteLevel()
    tokenizer.train_from_iterator(sample_text(), trainers.BpeTrainer(
        vocab_size=VOCABULARY, special_tokens=SPECIAL, show_progress=False,
        initial_alphabet=pre_tokenizers.ByteLevel.alphabet()))
    if tokenizer.get_vocab_size() != VOCABULARY:
        raise SystemExit("too little text for the vocabulary")
    return tokenizer


if __name__ == "__main__":
    train().save(sys.argv[1])
