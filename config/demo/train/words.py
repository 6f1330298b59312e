"""The words stories are made of, and the words no training text may hold.

A model that has seen only listed names learns the list; one that also meets
invented names learns to copy. Hence `invented`, and hence the held-out words:
evaluation asks about names and things that never occurred in training.
"""

import zlib

GIRLS = """Anna Mara Lena Ida Nora Elsa Mia Ruby Clara Alma Tilda Freya Greta
Hanna Ines Jade Kira Lily Maya Nell Olga Petra Rosa Sara Tess Una Vera Wanda
Yara Zoe Ada Bea Cora Dora Edith Flora Gwen Hazel Iris June Kate Luna Mabel
Nina Olive Pearl Rita Stella Thea Ursula Viola Willa Amira Leila Samira Noor
Aisha Fatima Zahra Mei Ling Yuki Hana Sakura Priya Anika Meera Kavya Ingrid
Astrid Solveig Sigrid Liv Maren Katya Anya Mila Daria Chiara Lucia Elena Paola
Carmen Marisol Ximena Abena Ama Zuri Imani Nia Amara Eilidh Niamh Orla Maeve
Bridget Heidi Liesel Trudi Annika Emmi Aino Helmi""".split()

BOYS = """Tom Ben Max Leo Finn Otto Emil Hugo Oscar Jonas Anton Bruno Felix
Karl Milo Nils Paul Ralf Simon Theo Uwe Victor Wim Yann Zach Adam Boris Colin
David Evan Frank George Henry Ivan Jack Kurt Luke Marco Noah Owen Peter Quinn
Robin Sam Toby Vince Walter Arthur Barney Casper Dylan Edgar Floyd Gus Harvey
Omar Tariq Yusuf Karim Hassan Jamal Malik Kenji Hiro Taro Jun Wei Chen Ravi
Arjun Kiran Dev Rohan Lars Sven Bjorn Erik Gunnar Leif Pavel Dmitri Misha Yuri
Luca Matteo Enzo Pablo Diego Mateo Kofi Kwame Tunde Jabari Sean Liam Ronan
Declan Angus Hamish Fritz Hannes Eero Onni Veikko""".split()

ANIMALS = """fox owl rabbit mouse hedgehog squirrel badger otter beaver deer
frog toad duck goose swan crow raven sparrow robin magpie pigeon heron cat
kitten dog puppy pony horse donkey goat lamb sheep cow pig hen turtle tortoise
lizard snail bee butterfly beetle cricket dragonfly bear wolf lynx monkey
parrot camel elephant penguin seal dolphin crab bat mole weasel hare""".split()

OBJECTS = """lantern key kite drum flute violin trumpet bell whistle book map
compass telescope clock ring necklace bracelet coin purse basket bucket
cup bowl teapot spoon kettle hat scarf coat glove boot blanket pillow quilt
umbrella ladder hammer shovel rake rope net boat sled wagon bicycle ball doll
puppet puzzle marble feather shell letter postcard painting brush pencil
notebook candle lamp mirror button ribbon box chest jar bottle locket statue
balloon crown cloak mask wheel broom""".split()

PLACES = """in:forest in:garden at:market at:harbour in:village in:valley
on:hill on:beach by:river by:lake at:mill in:meadow in:orchard at:school
in:library in:barn at:farm at:bakery in:park on:bridge at:castle in:tower
in:cave in:desert on:island at:station in:workshop in:kitchen in:attic
in:cellar at:lighthouse by:pond in:museum at:fair in:greenhouse
in:stable on:pier in:canyon at:campsite""".split()
PLACES = dict(reversed(entry.split(":")) for entry in PLACES)

FOODS = """apples pears plums cherries figs lemons oranges nuts berries buns
cookies pancakes muffins pies dumplings carrots beans peas tomatoes
potatoes""".split()

COUNTED = FOODS + """marbles stamps shells coins books pencils buttons stickers
cards stones balloons ribbons candles bottles boxes bricks beads postcards
feathers tickets""".split()

