"""Prompts to context tokens through a tokenizer and a text tower."""

from collections.abc import Sequence
from dataclasses import dataclass

from safelight.models.clip import ClipText
from safelight.models.tokenizer import ClipTokenizer
from safelight.types import Conditioning


@dataclass(frozen=True)
class TextConditioner:
    """Prompts to `Conditioning.context`, (b, tokenizer.length, tower width)."""

    tokenizer: ClipTokenizer
    tower: ClipText

    def __call__(self, prompts: Sequence[str]) -> Conditioning:
        """Encodes a batch of prompts on the tower's device; an empty prompt is the usual null."""
        ids = self.tokenizer.encode(prompts).to(self.tower.final_layer_norm.weight.device)
        return Conditioning(context=self.tower(ids).tokens)
