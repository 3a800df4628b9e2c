"""The words of a prompt, and which tokens of the context stand for each."""

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass

from safelight.conditioners.chunks import Unit
from safelight.conditioners.inversion import pieces
from safelight.models.tokenizer import ClipTokenizer
from safelight.models.wordpiece import WordPieceTokenizer

Tokenizer = ClipTokenizer | WordPieceTokenizer


@dataclass(frozen=True)
class Word:
    """A word as the prompt has it, and the places of its tokens among those of the context."""

    text: str
    places: tuple[int, ...]


def words_of(
    tokenizer: Tokenizer,
    texts: Sequence[str],
    learned: Mapping[str, tuple[int, ...]],
    places: Sequence[int],
) -> tuple[Word, ...]:
    """The words of texts that are read one after the other, the tokens of which stand at `places`,
    in their order; a word whose tokens have no place any more is left out.
    """
    words: list[Word] = []
    first = 0
    for text in texts:
        for word, count in _spelled(tokenizer, text, learned):
            taken = tuple(places[first : first + count])
            first += count
            if taken:
                words.append(Word(word, taken))
    return tuple(words)


def places_of(chunks: Sequence[Sequence[Unit]], length: int) -> list[int]:
    """Where the tokens of chunks stand in a context of `length` tokens a chunk, behind the mark
    that each begins with.
    """
    return [
        chunk * length + 1 + place
        for chunk, units in enumerate(chunks)
        for place in range(sum(len(unit.ids) for unit in units))
    ]


def _spelled(
    tokenizer: Tokenizer, text: str, learned: Mapping[str, tuple[int, ...]]
) -> Iterator[tuple[str, int]]:
    """Each word of a text with the number of its tokens, as the tokenizer parts and counts them."""
    for piece in pieces(text, learned):
        if piece.ids is not None:
            yield piece.text, len(piece.ids)
            continue
        yield from _parted(tokenizer, piece.text)


def _parted(tokenizer: Tokenizer, text: str) -> Iterator[tuple[str, int]]:
    """The words of a plain text; letters and digits that touch, which tokenizers part ("3", "d"),
    are one.
    """
    encoding = tokenizer.tokenizer.encode(text)
    words: list[tuple[int, int, int]] = []  # start, end, number of tokens
    before: int | None = None
    for index, (start, end) in zip(encoding.word_ids, encoding.offsets, strict=True):
        if index is None:  # a mark of start or end
            continue
        touches = words and words[-1][1] == start and text[start - 1 : start + 1].isalnum()
        if index == before or touches:
            words[-1] = (words[-1][0], end, words[-1][2] + 1)
        else:
            words.append((start, end, 1))
        before = index
    for start, end, count in words:
        yield text[start:end].strip(), count
