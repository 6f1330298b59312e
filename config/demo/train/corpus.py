"""The mixture of documents, and batches cut from it.

Every batch is drawn from its own seed and number alone: training can stop and
resume anywhere and see the same text, and nothing needs to lie on disk.
"""

import random
import re

import torch

import chat
import editing
import smalltalk
import snippets
import stories
import sums
import turns
import words

SEED = 20
VOCABULARY_START = 262  # the first id that is neither special nor a bare byte
DRILL_EARLY, DRILL_UNTIL, DRILL_LATE = 0.15, 0.05, 0.03


def generator(*key):
    return random.Random(f"{SEED}/{'/'.join(map(str, key))}")


def single(ask):
    """A conversation of one exchange made by ask(rng)."""
    return lambda rng: turns.conversation(rng, [ask(rng)])


def raw_story(rng):
    chapters = rng.choice((1, 1, 1, 1, 2, 3))
    return turns.raw(rng, stories.make_story(rng, chapters=chapters, invent=0).text)


def tell(rng):
    question, answer, story = chat.tell(rng)
    return turns.Exchange(question, answer, chat.asked_for(question, story), turns.FREE)


def dialogue(rng):
    return turns.conversation(rng, chat.dialogue(rng, turns=rng.choice((2, 2, 3, 4, 5))))


def chatter(rng):
    count = rng.choice((1, 1, 2, 3))
    return turns.conversation(rng, [smalltalk.small_talk(rng) for _ in range(count)])


def code(rng):
    if rng.random() < 0.5:
        return snippets.code_with_hole(rng)
    if rng.random() < 0.5:
        return turns.conversation(rng, [snippets.code_exchange(rng)])
    return turns.raw(rng, snippets.code_file(rng))


# Kind of document, how often it is drawn at first, later, and in the last part of the training, and whether all its words
# are given in the question, so that they may be invented there. Copying is drilled early, because everything else that
# edits is built on it. Answers to questions and sums are short, so they are drawn often.
MIXTURE = (
    (raw_story, 0.08, 0.05, 0.03, False),
    (single(tell), 0.12, 0.12, 0.16, False),
    (single(chat.continue_story), 0.03, 0.03, 0.01, False),
    (single(editing.rename), 0.20, 0.15, 0.34, True),
    (single(editing.swap_drill), 0.10, 0.04, 0.10, True),
    (single(editing.repeat), 0.08, 0.05, 0.03, True),
    (single(editing.relist), 0.05, 0.05, 0.16, True),
    (single(editing.mend), 0.10, 0.14, 0.12, True),
    (single(chat.extract), 0.15, 0.20, 0.38, True),
    (single(sums.sum_exchange), 0.25, 0.28, 0.14, True),
    (chatter, 0.03, 0.04, 0.02, False),
    (code, 0.05, 0.08, 0.10, False),
    (dialogue, 0.03, 0.10, 0.08, False),
)
STRANGE = (0.0, 0.5, 0.9)  # shares of invented words in documents of the last part


def document(rng, progress, last=False):
    """One document; `progress` moves from 0 to 1 over the training, `last` is its last part."""
    late = min(1.0, 4 * progress)
    weights = [row[3] if last else row[1] + late * (row[2] - row[1]) for row in MIXTURE]
    words.strange = 0.0
    kind, given = rng.choices([(row[0], row[4]) for row in MIXTURE], weights)[0]
    if last and given:
        words.strange = rng.choice(STRANGE)
    try:
        return kind(rng)
    finally:
        words.strange = 0.0


def token_drill(rng, tokenizer):
    """Random tokens over and over: only copying can predict them."""
    size = tokenizer.get_vocab_size()
    count = rng.choice((4, 8, 16, 32, 64))
    once = [rng.randrange(VOCABULARY_START, size) for _ in range(count)]
    again = rng.randint(1, 3)
    return once * (1 + again), [0.0] * count + [turns.DECIDED] * count * again


def token_weights(encoding, text, weight, stressed):
    """The weight of each token of a piece; those that touch stressed words count more."""
    weights = [weight] * len(encoding.ids)
    if not stressed:
        return weights
    spans = [m.span() for word in stressed for m in re.finditer(rf"\b{re.escape(word)}\b", text)]
    for index, (start, end) in enumerate(encoding.offsets):
        if any(start < last and first < end for first, last in spans):
            weights[index] = turns.STRESS * weight
    return weights


def encode(tokenizer, document):
    """Token ids of a document, and the weight of each."""
    ids, weights = [], []
    for text, weight, stressed in document:
        piece = tokenizer.encode(text)
        ids += piece.ids
        weights += token_weights(piece, text, weight, stressed)
    return ids, weights


def encoded(rng, tokenizer, progress, last):
    if rng.random() < (DRILL_EARLY if progress < DRILL_UNTIL else DRILL_LATE):
        return token_drill(rng, tokenizer)
    return encode(tokenizer, document(rng, progress, last))


def fill_rows(rng, tokenizer, progress, rows, length, last):
    """Put whole documents side by side; only the last of a row may be cut."""
    filled = [([], []) for _ in range(rows)]
    misses = 0
    while misses < 2 * rows:
        ids, weights = encoded(rng, tokenizer, progress, last)
        fits = [row for row in filled if len(row[0]) + len(ids) <= length]
        if not fits:
            misses += 1
            continue
        row = max(fits, key=lambda row: len(row[0]))
        row[0].extend(ids)
        row[1].extend(weights)
    for row in filled:
        while len(row[0]) < length:
            ids, weights = encode(tokenizer, raw_story(rng))
            row[0].extend(ids)
            row[1].extend(weights)
    return [(ids[:length], weights[:length]) for ids, weights in filled]


def batch(tokenizer, step, progress, rows, length, part="train", last=False):
    """Ids and targets [rows, length], with -100 where nothing is learnt, and the targets' weights."""
    rng = generator(part, step)
    filled = fill_rows(rng, tokenizer, progress, rows, length + 1, last)
    ids = torch.tensor([ids for ids, _ in filled])
    weights = torch.tensor([weights for _, weights in filled])[:, 1:].contiguous()
    targets = ids[:, 1:].masked_fill(weights == 0, -100)
    return ids[:, :-1].contiguous(), targets, weights
