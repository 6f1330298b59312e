"""Word sums, worked digit by digit from the right, as taught at school."""

import words

PLACES = ("Ones", "Tens", "Hundreds", "Thousands")
GAIN = ("buys {n} more", "finds {n} more", "gets {n} more from {friend}",
        "picks {n} more", "is given {n} more")
LOSE = ("gives {n} to {friend}", "loses {n}", "sells {n}", "gives away {n}",
        "puts {n} aside for {friend}")


def add_steps(a, b):
    steps, carry = [f"{a} + {b}"], 0
    for place in range(len(str(max(a, b)))):
        x, y = a // 10 ** place % 10, b // 10 ** place % 10
        column = x + y + carry
        shown = f"{x} + {y} + {carry}" if carry else f"{x} + {y}"
        carry = column // 10
        note = f"write {column % 10}, carry 1" if carry else f"write {column}"
        steps.append(f"{PLACES[place]}: {shown} = {column}, {note}.")
    if carry:
        steps.append("Carry: write 1.")
    return steps


def subtract_steps(a, b):
    steps, borrow = [f"{a} - {b}"], 0
    for place in range(len(str(a))):
        x, y = a // 10 ** place % 10, b // 10 ** place % 10
        shown = f"{x} - {y} - {borrow}" if borrow else f"{x} - {y}"
        column = x - y - borrow
        borrow = int(column < 0)
        if borrow:
            column += 10
            shown = f"1{shown}"
        note = f"write {column}, borrow 1" if borrow else f"write {column}"
        steps.append(f"{PLACES[place]}: {shown} = {column}, {note}.")
    return steps


def number(rng):
    """Two digits most of the time, now and then one or three."""
    return rng.randrange(*rng.choice(((2, 10), (10, 100), (10, 100), (100, 1000))))


def work(rng, total, change):
    """The steps of total + change or total - |change|, and the result."""
    if change >= 0:
        return add_steps(total, change), total + change
    return subtract_steps(total, -change), total + change


def changes(rng, total, count):
    """Gains and losses that never leave less than nothing."""
    drawn = []
    for _ in range(count):
        change = number(rng)
        if rng.random() < 0.45 and total > 1:
            change = -rng.randint(1, min(total, 999))
        drawn.append(change)
        total += change
    return drawn


def tell(rng, name, pronoun, friend, item, total, drawn):
    """The sum as a small story that ends in its question."""
    parts = []
    for change in drawn:
        what = rng.choice(GAIN if change > 0 else LOSE)
        parts.append(what.format(n=abs(change), friend=friend))
    told = f"{name} has {total} {item} and {parts[0]}."
    for part in parts[1:]:
        told += f" Then {pronoun} {part}."
    ask = rng.choice((f"How many {item} does {name} have now?",
                      f"How many {item} does {pronoun} have?",
                      f"How many {item} are left with {name}?"))
    return f"{told} {ask}"


def word_sum(rng, held=False):
    name, pronoun = words.person(rng, held)
    friend = words.person(rng, held)[0]
    item = words.thing(rng, words.COUNTED, words.HELD_COUNTED, held, 0)
    total = number(rng)
    drawn = changes(rng, total, rng.choice((1, 1, 1, 2)))
    question = tell(rng, name, pronoun, friend, item, total, drawn)
    lines = []
    for change in drawn:
        steps, total = work(rng, total, change)
        lines += [*steps, f"{name} has {total} {item}."]
    return question, "\n".join([*lines, f"Answer: {total}"])


def bare_sum(rng):
    a, b = number(rng), number(rng)
    if rng.random() < 0.5:
        steps, result, sign = add_steps(a, b), a + b, "+"
    else:
        a, b = max(a, b), min(a, b)
        steps, result, sign = subtract_steps(a, b), a - b, "-"
    ask = rng.choice(("What is {}?", "{} = ?", "Work out {}.", "How much is {}?"))
    return ask.format(f"{a} {sign} {b}"), "\n".join([*steps, f"Answer: {result}"])


def sum_exchange(rng, held=False):
    """A word sum or, one time in four, a bare one."""
    return bare_sum(rng) if rng.random() < 0.25 else word_sum(rng, held)
