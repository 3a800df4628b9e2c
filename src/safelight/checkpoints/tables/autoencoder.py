"""diffusers' `AutoencoderKL` and `VQModel`: keys and `config.json`, to and from ours."""

from collections.abc import Mapping
from dataclasses import dataclass

from safelight.checkpoints.rules import Rule, Table
from safelight.checkpoints.tables.configs import (
    Neutral,
    attending_levels,
    fitting,
    read_config,
    square,
    write_config,
)
from safelight.config import Value
from safelight.errors import SafelightError
from safelight.models.autoencoder import AutoencoderConfig
from safelight.models.vq import VQConfig

PICTURE_ATTENTION = (
    Rule("{block}.to_q.{rest}", "{block}.to_q.{rest}"),
    Rule("{block}.to_k.{rest}", "{block}.to_k.{rest}"),
    Rule("{block}.to_v.{rest}", "{block}.to_v.{rest}"),
    Rule("{block}.to_out.{rest}", "{block}.to_out.0.{rest}"),
    # the spelling of diffusers before 0.14, which most Stable Diffusion 1.x files have
    Rule("{block}.to_q.{rest}", "{block}.query.{rest}"),
    Rule("{block}.to_k.{rest}", "{block}.key.{rest}"),
    Rule("{block}.to_v.{rest}", "{block}.value.{rest}"),
    Rule("{block}.to_out.{rest}", "{block}.proj_attn.{rest}"),
)
"""The attention of pictures without context, in both spellings."""
_CODERS = (
    Rule("encoder.{block}.resampler.{rest}", "encoder.{block}.downsamplers.0.{rest}"),
    Rule("decoder.{block}.resampler.{rest}", "decoder.{block}.upsamplers.0.{rest}"),
    *PICTURE_ATTENTION,
)
_SAME = Rule("{key}", "{key}")
AUTOENCODER = Table((*_CODERS, _SAME))
TEMPORAL = "AutoencoderKLTemporalDecoder"
VQ = Table((*_CODERS, Rule("codebook.{rest}", "quantize.embedding.{rest}"), _SAME))

_DOWN = {False: "DownEncoderBlock2D", True: "AttnDownEncoderBlock2D"}
_UP = {False: "UpDecoderBlock2D", True: "AttnUpDecoderBlock2D"}
_BLOCKS = {attends: (_DOWN[attends], _UP[attends]) for attends in (False, True)}
_NEUTRAL: Neutral = {
    "act_fn": ("silu", "swish"),
}
_NEUTRAL_KL: Neutral = {**_NEUTRAL, "latents_mean": (None,), "latents_std": (None,)}
_TEMPORAL_LAYERS = 2  # of the middle, which diffusers ties to layers_per_block
_NEUTRAL_VQ: Neutral = {
    **_NEUTRAL,
    "force_upcast": (False, True),  # a hint for half precision, not part of the network
    "norm_type": ("group",),
    "lookup_from_codebook": (False,),
}


@dataclass(frozen=True)
class _DiffusersKL:
    """The keys of `AutoencoderKL` that make a difference, with diffusers' own defaults."""

    in_channels: int = 3
    out_channels: int = 3
    down_block_types: tuple[str, ...] = (_DOWN[False],)
    up_block_types: tuple[str, ...] = (_UP[False],)
    block_out_channels: tuple[int, ...] = (64,)
    layers_per_block: int = 1
    latent_channels: int = 4
    norm_num_groups: int = 32
    sample_size: int | tuple[int, ...] = 32
    scaling_factor: float = 0.18215
    shift_factor: float | None = None
    use_quant_conv: bool = True
    use_post_quant_conv: bool = True
    mid_block_add_attention: bool = True
    force_upcast: bool = True


@dataclass(frozen=True)
class _DiffusersTemporal:
    """The keys of `AutoencoderKLTemporalDecoder`, with diffusers' own defaults."""

    in_channels: int = 3
    out_channels: int = 3
    down_block_types: tuple[str, ...] = (_DOWN[False],)
    block_out_channels: tuple[int, ...] = (64,)
    layers_per_block: int = 1
    latent_channels: int = 4
    sample_size: int | tuple[int, ...] = 32
    scaling_factor: float = 0.18215
    force_upcast: bool = True


@dataclass(frozen=True)
class _DiffusersVQ:
    """The keys of `VQModel` that make a difference, with diffusers' own defaults."""

    in_channels: int = 3
    out_channels: int = 3
    down_block_types: tuple[str, ...] = (_DOWN[False],)
    up_block_types: tuple[str, ...] = (_UP[False],)
    block_out_channels: tuple[int, ...] = (64,)
    layers_per_block: int = 1
    latent_channels: int = 3
    sample_size: int | tuple[int, ...] = 32
    num_vq_embeddings: int = 256
    norm_num_groups: int = 32
    vq_embed_dim: int | None = None
    scaling_factor: float = 0.18215
    mid_block_add_attention: bool = True


def autoencoder_config_from_diffusers(
    values: Mapping[str, Value], source: str = "vae/config.json"
) -> AutoencoderConfig:
    """Translates an `AutoencoderKL` configuration; `SafelightError` if it is of another kind."""
    theirs = read_config(_DiffusersKL, values, _NEUTRAL_KL, source)
    with fitting(source):
        return AutoencoderConfig(
            in_channels=theirs.in_channels,
            out_channels=theirs.out_channels,
            latent_channels=theirs.latent_channels,
            block_out_channels=theirs.block_out_channels,
            layers_per_block=theirs.layers_per_block,
            attention=_attention(theirs, source),
            mid_attention=theirs.mid_block_add_attention,
            norm_num_groups=theirs.norm_num_groups,
            quant_conv=theirs.use_quant_conv,
            post_quant_conv=theirs.use_post_quant_conv,
            sample_size=square(theirs.sample_size),
            scaling_factor=theirs.scaling_factor,
            shift_factor=theirs.shift_factor or 0.0,
            force_upcast=theirs.force_upcast,
        )


