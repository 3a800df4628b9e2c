"""diffusers' `UNetSpatioTemporalConditionModel`, and video U-Nets that diffusers has no class for:
keys and `config.json`, to and from ours.
"""

from collections.abc import Mapping
from dataclasses import dataclass, replace

from safelight.checkpoints.rules import Rule, Table
from safelight.checkpoints.tables.configs import (
    DIFFUSERS_VERSION,
    Neutral,
    attending_levels,
    check_heads,
    fitting,
    one_or_each,
    per_level,
    read_config,
    square,
    write_config,
)
from safelight.checkpoints.tables.unet import UNET
from safelight.config import Value, from_dict, to_dict
from safelight.errors import SafelightError
from safelight.models.unet import UNetConfig
from safelight.models.video import TemporalConfig

SVD, OWN = "UNetSpatioTemporalConditionModel", "SafelightVideoUNet"
"""The classes of video U-Nets: diffusers', and ours where a shape is none of those."""
SVD_PIPELINE, OWN_PIPELINE = "StableVideoDiffusionPipeline", "SafelightVideoPipeline"
"""The classes of whole models that make clips of a picture, and of a prompt and perhaps frames."""

VIDEO_UNET = Table(
    (
        Rule("{block}.ff_in.proj_in.{rest}", "{block}.ff_in.net.0.proj.{rest}"),
        Rule("{block}.ff_in.proj_out.{rest}", "{block}.ff_in.net.2.{rest}"),
        *UNET.rules,
    )
)

_DOWN = {False: "DownBlockSpatioTemporal", True: "CrossAttnDownBlockSpatioTemporal"}
_UP = {False: "UpBlockSpatioTemporal", True: "CrossAttnUpBlockSpatioTemporal"}
_BLOCKS = {attends: (_DOWN[attends], _UP[attends]) for attends in (False, True)}
_NEUTRAL: Neutral = {}


@dataclass(frozen=True)
class _Diffusers:
    """The keys of `UNetSpatioTemporalConditionModel`, with diffusers' own defaults."""

    sample_size: int | tuple[int, ...] | None = None
    in_channels: int = 8
    out_channels: int = 4
    down_block_types: tuple[str, ...] = (_DOWN[True],) * 3 + (_DOWN[False],)
    up_block_types: tuple[str, ...] = (_UP[False],) + (_UP[True],) * 3
    block_out_channels: tuple[int, ...] = (320, 640, 1280, 1280)
    addition_time_embed_dim: int = 256
    projection_class_embeddings_input_dim: int = 768
    layers_per_block: int | tuple[int, ...] = 2
    cross_attention_dim: int | tuple[int, ...] = 1024
    transformer_layers_per_block: int | tuple[int, ...] = 1
    num_attention_heads: int | tuple[int, ...] = (5, 10, 20, 20)
    num_frames: int = 25


@dataclass(frozen=True)
class _Own:
    """What our own `config.json` holds."""

    unet: UNetConfig
    temporal: TemporalConfig


SVD_TEMPORAL = TemporalConfig(
    num_frames=25,
    given="repeated",
    numbers=("fps", "motion", "augmentation"),
    attending_eps=1e-6,
)
"""What all of Stable Video Diffusion's U-Nets have along the frames, as diffusers builds them."""


def video_config_from_diffusers(
    values: Mapping[str, Value], source: str = "unet/config.json"
) -> tuple[UNetConfig, TemporalConfig]:
    """Translates the configuration of a video U-Net; `SafelightError` if it is another kind."""
    if values.get("_class_name") == OWN:
        plain = {key: value for key, value in values.items() if not key.startswith("_")}
        with fitting(source):
            own = from_dict(_Own, plain, source)
        return own.unet, own.temporal
    theirs = read_config(_Diffusers, values, _NEUTRAL, source)
    levels = len(theirs.block_out_channels)
    contexts = per_level(theirs.cross_attention_dim, levels, "cross_attention_dim", source)
    if len(set(contexts)) != 1:
        raise SafelightError(f"{source} has a cross_attention_dim for each level; expected one.")
    heads = per_level(theirs.num_attention_heads, levels, "num_attention_heads", source)
    for channels, count in zip(theirs.block_out_channels, heads, strict=True):
        check_heads(channels, count, source)
    width, each = theirs.projection_class_embeddings_input_dim, theirs.addition_time_embed_dim
    if each < 1 or width != each * len(SVD_TEMPORAL.numbers):
        raise SafelightError(
            f"{source} has projection_class_embeddings_input_dim = {width}; expected that of "
            f"{len(SVD_TEMPORAL.numbers)} numbers, each {each} wide (addition_time_embed_dim)."
        )
    if theirs.in_channels != 2 * theirs.out_channels:
        raise SafelightError(
            f"{source} has in_channels = {theirs.in_channels}; expected {2 * theirs.out_channels}, "
            "the latents of a frame and those of the picture."
        )
    unet = UNetConfig(
        in_channels=theirs.in_channels,
        out_channels=theirs.out_channels,
        sample_size=square(theirs.sample_size),
        block_out_channels=theirs.block_out_channels,
        layers_per_block=per_level(theirs.layers_per_block, levels, "layers_per_block", source),
        attention=attending_levels(
            theirs.down_block_types, theirs.up_block_types, levels, _BLOCKS, source
        ),
        transformer_layers=per_level(
            theirs.transformer_layers_per_block, levels, "transformer_layers_per_block", source
        ),
        attention_heads=heads,
        only_cross_attention=(False,) * levels,
        cross_attention_dim=contexts[0],
        use_linear_projection=True,
        added_dim=width,
        added_time_dim=each,
    )
    with fitting(source):
        return unet, replace(SVD_TEMPORAL, num_frames=theirs.num_frames)


def video_config_to_diffusers(unet: UNetConfig, temporal: TemporalConfig) -> dict[str, Value]:
    """The whole `config.json` of a video U-Net of ours: diffusers' where its class has the shape,
    else our own.
    """
    theirs = _Diffusers(
        sample_size=unet.sample_size,
        in_channels=unet.in_channels,
        out_channels=unet.out_channels,
        down_block_types=tuple(_DOWN[attends] for attends in unet.attention),
        up_block_types=tuple(_UP[attends] for attends in reversed(unet.attention)),
        block_out_channels=unet.block_out_channels,
        addition_time_embed_dim=unet.added_time_dim or _Diffusers.addition_time_embed_dim,
        projection_class_embeddings_input_dim=unet.added_dim or 0,
        layers_per_block=one_or_each(unet.layers_per_block),
        cross_attention_dim=unet.cross_attention_dim or 0,
        transformer_layers_per_block=one_or_each(unet.transformer_layers),
        num_attention_heads=one_or_each(unet.attention_heads),
        num_frames=temporal.num_frames,
    )
    values = write_config(SVD, theirs, _NEUTRAL)
    try:
        same = video_config_from_diffusers(values) == (unet, temporal)
    except SafelightError:
        same = False
    if same:
        return values
    return {
        "_class_name": OWN,
        "_diffusers_version": DIFFUSERS_VERSION,
        **to_dict(_Own(unet, temporal)),
    }
