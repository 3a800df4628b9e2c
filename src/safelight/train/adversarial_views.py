"""What a discriminator looks at: feature maps of a frozen network, of real and of made latents.

`LatentViewer` looks through the teacher's own U-Net (Sauer et al. 2024, LADD, arXiv 2403.12015),
`PixelViewer` through a network of pictures (Sauer et al. 2023, ADD, arXiv 2311.17042).
"""

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Protocol, runtime_checkable

import torch
from jaxtyping import Bool, Float
from torch import Tensor

from safelight.diffusion.denoiser import Denoiser, per_image
from safelight.diffusion.objective import SigmaLaw
from safelight.nn.embeddings import sinusoidal
from safelight.train.distillation import FIRST_STREAM, Latents
from safelight.train.losses import Features
from safelight.train.task import Draws
from safelight.types import Conditioning

Maps = list[Tensor]


@dataclass(frozen=True)
class View:
    """One step's look: feature maps, float32, of the real latents, without gradients, and of made
    ones, with gradients to them; and what the heads are told beside.
    """

    about: Float[Tensor, "b k"]
    real: Callable[[], Maps]
    made: Callable[[Latents], Maps]


@runtime_checkable
class Viewer(Protocol):
    """Prepares a `View` of a batch of real latents under their conditioning.

    `widths` are the channels of its maps, `about_dim` is the width of what the heads are told. Rows
    that are `begun` are those whose student sees nothing of the real latent.
    """

    @property
    def widths(self) -> Sequence[int]:
        """The channels of each map."""
        ...

    @property
    def about_dim(self) -> int:
        """The width of `View.about`."""
        ...

    def __call__(
        self, x0: Latents, cond: Conditioning, begun: Bool[Tensor, " b"], draws: Draws
    ) -> View:
        """This step's look."""
        ...


@runtime_checkable
class Mapped(Protocol):
    """A network that shows what its blocks make, as `models.unet.UNet.maps` does."""

    def __call__(self, x: Latents, t: Float[Tensor, " b"], cond: Conditioning) -> Sequence[Tensor]:
        """The blocks' outputs, (b, c, h, w) each."""
        ...


class LatentViewer:
    """Puts noise upon latents, at a level drawn from `sigmas`, and looks at what the blocks of the
    teacher make of them; the heads are told the text and the level.

    `maps` are the teacher's blocks, `widths` their channels, and `pooled_dim` is the width of
    `pooled`. Levels beyond the teacher's schedule are moved to its ends.
    """

    def __init__(
        self,
        teacher: Denoiser,
        maps: Mapped,
        sigmas: SigmaLaw,
        widths: Sequence[int],
        pooled_dim: int,
    ):
        self._teacher, self._maps, self._sigmas = teacher, maps, sigmas
        self.widths, self.about_dim = tuple(widths), pooled_dim + _LEVEL_DIM

    def __call__(
        self, x0: Latents, cond: Conditioning, begun: Bool[Tensor, " b"], draws: Draws
    ) -> View:
        """One level for both sides of each row, and noise of its own for each side."""
        schedule = self._teacher.schedule
        sigma = draws.rows(self._sigmas(draws.total, draws.generator(_SIGMA)))
        sigma = sigma.clamp(schedule.sigma_min, schedule.sigma_max)
        about = torch.cat([pooled(cond), level_features(sigma)], dim=1)

        @torch.no_grad()
        def real() -> Maps:
            return self._look(x0, sigma, draws.normal(x0.shape, _REAL_NOISE), cond)

        def made(student: Latents) -> Maps:
            return self._look(student, sigma, draws.normal(x0.shape, _MADE_NOISE), cond)

        return View(about, real, made)

    def _look(
        self, x0: Latents, sigma: Float[Tensor, " b"], noise: Latents, cond: Conditioning
    ) -> Maps:
        teacher = self._teacher
        x = x0 + per_image(sigma, x0) * noise
        c_in = per_image(teacher.parameterization(sigma).c_in, x)
        t = teacher.schedule.sigma_to_t(sigma)
        with torch.autocast(x.device.type, teacher.dtype, enabled=teacher.dtype is not None):
            maps = self._maps(c_in * x, t, cond)
        return [part.float() for part in maps]


class PixelViewer:
    """Decodes latents and looks at the pictures through a frozen feature network; the heads are
    told the text and, with `told_picture`, what the real picture shows: the mean of its last map.

    `decode` takes scaled latents to pixels in [-1, 1]. Real latents are decoded too, so that the
    autoencoder's own marks tell nothing. Differs from ADD in that the real picture is told only
    where the student has seen something of it, because from noise alone it cannot be meant.
    """

    def __init__(
        self,
        decode: Callable[[Latents], Tensor],
        features: Features,
        widths: Sequence[int],
        pooled_dim: int,
        *,
        told_picture: bool = True,
    ):
        self._decode, self._features, self._told_picture = decode, features, told_picture
        self.widths = tuple(widths)
        self.about_dim = pooled_dim + (self.widths[-1] if told_picture else 0)

    def __call__(
        self, x0: Latents, cond: Conditioning, begun: Bool[Tensor, " b"], draws: Draws
    ) -> View:
        """The same look at each step; nothing is drawn. Real latents are looked at before the
        student's only where heads are told of them.
        """

        @torch.no_grad()
        def real() -> Maps:
            return self._look(x0)

        if not self._told_picture:
            return View(pooled(cond), real, self._look)
        if bool(begun.all()):
            nothing = x0.new_zeros(len(x0), self.widths[-1])
            return View(torch.cat([pooled(cond), nothing], dim=1), real, self._look)
        maps = real()
        shown = maps[-1].mean(dim=(2, 3)) * ~begun[:, None]
        return View(torch.cat([pooled(cond), shown], dim=1), lambda: maps, self._look)

    def _look(self, x0: Latents) -> Maps:
        return [part.float() for part in self._features(self._decode(x0).float())]


def pooled(cond: Conditioning) -> Float[Tensor, "b k"]:
    """One vector of what steers the networks: the mean of the context's tokens, and the vector.

    Raises `ValueError` for a conditioning with neither.
    """
    parts = [] if cond.context is None else [cond.context.mean(1)]
    if cond.vector is not None:
        parts.append(cond.vector)
    if not parts:
        raise ValueError("A discriminator is told the context or the vector; there is neither.")
    return torch.cat(parts, dim=1).float()


def level_features(sigma: Float[Tensor, " b"]) -> Float[Tensor, "b d"]:
    """Sines and cosines of a noise level's place between none, 0, and noise alone, 1000."""
    return sinusoidal(1000 * sigma / (1 + sigma), _LEVEL_DIM)


_LEVEL_DIM = 64
_SIGMA, _REAL_NOISE, _MADE_NOISE = range(FIRST_STREAM + 4, FIRST_STREAM + 7)  # of random numbers
