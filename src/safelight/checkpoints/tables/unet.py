"""diffusers' `UNet2DConditionModel`: keys and `config.json`, to and from ours."""

from collections.abc import Mapping
from dataclasses import dataclass

from safelight.checkpoints.rules import Rule, Table
from safelight.checkpoints.tables.configs import (
    Neutral,
    attending_levels,
    one_or_each,
    per_level,
    read_config,
    square,
    write_config,
)
from safelight.config import Value
from safelight.errors import SafelightError
from safelight.models.unet import ClassKind, UNetConfig

UNET = Table(
    (
        Rule("{block}.downsampler.{rest}", "{block}.downsamplers.0.{rest}"),
        Rule("{block}.upsampler.{rest}", "{block}.upsamplers.0.{rest}"),
        Rule("{block}.to_out.{rest}", "{block}.to_out.0.{rest}"),
        Rule("{block}.ff.proj_in.{rest}", "{block}.ff.net.0.proj.{rest}"),
        Rule("{block}.ff.proj_out.{rest}", "{block}.ff.net.2.{rest}"),
        *(
            Rule(f"context_embedding.{layer}.{{rest}}", f"add_embedding.{layer}.{{rest}}")
            for layer in ("norm1", "pool", "proj", "norm2")
        ),
        Rule("{key}", "{key}"),
    )
)

_DOWN = {False: "DownBlock2D", True: "CrossAttnDownBlock2D"}
_UP = {False: "UpBlock2D", True: "CrossAttnUpBlock2D"}
_BLOCKS = {attends: (_DOWN[attends], _UP[attends]) for attends in (False, True)}
_MID = {None: None, False: "UNetMidBlock2D", True: "UNetMidBlock2DCrossAttn"}
_CLASS_TYPES: dict[ClassKind, str | None] = {
    "embedding": None,
    "projection": "projection",
    "identity": "identity",
}
_NEUTRAL: Neutral = {
    "center_input_sample": (False,),
    "downsample_padding": (1,),
    "mid_block_scale_factor": (1,),
    "dropout": (0.0,),
    "act_fn": ("silu", "swish"),
    "reverse_transformer_layers_per_block": (None,),
    "encoder_hid_dim": (None,),
    "encoder_hid_dim_type": (None,),
    "num_attention_heads": (None,),
    "dual_cross_attention": (False,),
    "resnet_skip_time_act": (False,),
    "resnet_out_scale_factor": (1.0,),
    "time_embedding_type": ("positional",),
    "time_embedding_dim": (None,),
    "time_embedding_act_fn": (None,),
    "timestep_post_act": (None,),
    "conv_in_kernel": (3,),
    "conv_out_kernel": (3,),
    "attention_type": ("default",),
    "class_embeddings_concat": (False,),
    "mid_block_only_cross_attention": (None, False, True),  # read by no block of this family
    "cross_attention_norm": (None,),
}


@dataclass(frozen=True)
class _Diffusers:
    """The keys that make a difference, with diffusers' own defaults."""

    sample_size: int | tuple[int, ...] | None = None
    in_channels: int = 4
    out_channels: int = 4
    flip_sin_to_cos: bool = True
    freq_shift: float = 0.0
    down_block_types: tuple[str, ...] = (_DOWN[True],) * 3 + (_DOWN[False],)
    mid_block_type: str | None = _MID[True]
    up_block_types: tuple[str, ...] = (_UP[False],) + (_UP[True],) * 3
    only_cross_attention: bool | tuple[bool, ...] = False
    block_out_channels: tuple[int, ...] = (320, 640, 1280, 1280)
    layers_per_block: int | tuple[int, ...] = 2
    norm_num_groups: int = 32
    norm_eps: float = 1e-5
    cross_attention_dim: int | tuple[int, ...] = 1280
    transformer_layers_per_block: int | tuple[int, ...] = 1
    attention_head_dim: int | tuple[int, ...] = 8  # the number of heads, whatever its name says
    use_linear_projection: bool = False
    class_embed_type: str | None = None
    addition_embed_type: str | None = None
    addition_embed_type_num_heads: int = 64
    addition_time_embed_dim: int | None = None
    num_class_embeds: int | None = None
    upcast_attention: bool = False
    resnet_time_scale_shift: str = "default"
    time_cond_proj_dim: int | None = None
    projection_class_embeddings_input_dim: int | None = None


