"""Seeded noise that depends on the image, never on its batch."""

from collections.abc import Callable, Sequence

import torch
import torch.nn.functional as F
from jaxtyping import Float
from torch import Tensor

from safelight.types import Noise

Draws = Callable[[Sequence[int]], Tensor]
"""A stream of standard normal draws, float32 on the CPU, by their shapes."""


def torch_draws(seed: int) -> Draws:
    """The draws of `torch.Generator("cpu").manual_seed(seed)`."""
    generator = torch.Generator("cpu").manual_seed(seed)
    return lambda shape: torch.randn(tuple(shape), generator=generator)


class SeededNoise:
    """Standard normal noise for a batch, one CPU generator per image, as diffusers draws it.

    `noise(shape, index)` gives the draw number `index` (0 is the initial latent) of every image:
    row i comes from `torch.Generator("cpu").manual_seed(seeds[i])` after `index` earlier draws of
    the same shape, so an image does not change with its batch or its place in it. Draws are float32
    on the CPU and moved to `device` and `dtype`. `earlier` are the shapes, without the batch, of
    draws of other shapes that each generator has given before. `draws` makes another stream of a
    seed, such as `safelight.philox.GpuDraws`.

    Raises `ValueError` if the batch axis of `shape` is not the number of seeds.
    """

    def __init__(
        self,
        seeds: Sequence[int],
        device: torch.device | str = "cpu",
        dtype: torch.dtype = torch.float32,
        earlier: Sequence[Sequence[int]] = (),
        draws: Callable[[int], Draws] = torch_draws,
    ):
        self._draws = draws
        self._seeds = tuple(seeds)
        self._earlier = tuple(tuple(shape) for shape in earlier)
        self._device = torch.device(device)
        self._dtype = dtype
        self._rewind()

    def __call__(self, shape: Sequence[int], index: int) -> Tensor:
        """The draw number `index`, of shape `shape` = (number of seeds, ...)."""
        if shape[0] != len(self._seeds):
            raise ValueError(
                f"Expected a batch of {len(self._seeds)} (one per seed), got {shape[0]}."
            )
        if index < self._next:
            self._rewind()
        while self._next < index:
            self._draw(shape)
        return self._draw(shape).to(self._device, self._dtype)

    def _rewind(self) -> None:
        self._streams: list[Draws] = [self._draws(seed) for seed in self._seeds]
        self._next = 0
        for shape in self._earlier:
            for draw in self._streams:
                draw(shape)

    def _draw(self, shape: Sequence[int]) -> Tensor:
        self._next += 1
        one = (1, *shape[1:])
        return torch.cat([draw(one) for draw in self._streams])


def spherical(
    noise: Float[Tensor, "b c h w"], other: Float[Tensor, "b c h w"], strength: float
) -> Float[Tensor, "b c h w"]:
    """Noise on the way from one to another, `strength` from 0 to 1: a spherical interpolation
    (Shoemake 1985, section 3.3), which keeps the spread that noise has.

    As in AUTOMATIC1111's web interface each column of a picture is a vector of its own, and an
    image whose columns are all but the same in both is interpolated straight.
    """
    first, second = (F.normalize(part, dim=2, eps=0.0) for part in (noise, other))
    cosine = (first * second).sum(dim=2, keepdim=True)  # (b, c, 1, w)
    angle = torch.acos(cosine)
    round_about = (
        torch.sin((1 - strength) * angle) * noise + torch.sin(strength * angle) * other
    ) / torch.sin(angle)
    alike = cosine.mean(dim=(1, 2, 3), keepdim=True) > 0.9995
    return torch.where(alike, torch.lerp(noise, other, strength), round_about)


class Counted:
    """Noise that knows how many draws of it have been taken, the initial x's among them."""

    def __init__(self, noise: Noise):
        self._noise = noise
        self.taken = 1

    def __call__(self, shape: Sequence[int], index: int) -> Tensor:
        """The draw number `index` of the noise itself."""
        self.taken = max(self.taken, index + 1)
        return self._noise(shape, index)


def after(noise: Noise, draws: int) -> Noise:
    """The noise of a sampler whose x took that many draws, where one is usual."""

    def later(shape: Sequence[int], index: int) -> Tensor:
        return noise(shape, index + draws - 1)

    return later


def of_clip(noise: Noise, *, channels_first: bool = False) -> Noise:
    """The noise of one clip, whose frames are rows, (f, c, h, w): one draw of its seed, (1, f, c,
    h, w), or with `channels_first` (1, c, f, h, w), as diffusers' pipelines differ in it.
    """

    def frames(shape: Sequence[int], index: int) -> Tensor:
        f, c, h, w = shape
        if channels_first:
            return noise((1, c, f, h, w), index)[0].transpose(0, 1)
        return noise((1, f, c, h, w), index)[0]

    return frames


def chained(
    noise: Float[Tensor, "b f c h w"], correlation: Float[Tensor, " b"]
) -> Float[Tensor, "b f c h w"]:
    """Standard normal noise of clips of which each frame's has its clip's correlation, 0 to 1, with
    that of the frame before, from noise of which none has any.

    A model of pictures makes frames that are alike from noise that is alike (Ge et al. 2023, arXiv
    2305.10474, section 4.1: the progressive noise model, whose alpha is correlation / sqrt(1 -
    correlation**2)).
    """
    if not correlation.any():
        return noise
    places = torch.arange(noise.shape[1], dtype=torch.float64)
    steps = (places[:, None] - places[None]).clamp(min=0)
    alike = correlation.cpu().double()[:, None, None]
    shares = torch.tril(alike**steps) * (1 - alike**2).sqrt()
    shares[:, :, 0] = alike[..., 0] ** places  # the first frame's is all its own
    return torch.einsum("bij,bjchw->bichw", shares.to(noise), noise)


def chained_clip(noise: Noise, correlation: Float[Tensor, " 1"]) -> Noise:
    """The noise of one clip, (f, c, h, w), chained along its frames."""

    def frames(shape: Sequence[int], index: int) -> Tensor:
        return chained(noise(shape, index)[None], correlation)[0]

    return frames


def generator_for(seed: int, *keys: int) -> torch.Generator:
    """A CPU generator that is a pure function of a seed and some integers (a step, a stream).

    The keys are mixed by SplitMix64 (Steele et al. 2014), so neighbouring steps are unrelated and a
    training resumed at step k draws what it would have drawn. Torch keeps 32 bits of a seed, so of
    about 65,000 generators two are likely to be the same.
    """
    state = seed & _MASK
    for key in keys:
        state = _splitmix64(state ^ _splitmix64(key & _MASK))
    return torch.Generator("cpu").manual_seed(state & 0x7FFF_FFFF_FFFF_FFFF)


_MASK = 0xFFFF_FFFF_FFFF_FFFF


def _splitmix64(state: int) -> int:
    state = (state + 0x9E37_79B9_7F4A_7C15) & _MASK
    state = ((state ^ (state >> 30)) * 0xBF58_476D_1CE4_E5B9) & _MASK
    state = ((state ^ (state >> 27)) * 0x94D0_49BB_1331_11EB) & _MASK
    return state ^ (state >> 31)
