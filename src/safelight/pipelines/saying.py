"""What the prompts of a batch say, step by step."""

from collections.abc import Sequence
from dataclasses import dataclass, replace

import torch
from torch import Tensor

from safelight.conditioners.prompt_grammar import Part, parse, parse_one, plain
from safelight.conditioners.prompt_reading import Reading, at_step
from safelight.conditioners.text import TextConditioner
from safelight.pipelines.choices import PromptSyntax
from safelight.types import Conditioning

Texts = tuple[Conditioning, Conditioning]
"""What is asked for, and what guidance leads away from, equally long."""


@dataclass(frozen=True)
class Saying:
    """What is said in one step.

    Attributes:
        parts: the prompts that AND joins, each with a row for each picture.
        weights: how strongly each part guides, likewise; 0 where a picture has fewer parts.
        negative: what guidance leads away from, of every picture.
        toward: what is said at the other end of a way between two prompts.
        part: how far it goes there.
    """

    parts: tuple[tuple[Reading, ...], ...]
    weights: tuple[tuple[float, ...], ...]
    negative: Reading
    toward: "Saying | None" = None
    part: float = 0.0

    @property
    def readings(self) -> tuple[Reading, ...]:
        """All that is read."""
        other = () if self.toward is None else self.toward.readings
        return (*(reading for part in self.parts for reading in part), self.negative, *other)


def sayings(
    prompts: Sequence[str], negative: str, steps: int, syntax: PromptSyntax
) -> list[Saying]:
    """What is said in each of the steps."""
    rows = [parse(prompt) if syntax == "a1111" else plain(prompt) for prompt in prompts]
    most = max(map(len, rows), default=1)
    filled = [[*row, *[Part((), 0.0)] * (most - len(row))] for row in rows]
    avoided = parse_one(negative) if syntax == "a1111" else plain(negative)[0].body
    columns = list(zip(*filled, strict=True))
    return [
        Saying(
            tuple(tuple(at_step(part.body, step, steps) for part in column) for column in columns),
            tuple(tuple(part.weight for part in column) for column in columns),
            at_step(avoided, step, steps),
        )
        for step in range(steps)
    ]


def on_the_way(said: Sequence[Saying], other: Sequence[Saying], part: float) -> list[Saying]:
    """What is said in each step part of the way from one to another."""
    return [
        replace(first, toward=second, part=part) for first, second in zip(said, other, strict=True)
    ]


def encoded_texts(
    text: TextConditioner, said: Sequence[Saying], syntax: PromptSyntax
) -> list[list[Texts]]:
    """For each saying the texts of each of its parts; all are read in as many chunks as the longest
    needs, so that all are equally long.
    """
    if syntax == "plain":
        return [_plain_texts(text, saying) for saying in said]
    chunks = max(text.chunks(reading) for saying in said for reading in saying.readings)
    return [_read_texts(text, saying, chunks) for saying in said]


def _read_texts(text: TextConditioner, saying: Saying, chunks: int) -> list[Texts]:
    if saying.toward is not None:
        ends = (
            _read_texts(text, replace(saying, toward=None), chunks),
            _read_texts(text, saying.toward, chunks),
        )
        return _between(*ends, saying.part)
    count = len(saying.parts[0])
    silent = not any(saying.negative)
    avoided = text.null(count, chunks) if silent else text.read([saying.negative] * count, chunks)
    return [(text.read(part, chunks), avoided) for part in saying.parts]


def _plain_texts(text: TextConditioner, saying: Saying) -> list[Texts]:
    if saying.toward is not None:
        first = _plain_texts(text, replace(saying, toward=None))
        return _between(first, _plain_texts(text, saying.toward), saying.part)
    prompts, negative = [_plain(reading) for reading in saying.parts[0]], _plain(saying.negative)
    avoided = text([negative] * len(prompts)) if negative else text.null(len(prompts))
    return [(text(prompts), avoided)]


def _between(first: Sequence[Texts], second: Sequence[Texts], part: float) -> list[Texts]:
    """Texts on a straight line from one to another; what guidance leads away from is the same."""

    def lerp(start: Tensor | None, end: Tensor | None) -> Tensor | None:
        return None if start is None or end is None else torch.lerp(start, end, part)

    return [
        (
            replace(
                start,
                context=lerp(start.context, end.context),
                vector=lerp(start.vector, end.vector),
            ),
            avoided,
        )
        for (start, avoided), (end, _) in zip(first, second, strict=True)
    ]


def _plain(reading: Reading) -> str:
    return "".join(span.text for section in reading for span in section)
