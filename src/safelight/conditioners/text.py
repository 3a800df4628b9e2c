"""Prompts to context tokens through tokenizers and text towers."""

from collections.abc import Sequence
from dataclasses import dataclass

import torch
from einops import rearrange
from jaxtyping import Int64
from torch import Tensor

from safelight.conditioners.chunks import Unit, chunked, emphasised, token_rows
from safelight.conditioners.inversion import Inversion, ids_of_words, spell, units
from safelight.conditioners.prompt_reading import Reading, Span
from safelight.conditioners.words import Word, places_of, words_of
from safelight.models.any_text import AnyTextTower, AnyTokenizer
from safelight.models.classes import ClassReader
from safelight.models.clip import ClipText
from safelight.models.tokenizer import ClipTokenizer
from safelight.models.wordpiece import WordPieceTokenizer
from safelight.types import Conditioning, TextFeatures


@dataclass(frozen=True)
class TextConditioner:
    """Prompts to `Conditioning.context`, (b, tokens, the widths of all towers together).

    The towers read the same prompt, each by its own tokenizer (Podell et al. 2023, arXiv
    2307.01952, section 2.1). `pooled` puts the last tower's pooled vector into
    `Conditioning.vector`. `zero_null` makes the null of guidance zeros instead of the empty prompt,
    as SDXL's base was trained. `inversions` are words whose embeddings were learned, for CLIP's
    towers. `skip` leaves that many more of their last layers out than the model was trained with.
    """

    tokenizers: tuple[AnyTokenizer, ...]
    towers: tuple[AnyTextTower, ...]
    pooled: bool = False
    zero_null: bool = False
    inversions: tuple[Inversion, ...] = ()
    skip: int = 0

    def __call__(self, prompts: Sequence[str]) -> Conditioning:
        """Encodes a batch of plain texts on the towers' device, cut where the towers end; an empty
        one is the usual null.
        """
        return self._joined([self._plain(place, prompts) for place in range(len(self.towers))])

    def read(self, readings: Sequence[Reading], chunks: int = 1) -> Conditioning:
        """Encodes prompts with weights and breaks in that many chunks each, as `chunks` counts
        them: `chunks` times as many tokens, the pooled vector from the first.

        Empty chunks fill those that have fewer; chunks past the last are left out.
        """
        places = range(len(self.towers))
        return self._joined([self._weighed(place, readings, chunks) for place in places])

    def chunks(self, reading: Reading) -> int:
        """How many chunks a prompt takes, 1 or more."""
        return max(
            (len(self._chunked(tokenizer, i, reading)) for i, tokenizer in self._readers), default=1
        )

    def null(self, count: int, chunks: int = 1) -> Conditioning:
        """What guidance steers away from where nothing is asked to be avoided, `count` times."""
        empty = self([""] * count)
        if empty.context is None:
            return empty
        context, vector = empty.context.repeat(1, chunks, 1), empty.vector
        if not self.zero_null:
            return Conditioning(context=context, vector=vector)
        return Conditioning(
            context=torch.zeros_like(context),
            vector=None if vector is None else torch.zeros_like(vector),
        )

    def unread(self, prompt: str) -> str:
        """The end of a plain text that the first tower has no room for.

        Raises `SafelightError` for a text that a model of classes does not know.
        """
        tokenizer = self.tokenizers[0] if self.tokenizers else None
        if tokenizer is None:
            return ""
        if isinstance(tokenizer, ClassReader):
            tokenizer.encode([prompt])
            return ""
        encoding = tokenizer.tokenizer.encode(prompt)
        if len(encoding.ids) <= tokenizer.length:
            return ""
        start, _ = encoding.offsets[tokenizer.length - 1]
        return prompt[start:].strip()

    def words(self, reading: Reading, *, plain: bool = False) -> tuple[Word, ...]:
        """The words of a prompt, and where the tokens of each stand in the context that `read`
        makes of it, by the first tower's tokenizer; `plain` for what `__call__` makes of it, where
        a word that is cut off is left out. None where no tower reads words.
        """
        if not self._readers:
            return ()
        place, tokenizer = self._readers[0]
        if plain:  # one row, of which a comma ends nothing
            places: Sequence[int] = range(1, tokenizer.length - 1)
        else:
            chunks = self._chunked(tokenizer, place, reading)
            places = places_of(chunks, tokenizer.length)
        texts = [span.text for section in reading for span in section]
        return words_of(tokenizer, texts, self._words(place), places)

    @property
    def _readers(self) -> list[tuple[int, ClipTokenizer | WordPieceTokenizer]]:
        """The tokenizers of text, with their places."""
        return [
            (place, tokenizer)
            for place, tokenizer in enumerate(self.tokenizers)
            if not isinstance(tokenizer, ClassReader)
        ]

    def _joined(self, features: Sequence[TextFeatures]) -> Conditioning:
        if not features:
            return Conditioning()
        return Conditioning(
            context=torch.cat([part.tokens for part in features], dim=-1),
            vector=features[-1].pooled if self.pooled else None,
        )

    def _plain(self, place: int, prompts: Sequence[str]) -> TextFeatures:
        """What one tower makes of plain texts."""
        tokenizer = self.tokenizers[place]
        if self.inversions and isinstance(tokenizer, ClipTokenizer):
            return self._encoded(place, spell(tokenizer, prompts, self._words(place)))
        return self._encoded(place, tokenizer.encode(prompts))

    def _weighed(self, place: int, readings: Sequence[Reading], count: int) -> TextFeatures:
        """What one tower makes of prompts with weights, in `count` chunks each."""
        tokenizer = self.tokenizers[place]
        if isinstance(tokenizer, ClassReader):
            raise ValueError("Classes are named by plain texts.")
        rows: list[tuple[Unit, ...]] = []
        for reading in readings:
            chunks = self._chunked(tokenizer, place, reading)
            rows += [*chunks[:count], *[()] * (count - len(chunks))]
        ids, weights = token_rows(rows, tokenizer)
        features = self._encoded(place, ids)
        tokens = emphasised(features.tokens, weights)
        return TextFeatures(
            tokens=rearrange(tokens, "(b c) n d -> b (c n) d", c=count),
            pooled=features.pooled[::count],
        )

    def _chunked(
        self, tokenizer: ClipTokenizer | WordPieceTokenizer, place: int, reading: Reading
    ) -> list[tuple[Unit, ...]]:
        words = self._words(place)

        def spelled(span: Span) -> list[Unit]:
            return [Unit(ids, span.weight) for ids in units(tokenizer, span.text, words)]

        sections = [[unit for span in section for unit in spelled(span)] for section in reading]
        return chunked(sections, tokenizer.length - 2, tokenizer.comma)

    def _words(self, place: int) -> dict[str, tuple[int, ...]]:
        """The ids of learned words, which come after those of the tower's vocabulary."""
        first = self.towers[place].config.vocab_size
        return ids_of_words(self.inversions, place, first)

    def _encoded(self, place: int, ids: Int64[Tensor, "b n"]) -> TextFeatures:
        tower = self.towers[place]
        ids = ids.to(next(tower.parameters()).device)
        if not isinstance(tower, ClipText):
            return tower(ids)
        if not self.inversions:
            return tower(ids, skip=self.skip)
        learned = torch.cat([inversion.vectors[place] for inversion in self.inversions])
        return tower(ids, learned.to(ids.device), skip=self.skip)
