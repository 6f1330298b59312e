"""Documents as the model sees them: pieces of text, some learnt, some only read.

A document is a list of pieces. The loss counts those with a weight: what a user
says is context, not something to imitate.
"""

from typing import NamedTuple

END_OF_TEXT = "<|endoftext|>"
TURN_START, TURN_END = "<|im_start|>", "<|im_end|>"
FIM_PREFIX, FIM_MIDDLE, FIM_SUFFIX = "<|fim_prefix|>", "<|fim_middle|>", "<|fim_suffix|>"
SPECIAL = [END_OF_TEXT, TURN_START, TURN_END, FIM_PREFIX, FIM_MIDDLE, FIM_SUFFIX]

CHAT_TEMPLATE = (
    "{% for message in messages %}"
    "{{ '<|im_start|>' + message['role'] + '\\n' + (message['content'] or '')"
    " + '<|im_end|>' + '\\n' }}"
    "{% endfor %}"
    "{% if add_generation_prompt %}{{ '<|im_start|>assistant\\n' }}{% endif %}")

# How much a token counts: one that the question decides, one of free text, of which no model can guess every word, and
# the factor for words on which an answer turns: the names in a story in which one of them is to be changed.
DECIDED, FREE, STRESS = 1.0, 0.3, 3.0

SYSTEM_PROMPTS = (
    "You are a helpful assistant.", "You are Galley's demo model.",
    "You tell stories.", "Answer briefly.", "You are a helpful assistant. Be kind.",
    "Do what the user asks.", "You are a careful editor.", "Be concise.")


class Piece(NamedTuple):
    """Text, the weight of its tokens (0: only read), and the words that count STRESS times as much."""

    text: str
    weight: float
    stressed: tuple = ()


class Exchange(NamedTuple):
    """A question and its answer, in which some words may be stressed."""

    question: str
    answer: str
    stressed: tuple = ()
    weight: float = DECIDED


def read(text):
    return Piece(text, 0.0)


def raw(rng, text, weight=FREE):
    """Plain text; half of it has no opening mark, as a server may add none."""
    start = END_OF_TEXT if rng.random() < 0.5 else ""
    return [read(start), Piece(text + END_OF_TEXT, weight)]


def prompt(messages):
    """What the chat template makes of role-content pairs, answer to follow."""
    said = "".join(f"{TURN_START}{role}\n{content}{TURN_END}\n"
                   for role, content in messages)
    return said + f"{TURN_START}assistant\n"


def conversation(rng, exchanges):
    """A document of exchanges, or plain (question, answer) pairs, at times with a system prompt."""
    pieces = []
    if rng.random() < 0.3:
        system = rng.choice(SYSTEM_PROMPTS)
        pieces.append(read(f"{TURN_START}system\n{system}{TURN_END}\n"))
    for exchange in exchanges:
        question, answer, stressed, weight = Exchange(*exchange)
        pieces.append(read(prompt([("user", question)])))
        pieces.append(Piece(answer + TURN_END, weight, stressed))
        pieces.append(read("\n"))
    return pieces


def fill_in(prefix, middle, suffix):
    """Code with a hole: prefix, suffix, then the middle to be written."""
    shown = f"{FIM_PREFIX}{prefix}{FIM_SUFFIX}{suffix}{FIM_MIDDLE}"
    return [read(shown), Piece(middle + END_OF_TEXT, DECIDED)]
