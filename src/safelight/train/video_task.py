"""The training of video models: clips are denoised, told their prompts, numbers and known frames.

Source: Blattmann et al. 2023 (arXiv 2304.08818), eq. 2, where the layers of pictures stay as they
are; arXiv 2311.15127, section 3, where they learn along.
"""

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import Literal, cast

import torch
from einops import rearrange, repeat
from jaxtyping import Bool, Float
from torch import Tensor, nn

from safelight.conditioners.clips import with_clip_numbers, with_known_frames, without_numbers
from safelight.diffusion.denoiser import Denoiser
from safelight.diffusion.objective import diffusion_loss
from safelight.errors import SafelightError
from safelight.models.unet import UNetConfig
from safelight.models.video import GivenFrames, Number, TemporalConfig, any_known
from safelight.rng import chained
from safelight.train.fresh import Fresh
from safelight.train.latent_task import Conditioner, LatentObjective
from safelight.train.task import Draws, Loss, Phase
from safelight.types import Batch, Conditioning


@dataclass(frozen=True)
class VideoConfig:
    """What a picture's model is given to make clips, and what it is told in training.

    `given` is how known frames are told, `numbers` what is told of a clip, each in `number_dim`
    features, and `narrow` how narrow the new layers are: see `models.video`. The first frame is
    known as often as `first` says, and the last one as often as `last` does, each by itself, so
    that the model learns of both, of either, and of none; the last can be where frames are "placed"
    or told "around" each.
    `layers` that learn are those along the frames, with what tells frames and numbers, or all.
    `noise_correlation` is that of neighbouring frames' noise (`rng.chained`), and
    `moving_correlation` that of clips of the largest motion bucket, where it goes there from
    `noise_correlation` of a still: so that what moves little is made from noise that changes
    little. A share of the clips, `number_dropout`, is told no number, so that guidance leads
    towards the numbers too.

    Raises `SafelightError` for a value out of range, or one that would change nothing, and for the
    number "augmentation": the noise that it tells of is on pixels, and clips are learned from
    latents that were encoded once.
    """

    given: GivenFrames = "placed"
    numbers: tuple[Number, ...] = ("fps", "motion")
    number_dim: int = 256
    narrow: int = 1
    first: float = 0.6
    last: float = 0.15
    layers: Literal["temporal", "all"] = "temporal"
    noise_correlation: float = 0.0
    moving_correlation: float | None = None
    number_dropout: float = 0.0

    def __post_init__(self):
        if self.number_dropout and not self.numbers:
            raise SafelightError(
                "video.number_dropout would change nothing, as video.numbers names none; leave it "
                "out."
            )
        for name in ("first", "last", "number_dropout"):
            if not 0 <= getattr(self, name) <= 1:
                raise SafelightError(
                    f"video.{name} should be between 0 and 1, got {getattr(self, name)}."
                )
        if self.number_dim < 1:
            raise SafelightError(f"video.number_dim should be at least 1, got {self.number_dim}.")
        if len(set(self.numbers)) != len(self.numbers):
            raise SafelightError(f"video.numbers names one twice: {list(self.numbers)}.")
        if "augmentation" in self.numbers:
            raise SafelightError(
                'video.numbers names "augmentation", which tells of noise on the pixels of a known '
                "frame; a training sees latents that were encoded once, without it. Leave it out."
            )
        try:
            self.temporal(1)
        except ValueError as error:
            raise SafelightError(f"video.{error}") from error
        idle = {"none": ("first", "last"), "repeated": ("last",)}
        for name in idle.get(self.given, ()):
            if getattr(self, name) != getattr(VideoConfig, name):
                raise SafelightError(
                    f"video.{name} would change nothing, as video.given = {self.given!r} tells no "
                    f'such frame; leave it out, or tell frames as "placed" or "around".'
                )

    def temporal(self, frames: int) -> TemporalConfig:
        """The shape of what is new, for clips of so many frames."""
        return TemporalConfig(
            frames,
            self.given,
            self.numbers,
            narrow=self.narrow,
            noise_correlation=self.noise_correlation,
            moving_correlation=self.moving_correlation,
            null_numbers=self.number_dropout > 0,
        )