HELD_GIRLS = ["Ottilie", "Saoirse", "Wilhelmina", "Bronwyn", "Ludmila", "Xanthe"]
HELD_BOYS = ["Balthazar", "Thaddeus", "Cornelius", "Fergus", "Zoltan", "Ignatius"]
HELD_ANIMALS = ["walrus", "ferret", "gecko", "osprey", "panther", "llama"]
HELD_OBJECTS = ["saddle", "anchor", "hourglass", "accordion", "thimble", "goblet"]
HELD_PLACES = {"monastery": "at", "jungle": "in", "glacier": "on", "prairie": "on"}
HELD_COUNTED = ["walnuts", "pebbles", "turnips", "badges"]

LISTED = {word.lower() for listed in (
    GIRLS, BOYS, ANIMALS, OBJECTS, PLACES, COUNTED, HELD_GIRLS, HELD_BOYS,
    HELD_ANIMALS, HELD_OBJECTS, HELD_PLACES, HELD_COUNTED) for word in listed}

ONSETS = """b br c ch d dr f fl g gr h j k kl l m n p pr qu r s sh st t th tr v
w y z""".split()
VOWELS = [*"aaeeiioouu", "ai", "ee", "ou"]
CODAS = ["", "", "", "l", "m", "n", "r", "s", "x", "ck", "nd", "rk", "sh", "lt"]


def held_out(word):
    """One invented word in eight, chosen by its letters, is for testing."""
    return zlib.crc32(word.lower().encode()) % 8 == 0


def syllabic(rng):
    syllables = rng.choice((1, 2, 2, 3))
    return "".join(rng.choice(ONSETS) + rng.choice(VOWELS)
                   for _ in range(syllables)) + rng.choice(CODAS)


def spliced(rng):
    """The beginning of one listed word and the end of another: it starts like a word that is known, and goes on otherwise."""
    listed = rng.choice((GIRLS, BOYS, ANIMALS, OBJECTS, COUNTED))
    head, tail = rng.sample(listed, 2)
    return (head[:rng.randint(2, len(head))] + tail[rng.randrange(len(tail) - 1):]).lower()


def invented(rng, held=False):
    """A word that exists in no list."""
    while True:
        word = spliced(rng) if rng.random() < 0.5 else syllabic(rng)
        if held_out(word) == held and word not in LISTED:
            return word


# At least this share of names and nouns is invented, whatever is asked for: training's last part raises it, so that
# nothing but copying can say them.
strange = 0.0


def is_made_up(rng, share):
    share = max(share, strange)
    return share > 0 and rng.random() < share


def person(rng, held=False, made_up=0.35):
    """A name and whether it is a girl's ("she") or a boy's ("he")."""
    girl = rng.random() < 0.5
    if is_made_up(rng, made_up):
        name = invented(rng, held).capitalize()
    elif held:
        name = rng.choice(HELD_GIRLS if girl else HELD_BOYS)
    else:
        name = rng.choice(GIRLS if girl else BOYS)
    return name, "she" if girl else "he"


def thing(rng, listed, unseen, held=False, made_up=0.1):
    """A noun from `listed` (`unseen` when held), now and then an invented one."""
    if is_made_up(rng, made_up):
        return invented(rng, held)
    return rng.choice(unseen if held else listed)


def place(rng, held=False):
    """A place and the preposition that goes with it."""
    places = HELD_PLACES if held else PLACES
    if is_made_up(rng, 0):
        return invented(rng, held), rng.choice(("in", "at", "on", "by"))
    name = rng.choice(list(places))
    return name, places[name]


def with_article(noun):
    return ("an " if noun[0] in "aeiou" else "a ") + noun


def join(nouns):
    """ "a, b and c" """
    if len(nouns) < 2:
        return "".join(nouns)
    return ", ".join(nouns[:-1]) + " and " + nouns[-1]
