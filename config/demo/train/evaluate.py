"""Measure an exported pair on prompts whose names and words it never saw.

    python3 evaluate.py target.gguf draft.gguf --count 40

Answers are decoded greedily from the GGUF files themselves. An answer counts
only if it is right to the letter; for sums the last line decides.
"""

import argparse
import json

import torch
import torch.nn.functional as F

import chat
import corpus
import editing
import gguf_model
import snippets
import sums
import turns
from loose import loose_text
from model import Cache
from stories import make_story

LOSS_BATCHES, LOSS_ROWS, LOSS_LENGTH = 6, 4, 1024


@torch.inference_mode()
def answer(model, tokenizer, text, limit=500):
    """Greedy ids after `text`, up to a token that ends an answer."""
    stops = {tokenizer.token_to_id(t) for t in (turns.TURN_END, turns.END_OF_TEXT)}
    ids, cache, written = tokenizer.encode(text).ids, Cache(), []
    room = min(limit, model.shape.context - len(ids))
    feed = ids
    while len(written) < room:
        hidden, _ = model(torch.tensor([feed]), cache)
        token = model.logits(hidden[:, -1]).argmax().item()
        written.append(token)
        if token in stops:
            break
        feed = [token]
    return ids, written


def exactly(right):
    return lambda text: text == right


def last_line(right):
    wanted = right.splitlines()[-1]
    return lambda text: text.splitlines()[-1:] == [wanted]


def same_json(right):
    def check(text):
        try:
            return json.loads(text) == json.loads(right)
        except ValueError:
            return False
    return check



def ask(question):
    return turns.prompt([("user", question)])


def rename_case(rng, short, loose=0.0):
    story = editing.passage(rng, True, short, loose)
    while not story.mentions()["characters"]:
        story = editing.passage(rng, True, short, loose)
    old = rng.choice(story.mentions()["characters"])
    new = editing.words.person(rng, held=True)[0]
    wish = rng.choice(editing.RENAME).format(old=old, new=new)
    return ask(editing.about(rng, wish, story.text)), exactly(story.swapped(old, new).text)


def pair_case(make, check=exactly):
    def case(rng):
        question, right, *_ = make(rng, held=True)
        return ask(question), check(right)
    return case


def extract_case(asker, check=exactly, make=make_story):
    def case(rng):
        story = make(rng, held=True)
        question, right = asker(rng, story)
        return ask(editing.about(rng, question, story.text)), check(right)
    return case


def dialogue_case(rng):
    """Tell, then rename: the answer to the second question counts."""
    question, told, story = chat.tell(rng, held=True)
    second, renamed = editing.rename_said(rng, True, story)
    messages = [("user", question), ("assistant", told), ("user", second)]
    return turns.prompt(messages), exactly(renamed.text)


def tell_case(rng):
    cast = chat.draw_cast(rng, held=True)
    child = "girl" if cast.hero_pronoun == "she" else "boy"
    wish = f"a {child} named {cast.hero} and {chat.words.with_article(cast.object)}"
    fits = lambda text: cast.hero in text and cast.object in text
    return ask(rng.choice(chat.TELL_OPENINGS).format(x=wish)), fits


def hole_case(rng):
    shown, middle = snippets.code_with_hole(rng)
    return shown.text, exactly(middle.text.removesuffix(turns.END_OF_TEXT))


TASKS = {
    "tell a story about a given name and thing": tell_case,
    "rename in a few sentences": lambda rng: rename_case(rng, 1.0),
    "rename in a whole story": lambda rng: rename_case(rng, 0.0),
    "rename in the story told before": dialogue_case,
    "rename in sentences of no story": lambda rng: rename_case(rng, 0.0, 1.0),
    "mend typos": pair_case(editing.mend),
    "repeat random words or a passage": pair_case(editing.repeat),
    "list what a story contains": extract_case(chat.list_question),
    "list what sentences of no story contain": extract_case(chat.list_question, make=loose_text),
    "count and name": extract_case(chat.count_question),
    "extract as JSON": extract_case(chat.json_question, same_json),
    "extract as JSON from sentences of no story": extract_case(chat.json_question, same_json, loose_text),
    "word sums": pair_case(sums.word_sum, last_line),
    "fill in code": hole_case,
}


@torch.inference_mode()
def agreement(target, draft, ids, written):
    """How many of the target's own tokens the draft and the exit would choose."""
    whole = torch.tensor([ids + written[:-1]])
    hidden, early = target(whole)
    chosen = target.logits(hidden[0, len(ids) - 1:]).argmax(-1)
    by_exit = target.logits(early[0, len(ids) - 1:]).argmax(-1)
    by_draft = draft.logits(draft(whole)[0][0, len(ids) - 1:]).argmax(-1)
    return (len(chosen), (by_draft == chosen).sum().item(),
            (by_exit == chosen).sum().item())


def measure(target, draft, tokenizer, name, case, count):
    """Share of right answers, and draft's and exit's share of equal tokens."""
    right, totals = 0, [0, 0, 0]
    for index in range(count):
        text, check = case(corpus.generator("evaluate", name, index))
        ids, written = answer(target, tokenizer, text)
        right += check(tokenizer.decode(written))
        same = agreement(target, draft, ids, written)
        totals = [a + b for a, b in zip(totals, same)]
    tokens, by_draft, by_exit = totals
    return right / count, by_draft / tokens, by_exit / tokens


@torch.inference_mode()
def loss(model, tokenizer):
    """Mean loss over fresh documents, at the last layer and at the exit."""
    totals = torch.zeros(3)
    for index in range(LOSS_BATCHES):
        ids, targets, _ = corpus.batch(tokenizer, index, 1.0, LOSS_ROWS, LOSS_LENGTH,
                                       part="test")
        learnt = targets >= 0
        hidden, early = model(ids)
        wanted = targets[learnt]
        totals[0] += F.cross_entropy(model.logits(hidden[learnt]), wanted, reduction="sum")
        if early is not None:
            totals[1] += F.cross_entropy(model.logits(early[learnt]), wanted, reduction="sum")
        totals[2] += learnt.sum()
    return (totals[:2] / totals[2]).tolist()


def sample(target, tokenizer):
    question = "Tell me a story about a girl named Quilla and an anchor."
    return question, tokenizer.decode(answer(target, tokenizer, ask(question))[1])


def main():
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("target")
    parser.add_argument("draft")
    parser.add_argument("--count", type=int, default=40)
    parser.add_argument("--threads", type=int, default=2)
    args = parser.parse_args()
    torch.set_num_threads(args.threads)
    target, tokenizer = gguf_model.read(args.target)
    draft, _ = gguf_model.read(args.draft)
    last, early = loss(target, tokenizer)
    print(f"loss: target {last:.3f}, early exit {early:.3f}, "
          f"draft {loss(draft, tokenizer)[0]:.3f}\n")
    print("| task | right | draft agrees | exit agrees |\n| --- | --- | --- | --- |")
    for name, case in TASKS.items():
        shares = measure(target, draft, tokenizer, name, case, args.count)
        print(f"| {name} | " + " | ".join(f"{s:.0%}" for s in shares) + " |", flush=True)
    print("\n> {}\n\n{}".format(*sample(target, tokenizer)))


if __name__ == "__main__":
    main()
