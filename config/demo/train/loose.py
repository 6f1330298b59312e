"""Plain sentences that follow no plot: texts as a user might type them.

A model that edits only the stories of ten plots learns the plots. Here any
number of people, animals, things and places come together in any order, so
what is asked about such a text can only be found in it.
"""

import words
from stories import Cast, Story, expand

ADJECTIVES = """red blue green small big old new shiny broken heavy tiny wooden
golden dusty pretty strange lovely plain soft loud cheap round dark bright
silver wet warm cold yellow white black tall wild tired happy grey""".split()
ADVERBS = "slowly quickly quietly happily sadly carefully loudly gladly".split()
TIMES = ("Yesterday", "On Monday", "In spring", "Last week", "This morning", "One day", "At noon", "Late at night",
         "In winter", "On her birthday", "After supper", "Before lunch", "Today", "On Sunday", "Long ago")
PEOPLE = (
    "{a} lives {at_place}.", "{a} met {b} {at_place}.", "{a} and {b} [are|were] friends.",
    "{a} likes {foods}, but {b} likes {other_foods}.", "{a} is {n} years old.",
    "{time} {a} went to the {place} with {b}.", "{a} ran home {adverb}.",
    "\"Where is {b}?\" asked {a}.", "{a} said that {b} was {at_place}.", "{a}, {b} and {c} sang a song.",
    "{a} waited for {b}, and {b} waited for {c}.", "{a} gave {n} {foods} to {b}.", "{b} laughed when {a} fell down.",
    "{a} is taller than {b}.", "{time} {a} and {b} baked {foods} for {c}.", "Nobody knew where {a} had gone.",
    "{a} wrote to {b} every week.", "\"Come here, {a}!\" called {b}.", "Then {a} took {b} by the hand.",
    "{a} told {b} a secret, and {b} told it to {c}.", "The winner was {a}, not {b}.", "{a}'s brother is called {b}.")
THINGS = (
    "{a} had {adj_object}.", "{a} found {adj_object} {at_place}.", "{time} {a} bought {an_object}.",
    "{a} lost the {object} {at_place}.", "There was {adj_object} {at_place}.", "The {object} belonged to {a}.",
    "{a} gave the {object} to {b}.", "The {object} was {adj} and {adj2}.", "{b} broke {a}'s {object}.",
    "{a} swapped {an_object} for {adj_object2}.", "Somebody left {an_object} next to {adj_object2}.",
    "{a} hid the {object} {at_place}.", "\"Is this your {object}?\" asked {a}.", "{a} carried {an_object} to the {place}.")
BEASTS = (
    "{a} met {adj_animal}.", "{time} {a} saw {an_animal} {at_place}.", "{An_animal} lived {at_place}.",
    "The {animal} ate {n} {foods}.", "{a} fed the {animal} and {an_animal2}.", "{An_animal} and {an_animal2} slept {at_place}.",
    "The {animal} followed {a} to the {place}.", "{a} has {adj_animal} named {b}.", "The {animal} looked at the {animal2} {adverb}.",
    "\"I saw {an_animal}!\" said {a}.", "{a} is afraid of the {animal}.", "The {adj} {animal} ran away from {a}.")
MIXED = (
    "The {animal} sat on the {object}.", "{An_animal} stole the {object} from {a}.", "{a} drew {an_animal} and {an_object}.",
    "The {animal} carried {an_object} to {a}.", "{time} the {animal} hid the {object} {at_place}.",
    "{a} traded the {object} for {adj_animal}.", "{at_place_cap} stood {an_object}, and {an_animal} slept beside it.")
KINDS_OF_TEXT = ((PEOPLE,), (PEOPLE, THINGS), (PEOPLE, BEASTS), (THINGS, BEASTS, MIXED), (PEOPLE, THINGS, BEASTS, MIXED))


def different(rng, draw, count):
    """Up to `count` words drawn, none of them twice."""
    return list(dict.fromkeys(draw() for _ in range(count)))


class Pools:
    """The words of one text. Every sentence picks its own among them."""

    def __init__(self, rng, held):
        few = (1, 2, 2, 3, 4)
        self.people = different(rng, lambda: words.person(rng, held)[0], rng.choice((2, 3, 4, 5)))
        self.animals = different(rng, lambda: words.thing(rng, words.ANIMALS, words.HELD_ANIMALS, held), rng.choice(few))
        self.objects = different(rng, lambda: words.thing(rng, words.OBJECTS, words.HELD_OBJECTS, held), rng.choice(few))
        self.places = different(rng, lambda: words.place(rng, held), rng.choice(few))

    def kinds(self):
        return {**dict.fromkeys(self.people, "characters"), **dict.fromkeys(self.animals, "animals"),
                **dict.fromkeys(self.objects, "objects"), **dict.fromkeys([name for name, _ in self.places], "places")}

    def slots(self, rng):
        several = [rng.sample(pool, len(pool)) * 3 for pool in (self.people, self.animals, self.objects)]
        (a, b, c, *_), (animal, animal2, *_), (thing, thing2, *_) = several
        place, preposition = rng.choice(self.places)
        adjective, adjective2 = rng.sample(ADJECTIVES, 2)
        foods, other_foods = rng.sample(words.FOODS, 2)
        at_place = f"{preposition} the {place}"
        return {
            "a": a, "b": b, "c": c, "time": rng.choice(TIMES), "adverb": rng.choice(ADVERBS), "n": rng.randint(2, 12),
            "foods": foods, "other_foods": other_foods, "place": place, "at_place": at_place,
            "at_place_cap": at_place.capitalize(), "adj": adjective, "adj2": adjective2,
            "animal": animal, "animal2": animal2, "object": thing,
            "an_animal": words.with_article(animal), "an_animal2": words.with_article(animal2),
            "An_animal": words.with_article(animal).capitalize(), "an_object": words.with_article(thing),
            "adj_animal": f"{words.with_article(adjective)} {animal}", "adj_object": f"{words.with_article(adjective)} {thing}",
            "adj_object2": f"{words.with_article(adjective2)} {thing2}"}


def loose_text(rng, held=False, longest=9):
    """A Story of one paragraph that follows no plot."""
    pools = Pools(rng, held)
    kinds = rng.choice(KINDS_OF_TEXT)
    sentences = [expand(rng, rng.choice(rng.choice(kinds)), pools.slots(rng)) for _ in range(rng.randint(1, longest))]
    nobody = Cast("", "she", "", "she", "", "", "", "", pools.kinds())
    return Story(nobody, [" ".join(sentences)])