def unet_config_from_diffusers(
    values: Mapping[str, Value], source: str = "unet/config.json"
) -> UNetConfig:
    """Translates a `UNet2DConditionModel` configuration; `SafelightError` if it is another kind."""
    theirs = read_config(_Diffusers, values, _NEUTRAL, source)
    levels = len(theirs.block_out_channels)
    attention = attending_levels(
        theirs.down_block_types, theirs.up_block_types, levels, _BLOCKS, source
    )
    if theirs.mid_block_type not in _MID.values():
        raise SafelightError(
            f"{source} has an unsupported mid_block_type {theirs.mid_block_type!r}."
        )
    if theirs.resnet_time_scale_shift not in ("default", "scale_shift"):
        raise SafelightError(
            f"{source} has resnet_time_scale_shift = {theirs.resnet_time_scale_shift!r}; "
            "expected 'default' or 'scale_shift'."
        )
    contexts = per_level(theirs.cross_attention_dim, levels, "cross_attention_dim", source)
    if len(set(contexts)) != 1:
        raise SafelightError(f"{source} has a cross_attention_dim for each level; expected one.")
    heads = per_level(theirs.attention_head_dim, levels, "attention_head_dim", source)
    for channels, count in zip(theirs.block_out_channels, heads, strict=True):
        if count < 1 or channels % count:
            raise SafelightError(f"{source}: {channels} channels do not split into {count} heads.")
    class_kind, class_dim = _classes(theirs, source)
    added_dim, added_time_dim = _added(theirs, source)
    context_heads = _context_heads(theirs, contexts[0], source)
    attends = any(attention) or theirs.mid_block_type == _MID[True]
    return UNetConfig(
        in_channels=theirs.in_channels,
        out_channels=theirs.out_channels,
        sample_size=square(theirs.sample_size),
        block_out_channels=theirs.block_out_channels,
        layers_per_block=per_level(theirs.layers_per_block, levels, "layers_per_block", source),
        attention=attention,
        transformer_layers=per_level(
            theirs.transformer_layers_per_block, levels, "transformer_layers_per_block", source
        ),
        attention_heads=heads,
        only_cross_attention=per_level(
            theirs.only_cross_attention, levels, "only_cross_attention", source
        ),
        mid_block=theirs.mid_block_type is not None,
        mid_attention=theirs.mid_block_type == _MID[True],
        cross_attention_dim=contexts[0] if attends or context_heads else None,
        use_linear_projection=theirs.use_linear_projection,
        upcast_attention=theirs.upcast_attention,
        norm_num_groups=theirs.norm_num_groups,
        norm_eps=theirs.norm_eps,
        resnet_scale_shift=theirs.resnet_time_scale_shift == "scale_shift",
        flip_sin_to_cos=theirs.flip_sin_to_cos,
        freq_shift=theirs.freq_shift,
        class_kind=class_kind,
        class_dim=class_dim,
        added_dim=added_dim,
        added_time_dim=added_time_dim,
        guidance_dim=theirs.time_cond_proj_dim,
        context_heads=context_heads,
    )


def unet_config_to_diffusers(config: UNetConfig) -> dict[str, Value]:
    """The whole `config.json` of a U-Net of ours, which diffusers opens."""
    classes = config.class_dim is not None
    projected = config.class_dim if classes and config.class_kind == "projection" else None
    if projected and config.added_dim not in (None, projected):
        raise ValueError("diffusers has one width for the class and the added vector.")
    if config.context_heads and config.added_dim:
        raise ValueError("diffusers has one addition_embed_type: 'text' or 'text_time'.")
    added = "text_time" if config.added_dim else "text" if config.context_heads else None
    theirs = _Diffusers(
        sample_size=config.sample_size,
        in_channels=config.in_channels,
        out_channels=config.out_channels,
        flip_sin_to_cos=config.flip_sin_to_cos,
        freq_shift=config.freq_shift,
        down_block_types=tuple(_DOWN[attends] for attends in config.attention),
        mid_block_type=_MID[config.mid_attention if config.mid_block else None],
        up_block_types=tuple(_UP[attends] for attends in reversed(config.attention)),
        only_cross_attention=one_or_each(config.only_cross_attention),
        block_out_channels=config.block_out_channels,
        layers_per_block=one_or_each(config.layers_per_block),
        norm_num_groups=config.norm_num_groups,
        norm_eps=config.norm_eps,
        cross_attention_dim=config.cross_attention_dim or _Diffusers.cross_attention_dim,
        transformer_layers_per_block=one_or_each(config.transformer_layers),
        attention_head_dim=one_or_each(config.attention_heads),
        use_linear_projection=config.use_linear_projection,
        class_embed_type=None if not classes else _CLASS_TYPES[config.class_kind],
        addition_embed_type=added,
        addition_embed_type_num_heads=config.context_heads
        or _Diffusers.addition_embed_type_num_heads,
        addition_time_embed_dim=config.added_time_dim,
        num_class_embeds=config.class_dim if config.class_kind == "embedding" else None,
        upcast_attention=config.upcast_attention,
        resnet_time_scale_shift="scale_shift" if config.resnet_scale_shift else "default",
        time_cond_proj_dim=config.guidance_dim,
        projection_class_embeddings_input_dim=projected or config.added_dim,
    )
    return write_config("UNet2DConditionModel", theirs, _NEUTRAL)


def _classes(theirs: _Diffusers, source: str) -> tuple[ClassKind, int | None]:
    width = theirs.projection_class_embeddings_input_dim
    match theirs.class_embed_type:
        case None:
            return "embedding", theirs.num_class_embeds
        case "identity":
            return "identity", theirs.block_out_channels[0] * 4
        case "projection" if width:
            return "projection", width
        case kind:
            raise SafelightError(
                f"{source} has class_embed_type = {kind!r} of width {width}; expected none, "
                "'identity', or 'projection' with projection_class_embeddings_input_dim."
            )


def _added(theirs: _Diffusers, source: str) -> tuple[int | None, int | None]:
    width, time_width = (
        theirs.projection_class_embeddings_input_dim,
        theirs.addition_time_embed_dim,
    )
    if theirs.addition_embed_type in (None, "text"):
        return None, None
    if theirs.addition_embed_type != "text_time" or not width or not time_width:
        raise SafelightError(
            f"{source} has addition_embed_type = {theirs.addition_embed_type!r} of widths {width} "
            f"and {time_width}; expected none, 'text', or 'text_time' with both widths."
        )
    return width, time_width


def _context_heads(theirs: _Diffusers, context: int, source: str) -> int | None:
    if theirs.addition_embed_type != "text":
        return None
    heads = theirs.addition_embed_type_num_heads
    if heads < 1 or context % heads:
        raise SafelightError(
            f"{source}: a cross_attention_dim of {context} does not split into the {heads} heads "
            "of addition_embed_type_num_heads."
        )
    return heads
