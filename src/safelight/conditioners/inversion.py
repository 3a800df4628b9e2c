"""Textual inversion: words of a user's own, whose embeddings were learned."""

import re
from collections.abc import Sequence
from dataclasses import dataclass

import torch
from jaxtyping import Float, Int64
from torch import Tensor

from safelight.models.token_rows import filled_rows
from safelight.models.tokenizer import BOS, EOS, ClipTokenizer


@dataclass(frozen=True)
class Inversion:
    """A word and what stands for it in each tower's input (Gal et al. 2022, arXiv 2208.01618).

    Attributes:
        token: the word as it is written in a prompt; matched whole, in any case.
        vectors: for each tower, one place of the prompt a row, (n, width of the tower).
    """

    token: str
    vectors: tuple[Float[Tensor, "n _"], ...]


def spell(
    tokenizer: ClipTokenizer,
    prompts: Sequence[str],
    inversions: Sequence[Inversion],
    tower: int,
    first: int,
) -> tuple[Int64[Tensor, "b n"], Float[Tensor, "k d"]]:
    """Token ids in which the inversions' places have ids from `first` on, and the embeddings that
    one tower learned for these, in order; prompts are cut and padded as `tokenizer.encode` does.
    """
    learned = torch.cat([inversion.vectors[tower] for inversion in inversions])
    ids_of: dict[str, list[int]] = {}
    for inversion in inversions:
        count = len(inversion.vectors[tower])
        ids_of[inversion.token.lower()] = list(range(first, first + count))
        first += count
    words = re.compile("|".join(_whole(token) for token in sorted(ids_of, key=len, reverse=True)))
    pad, start, end = (tokenizer.id_of(name) for name in (tokenizer.pad, BOS, EOS))
    rows: list[list[int]] = []
    for prompt in (prompt.lower() for prompt in prompts):
        ids: list[int] = []
        place = 0
        for found in words.finditer(prompt):
            ids += _plain(tokenizer, prompt[place : found.start()]) + ids_of[found.group()]
            place = found.end()
        ids += _plain(tokenizer, prompt[place:])
        rows.append([start, *ids, end])
    return filled_rows(rows, tokenizer.length, end, pad), learned


def _whole(token: str) -> str:
    """Matches a token that is no part of a longer word."""
    before = r"(?<!\w)" if token[:1].isalnum() else ""
    after = r"(?!\w)" if token[-1:].isalnum() else ""
    return before + re.escape(token) + after


def _plain(tokenizer: ClipTokenizer, text: str) -> list[int]:
    """The ids of a piece of a prompt, without the marks of start and end."""
    return tokenizer.tokenizer.encode(text).ids[1:-1]