@dataclass(frozen=True)
class Told:
    """What a video model is told beside a prompt, and where it is told: its shapes, and the shift
    and scale of latents.
    """

    temporal: TemporalConfig
    unet: UNetConfig
    shift: float = 0.0
    scale: float = 1.0

    def of_clips(
        self,
        cond: Conditioning,
        clips: Float[Tensor, "b f c h w"],
        known: Bool[Tensor, "b f"],
        numbers: Mapping[Number, Tensor],
    ) -> Conditioning:
        """A conditioning, of a row a clip, with the frames that are known and the numbers."""
        cond = with_clip_numbers(cond, numbers, self.temporal, self.unet)
        if self.temporal.given == "none":
            return Conditioning(cond.context, vector=cond.vector, num_frames=clips.shape[1])
        if self.temporal.given == "repeated":  # unscaled, as Stable Video Diffusion has it
            clips = clips / self.scale + self.shift
        return with_known_frames(cond, clips, known, self.temporal)

    def of_stills(self, cond: Conditioning, latents: Float[Tensor, "b c h w"]) -> Conditioning:
        """A conditioning of pictures, which are no clips: nothing is known, and nothing moves."""
        rows = len(latents)
        nothing = torch.zeros(rows, device=latents.device)
        numbers: dict[Number, Tensor] = {"fps": nothing + 1, "motion": nothing}
        cond = with_clip_numbers(cond, numbers, self.temporal, self.unet)
        beside = self.temporal.channels_beside(latents.shape[1])
        concat = None
        if beside:
            concat = latents.new_zeros(rows, beside, *latents.shape[2:])
        return Conditioning(cond.context, vector=cond.vector, concat=concat)


class VideoTask:
    """Trains `modules` (the denoiser's network among them) to denoise clips, and stills between
    them. Every frame of a clip has the same noise level, and noise of its own, or chained to that
    of the frame before.

    `fresh` is what of the weights is new; of the parameters `alone` only that learns.
    """

    def __init__(
        self,
        modules: Mapping[str, nn.Module],
        denoiser: Denoiser,
        condition: Conditioner,
        objective: LatentObjective,
        config: VideoConfig,
        told: Told,
        fresh: Sequence[Fresh] = (),
        alone: Sequence[Fresh] = (),
    ):
        self._denoiser, self._condition, self._objective = denoiser, condition, objective
        self._config, self._told = config, told
        self._phases = {"main": Phase(modules, fresh=fresh, alone=alone)}

    @property
    def phases(self) -> Mapping[str, Phase]:
        """All modules, under one optimiser."""
        return self._phases

    def losses(self, batch: Batch, draws: Draws) -> Iterator[Loss]:
        """The diffusion loss of a batch of clips, or of stills."""
        wanted = self._objective
        sigma = draws.rows(wanted.sigmas(draws.total, draws.generator(_SIGMA)))
        chances = cast(list[float], draws.uniform(_DROP).tolist())
        captions = [
            "" if chance < wanted.caption_dropout else caption
            for chance, caption in zip(chances, batch.captions, strict=True)
        ]
        with torch.autocast(
            sigma.device.type, self._denoiser.dtype, enabled=self._denoiser.dtype is not None
        ):
            cond = self._condition(captions)
        if batch.clips is not None:
            x0 = rearrange(batch.clips, "b f c h w -> (b f) c h w")
            cond = self._about(batch, batch.clips, cond, draws)
            sigma = repeat(sigma, "b -> (b f)", f=batch.clips.shape[1])
            drawn = draws.normal(batch.clips.shape, _NOISE)
            if self._told.temporal.chains:
                moves = batch.extras["motion"].float()
                drawn = chained(drawn, self._told.temporal.correlation(moves))
            noise = rearrange(drawn, "b f ... -> (b f) ...")
        elif batch.latents is not None:
            x0, noise = batch.latents, draws.normal(batch.latents.shape, _NOISE)
            cond = self._told.of_stills(cond, x0)
        else:
            raise ValueError("A video model trains on latents of clips; this batch holds none.")
        x0, noise = (x.contiguous(memory_format=torch.channels_last) for x in (x0, noise))
        loss = diffusion_loss(self._denoiser, x0, cond, sigma, noise, wanted.weight).mean()
        yield Loss("main", loss, {"loss" if batch.clips is not None else "loss_stills": loss})

    def _about(
        self,
        batch: Batch,
        clips: Float[Tensor, "b f c h w"],
        cond: Conditioning,
        draws: Draws,
    ) -> Conditioning:
        known = known_frames(self._config, draws, clips.shape[1]).to(clips.device)
        numbers: dict[Number, Tensor] = {n: batch.extras[n].float() for n in ("fps", "motion")}
        cond = self._told.of_clips(cond, clips, known, numbers)
        if not self._config.number_dropout:
            return cond
        told = draws.uniform(_NUMBERS) >= self._config.number_dropout
        return without_numbers(cond, told)


def known_frames(config: VideoConfig, draws: Draws, frames: int) -> Bool[Tensor, "b f"]:
    """Which of so many frames each clip of a step is told."""
    known = torch.zeros(draws.count, frames, dtype=torch.bool, device=draws.device)
    known[:, 0] = draws.uniform(_FIRST) < config.first
    if any_known(config.given):
        known[:, -1] = draws.uniform(_LAST) < config.last
    return known


_SIGMA, _NOISE, _DROP, _FIRST, _LAST, _NUMBERS = range(6)  # streams of numbers
