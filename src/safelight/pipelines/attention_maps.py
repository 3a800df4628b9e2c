"""Where the words of a prompt looked while a picture was made.

Cross-attention as what a picture owes to its words: Hertz et al. 2022 (arXiv 2208.01626,
Prompt-to-Prompt), section 3; as maps over the picture: Tang et al. 2022 (arXiv 2210.04885, DAAM),
section 2.2.
"""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass

import torch
import torch.nn.functional as F
from jaxtyping import Float
from torch import Tensor

from safelight.conditioners.words import Word
from safelight.config import near
from safelight.errors import SafelightError

Size = tuple[int, int]  # height and width


@dataclass(frozen=True)
class StepMaps:
    """What the network's cross-attention looked at in one step, under the prompt alone.

    Attributes:
        sigma: the noise level that the step began at.
        layers: for each size of layers, in places, how much each place looked at each token: the
            mean over the heads, the layers of that size and the step's calls of the network,
            (tokens, height, width), which sums to 1 over the tokens.
        counts: of how many maps each is the mean.
    """

    sigma: float
    layers: Mapping[Size, Float[Tensor, "tokens h w"]]
    counts: Mapping[Size, int]


@dataclass(frozen=True)
class AttentionMaps:
    """Maps of the attention to a prompt's tokens, and so to its words.

    Attributes:
        words: of the prompt, in their order.
        steps: what was recorded, step by step.
        size: height and width of the picture.
    """

    words: tuple[Word, ...]
    steps: tuple[StepMaps, ...]
    size: Size

    @property
    def layers(self) -> tuple[Size, ...]:
        """The sizes of layers that there are, the finest first."""
        sizes = {size for step in self.steps for size in step.layers}
        return tuple(sorted(sizes, reverse=True))

    def of(
        self, word: str | int, *, step: int | None = None, layer: Size | None = None
    ) -> Float[Tensor, "height width"]:
        """How much each pixel looked at a word, 0 to 1: its tokens' maps added up.

        Args:
            word: the word, or its place among `words`; of several that are equal the first.
            step: one of `steps`; by default the mean over all.
            layer: one of `layers`; by default the mean over all, each enlarged to the picture
                (bilinear) and counted by the number of its maps.

        Raises:
            SafelightError: there is no such word, step or layer.
        """
        return self._maps((self._word(word),), step, layer)[0]

    def each(
        self, *, step: int | None = None, layer: Size | None = None
    ) -> Float[Tensor, "words height width"]:
        """The same of every word, in their order; errors as `of`."""
        return self._maps(self.words, step, layer)

    def _maps(
        self, words: Sequence[Word], step: int | None, layer: Size | None
    ) -> Float[Tensor, "words height width"]:
        steps = self.steps if step is None else (self._step(step),)
        total, count = torch.zeros(len(words), *self.size), 0
        for recorded in steps:
            for size, maps in recorded.layers.items():
                if layer in (None, size):
                    summed = torch.stack([maps[list(word.places)].sum(dim=0) for word in words])
                    total += recorded.counts[size] * enlarged(summed, self.size)
                    count += recorded.counts[size]
        if not count:
            raise SafelightError(f"No layer of {layer} was recorded; there are {self.layers}.")
        return total / count

    def tokens(self, layer: Size, *, step: int | None = None) -> Float[Tensor, "tokens h w"]:
        """How much each place of layers of one size looked at each token, those that mark the start
        and the end among them; sums to 1 over the tokens. Errors as `of`.
        """
        steps = self.steps if step is None else (self._step(step),)
        found = [recorded.layers[layer] for recorded in steps if layer in recorded.layers]
        if not found:
            raise SafelightError(f"No layer of {layer} was recorded; there are {self.layers}.")
        return torch.stack(found).mean(dim=0)

    def _word(self, word: str | int) -> Word:
        if isinstance(word, int):
            if not 0 <= word < len(self.words):
                raise SafelightError(f"The prompt has {len(self.words)} words; got {word}.")
            return self.words[word]
        for known in self.words:
            if known.text.lower() == word.lower():
                return known
        texts = [known.text for known in self.words]
        raise SafelightError(f"The prompt has no word {word!r}. {near(word, texts)}")

    def _step(self, step: int) -> StepMaps:
        if not 0 <= step < len(self.steps):
            raise SafelightError(f"{len(self.steps)} steps were recorded; got {step}.")
        return self.steps[step]


def enlarged(maps: Float[Tensor, "n h w"], size: Size) -> Float[Tensor, "n height width"]:
    """Maps at another size, bilinear."""
    return F.interpolate(maps[None], size=size, mode="bilinear", align_corners=False)[0]
