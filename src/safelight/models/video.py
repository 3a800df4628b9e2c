"""The U-Net of moving pictures: a picture's U-Net with layers that look along the frames.

Source: Blattmann et al. 2023 (arXiv 2304.08818), section 3; the shapes of Stable Video Diffusion
(arXiv 2311.15127) are among its configurations.
"""

import re
from collections.abc import Iterator
from dataclasses import dataclass, replace
from typing import Literal

import torch
from einops import rearrange, repeat
from jaxtyping import Float
from torch import Tensor, nn

from safelight.models.unet import UNet
from safelight.models.unet_encoder import Emb, UNetConfig
from safelight.nn.attention import SpatialTransformer
from safelight.nn.blocks import Picture, ResBlock
from safelight.nn.temporal import (
    SpatioTemporalResBlock,
    SpatioTemporalTransformer,
    TimeMixer,
    zero,
    zero_temporal,
)
from safelight.types import Conditioning

GivenFrames = Literal["none", "repeated", "placed", "around"]
Number = Literal["fps", "motion", "augmentation"]

MOST_MOTION = 255
"""The largest motion bucket, as of Stable Video Diffusion's `motion_bucket_id`."""


@dataclass(frozen=True)
class TemporalConfig:
    """What a video U-Net has beside the shape of its picture's U-Net.

    Attributes:
        num_frames: of the clips that it was trained on.
        given: how frames that are known are told, by channels beside x. "repeated": the latents of
            one picture beside every frame, as Stable Video Diffusion has it. "placed": the latents
            of each known frame beside itself, zeros beside the others, and after them one channel
            that is 1 where a frame is known. "around": beside each frame the latents of the last
            known one up to it, and a channel that is 1 there and 1 / (n + 1) for one n frames away;
            then the same of the first known one from it on; zeros where there is none.
        numbers: what `cond.vector` says of a clip, each as sinusoidal features, in this order:
            frames a second less one, how much moves, and the level of noise on a given picture.
        attending_eps: of the norms of residual blocks on levels that attend and on the way up,
            where it is another than the rest's, as in diffusers' Stable Video Diffusion.
        narrow: how many times narrower the layers along the frames are inside than those of
            pictures: 1 as published, more for a small model. It has no class in diffusers then.
        noise_correlation: of the noise of neighbouring frames, with which the model was trained, 0
            as published, 1 for one noise in all frames: see `rng.chained`.
        moving_correlation: the same of clips of the largest motion bucket, where it goes there in
            a straight line from `noise_correlation` of a still; None where all clips have one.
        null_numbers: whether the model knows what a clip is whose numbers it is not told, so that
            guidance leads towards them too.

    Raises `ValueError` for clips of no frame, layers of no width, a correlation that is not from 0
    to 1, or one by the motion of clips whose motion is not told.
    """

    num_frames: int = 14
    given: GivenFrames = "none"
    numbers: tuple[Number, ...] = ()
    attending_eps: float | None = None
    narrow: int = 1
    noise_correlation: float = 0.0
    moving_correlation: float | None = None
    null_numbers: bool = False

    def __post_init__(self):
        for name in ("noise_correlation", "moving_correlation"):
            value = getattr(self, name)
            if value is not None and not 0 <= value <= 1:
                raise ValueError(f"{name} should be from 0 to 1, got {value}.")
        if self.moving_correlation is not None and "motion" not in self.numbers:
            raise ValueError(
                "moving_correlation is that of the largest motion bucket, but numbers does not "
                'name "motion"; leave it out.'
            )
        if self.narrow < 1:
            raise ValueError(f"narrow should be at least 1, got {self.narrow}.")
        if self.num_frames < 1:
            raise ValueError(f"num_frames should be 1 or more, got {self.num_frames}.")

    @property
    def chains(self) -> bool:
        """Whether the noise of frames has to do with that of others at all."""
        return bool(self.noise_correlation or self.moving_correlation)

    def correlation(self, motion: Float[Tensor, " b"]) -> Float[Tensor, " b"]:
        """Of the noise of neighbouring frames in clips of these motion buckets; on the CPU, in
        float64, which not every device has.
        """
        moves = (motion.cpu().double() / MOST_MOTION).clamp(0, 1)
        still, moving = self.noise_correlation, self.moving_correlation
        return still + moves * (0.0 if moving is None else moving - still)

    def channels_beside(self, latents: int) -> int:
        """How many channels beside x tell of the known frames, where these have `latents`."""
        of_one = latents + 1
        told = {"none": 0, "repeated": latents, "placed": of_one, "around": 2 * of_one}
        return told[self.given]


