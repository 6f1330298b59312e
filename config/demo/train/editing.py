"""Edits that copy almost everything: renaming, replacing, mending, repeating.

Each function returns a (question, answer) pair, and some take the passage
from elsewhere so that a conversation can edit what was said before.
"""

import json
import re
import string

import words
from loose import ADJECTIVES, NOUNS, VERBS, loose_text
from stories import excerpt, make_story
from turns import Exchange

RENAME = (
    "Change the name {old} to {new} in this story:", "Rename {old} to {new}:",
    "Please rename {old} to {new} in the following text.",
    "Replace {old} with {new} in this text:", "Rewrite this story, but call {old} {new}.",
    "In this story, {old} should be called {new}. Write it again.",
    "Rename the character {old} to {new} in this story:")
RENAME_SAID = (
    "Now change the name {old} to {new}.", "Rename {old} to {new}.",
    "Tell it again, but call {old} {new}.", "Please rename {old} to {new} in the story.",
    "Replace {old} with {new} in this story.", "Change {old}'s name to {new}.")
MEND = ("Fix the typos in this text:", "Fix the typos:", "Correct the spelling mistakes:",
        "Please fix the typos in this story:", "Correct the typos in the following text.",
        "Fix the spelling in this story:")
AS_JSON = ("Write these words as a JSON list:", "Turn these words into JSON:", "Make a JSON array of these words:")
AS_LINES = ("Write these words as a list:", "Put each of these words on a line of its own:")
REPEAT = ("Repeat this text:", "Copy this text exactly:", "Repeat after me:",
          "Write this text again without any changes:", "Repeat the following words:")


SMALL_WORDS = """the a an of to in on at is was it that this with for and or but not all over he she they I you""".split()
LOOSE = 0.5  # of the texts that a question quotes, those that follow no plot


def passage(rng, held=False, short=0.5, loose=LOOSE):
    """A loose text, a story or, `short` of the time, a few sentences from one."""
    if rng.random() < loose:
        return loose_text(rng, held)
    story = make_story(rng, held)
    return excerpt(rng, story) if rng.random() < short else story


def about(rng, ask, text):
    """A question about a text, in one of the ways in which people put the two together."""
    if rng.random() < 0.35:
        ask = re.sub(r"\bstory\b", rng.choice(("text", "passage", "paragraph")), ask)
    way = rng.random()
    if way < 0.5:
        return f"{ask}\n\n{text}"
    if way < 0.65:
        return f"{ask}\n{text}"
    if way < 0.8:
        return f"{ask} {text}"
    if way < 0.9 and "\"" not in text:
        return rng.choice((f'{ask} "{text}"', f'{ask}\n"{text}"'))
    return f"{text}\n\n{ask[:-1]}{'?' if ask.endswith('?') else '.'}"


def draw_swap(rng, held, story):
    """A word of the story, mostly a name, and what is to stand in its place."""
    found = story.mentions()
    if found["characters"] and rng.random() < 0.85:
        return rng.choice(found["characters"]), words.person(rng, held, 0.5)[0]
    if found["animals"] and rng.random() < 0.5:
        new = words.thing(rng, words.ANIMALS, words.HELD_ANIMALS, held, 0.3)
        return rng.choice(found["animals"]), new
    new = words.thing(rng, words.OBJECTS, words.HELD_OBJECTS, held, 0.3)
    return rng.choice(found["objects"] or found["places"] or ["the"]), new


def names(story):
    return tuple(story.mentions()["characters"])


def rename(rng, held=False):
    """Exchange one word in a story that the question quotes."""
    story = passage(rng, held)
    old, new = draw_swap(rng, held, story)
    ask = rng.choice(RENAME).format(old=old, new=new)
    swapped = story.swapped(old, new)
    return Exchange(about(rng, ask, story.text), swapped.text, names(swapped) + (new,))


def rename_said(rng, held, story):
    """The question for a story told earlier, and the changed story."""
    old, new = draw_swap(rng, held, story)
    return rng.choice(RENAME_SAID).format(old=old, new=new), story.swapped(old, new)


def misspell(rng, word):
    """One slip of the fingers inside a word; its first letter stays."""
    at = rng.randrange(1, len(word) - 1)
    slip = rng.choice(("swap", "drop", "double", "other"))
    if slip == "swap":
        return word[:at] + word[at + 1] + word[at] + word[at + 2:]
    if slip == "drop":
        return word[:at] + word[at + 1:]
    if slip == "double":
        return word[:at] + word[at] + word[at:]
    return word[:at] + rng.choice(string.ascii_lowercase) + word[at + 1:]


def add_typos(rng, text, keep, share):
    """Misspell a share of the plain words; names in `keep` stay as they are."""
    def slip(match):
        word = match[0]
        if len(word) < 4 or word in keep or rng.random() > share:
            return word
        return misspell(rng, word)
    return re.sub(r"[A-Za-z]+", slip, text)


def mend(rng, held=False):
    story = passage(rng, held, short=0.7)
    keep = {word for kind in story.mentions().values() for word in kind}
    wrong = add_typos(rng, story.text, keep, rng.choice((0.1, 0.2, 0.3)))
    return about(rng, rng.choice(MEND), wrong), story.text


def random_words(rng, held=False):
    """Words in no order: they can be copied, but not guessed."""
    lists = (words.GIRLS, words.BOYS, words.ANIMALS, words.OBJECTS, words.COUNTED, NOUNS, VERBS, ADJECTIVES, SMALL_WORDS)
    count = rng.randint(2, 30)
    return " ".join(words.invented(rng, held) if rng.random() < 0.4
                    else rng.choice(rng.choice(lists)) for _ in range(count))


def repeat(rng, held=False):
    """Copy random words, or a passage, to the letter."""
    if rng.random() < 0.7:
        text = random_words(rng, held)
    else:
        text = passage(rng, held).text
    return about(rng, rng.choice(REPEAT), text), text


def swap_drill(rng):
    """Copy random words, one of which is replaced wherever it stands."""
    listed = random_words(rng).split()
    old, new = rng.choice(listed), words.person(rng, made_up=0.6)[0]
    for _ in range(rng.randint(0, 3)):
        listed.insert(rng.randrange(len(listed)), old)
    ask = rng.choice(RENAME).format(old=old, new=new)
    answer = " ".join(new if word == old else word for word in listed)
    return Exchange(about(rng, ask, " ".join(listed)), answer, (new,))


def relist(rng, held=False):
    """The same words as JSON or as lines: what extracting ends with, and many words that lose the space before them."""
    listed = random_words(rng, held).split()[:rng.randint(2, 12)]
    shown = words.join(listed) if rng.random() < 0.3 else " ".join(listed)
    if rng.random() < 0.8:
        return about(rng, rng.choice(AS_JSON), shown), json.dumps(listed)
    return about(rng, rng.choice(AS_LINES), shown), "\n".join(f"- {word}" for word in listed)
