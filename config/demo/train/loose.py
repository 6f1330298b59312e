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

# Sentences of no template at all: who did what to what, where.
SUBJECTS = """She He They We I You Everybody Nobody Somebody""".split() + [
    "The old man", "My sister", "His brother", "Her mother", "The children", "A stranger", "Our teacher", "The king",
    "The baker", "My friend", "The little boy", "The little girl", "Their neighbour", "The doctor"]
VERBS = """met saw found lost took gave bought sold made broke opened closed carried pulled pushed washed painted cleaned
watched followed chased caught loved liked wanted needed missed helped called asked told heard forgot remembered visited
left kept hid built fixed cut ate drank cooked read wrote drew threw dropped picked moved turned touched held showed sent
brought fed stole wore tried used shared counted""".split()
NOUNS = """house door window road street tree flower leaf stick stone wall roof floor table chair bed room fire water milk
bread cake soup dinner breakfast song story picture game party day night rain snow wind sun moon star cloud sky sea ship car
train bus money work job fence gate path hole nest egg bone tail ear hand foot head hair shirt dress shoe
bag sack paper pen colour number word name question answer secret idea dream problem way thing friend team class""".split()
WHERE = """near behind under above beside inside outside around across past towards""".split()
JOINTS = ("and", "but", "because", "so", "while", "when", "after", "before", "until", "although")
ENDS = "....!?"
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


def thing_said(rng, pools):
    """Something that a sentence of no template may be about."""
    listed = rng.choice((pools.animals, pools.objects, NOUNS, NOUNS))
    noun = rng.choice(listed)
    return rng.choice((f"the {noun}", words.with_article(noun), f"the {rng.choice(ADJECTIVES)} {noun}",
                       f"{rng.choice(('my', 'his', 'her', 'their', 'our'))} {noun}", rng.choice(pools.people)))


def clause(rng, pools):
    who = rng.choice(pools.people) if rng.random() < 0.5 else rng.choice(SUBJECTS)
    said = f"{who} {rng.choice(VERBS)} {thing_said(rng, pools)}"
    ending = rng.random()
    if ending < 0.2:
        return f"{said} {rng.choice(WHERE)} {thing_said(rng, pools)}"
    if ending < 0.4:
        place, preposition = rng.choice(pools.places)
        return f"{said} {preposition} the {place}"
    return f"{said} {rng.choice(ADVERBS)}" if ending < 0.5 else said


def free_sentence(rng, pools):
    text = clause(rng, pools)
    if rng.random() < 0.35:
        other = clause(rng, pools)
        first = other.split(" ", 1)[0]
        if first not in pools.people and first != "I":
            other = other[0].lower() + other[1:]
        text = f"{text} {rng.choice(JOINTS)} {other}"
    return text + rng.choice(ENDS)


def loose_text(rng, held=False, longest=9):
    """A Story of one paragraph that follows no plot."""
    pools = Pools(rng, held)
    count, free = rng.randint(1, longest), rng.choice((0, 0.5, 1))
    kinds = rng.choice(KINDS_OF_TEXT)
    sentences = [free_sentence(rng, pools) if rng.random() < free
                 else expand(rng, rng.choice(rng.choice(kinds)), pools.slots(rng)) for _ in range(count)]
    nobody = Cast("", "she", "", "she", "", "", "", "", pools.kinds())
    return Story(nobody, [" ".join(sentences)])