class FrameUNet(UNet):
    """A U-Net over clips, whose frames fold into the batch; a `Network`.

    With `cond.num_frames` f, rows are the frames of clip after clip: x is (b f, c, h, w). Layers
    along the frames, which are put into it, then get the embeddings as (b, f, d) and the context as
    (b, f, n, d). Without, rows are pictures, and such layers stand aside.
    """

    def forward(
        self, x: Float[Tensor, "b c h w"], t: Float[Tensor, " b"], cond: Conditioning
    ) -> Float[Tensor, "b c_out h w"]:
        """Runs the network.

        Args:
            x: scaled noised latents of frames.
            t: the network's time, one a frame.
            cond: as `UNet.forward`; `context` and `vector` have a row for each frame, or one for
                each clip.

        Raises:
            ValueError: rows do not divide into clips of `num_frames`, or as `UNet.forward`.
        """
        return super().forward(x, t, _by_clip(cond, len(x)))

    def maps(
        self,
        x: Float[Tensor, "b c h w"],
        t: Float[Tensor, " b"],
        cond: Conditioning,
        *,
        up: bool = True,
    ) -> list[Picture]:
        """What each block makes of each frame; inputs and errors are those of `forward`."""
        return super().maps(x, t, _by_clip(cond, len(x)), up=up)

    def embed(self, t: Float[Tensor, " b"], cond: Conditioning) -> Emb:
        """The embedding of each row; (b, f, emb_dim) for a context with an axis of frames."""
        if cond.context is None or cond.context.ndim == 3:
            return super().embed(t, cond)
        frames = cond.context.shape[1]
        emb = super().embed(t, replace(cond, context=cond.context.flatten(0, 1)))
        return rearrange(emb, "(b f) d -> b f d", f=frames)


class VideoUNet(FrameUNet):
    """A U-Net whose every residual block and transformer goes on along the frames.

    Its parameters have the names of diffusers' `UNetSpatioTemporalConditionModel`. Raises
    `ValueError` for a configuration without context, or with attention of another kind.
    """

    def __init__(self, config: UNetConfig, temporal: TemporalConfig):
        super().__init__(config)
        self.temporal = temporal
        if config.cross_attention_dim is None or config.self_attention:
            raise ValueError("Layers along the frames need a U-Net that attends to a context.")
        context = config.cross_attention_dim
        for level in levels_of(self):
            eps = temporal.attending_eps
            if level.place == "middle" or (level.place == "down" and not level.attentions):
                eps = None
            for i, resnet in enumerate(level.resnets):
                assert isinstance(resnet, ResBlock)
                if eps is not None:
                    resnet.norm1.eps = resnet.norm2.eps = eps
                level.resnets[i] = SpatioTemporalResBlock(
                    resnet, TimeMixer(0.5), emb_dim=config.emb_dim, narrow=temporal.narrow
                )
            for i, transformer in enumerate(level.attentions):
                assert isinstance(transformer, SpatialTransformer)
                level.attentions[i] = SpatioTemporalTransformer(
                    transformer, TimeMixer(0.5), context, temporal.narrow
                )

    @property
    def chunk(self) -> int | None:
        """How many frames at a time go through the layers of pictures, which bounds the memory that
        they take; None for all. The output is the same up to rounding.
        """
        return next(layer.chunk for layer in _mixing(self))

    @chunk.setter
    def chunk(self, frames: int | None) -> None:
        for layer in _mixing(self):
            layer.chunk = frames


def inflate(unet: UNet, temporal: TemporalConfig, *, number_dim: int = 256) -> VideoUNet:
    """A video U-Net with the weights of a picture's, which at first makes of each frame exactly
    what that makes of it, whatever the known frames and numbers.

    What is new begins at zero at its end: the layers along the frames, the weights of the channels
    beside x, and the embedding of the numbers, each `number_dim` features. The mix factors begin at
    a half, so that all of it learns from the first step on. The picture's U-Net stays as it is.

    Raises `ValueError` for a U-Net without context, or for numbers where it is told some already.
    """
    config = unet.config
    beside = temporal.channels_beside(config.out_channels)
    if temporal.numbers:
        if config.added_dim is not None:
            raise ValueError("This U-Net is told numbers already.")
        added_dim = number_dim * len(temporal.numbers)
        config = replace(config, added_dim=added_dim, added_time_dim=number_dim)
    config = replace(config, in_channels=config.in_channels + beside)
    video = VideoUNet(config, temporal)
    state = {in_video(name): tensor for name, tensor in unet.state_dict().items()}
    first = state["conv_in.weight"]
    new = first.new_zeros(len(first), beside, *first.shape[2:])
    state["conv_in.weight"] = torch.cat([first, new], dim=1)
    video.load_state_dict(state, strict=False)
    video.to(first.device, first.dtype)
    zero_temporal(video)
    if temporal.numbers and video.add_embedding is not None:
        zero(video.add_embedding.linear_2)
    for module in video.modules():
        if isinstance(module, TimeMixer):
            zero(module)
    return video.train(unet.training)


