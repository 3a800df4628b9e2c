"""Prompts to context tokens through tokenizers and text towers."""

from collections.abc import Sequence
from dataclasses import dataclass

import torch

from safelight.models.any_text import AnyTextTower, AnyTokenizer
from safelight.types import Conditioning


@dataclass(frozen=True)
class TextConditioner:
    """Prompts to `Conditioning.context`, (b, tokens, the widths of all towers together).

    The towers read the same prompt, each by its own tokenizer (Podell et al. 2023, arXiv
    2307.01952, section 2.1). `pooled` puts the last tower's pooled vector into
    `Conditioning.vector`. `zero_null` makes the null of guidance zeros instead of the empty prompt,
    as SDXL's base was trained.
    """

    tokenizers: tuple[AnyTokenizer, ...]
    towers: tuple[AnyTextTower, ...]
    pooled: bool = False
    zero_null: bool = False

    def __call__(self, prompts: Sequence[str]) -> Conditioning:
        """Encodes a batch of prompts on the towers' device; an empty prompt is the usual null."""
        features = [
            tower(tokenizer.encode(prompts).to(next(tower.parameters()).device))
            for tokenizer, tower in zip(self.tokenizers, self.towers, strict=True)
        ]
        return Conditioning(
            context=torch.cat([part.tokens for part in features], dim=-1),
            vector=features[-1].pooled if self.pooled else None,
        )

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
