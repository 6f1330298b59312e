"""Small functions in Python and C, whole, on request, or with a hole to fill."""

import re

import words
from turns import fill_in

NOUNS = """total count size index width height price score length speed weight
value limit depth offset amount level rate step sum left right first second
""".split()
OPERATORS = {"+": "add", "-": "subtract", "*": "multiply"}
COMPARE = {">": "max", "<": "min"}


def name_of(rng, verb):
    noun = words.invented(rng) if rng.random() < 0.2 else rng.choice(NOUNS)
    return f"{verb}_{noun}"


def arithmetic(rng, python):
    """A function that combines its two arguments."""
    sign, verb = rng.choice(list(OPERATORS.items()))
    name = name_of(rng, verb)
    a, b = rng.sample(NOUNS, 2)
    ask = f"{verb}s {a} and {b}" if verb == "add" else f"computes {a} {sign} {b}"
    if python:
        return name, ask, f"def {name}({a}, {b}):\n    return {a} {sign} {b}\n"
    return name, ask, (f"int {name}(int {a}, int {b})\n{{\n"
                       f"    return {a} {sign} {b};\n}}\n")


def pick(rng, python):
    """The larger or the smaller of two."""
    sign, verb = rng.choice(list(COMPARE.items()))
    name = name_of(rng, verb)
    a, b = rng.sample(NOUNS, 2)
    ask = f"returns the {'larger' if verb == 'max' else 'smaller'} of {a} and {b}"
    if python:
        return name, ask, (f"def {name}({a}, {b}):\n    if {a} {sign} {b}:\n"
                           f"        return {a}\n    return {b}\n")
    return name, ask, (f"int {name}(int {a}, int {b})\n{{\n"
                       f"    return {a} {sign} {b} ? {a} : {b};\n}}\n")


def loop(rng, python):
    """Sum or count over a list, perhaps above a limit."""
    item, acc = rng.sample(NOUNS, 2)
    counting = rng.random() < 0.5
    bound = rng.randrange(1, 100)
    name = name_of(rng, "count" if counting else "sum")
    ask = (f"counts the values greater than {bound}" if counting
           else "adds up all values")
    change = "1" if counting else item
    if python:
        body = f"        {acc} += {change}\n"
        if counting:
            body = f"        if {item} > {bound}:\n    {body}"
        return name, ask, (f"def {name}(values):\n    {acc} = 0\n"
                           f"    for {item} in values:\n{body}    return {acc}\n")
    guard = f"        if (values[i] > {bound})\n    " if counting else ""
    step = "1" if counting else "values[i]"
    return name, ask, (f"int {name}(const int *values, int n)\n{{\n"
                       f"    int {acc} = 0;\n    for (int i = 0; i < n; i++)\n"
                       f"{guard}        {acc} += {step};\n    return {acc};\n}}\n")


def clamp(rng, python):
    """A check that a value lies between two bounds."""
    value = rng.choice(NOUNS)
    low, high = sorted(rng.sample(range(100), 2))
    name = name_of(rng, "check")
    ask = f"checks that {value} is between {low} and {high}"
    if python:
        return name, ask, (f"def {name}({value}):\n"
                           f"    return {low} <= {value} <= {high}\n")
    return name, ask, (f"int {name}(int {value})\n{{\n"
                       f"    return {value} >= {low} && {value} <= {high};\n}}\n")


def function(rng):
    """Language, name, what it does, and the source of one function."""
    python = rng.random() < 0.6
    make = rng.choice((arithmetic, pick, loop, clamp))
    return "Python" if python else "C", *make(rng, python)


def code_exchange(rng):
    """A request for a function and the function."""
    language, name, does, source = function(rng)
    ask = rng.choice(("Write a {} function {} that {}.", "Write {} code: {} {}.",
                      "In {}, write a function named {} that {}."))
    return ask.format(language, name, does), source.rstrip("\n")


def code_file(rng):
    """A few functions in one language, as they would stand in a file."""
    first, *_, source = function(rng)
    sources = [source]
    for _ in range(rng.randint(0, 3)):
        language, *_, source = function(rng)
        if language == first:
            sources.append(source)
    return "\n\n".join(sources) if first == "Python" else "\n".join(sources)


def told(source, start, stop):
    """Whether what is around the hole has every word and number that is cut: then it can be known, not only guessed."""
    cut = {match[0] for match in re.finditer(r"\w+", source) if match.start() < stop and start < match.end()}
    return cut <= set(re.findall(r"\w+", source[:start] + " " + source[stop:]))


def code_with_hole(rng):
    """Cut a file in three, where the hole can be known from the rest, or nearly, after a few tries."""
    for _ in range(20):
        source = code_file(rng)
        start, stop = hole(rng, source)
        if told(source, start, stop):
            break
    return fill_in(source[:start], source[start:stop], source[stop:])


def hole(rng, source):
    """Where to cut; mostly what is left of a line, from a word on, as an editor asks."""
    if rng.random() < 0.7:
        start = rng.choice([match.start() for match in re.finditer(r"\w+", source)])
        stop = (source.find("\n", start) + 1 or len(source) + 1) - 1
    else:
        start = rng.randrange(len(source) - 1)
        stop = min(len(source), start + rng.randint(1, 80))
    return start, stop
