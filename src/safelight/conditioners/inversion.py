"""Textual inversion: words of a user's own, whose embeddings were learned."""

import re
from collections.abc import Mapping, Sequence
from dataclasses import dataclass

from jaxtyping import Float, Int64
from torch import Tensor

from safelight.models.token_rows import filled_rows
from safelight.models.tokenizer import ClipTokenizer
from safelight.models.wordpiece import WordPieceTokenizer


@dataclass(frozen=True)
class Inversion:
    """A word and what stands for it in each tower's input (Gal et al. 2022, arXiv 2208.01618).

    Attributes:
        token: the word as it is written in a prompt; matched whole, in any case.
        vectors: for each tower, one place of the prompt a row, (n, width of the tower).
    """

    token: str
    vectors: tuple[Float[Tensor, "n _"], ...]


def ids_of_words(
    inversions: Sequence[Inversion], tower: int, first: int
) -> dict[str, tuple[int, ...]]:
    """The ids of each word's places in one tower: from `first` on, in order."""
    found: dict[str, tuple[int, ...]] = {}
    for inversion in inversions:
        count = len(inversion.vectors[tower])
        found[inversion.token.lower()] = tuple(range(first, first + count))
        first += count
    return found


@dataclass(frozen=True)
class Piece:
    """A piece of a text: a learned word with its ids, or what stands between such words."""

    text: str
    ids: tuple[int, ...] | None = None


def pieces(text: str, words: Mapping[str, tuple[int, ...]]) -> list[Piece]:
    """A text in its order; in lower case where there are learned words."""
    if not words:
        return [Piece(text)]
    found: list[Piece] = []
    text, place = text.lower(), 0
    for match in _pattern(words).finditer(text):
        found += [Piece(text[place : match.start()]), Piece(match.group(), words[match.group()])]
        place = match.end()
    return [*found, Piece(text[place:])]


def units(
    tokenizer: ClipTokenizer | WordPieceTokenizer, text: str, words: Mapping[str, tuple[int, ...]]
) -> list[tuple[int, ...]]:
    """The ids of a text: one by one, and those of a learned word together."""
    found: list[tuple[int, ...]] = []
    for piece in pieces(text, words):
        found += _plain(tokenizer, piece.text) if piece.ids is None else [piece.ids]
    return found


def spell(
    tokenizer: ClipTokenizer, prompts: Sequence[str], words: Mapping[str, tuple[int, ...]]
) -> Int64[Tensor, "b n"]:
    """Token ids of plain texts with learned words; cut and padded as `tokenizer.encode` does."""
    start, end = tokenizer.marks
    rows = [
        [start, *(token for unit in units(tokenizer, prompt, words) for token in unit), end]
        for prompt in prompts
    ]
    return filled_rows(rows, tokenizer.length, end, tokenizer.id_of(tokenizer.pad))


def _pattern(words: Mapping[str, tuple[int, ...]]) -> re.Pattern[str]:
    return re.compile("|".join(_whole(word) for word in sorted(words, key=len, reverse=True)))


def _whole(token: str) -> str:
    """Matches a token that is no part of a longer word."""
    before = r"(?<!\w)" if token[:1].isalnum() else ""
    after = r"(?!\w)" if token[-1:].isalnum() else ""
    return before + re.escape(token) + after


def _plain(tokenizer: ClipTokenizer | WordPieceTokenizer, text: str) -> list[tuple[int, ...]]:
    """The ids of a piece of a prompt, without the marks of start and end."""
    return [(token,) for token in tokenizer.tokenizer.encode(text).ids[1:-1]]
