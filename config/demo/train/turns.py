"""Documents as the model sees them: pieces of text, some learnt, some only read.

A document is a list of (text, learnt). The loss counts learnt pieces alone:
what a user says is context, not something to imitate.
"""

END_OF_TEXT = "<|endoftext|>"
TURN_START, TURN_END = "<|im_start|>", "<|im_end|>"
FIM_PREFIX, FIM_MIDDLE, FIM_SUFFIX = "<|fim_prefix|>", "<|fim_middle|>", "<|fim_suffix|>"
SPECIAL = [END_OF_TEXT, TURN_START, TURN_END, FIM_PREFIX, FIM_MIDDLE, FIM_SUFFIX]

CHAT_TEMPLATE = (
    "{% for message in messages %}"
    "{{ '<|im_start|>' + message['role'] + '\\n' + message['content']"
    " + '<|im_end|>' + '\\n' }}"
    "{% endfor %}"
    "{% if add_generation_prompt %}{{ '<|im_start|>assistant\\n' }}{% endif %}")

SYSTEM_PROMPTS = (
    "You are a helpful assistant.", "You are Galley's demo model.",
    "You tell stories.", "Answer briefly.", "You are a helpful assistant. Be kind.",
    "Do what the user asks.", "You are a careful editor.", "Be concise.")


def raw(rng, text):
    """Plain text; half of it has no opening mark, as a server may add none."""
    start = END_OF_TEXT if rng.random() < 0.5 else ""
    return [(start, False), (text + END_OF_TEXT, True)]


def prompt(messages):
    """What the chat template makes of role-content pairs, answer to follow."""
    said = "".join(f"{TURN_START}{role}\n{content}{TURN_END}\n"
                   for role, content in messages)
    return said + f"{TURN_START}assistant\n"


def conversation(rng, exchanges):
    """A document of (question, answer) pairs, at times with a system prompt."""
    pieces = []
    if rng.random() < 0.3:
        system = rng.choice(SYSTEM_PROMPTS)
        pieces.append((f"{TURN_START}system\n{system}{TURN_END}\n", False))
    for question, answer in exchanges:
        pieces.append((prompt([("user", question)]), False))
        pieces.append((answer + TURN_END, True))
        pieces.append(("\n", False))
    return pieces


def fill_in(prefix, middle, suffix):
    """Code with a hole: prefix, suffix, then the middle to be written."""
    shown = f"{FIM_PREFIX}{prefix}{FIM_SUFFIX}{suffix}{FIM_MIDDLE}"
    return [(shown, False), (middle + END_OF_TEXT, True)]
