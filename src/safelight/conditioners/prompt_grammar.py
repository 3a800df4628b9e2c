r"""The syntax of prompts, as AUTOMATIC1111's web interface made it common: text to a typed tree.

    prompt    = part { AND part }             a part may end in its weight, ":1.2"
    part      = { word | escape | BREAK | round | square }
    round     = "(" part [ ":" weight ] ")"   emphasis by 1.1, or by the weight
    square    = "[" part "]"                  emphasis by 1 / 1.1
              | "[" [ part ":" ] part ":" when "]"
              | "[" part "|" part { "|" part } "]"
    escape    = "\" and any character, which is then text

Every text is a prompt: a bracket without its partner is text, and so is a colon, a bar, AND or
BREAK where it means nothing. Differs there from AUTOMATIC1111, in which an open bracket reaches to
the end of the prompt, and a lone ":1.2" at its end weighs a prompt without AND.
"""

import math
import re
from collections.abc import Iterator
from dataclasses import dataclass
from itertools import groupby, pairwise

UP = 1.1
"""What a pair of round brackets multiplies attention by; square ones divide by it."""

_DEEPEST = 64
"""Brackets within more brackets than that are text; 1.1 to its power is 445."""

_TOKEN = re.compile(r"\\(?P<escaped>.)|(?P<mark>\b(?:BREAK|AND)\b|[()\[\]:|])", re.DOTALL)
_NUMBER = re.compile(r"[-+]?(?:\d+\.?\d*|\.\d+)")


@dataclass(frozen=True)
class Text:
    """Words to be read, without their escapes."""

    text: str


@dataclass(frozen=True)
class Break:
    """What follows begins a chunk of its own."""


@dataclass(frozen=True)
class Emphasis:
    """A part of which the attention is multiplied by `weight`."""

    body: "Body"
    weight: float


@dataclass(frozen=True)
class Scheduled:
    """A part that is `before` until a step and `after` from there on.

    `when` counts steps, or is the part of all steps that lies before, if it is a `fraction`.
    """

    before: "Body"
    after: "Body"
    when: float
    fraction: bool


@dataclass(frozen=True)
class Alternate:
    """A part that is another of its options in each step, in turn."""

    options: tuple["Body", ...]


Node = Text | Break | Emphasis | Scheduled | Alternate
Body = tuple[Node, ...]


@dataclass(frozen=True)
class Part:
    """One of the prompts that AND joins, and how strongly it guides."""

    body: Body
    weight: float = 1.0


def parse(prompt: str) -> tuple[Part, ...]:
    """The parts of a prompt, one or more; every text is a prompt."""
    tokens = _tokens(prompt)
    partner = _partners(tokens)
    ends = [-1, *_top_level(tokens, partner, range(len(tokens)), ("AND",)), len(tokens)]
    ranges = [range(before + 1, end) for before, end in pairwise(ends)]
    if len(ranges) == 1:
        return (Part(_body(tokens, partner, ranges[0])),)
    return tuple(_part(tokens, partner, inside) for inside in ranges)


def parse_one(prompt: str) -> Body:
    """A prompt in which AND is text, as in one that guidance leads away from."""
    tokens = _tokens(prompt)
    return _body(tokens, _partners(tokens), range(len(tokens)))


def plain(prompt: str) -> tuple[Part, ...]:
    """A prompt of which all is text."""
    return (Part((Text(prompt),) if prompt else ()),)


def escaped(text: str) -> str:
    r"""A prompt that reads as `text`, whatever it holds: marks with a `\` before them."""
    return re.sub(r"[\\()\[\]:|]|\b(?:BREAK|AND)\b", r"\\\g<0>", text)


@dataclass(frozen=True)
class _Token:
    text: str
    mark: bool = False  # a bracket, colon, bar, AND or BREAK rather than text


def _tokens(prompt: str) -> list[_Token]:
    def found() -> Iterator[_Token]:
        place = 0
        for match in _TOKEN.finditer(prompt):
            if match.start() > place:
                yield _Token(prompt[place : match.start()])
            mark = match["mark"]
            yield _Token(match["escaped"]) if mark is None else _Token(mark, mark=True)
            place = match.end()
        if place < len(prompt):
            yield _Token(prompt[place:])

    return list(found())


