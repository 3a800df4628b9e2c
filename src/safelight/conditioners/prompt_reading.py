"""What a prompt says in one step: spans of text with their weights, parted by BREAKs."""

from collections.abc import Iterator
from dataclasses import dataclass

from safelight.conditioners.prompt_grammar import (
    Alternate,
    Body,
    Break,
    Emphasis,
    Scheduled,
    Text,
)


@dataclass(frozen=True)
class Span:
    """Text that is read as one piece, and what attention to it is multiplied by."""

    text: str
    weight: float = 1.0


Reading = tuple[tuple[Span, ...], ...]
"""The spans of each section; a BREAK begins a section. There is at least one."""


def at_step(body: Body, step: int, steps: int) -> Reading:
    """What a prompt says in step `step` of `steps`, counted from 0.

    Weights within weights are multiplied. `[a:b:when]` is `a` in the first `when` steps, or in
    that part of them; `[a|b]` is `a` in steps 0, 2, 4. AUTOMATIC1111's documentation says so; its
    sampling loop shows the first text for one step more.
    """
    sections: list[list[Span]] = [[]]
    for found in _spans(body, step, steps, 1.0):
        section = sections[-1]
        if isinstance(found, Break):
            sections.append([])
        elif section and section[-1].weight == found.weight:
            section[-1] = Span(section[-1].text + found.text, found.weight)
        elif found.text:
            section.append(found)
    if len(sections) > 1 and not sections[-1]:
        sections.pop()  # nothing follows the last BREAK
    return tuple(tuple(section) for section in sections)


def _spans(body: Body, step: int, steps: int, weight: float) -> Iterator[Span | Break]:
    for node in body:
        if isinstance(node, Text):
            yield Span(node.text, weight)
        elif isinstance(node, Break):
            yield node
        elif isinstance(node, Emphasis):
            yield from _spans(node.body, step, steps, weight * node.weight)
        else:
            yield from _spans(_chosen(node, step, steps), step, steps, weight)


def _chosen(node: Scheduled | Alternate, step: int, steps: int) -> Body:
    """What a part that changes is in a step."""
    if isinstance(node, Alternate):
        return node.options[step % len(node.options)]
    last = int(node.when * steps if node.fraction else node.when)
    return node.before if step < last else node.after
