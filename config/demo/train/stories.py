"""Fill a plot with a cast: the grammar behind every story in the corpus.

A plot (plots.py) is a list of beats, each a list of interchangeable
sentences. `[a|b]` in a sentence is a free choice, `{hero}` a slot. A cast is
drawn once per story, so characters, things and places stay consistent, and
what happens follows from what happened before.
"""

import re
from dataclasses import dataclass, field, replace

import words
from plots import ADDED_DETAILS, LINKS, OPENINGS, PLOTS

CHOICE = re.compile(r"\[([^\[\]]*)\]")
WORD = re.compile(r"[A-Za-z]+")
LISTED = {**dict.fromkeys(words.ANIMALS + words.HELD_ANIMALS, "animals"),
          **dict.fromkeys(words.OBJECTS + words.HELD_OBJECTS, "objects"),
          **dict.fromkeys([*words.PLACES, *words.HELD_PLACES], "places")}
SHE = ("she", "her", "her", "herself")
HE = ("he", "him", "his", "himself")


@dataclass
class Cast:
    """Who and what a story is about."""

    hero: str
    hero_pronoun: str
    friend: str
    friend_pronoun: str
    animal: str
    object: str
    place: str
    preposition: str
    kinds: dict = field(default_factory=dict)

    def slots(self):
        at_place = f"{self.preposition} the {self.place}"
        an_animal = words.with_article(self.animal)
        slots = {"hero": self.hero, "friend": self.friend,
                 "animal": self.animal, "object": self.object,
                 "place": self.place, "an_animal": an_animal,
                 "An_animal": an_animal.capitalize(),
                 "an_object": words.with_article(self.object),
                 "at_place": at_place, "at_place_cap": at_place.capitalize()}
        slots |= person_slots("", self.hero_pronoun)
        slots |= person_slots("f_", self.friend_pronoun)
        return slots


@dataclass
class Story:
    cast: Cast
    paragraphs: list

    @property
    def text(self):
        return "\n\n".join(self.paragraphs)

    def mentions(self):
        """Characters, animals, objects and places in order of appearance."""
        found = {"characters": [], "animals": [], "objects": [], "places": []}
        for word in WORD.findall(self.text):
            kind = self.cast.kinds.get(word) or LISTED.get(word)
            if kind and word not in found[kind]:
                found[kind].append(word)
        return found

    def swapped(self, old, new):
        """The same story with one word exchanged throughout."""
        kinds = dict(self.cast.kinds)
        kinds[new] = kinds.pop(old, None) or LISTED.get(old)
        whole = re.compile(rf"\b{re.escape(old)}\b")
        return Story(replace(self.cast, kinds=kinds),
                     [whole.sub(new, text) for text in self.paragraphs])


def person_slots(prefix, subject):
    """The words that depend on whether a character is a girl or a boy."""
    forms = dict(zip(("he", "him", "his", "himself"),
                     SHE if subject == "she" else HE))
    forms |= {key.capitalize(): forms[key].capitalize() for key in ("he", "his")}
    forms["child"] = "girl" if subject == "she" else "boy"
    return {prefix + key: value for key, value in forms.items()}


def draw_cast(rng, held=False, invent=0.2):
    hero, hero_pronoun = words.person(rng, held, invent)
    friend = hero
    while friend == hero:
        friend, friend_pronoun = words.person(rng, held, invent)
    noun_invent = 0.25 * invent
    animal = words.thing(rng, words.ANIMALS, words.HELD_ANIMALS, held, noun_invent)
    thing = words.thing(rng, words.OBJECTS, words.HELD_OBJECTS, held, noun_invent)
    place, preposition = words.place(rng, held)
    kinds = {hero: "characters", friend: "characters", animal: "animals",
             thing: "objects", place: "places"}
    return Cast(hero, hero_pronoun, friend, friend_pronoun, animal, thing,
                place, preposition, kinds)


def expand(rng, sentence, slots):
    """Decide the choices of one sentence, then fill its slots."""
    chosen = CHOICE.sub(lambda m: rng.choice(m[1].split("|")), sentence)
    text = chosen.format_map(slots)
    return text[0].upper() + text[1:]


def tell_plot(rng, opening, plot, slots):
    """The paragraphs of one plot, the first of which begins with `opening`."""
    paragraphs, sentences = [], list(opening)
    for beat in plot:
        if beat == "---":
            paragraphs.append(" ".join(sentences))
            sentences = []
        else:
            sentences.append(expand(rng, rng.choice(beat), slots))
    return paragraphs + [" ".join(sentences)]


def make_story(rng, held=False, chapters=1, invent=0.2, cast=None):
    """A whole story; more than one chapter strings plots together."""
    cast = cast or draw_cast(rng, held, invent)
    slots = cast.slots()
    opening = [expand(rng, rng.choice(OPENINGS), slots)]
    if rng.random() < 0.5:
        opening.append(expand(rng, rng.choice(ADDED_DETAILS), slots))
    paragraphs = []
    for plot in rng.sample(PLOTS, chapters):
        paragraphs += tell_plot(rng, opening, plot, slots)
        opening = [expand(rng, rng.choice(LINKS), slots)]
    if rng.random() < 0.3:
        paragraphs = [" ".join(paragraphs)]
    return Story(cast, paragraphs)


def excerpt(rng, story, longest=4):
    """A few sentences of a story, the raw material of short edits."""
    sentences = re.split(r"(?<=[.!?]\") |(?<=[.!?]) (?=[A-Z\"])",
                         story.text.replace("\n\n", " "))
    count = min(rng.randint(1, longest), len(sentences))
    start = rng.randrange(len(sentences) - count + 1)
    return Story(story.cast, [" ".join(sentences[start:start + count])])
