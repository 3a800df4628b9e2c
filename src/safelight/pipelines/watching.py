"""Where the words of a prompt look, recorded while a sampler runs."""

from collections.abc import Sequence

import torch
from einops import rearrange
from jaxtyping import Float
from torch import Tensor

from safelight.conditioners.text import TextConditioner
from safelight.conditioners.words import Word
from safelight.errors import SafelightError
from safelight.models.unet import UNet
from safelight.nn.watched_attention import attention_map, watched
from safelight.pipelines.attention_maps import StepMaps
from safelight.pipelines.choices import PromptSyntax
from safelight.pipelines.guiding import Conditions
from safelight.pipelines.saying import Saying
from safelight.types import Conditioning, Network

_HALVINGS = 16  # more than any U-Net has
_Sums = dict[tuple[int, int], Tensor]


class Watch:
    """Records the cross-attention of one picture's prompt, step by step.

    What guidance compares the prompt with is not recorded. `words` and `steps` are there once the
    picture is made.
    """

    def __init__(self):
        self.words: tuple[Word, ...] = ()
        self.steps: list[StepMaps] = []
        self._asked: Tensor | None = None
        self._rows = slice(0)
        self._size = (0, 0)
        self._sums: _Sums = {}
        self._counts: dict[tuple[int, int], int] = {}

    def begin(
        self,
        text: TextConditioner,
        said: Sequence[Saying],
        told: Sequence[Conditions],
        syntax: PromptSyntax,
    ) -> None:
        """Is told what a run of a sampler is asked for.

        Raises `SafelightError` for more than one prompt, one that changes on the way, and a model
        that reads no words.
        """
        one = len(said) == len(told) == 1 and len(said[0].parts) == 1 and said[0].toward is None
        if not one or len(said[0].parts[0]) != 1:
            raise SafelightError(
                "Attention is recorded of one picture and of one prompt that is the same in all "
                "steps; leave AND, [a:b:0.5] and [a|b] out."
            )
        cond = told[0].conds[0]
        self.words = text.words(said[0].parts[0][0], plain=syntax == "plain")
        if cond.context is None or not self.words:
            raise SafelightError("There is no word whose attention could be recorded.")
        self._asked = cond.context

    def over(self, unet: UNet) -> Network:
        """The network with each of its calls recorded; it gives the same, to the bit."""
        looking = watched(unet, self._look)

        def heard(
            x: Float[Tensor, "b c h w"], t: Float[Tensor, " b"], cond: Conditioning
        ) -> Float[Tensor, "b c_out h w"]:
            self._size = (x.shape[-2], x.shape[-1])
            self._rows = self._rows_of(cond)
            return looking(x, t, cond)

        return heard

    def __call__(self, step: int, sigma: float, x: Tensor, denoised: Tensor) -> None:
        """Ends a step: an `OnStep`."""
        layers = {size: total.cpu() / self._counts[size] for size, total in self._sums.items()}
        self.steps.append(StepMaps(sigma, layers, dict(self._counts)))
        self._sums, self._counts = {}, {}

    def _rows_of(self, cond: Conditioning) -> slice:
        """The rows of a call that are under the prompt: of the others the context is another, and
        where it is the same the prompt's come last.
        """
        asked = self._asked
        if asked is None or cond.context is None:
            return slice(0)
        count = len(asked)
        for first in reversed(range(0, len(cond.context), count)):
            rows = slice(first, first + count)
            if torch.equal(cond.context[rows], asked):
                return rows
        return slice(0)

    def _look(self, q: Tensor, k: Tensor, heads: int) -> None:
        q, k = q[self._rows], k[self._rows]
        if not len(q):
            return
        size = _folded(q.shape[1], self._size)
        maps = rearrange(attention_map(q, k, heads)[0], "(h w) m -> m h w", h=size[0])
        self._sums[size] = self._sums[size] + maps if size in self._sums else maps
        self._counts[size] = self._counts.get(size, 0) + 1


def _folded(tokens: int, size: tuple[int, int]) -> tuple[int, int]:
    """Height and width of a layer's tokens, where each level of the U-Net halves those of x."""
    height, width = size
    for _ in range(_HALVINGS):
        if height * width == tokens:
            return height, width
        height, width = -(-height // 2), -(-width // 2)
    raise ValueError(f"{tokens} tokens are no halvings of {size[0]} x {size[1]}.")