def autoencoder_config_to_diffusers(config: AutoencoderConfig) -> dict[str, Value]:
    """The whole `config.json` of a KL autoencoder of ours, which diffusers opens."""
    theirs = _DiffusersKL(
        in_channels=config.in_channels,
        out_channels=config.out_channels,
        down_block_types=_down_types(config.attention),
        up_block_types=_up_types(config.attention),
        block_out_channels=config.block_out_channels,
        layers_per_block=config.layers_per_block,
        latent_channels=config.latent_channels,
        norm_num_groups=config.norm_num_groups,
        sample_size=config.sample_size or _DiffusersKL.sample_size,
        scaling_factor=config.scaling_factor,
        shift_factor=config.shift_factor or None,
        use_quant_conv=config.quant_conv,
        use_post_quant_conv=config.post_quant_conv,
        mid_block_add_attention=config.mid_attention,
        force_upcast=config.force_upcast,
    )
    return write_config("AutoencoderKL", theirs, _NEUTRAL_KL)


def temporal_config_from_diffusers(
    values: Mapping[str, Value], source: str = "vae/config.json"
) -> AutoencoderConfig:
    """Translates an `AutoencoderKLTemporalDecoder` configuration; errors as for `AutoencoderKL`."""
    theirs = read_config(_DiffusersTemporal, values, {}, source)
    levels = len(theirs.block_out_channels)
    if theirs.down_block_types != (_DOWN[False],) * levels:
        raise SafelightError(f"{source} should have {levels} {_DOWN[False]}s on the way down.")
    if theirs.layers_per_block != _TEMPORAL_LAYERS:
        raise SafelightError(
            f"{source} has layers_per_block = {theirs.layers_per_block}, expected "
            f"{_TEMPORAL_LAYERS}."
        )
    with fitting(source):
        return AutoencoderConfig(
            in_channels=theirs.in_channels,
            out_channels=theirs.out_channels,
            latent_channels=theirs.latent_channels,
            block_out_channels=theirs.block_out_channels,
            layers_per_block=theirs.layers_per_block,
            attention=(False,) * levels,
            post_quant_conv=False,
            sample_size=square(theirs.sample_size),
            scaling_factor=theirs.scaling_factor,
            force_upcast=theirs.force_upcast,
        )


def temporal_config_to_diffusers(config: AutoencoderConfig) -> dict[str, Value]:
    """The whole `config.json` of a temporal autoencoder of ours, which diffusers opens."""
    theirs = _DiffusersTemporal(
        in_channels=config.in_channels,
        out_channels=config.out_channels,
        down_block_types=_down_types(config.attention),
        block_out_channels=config.block_out_channels,
        layers_per_block=config.layers_per_block,
        latent_channels=config.latent_channels,
        sample_size=config.sample_size or _DiffusersTemporal.sample_size,
        scaling_factor=config.scaling_factor,
        force_upcast=config.force_upcast,
    )
    return write_config(TEMPORAL, theirs, {})


def vq_config_from_diffusers(
    values: Mapping[str, Value], source: str = "vqvae/config.json"
) -> VQConfig:
    """Translates a `VQModel` configuration; `SafelightError` if it is of another kind."""
    theirs = read_config(_DiffusersVQ, values, _NEUTRAL_VQ, source)
    with fitting(source):
        return VQConfig(
            in_channels=theirs.in_channels,
            out_channels=theirs.out_channels,
            latent_channels=theirs.latent_channels,
            codebook_size=theirs.num_vq_embeddings,
            codebook_dim=theirs.vq_embed_dim or theirs.latent_channels,
            block_out_channels=theirs.block_out_channels,
            layers_per_block=theirs.layers_per_block,
            attention=_attention(theirs, source),
            mid_attention=theirs.mid_block_add_attention,
            norm_num_groups=theirs.norm_num_groups,
            sample_size=square(theirs.sample_size),
            scaling_factor=theirs.scaling_factor,
        )


def vq_config_to_diffusers(config: VQConfig) -> dict[str, Value]:
    """The whole `config.json` of a VQ autoencoder of ours, which diffusers opens."""
    theirs = _DiffusersVQ(
        in_channels=config.in_channels,
        out_channels=config.out_channels,
        down_block_types=_down_types(config.attention),
        up_block_types=_up_types(config.attention),
        block_out_channels=config.block_out_channels,
        layers_per_block=config.layers_per_block,
        latent_channels=config.latent_channels,
        sample_size=config.sample_size or _DiffusersVQ.sample_size,
        num_vq_embeddings=config.codebook_size,
        norm_num_groups=config.norm_num_groups,
        vq_embed_dim=config.codebook_dim,
        scaling_factor=config.scaling_factor,
        mid_block_add_attention=config.mid_attention,
    )
    return write_config("VQModel", theirs, _NEUTRAL_VQ)


def _down_types(attention: tuple[bool, ...]) -> tuple[str, ...]:
    return tuple(_DOWN[attends] for attends in attention)


def _up_types(attention: tuple[bool, ...]) -> tuple[str, ...]:
    return tuple(_UP[attends] for attends in reversed(attention))


def _attention(theirs: _DiffusersKL | _DiffusersVQ, source: str) -> tuple[bool, ...]:
    levels = len(theirs.block_out_channels)
    return attending_levels(theirs.down_block_types, theirs.up_block_types, levels, _BLOCKS, source)