def _partners(tokens: list[_Token]) -> dict[int, int]:
    """The place of the closing bracket of each opening one that has one.

    A closing bracket takes the nearest open one of its kind; open ones of the other kind between
    the two remain without a partner.
    """
    opening = {")": "(", "]": "["}
    pairs: dict[int, int] = {}
    open_places: list[int] = []
    how_many = {"(": 0, "[": 0}
    for place, token in enumerate(tokens):
        if not token.mark:
            continue
        if token.text in how_many:
            open_places.append(place)
            how_many[token.text] += 1
        wanted = opening.get(token.text)
        while wanted is not None and how_many[wanted]:
            nearest = open_places.pop()
            how_many[tokens[nearest].text] -= 1
            if tokens[nearest].text == wanted:
                pairs[nearest] = place
                break
    return _shallow(pairs)


def _shallow(pairs: dict[int, int]) -> dict[int, int]:
    """The pairs within no more than `_DEEPEST` others."""
    kept: dict[int, int] = {}
    around: list[int] = []  # the closing places of the pairs that are open
    for start in sorted(pairs):
        while around and around[-1] < start:
            around.pop()
        around.append(pairs[start])
        if len(around) <= _DEEPEST:
            kept[start] = pairs[start]
    return kept


def _top_level(
    tokens: list[_Token], partner: dict[int, int], inside: range, marks: tuple[str, ...]
) -> list[int]:
    """The places of such marks that lie in no bracket of the range."""
    places: list[int] = []
    place = inside.start
    while place < inside.stop:
        if tokens[place].mark and tokens[place].text in marks:
            places.append(place)
        place = partner.get(place, place) + 1
    return places


def _body(tokens: list[_Token], partner: dict[int, int], inside: range) -> Body:
    nodes: list[Node] = []
    place = inside.start
    while place < inside.stop:
        token, end = tokens[place], partner.get(place)
        if end is not None:
            bracket = _round if token.text == "(" else _square
            nodes.append(bracket(tokens, partner, range(place + 1, end)))
        elif token.mark and token.text == "BREAK":
            nodes.append(Break())
        else:
            nodes.append(Text(token.text))
        place = (place if end is None else end) + 1
    return tuple(_joined(nodes))


def _joined(nodes: list[Node]) -> Iterator[Node]:
    """The nodes with texts side by side made one."""
    for texts, run in groupby(nodes, key=lambda node: isinstance(node, Text)):
        if texts:
            yield Text("".join(node.text for node in run if isinstance(node, Text)))
        else:
            yield from run


def _part(tokens: list[_Token], partner: dict[int, int], inside: range) -> Part:
    """A part between two ANDs, with the weight at its end."""
    start, weight = _weighed(tokens, partner, inside, spaced=True)
    return Part(_body(tokens, partner, start), 1.0 if weight is None else weight)


def _round(tokens: list[_Token], partner: dict[int, int], inside: range) -> Node:
    start, weight = _weighed(tokens, partner, inside, spaced=False)
    return Emphasis(_body(tokens, partner, start), UP if weight is None else weight)


def _weighed(
    tokens: list[_Token], partner: dict[int, int], inside: range, *, spaced: bool
) -> tuple[range, float | None]:
    """What stands before a weight at the end of a range, and the weight if there is one."""
    colons = _top_level(tokens, partner, inside, (":",))
    number = _number(tokens, range(colons[-1] + 1, inside.stop), spaced=spaced) if colons else None
    if number is None or not math.isfinite(float(number)):
        return inside, None
    return range(inside.start, colons[-1]), float(number)


def _square(tokens: list[_Token], partner: dict[int, int], inside: range) -> Node:
    places = _top_level(tokens, partner, inside, (":", "|"))
    marks = "".join(tokens[place].text for place in places)
    ends = [inside.start - 1, *places, inside.stop]
    ranges = [range(start + 1, end) for start, end in pairwise(ends)]
    if marks in (":", "::"):
        when = _number(tokens, ranges[-1], spaced=True)
        if when is not None:
            *before, after = (_body(tokens, partner, part) for part in ranges[:-1])
            return Scheduled(before[0] if before else (), after, float(when), "." in when)
    elif marks and set(marks) == {"|"}:
        return Alternate(tuple(_body(tokens, partner, option) for option in ranges))
    return Emphasis(_body(tokens, partner, inside), 1 / UP)


def _number(tokens: list[_Token], inside: range, *, spaced: bool) -> str | None:
    """The number that a range of tokens is, if it is nothing else (but space, where `spaced`)."""
    if len(inside) != 1 or tokens[inside.start].mark:
        return None
    text = tokens[inside.start].text
    match = _NUMBER.fullmatch(text.strip() if spaced else text)
    return match[0] if match else None
