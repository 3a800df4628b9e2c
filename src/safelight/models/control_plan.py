"""What a new ControlNet is made of: a U-Net's first half copied, or one of fewer channels."""

from dataclasses import dataclass, replace

from safelight.models.controlnet import ControlNet, ControlNetConfig, control_of
from safelight.models.unet import UNet

_HINT_CHANNELS = (16, 32, 96, 256)  # of layers that shrink a hint by 1, 2, 4 and 8


@dataclass(frozen=True)
class ControlPlan:
    """The shape of a new ControlNet for a U-Net.

    Attributes:
        channels: by level, as the U-Net's `block_out_channels` but fewer: it is then small and
            fast, and learns from scratch, as ControlNet-XS (Zavadski et al. 2023, arXiv 2312.06573)
            and T2I-Adapters do. None copies the U-Net's first half with its weights.
        hint_channels: of the layers that bring a hint to the latents' size, halving it between two
            entries; None is diffusers' choice.
    """

    channels: tuple[int, ...] | None = None
    hint_channels: tuple[int, ...] | None = None


def planned(plan: ControlPlan, unet: UNet, factor: int) -> ControlNet:
    """A ControlNet of a plan, which adds nothing yet, for a U-Net on latents that are `factor`
    pixels wide.

    Raises `ValueError` for a plan that does not fit the U-Net.
    """
    levels = factor.bit_length()  # entries of hint_channels, of which each but the first halves
    hint_channels = plan.hint_channels or (_HINT_CHANNELS + (256,) * levels)[:levels]
    if 2 ** (len(hint_channels) - 1) != factor:
        raise ValueError(
            f"hint_channels has {len(hint_channels)} entries, which shrink a hint by "
            f"{2 ** (len(hint_channels) - 1)}; latents are {factor} times smaller than pictures."
        )
    config = unet.config
    if plan.channels is None:
        return control_of(unet, ControlNetConfig(unet=config, hint_block_channels=hint_channels))
    if len(plan.channels) != len(config.block_out_channels):
        raise ValueError(
            f"channels has {len(plan.channels)} entries for {len(config.block_out_channels)} "
            "levels; give one a level."
        )
    widths = zip(config.block_out_channels, config.attention_heads, strict=True)
    heads: list[int] = []
    for channels, (whole, count) in zip(plan.channels, widths, strict=True):
        if channels < 1 or channels % config.norm_num_groups or channels % (whole // count):
            raise ValueError(
                f"channels should be multiples of {config.norm_num_groups} (groups of a norm) and "
                f"{whole // count} (a head), got {channels}."
            )
        heads.append(channels // (whole // count))
    narrow = replace(config, block_out_channels=plan.channels, attention_heads=tuple(heads))
    return ControlNet(
        ControlNetConfig(
            unet=narrow,
            hint_block_channels=hint_channels,
            steered_channels=config.block_out_channels,
        )
    )
