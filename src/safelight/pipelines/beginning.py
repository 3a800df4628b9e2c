"""What sampling begins from: a model's parts, what is asked of it, and x at the first level."""

from collections.abc import Generator, Sequence
from contextlib import AbstractContextManager, contextmanager, nullcontext
from dataclasses import dataclass, replace
from typing import TYPE_CHECKING

import torch
import torch.nn.functional as F
from jaxtyping import Float
from torch import Tensor, nn

from safelight.checkpoints.folder import Folder
from safelight.checkpoints.schedulers import SchedulerConfig
from safelight.conditioners.text import TextConditioner
from safelight.diffusion.inpainting import Kept
from safelight.models.deep_reuse import Deep
from safelight.philox import GpuDraws
from safelight.pipelines.beside import (
    depth_beside,
    image_tensor,
    instructed,
    mask_tensor,
    masked,
    noised_small,
)
from safelight.pipelines.coding import encoded, encoding_draws
from safelight.pipelines.conditions import ReadCondition
from safelight.pipelines.controls import ReadControl
from safelight.pipelines.given import Given
from safelight.pipelines.image_prompts import ReadImagePrompts
from safelight.pipelines.kind import Kind
from safelight.pipelines.offloading import at_work
from safelight.pipelines.request import Settings
from safelight.rng import SeededNoise, after, spherical, torch_draws
from safelight.types import Noise

if TYPE_CHECKING:
    from safelight.pipelines.watching import Watch

Latents = Float[Tensor, "b c h w"]


@dataclass(frozen=True)
class Model:
    """The parts of a model that sampling needs."""

    folder: Folder
    kind: Kind
    text: TextConditioner
    dtype: torch.dtype
    device: str
    guide: "Model | None" = None  # a weaker model that guidance leads away from
    watch: "Watch | None" = None  # what records the attention to the prompt
    network: Deep | None = None  # what computes the U-Net, if that does not itself
    offload: bool = False  # whether its networks wait in the CPU's memory until they work

    def scheduler(self, settings: Settings) -> SchedulerConfig:
        """The noise levels, laid out for the sampler, or as is asked for."""
        scheduler = self.folder.scheduler.with_sampler(settings.sampler)
        return scheduler.with_levels(settings.schedule, settings.sigmas)

    @contextmanager
    def denoising(self) -> Generator[None]:
        """With the U-Net on the device, and the guide's."""
        guide = nullcontext() if self.guide is None else self.guide.denoising()
        with at_work((self.folder.unet,), self._elsewhere), guide:
            yield

    @contextmanager
    def telling(self) -> Generator[None]:
        """With all that conditions are made by on the device, and the guide's."""
        folder = self.folder
        networks: list[nn.Module] = [*folder.text_towers, folder.autoencoder]
        if folder.beside.layout is not None:
            networks.append(folder.beside.layout)
        if folder.vision is not None:
            networks.append(folder.vision.tower)
            if folder.vision.noising is not None:
                networks.append(folder.vision.noising.normalizer)
        guide = nullcontext() if self.guide is None else self.guide.telling()
        with at_work(networks, self._elsewhere), guide:
            yield

    def coding(self) -> AbstractContextManager[None]:
        """With the autoencoder on the device."""
        return at_work((self.folder.autoencoder,), self._elsewhere)

    @property
    def _elsewhere(self) -> str | None:
        return self.device if self.offload else None


@dataclass(frozen=True)
class Led:
    """What steers pictures beside their prompts, read: controls, conditions, image prompts."""

    controls: Sequence[ReadControl] = ()
    conditions: Sequence[ReadCondition] = ()
    image_prompts: ReadImagePrompts | None = None


NOT_LED = Led()


@dataclass(frozen=True)
class Batch:
    """What is asked of each picture: row i has prompt i, and the noise of seed i."""

    prompts: Sequence[str]
    seeds: Sequence[int]
    negative: str
    settings: Settings
    given: Given
    led: Led = NOT_LED


@dataclass(frozen=True)
class Start:
    """What a sampler begins with.

    Attributes:
        x: at the level of the first step.
        noise: the sampler's own draws.
        concat: the channels beside x.
        kept: what stays of a picture, for a model without channels for a mask.
    """

    x: Latents
    noise: Noise
    concat: Float[Tensor, "b k h w"] | None = None
    kept: Kept | None = None


