"""What a user may ask about stories: tell, continue, list, count, extract."""

import json
import re

import words
from editing import about, mend, names, passage, rename_said, repeat
from stories import draw_cast, make_story
from sums import sum_exchange
from turns import FREE, Exchange

TELL_OPENINGS = ("Tell me a story about {x}.", "Tell a story about {x}.",
                 "Write a story about {x}.", "Write a short story about {x}.",
                 "Tell me a short story about {x}.", "A story about {x}, please.",
                 "Can you tell me a story about {x}?", "Please write a story about {x}.",
                 "I would like to hear a story about {x}.", "Make up a story about {x}.")
TELL_ANY = ("Tell me a story.", "Tell a story.", "Write a short story.",
            "Can you tell me a story?", "Please tell me a bedtime story.",
            "Once more, a story please.", "I want to hear a story.")
CONTINUE = ("Continue this story:", "Continue the story:", "Finish this story:",
            "What happens next in this story?", "How does this story go on?")
ASK_LIST = {
    "characters": ("Who is in this story?", "List the characters in this story.",
                   "List the names in this story.", "Which people are in this story?"),
    "animals": ("List the animals in this story.", "Which animals are in this story?"),
    "objects": ("List the objects in this story.", "Which objects are in this story?"),
    "places": ("List the places in this story.", "Which places are in this story?")}
ASK_COUNT = ("How many {kind} are in this story?", "Count the {kind} in this story.",
             "How many {kind} does the story have?")
ASK_JSON = ("Extract {kinds} as JSON.", "Give me {kinds} of this story as JSON.",
            "Return {kinds} in this story as JSON.", "List {kinds} as JSON.",
            "Make a JSON object with {kinds} of this story.")
KINDS = ("characters", "animals", "objects", "places")
STRANGERS = 0.4  # of the requests for a story name only words that were never heard


def topic(rng, cast):
    """What the story is to be about, in the words of a request."""
    child = "girl" if cast.hero_pronoun == "she" else "boy"
    other = rng.choice((f"and {words.with_article(cast.object)}",
                        f"and {words.with_article(cast.animal)}",
                        f"{cast.preposition} the {cast.place}"))
    return rng.choice((
        cast.hero, f"a {child} named {cast.hero}", f"{cast.hero} and {cast.friend}",
        words.with_article(cast.animal), words.with_article(cast.object),
        f"the {cast.place}", f"{cast.hero} {other}", f"a {child} named {cast.hero} {other}"))


def story_about(rng, cast, held=False):
    """A story that really mentions what was asked for; others are drawn again."""
    for _ in range(8):
        story = make_story(rng, held, cast=cast)
        if all(name in story.text for name in cast.kinds):
            break
    return story


def tell(rng, held=False):
    """A request, its answer, and the story itself for later questions.

    A storyteller who must find a name takes one that exists: invented ones are what the request brings (`strangers`).
    """
    cast = draw_cast(rng, held, invent=0)
    story = story_about(rng, cast, held)
    if rng.random() < 0.12:
        return rng.choice(TELL_ANY), story.text, story
    question = rng.choice(TELL_OPENINGS).format(x=topic(rng, cast))
    if rng.random() < STRANGERS:
        question, story = strangers(rng, held, question, story)
    return question, story.text, story


def asked_for(question, story):
    """The words of the story that its request names."""
    return tuple(word for word in story.cast.kinds if re.search(rf"\b{re.escape(word)}\b", question))


def strangers(rng, held, question, story):
    """The same request and story, with invented words for what the request names."""
    for old in asked_for(question, story):
        new = ""
        while not new or (new[0] in "aeiou") != (old[0].lower() in "aeiou"):
            new = words.invented(rng, held)
        new = new.capitalize() if old[0].isupper() else new
        question = re.sub(rf"\b{re.escape(old)}\b", new, question)
        story = story.swapped(old, new)
    return question, story


def continue_story(rng, held=False):
    story = make_story(rng, held)
    stops = [at + 1 for at, letter in enumerate(story.text) if letter == " "
             and story.text[at - 1] in ".!?\""]
    cut = rng.choice(stops[1:])
    begun, rest = story.text[:cut].rstrip(), story.text[cut:].lstrip()
    return Exchange(about(rng, rng.choice(CONTINUE), begun), rest, weight=FREE)


def list_question(rng, story):
    """Ask for one kind of thing; "List ..." is answered with dashes. The answer names the kind, then its members."""
    kind = rng.choice(KINDS)
    found = story.mentions()[kind]
    question = rng.choice(ASK_LIST[kind])
    if not found:
        return question, f"There are no {kind} in this story."
    if question.startswith("List"):
        return question, "\n".join([f"{kind.capitalize()}:", *(f"- {word}" for word in found)])
    return question, f"{kind.capitalize()}: {words.join(found)}."


def count_question(rng, story):
    kind = rng.choice(KINDS)
    found = story.mentions()[kind]
    question = rng.choice(ASK_COUNT).format(kind=kind)
    if not found:
        return question, f"There are no {kind} in this story."
    verb, noun = ("is", kind[:-1]) if len(found) == 1 else ("are", kind)
    return question, f"There {verb} {len(found)} {noun}: {words.join(found)}."


def json_question(rng, story):
    kinds = KINDS if rng.random() < 0.4 else rng.sample(KINDS, rng.randint(1, 3))
    found = story.mentions()
    asked = rng.choice(ASK_JSON).format(kinds="the " + words.join(list(kinds)))
    return asked, json.dumps({kind: found[kind] for kind in kinds})


def about_story(rng, story):
    ask = rng.choice((list_question, count_question, json_question, json_question,
                      json_question))
    return ask(rng, story)


def extract(rng, held=False):
    """A question with the story it is about."""
    story = passage(rng, held)
    question, answer = about_story(rng, story)
    return about(rng, question, story.text), answer


def dialogue(rng, held=False, turns=3):
    """Several exchanges about one story that is told first, and then edited."""
    question, answer, story = tell(rng, held)
    exchanges = [Exchange(question, answer, asked_for(question, story), FREE)]
    for _ in range(turns - 1):
        kind = rng.random()
        if kind < 0.45:
            question, story = rename_said(rng, held, story)
            exchanges.append((question, story.text, names(story)))
        elif kind < 0.9:
            exchanges.append(about_story(rng, story))
        else:
            exchanges.append(rng.choice((sum_exchange, mend, repeat))(rng, held))
    return exchanges