def told_around(video: VideoUNet) -> VideoUNet:
    """The same video U-Net of "placed" frames that is told them "around" each. At first it makes of
    known frames what it made of them before, and takes the others, by half, for those around them.

    Raises `ValueError` for one that is told frames in another way.
    """
    temporal, config = video.temporal, video.config
    if temporal.given != "placed":
        raise ValueError(f'This model is told frames as "{temporal.given}", not as "placed".')
    wider, latents = replace(temporal, given="around"), config.out_channels
    in_channels = latents + wider.channels_beside(latents)
    told = VideoUNet(replace(config, in_channels=in_channels), wider)
    state = video.state_dict()
    first = state["conv_in.weight"]
    half = first[:, latents:] / 2
    state["conv_in.weight"] = torch.cat([first[:, :latents], half, half], dim=1)
    told.load_state_dict(state)
    return told.to(first.device, first.dtype).train(video.training)


def any_known(given: GivenFrames) -> bool:
    """Whether any frame of a clip can be known, not the first alone."""
    return given in ("placed", "around")


def new_parameters(video: VideoUNet) -> list[str]:
    """The names of the parameters that look along the frames, or embed the clip's numbers: what
    `inflate` adds, but for the channels beside x, which are a part of `conv_in.weight`.
    """
    marks = (".temporal_", ".time_mixer.", ".time_pos_embed.")
    names = [name for name, _ in video.named_parameters()]
    told = "add_embedding." if video.temporal.numbers else None
    return [
        name
        for name in names
        if any(mark in name for mark in marks) or (told is not None and name.startswith(told))
    ]


@dataclass(frozen=True)
class Level:
    """The residual blocks and the transformers of one block of a U-Net; no transformers where it
    does not attend.
    """

    place: Literal["down", "middle", "up"]
    resnets: nn.ModuleList
    attentions: nn.ModuleList


def levels_of(unet: UNet) -> Iterator[Level]:
    """The blocks of a U-Net in the order in which they run."""
    for block in unet.down_blocks:
        yield _level("down", block)
    if unet.mid_block is not None:
        yield _level("middle", unet.mid_block)
    for block in unet.up_blocks:
        yield _level("up", block)


def _level(place: Literal["down", "middle", "up"], block: nn.Module) -> Level:
    resnets, attentions = block.resnets, block.attentions
    assert isinstance(resnets, nn.ModuleList)
    return Level(
        place, resnets, attentions if isinstance(attentions, nn.ModuleList) else nn.ModuleList()
    )


def _mixing(
    unet: VideoUNet,
) -> Iterator[SpatioTemporalResBlock | SpatioTemporalTransformer]:
    for module in unet.modules():
        if isinstance(module, (SpatioTemporalResBlock, SpatioTemporalTransformer)):
            yield module


def in_video(name: str) -> str:
    """Where a parameter of a picture's U-Net lies in a video U-Net."""
    return re.sub(r"(resnets\.\d+)\.", r"\1.spatial_res_block.", name)


def _by_clip(cond: Conditioning, rows: int) -> Conditioning:
    """A conditioning of clips with a row of `vector` for each frame, and an axis of frames in
    `context`.
    """
    frames = cond.num_frames
    if frames is None:
        return cond
    if frames < 1 or rows % frames:
        raise ValueError(f"{rows} frames do not divide into clips of {frames}.")
    context, vector = (_each_frame(part, rows, frames) for part in (cond.context, cond.vector))
    if context is not None:
        context = rearrange(context, "(b f) n d -> b f n d", f=frames)
    return replace(cond, context=context, vector=vector)


def _each_frame(part: Tensor | None, rows: int, frames: int) -> Tensor | None:
    if part is None or len(part) == rows:
        return part
    if len(part) * frames != rows:
        raise ValueError(
            f"A conditioning of {len(part)} rows fits neither {rows} frames nor their "
            f"{rows // frames} clips."
        )
    return repeat(part, "b ... -> (b f) ...", f=frames)