def begin(model: Model, batch: Batch, scheduler: SchedulerConfig, start: int) -> Start:
    """What the sampler begins with at step `start`.

    Draws come in diffusers' order, so that a seed gives its picture. What fills the latents under a
    mask is begun from at full strength too, as in AUTOMATIC1111's web UI: noise alone would be the
    same for all.
    """
    settings, given, kind, folder = batch.settings, batch.given, model.kind, model.folder
    autoencoder, tiled = folder.autoencoder, settings.tiled_decode
    height, width = (-(-side // autoencoder.factor) for side in (settings.height, settings.width))
    shape = (len(batch.seeds), folder.unet.config.out_channels, height, width)
    sigmas = scheduler.sigmas(settings.steps)

    def pure(noise: Noise, index: int) -> Latents:
        return first_noise(batch, noise(shape, index)) * scheduler.initial_scale(sigmas)

    small = (3, height, width)
    upscales = kind.beside == "low resolution"
    earlier = _vector_draws(folder) + ((small,) if upscales else ())
    noise = seeded(batch, model.device, earlier)
    if given.image is None or kind.sees != "nothing":
        return Start(pure(noise, 0), noise)
    if upscales:
        first = seeded(batch, model.device)((len(batch.seeds), *small), 0)
        level = settings.noise_level or 0
        return Start(pure(noise, 0), noise, noised_small(folder, given.image, level, first))
    size = (height * autoencoder.factor, width * autoencoder.factor)
    pixels = image_tensor(given.image.picture, settings.width, settings.height)
    pixels = padded(pixels, size).to(model.device)
    pixels = pixels.expand(len(batch.seeds), -1, -1, -1)
    if kind.beside == "image":
        return Start(pure(noise, 0), noise, instructed(folder, pixels, tiled=tiled))
    mask = None
    if given.mask is not None:
        mask = mask_tensor(given.mask, settings.width, settings.height)
        mask = padded(mask, size).to(pixels)
    filled = mask is not None and settings.mask_fill != "original"
    coding = encoding_draws(autoencoder)
    if kind.beside == "mask" and mask is not None and start == 0 and not filled:
        concat = masked(folder, mask, pixels, noise(shape, 1), tiled=tiled)
        return Start(pure(noise, 0), after(noise, 1 + coding), concat)
    x0 = encoded(autoencoder, pixels, noise(shape, 0), tiled=tiled)
    drawn = noise(shape, coding)
    first = first_noise(batch, drawn)
    places = None if mask is None else F.interpolate(mask, size=(height, width)).float()
    if places is not None and filled:
        fill = drawn if settings.mask_fill == "noise" else torch.zeros_like(x0)
        x0 = torch.lerp(x0, fill, places)
    x = x0 + scheduler.beginning(settings.steps, start) * first
    if mask is not None and kind.beside == "mask":
        concat = masked(folder, mask, pixels, noise(shape, coding + 1), tiled=tiled)
        return Start(x, after(noise, 2 * coding + 1), concat)
    if places is not None:  # diffusers draws once more, for channels that the model has not
        kept = Kept(x0, places, first)
        x = x if start or filled else pure(noise, coding)
        return Start(x, after(noise, 2 * coding + 1), kept=kept)
    if given.depth is None:
        return Start(x, after(noise, coding + 1))
    depth = depth_beside(given.depth, height, width).to(model.device)
    return Start(x, after(noise, coding + 1), depth.expand(len(batch.seeds), -1, -1, -1))


def seeded(batch: Batch, device: str, earlier: Sequence[Sequence[int]] = ()) -> SeededNoise:
    """The noise of a batch's seeds, from where its settings say; `earlier` as `SeededNoise`."""
    draws = GpuDraws if batch.settings.rng == "a1111-gpu" else torch_draws
    return SeededNoise(batch.seeds, device, earlier=earlier, draws=draws)


def first_noise(batch: Batch, noise: Latents) -> Latents:
    """The noise that x begins with: the seeds' own, or some way from it to that of the sub-seed."""
    settings = batch.settings
    if settings.subseed_strength == 0:
        return noise
    others = replace(batch, seeds=[settings.subseed] * len(batch.seeds))
    other = seeded(others, str(noise.device))(tuple(noise.shape), 0)
    return spherical(noise, other, settings.subseed_strength)


def padded(pixels: Float[Tensor, "1 c h w"], size: tuple[int, int]) -> Float[Tensor, "1 c H W"]:
    """A picture continued by its last row and column to a size, height first."""
    down, right = size[0] - pixels.shape[-2], size[1] - pixels.shape[-1]
    return F.pad(pixels, (0, right, 0, down), mode="replicate") if down or right else pixels


def _vector_draws(folder: Folder) -> tuple[tuple[int, ...], ...]:
    """The shapes of the noise that is drawn for the vector of a picture, before any other."""
    if folder.vision is None or folder.vision.noising is None:
        return ()
    return ((folder.vision.tower.config.projection_dim,),)
