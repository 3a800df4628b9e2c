"""Prompts to context tokens through tokenizers and text towers."""

from collections.abc import Sequence
from dataclasses import dataclass

import torch

from safelight.conditioners.inversion import Inversion, spell
from safelight.models.any_text import AnyTextTower, AnyTokenizer
from safelight.models.clip import ClipText
from safelight.models.tokenizer import ClipTokenizer
from safelight.types import Conditioning, TextFeatures


@dataclass(frozen=True)
class TextConditioner:
    """Prompts to `Conditioning.context`, (b, tokens, the widths of all towers together).

    The towers read the same prompt, each by its own tokenizer (Podell et al. 2023, arXiv
    2307.01952, section 2.1). `pooled` puts the last tower's pooled vector into
    `Conditioning.vector`. `zero_null` makes the null of guidance zeros instead of the empty prompt,
    as SDXL's base was trained. `inversions` are words whose embeddings were learned, for CLIP's
    towers.
    """

    tokenizers: tuple[AnyTokenizer, ...]
    towers: tuple[AnyTextTower, ...]
    pooled: bool = False
    zero_null: bool = False
    inversions: tuple[Inversion, ...] = ()

    def __call__(self, prompts: Sequence[str]) -> Conditioning:
        """Encodes a batch of prompts on the towers' device; an empty prompt is the usual null."""
        features = [self._features(place, prompts) for place in range(len(self.towers))]
        return Conditioning(
            context=torch.cat([part.tokens for part in features], dim=-1),
            vector=features[-1].pooled if self.pooled else None,
        )

    def _features(self, place: int, prompts: Sequence[str]) -> TextFeatures:
        """What one tower makes of the prompts."""
        tokenizer, tower = self.tokenizers[place], self.towers[place]
        device = next(tower.parameters()).device
        if self.inversions and isinstance(tower, ClipText) and isinstance(tokenizer, ClipTokenizer):
            known = tower.config.vocab_size
            ids, learned = spell(tokenizer, prompts, self.inversions, place, known)
            return tower(ids.to(device), learned.to(device))
        return tower(tokenizer.encode(prompts).to(device))

    def null(self, count: int) -> Conditioning:
        """What guidance steers away from where nothing is asked to be avoided, `count` times."""
        empty = self([""] * count)
        if not self.zero_null or empty.context is None:
            return empty
        vector = empty.vector
        return Conditioning(
            context=torch.zeros_like(empty.context),
            vector=None if vector is None else torch.zeros_like(vector),
        )
