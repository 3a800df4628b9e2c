"""Tokens with weights, in as many rows as a text tower needs for them.

A prompt longer than a tower is read in chunks, each with its own marks of start and end, whose
tokens stand side by side; weights work on what the tower makes of the tokens. Both as in
AUTOMATIC1111's web interface.
"""

from collections.abc import Sequence
from dataclasses import dataclass

import torch
from jaxtyping import Float, Int64
from torch import Tensor

from safelight.models.token_rows import filled_rows
from safelight.models.tokenizer import ClipTokenizer
from safelight.models.wordpiece import WordPieceTokenizer

_BACKTRACK = 20
"""A chunk ends at its last comma where no more tokens than these follow it."""

_LEAST_MEAN = 0.01  # of the root mean square


@dataclass(frozen=True)
class Unit:
    """Tokens that stay together, such as the places of a learned word, and their weight."""

    ids: tuple[int, ...]
    weight: float = 1.0


def chunked(
    sections: Sequence[Sequence[Unit]], room: int, comma: int | None
) -> list[tuple[Unit, ...]]:
    """Units in chunks of at most `room` tokens; each section begins one, which may be empty.

    A chunk that is full ends at its last comma, if that is near. What is longer than a whole chunk
    is cut into several.
    """
    chunks: list[tuple[Unit, ...]] = []
    for section in sections:
        chunk: list[Unit] = []
        last_comma: int | None = None  # its place in the chunk
        for unit in (part for whole in section for part in _fitting(whole, room)):
            if unit.ids == (comma,):
                last_comma = len(chunk)
            elif _tokens(chunk) == room and last_comma is not None:
                rest = chunk[last_comma + 1 :]
                if _tokens(rest) < _BACKTRACK:
                    chunks.append(tuple(chunk[: last_comma + 1]))
                    chunk, last_comma = rest, None
            if _tokens(chunk) + len(unit.ids) > room:
                chunks.append(tuple(chunk))
                chunk, last_comma = [], None
            chunk.append(unit)
        chunks.append(tuple(chunk))
    return chunks


def token_rows(
    chunks: Sequence[Sequence[Unit]], tokenizer: ClipTokenizer | WordPieceTokenizer
) -> tuple[Int64[Tensor, "k n"], Float[Tensor, "k n"]]:
    """The ids of chunks that fit, with their marks and padding, and a weight for each."""
    start, end = tokenizer.marks
    pad = tokenizer.id_of(tokenizer.pad)
    rows = [[start, *(token for unit in chunk for token in unit.ids), end] for chunk in chunks]
    ids = filled_rows(rows, tokenizer.length, end, pad)
    weights = torch.ones(ids.shape)
    for row, chunk in zip(weights, chunks, strict=True):
        values = [unit.weight for unit in chunk for _ in unit.ids]
        row[1 : 1 + len(values)] = torch.tensor(values)
    return ids, weights


def emphasised(
    tokens: Float[Tensor, "k n d"], weights: Float[Tensor, "k n"]
) -> Float[Tensor, "k n d"]:
    """Tokens times their weights, then each row brought back to the mean that it had; a row whose
    weights are all 1 is left as it is, to the bit.

    Differs from AUTOMATIC1111 where the mean is less than a hundredth of the root mean square, as
    with a last norm that has next to no bias: to divide by such a mean would be to divide by
    chance, so the weights alone are taken.
    """
    weighed = tokens * weights.to(tokens)[..., None]
    mean, size = _mean(tokens), _mean(tokens**2).sqrt()
    ratio = torch.where(mean.abs() > _LEAST_MEAN * size, mean / _mean(weighed), 1.0)
    changed = (weights != 1).any(dim=1).to(tokens.device)
    return torch.where(changed[:, None, None], weighed * ratio, tokens)


def _fitting(unit: Unit, room: int) -> list[Unit]:
    parts = range(0, len(unit.ids), room)
    return [Unit(unit.ids[place : place + room], unit.weight) for place in parts]


def _tokens(units: Sequence[Unit]) -> int:
    return sum(len(unit.ids) for unit in units)


def _mean(tokens: Float[Tensor, "k n d"]) -> Float[Tensor, "k 1 1"]:
    return tokens.mean(dim=(1, 2), keepdim=True)
