"""Frames that are much like the last one made are passed over, by chance."""

import random

import torch.nn.functional as F
from jaxtyping import Float
from torch import Tensor

_MOST_PASSED = 10  # frames in a row


class Similarity:
    """The stochastic similarity filter of Kodaira et al. 2023 (arXiv 2312.12491, section 3.4).

    A frame is passed over with probability `max(0, (s - threshold) / (1 - threshold))`, `s` being
    the cosine of its pixels in [-1, 1] and those of the last frame that was not (the paper's S_C
    and eta). Differs from it in that a frame that is the same to the bit is always passed over, and
    of others no more than ten in a row.
    """

    def __init__(self, threshold: float):
        self._threshold = threshold
        self._chance = random.Random(0)  # of its own, so that a stream repeats
        self._last: Tensor | None = None
        self._passed = 0

    def passes_over(self, pixels: Float[Tensor, "1 3 h w"]) -> bool:
        """Whether the frame need not be made."""
        return self._last is not None and self._is_like(self._last, pixels)

    def begun(self, pixels: Float[Tensor, "1 3 h w"]) -> None:
        """Takes the frame that a picture was begun with: the next are compared to it."""
        self._last, self._passed = pixels, 0

    def _is_like(self, last: Tensor, pixels: Tensor) -> bool:
        if last.equal(pixels):
            return True
        if self._passed >= _MOST_PASSED:
            return False
        cosine = F.cosine_similarity(last.flatten(), pixels.flatten(), dim=0).item()
        chance = (cosine - self._threshold) / (1 - self._threshold)
        passed = self._chance.random() < chance
        self._passed += passed
        return passed
