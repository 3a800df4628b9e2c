"""diffusers' `AutoencoderTiny`: keys and `config.json`; and the keys of TAESD's own files."""

from collections.abc import Iterable, Mapping
from dataclasses import dataclass

from torch import Tensor

from safelight.checkpoints.rules import Rule, Table
from safelight.checkpoints.tables.configs import Neutral, fitting, read_config, write_config
from safelight.config import Value
from safelight.errors import SafelightError
from safelight.models.tiny import TinyConfig

TINY = Table((Rule("{key}", "{key}"),))

_NEUTRAL: Neutral = {
    "act_fn": ("relu",),
    "upsample_fn": ("nearest",),
    "upsampling_scaling_factor": (2,),
    "force_upcast": (False, True),  # a hint for half precision, not part of the network
    # of the bytes that latents may be stored as, which we do not do
    "latent_magnitude": (3,),
    "latent_shift": (0.5,),
}


@dataclass(frozen=True)
class _Diffusers:
    """The keys that make a difference, with diffusers' own defaults."""

    in_channels: int = 3
    out_channels: int = 3
    latent_channels: int = 4
    encoder_block_out_channels: tuple[int, ...] = (64, 64, 64, 64)
    decoder_block_out_channels: tuple[int, ...] = (64, 64, 64, 64)
    block_out_channels: tuple[int, ...] = ()  # the decoder's again
    num_encoder_blocks: tuple[int, ...] = (1, 3, 3, 3)
    num_decoder_blocks: tuple[int, ...] = (3, 3, 3, 1)
    scaling_factor: float = 1.0
    shift_factor: float = 0.0


def tiny_config_from_diffusers(
    values: Mapping[str, Value], source: str = "vae/config.json"
) -> TinyConfig:
    """Translates an `AutoencoderTiny` configuration; `SafelightError` if it is of another kind."""
    theirs = read_config(_Diffusers, values, _NEUTRAL, source)
    encoder = _width(theirs.encoder_block_out_channels, theirs.num_encoder_blocks, source)
    decoder = _width(theirs.decoder_block_out_channels, theirs.num_decoder_blocks, source)
    if theirs.block_out_channels not in ((), theirs.decoder_block_out_channels):
        raise SafelightError(
            f"{source} has block_out_channels {theirs.block_out_channels}; expected those of "
            f"decoder_block_out_channels, {theirs.decoder_block_out_channels}."
        )
    with fitting(source):
        return TinyConfig(
            in_channels=theirs.in_channels,
            out_channels=theirs.out_channels,
            latent_channels=theirs.latent_channels,
            encoder_width=encoder,
            decoder_width=decoder,
            encoder_blocks=theirs.num_encoder_blocks,
            decoder_blocks=theirs.num_decoder_blocks,
            scaling_factor=theirs.scaling_factor,
            shift_factor=theirs.shift_factor,
        )


def tiny_config_to_diffusers(config: TinyConfig) -> dict[str, Value]:
    """The whole `config.json` of a tiny autoencoder of ours, which diffusers opens.

    Raises `SafelightError` for one without an encoder, which diffusers does not know.
    """
    if not config.encoder_blocks:
        raise SafelightError(
            "A tiny autoencoder that is a decoder alone has no folder in diffusers' layout; give "
            "it its encoder."
        )
    decoder = (config.decoder_width,) * len(config.decoder_blocks)
    theirs = _Diffusers(
        in_channels=config.in_channels,
        out_channels=config.out_channels,
        latent_channels=config.latent_channels,
        encoder_block_out_channels=(config.encoder_width,) * len(config.encoder_blocks),
        decoder_block_out_channels=decoder,
        block_out_channels=decoder,
        num_encoder_blocks=config.encoder_blocks,
        num_decoder_blocks=config.decoder_blocks,
        scaling_factor=config.scaling_factor,
        shift_factor=config.shift_factor,
    )
    return write_config("AutoencoderTiny", theirs, _NEUTRAL)


def taesd_table(layers: int) -> Table:
    """The keys of TAESD's own two halves, `encoder.` and `decoder.`, of at most so many layers.

    Its decoder counts the clamp of the latents as a layer, diffusers' does not.
    """
    return Table(
        (
            Rule("encoder.layers.{rest}", "encoder.{rest}"),
            *(
                Rule(f"decoder.layers.{number - 1}.{{rest}}", f"decoder.{number}.{{rest}}")
                for number in range(1, layers)
            ),
        )
    )


def tiny_config_of(state: Mapping[str, Tensor], source: str) -> TinyConfig:
    """The shape of the tiny autoencoder whose tensors, in diffusers' names, these are.

    Its latents are those of the U-Net, as in every published one. Raises `SafelightError` for
    anything else, and for an encoder alone.
    """
    try:
        decoder = _convolutions("decoder.", state)
        encoder = _convolutions("encoder.", state)
        first, last = decoder[0], decoder[-1]
        return TinyConfig(
            in_channels=encoder[0].weight.shape[1] if encoder else 3,
            out_channels=last.weight.shape[0],
            latent_channels=first.weight.shape[1],
            encoder_width=encoder[0].weight.shape[0] if encoder else 64,
            decoder_width=first.weight.shape[0],
            encoder_blocks=tuple(layer.blocks for layer in encoder[:-1]),
            decoder_blocks=tuple(layer.blocks for layer in decoder[:-1]),
        )
    except (IndexError, ValueError) as error:
        raise SafelightError(
            f"{source} holds no tiny autoencoder that is whole ({error}); expected its decoder, or "
            "both its halves."
        ) from error


@dataclass(frozen=True)
class _Convolution:
    """A convolution outside the residual blocks, and how many of these follow it."""

    weight: Tensor
    blocks: int


def _convolutions(half: str, state: Mapping[str, Tensor]) -> list[_Convolution]:
    found: list[_Convolution] = []
    for number in range(_count(half, state)):
        weight = state.get(f"{half}layers.{number}.weight")
        if weight is not None:
            found.append(_Convolution(weight, 0))
        elif found and f"{half}layers.{number}.conv.0.weight" in state:
            found[-1] = _Convolution(found[-1].weight, found[-1].blocks + 1)
    return found


def _count(half: str, state: Iterable[str]) -> int:
    """One more than the highest number of a layer."""
    numbers = (
        key.removeprefix(f"{half}layers.").partition(".")[0]
        for key in state
        if key.startswith(f"{half}layers.")
    )
    return min(1 + max((int(number) for number in numbers if number.isdecimal()), default=-1), 4096)


def _width(channels: tuple[int, ...], blocks: tuple[int, ...], source: str) -> int:
    if len(channels) != len(blocks) or len(set(channels)) != 1:
        raise SafelightError(
            f"{source} has channels {channels} for {len(blocks)} levels of a tiny autoencoder; "
            "expected one number for each level, all the same."
        )
    return channels[0]
