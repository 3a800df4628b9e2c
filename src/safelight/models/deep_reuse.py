"""A U-Net whose deep layers are computed in some steps alone.

Source: Ma et al. 2023 (arXiv 2312.00858), section 3.2: from a step to the next what the deep layers
make changes little.
"""

from dataclasses import dataclass
from typing import Protocol, runtime_checkable

from jaxtyping import Float
from torch import Tensor

from safelight.models.unet_encoder import Emb
from safelight.nn.blocks import Picture
from safelight.types import Conditioning


@runtime_checkable
class Deep(Protocol):
    """A `Network` in two parts, as `UNet` is."""

    def __call__(
        self, x: Float[Tensor, "b c h w"], t: Float[Tensor, " b"], cond: Conditioning
    ) -> Float[Tensor, "b c_out h w"]:
        """The network's output."""
        ...

    def embed(self, t: Float[Tensor, " b"], cond: Conditioning) -> Emb:
        """As `UNet.embed`."""
        ...

    def with_deep(
        self, x: Float[Tensor, "b c h w"], emb: Emb, cond: Conditioning
    ) -> tuple[Float[Tensor, "b c_out h w"], Picture]:
        """As `UNet.with_deep`."""
        ...

    def from_deep(
        self, x: Float[Tensor, "b c h w"], emb: Emb, cond: Conditioning, deep: Picture
    ) -> Float[Tensor, "b c_out h w"]:
        """As `UNet.from_deep`."""
        ...


@dataclass
class _Kept:
    deep: Picture
    like: tuple[int, ...]  # the shape of x that it was made of


class DeepReuse:
    """A `Network` that computes the deep layers in each `every`-th step, and takes what they made
    then in the steps between; for one run of a sampler.

    A step is told by its time. The calls in it are told by their order, which is the same in each
    step, such as that of a guided picture's windows; one of another size than its like before is
    computed whole.
    """

    def __init__(self, network: Deep, every: int):
        self._network, self._every = network, every
        self._time: float | None = None
        self._step, self._call = -1, 0
        self._kept: dict[int, _Kept] = {}

    def __call__(
        self, x: Float[Tensor, "b c h w"], t: Float[Tensor, " b"], cond: Conditioning
    ) -> Float[Tensor, "b c_out h w"]:
        """As the network, about."""
        time = t[0].item()
        if time != self._time:
            self._time, self._step, self._call = time, self._step + 1, 0
        else:
            self._call += 1
        emb = self._network.embed(t, cond)
        kept, like = self._kept.get(self._call), tuple(x.shape)
        if self._step % self._every and kept is not None and kept.like == like:
            return self._network.from_deep(x, emb, cond, kept.deep)
        out, deep = self._network.with_deep(x, emb, cond)
        self._kept[self._call] = _Kept(deep, like)
        return out
