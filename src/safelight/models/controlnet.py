"""A ControlNet: the first half of a U-Net copied and trained to steer it by a picture.

Source: Zhang et al. 2023 (arXiv 2302.05543), sections 3.1 and 3.2; parameter names as in diffusers'
`ControlNetModel`.
"""

import math
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field, replace
from functools import partial
from itertools import pairwise
from typing import TypeAlias

import torch
import torch.nn.functional as F
from jaxtyping import Float
from torch import Tensor, nn

from safelight.models.kept_features import KeptFeatures
from safelight.models.t2i_adapter import T2IAdapter
from safelight.models.unet import UNet
from safelight.models.unet_encoder import UNetConfig, UNetEncoder, skip_channels
from safelight.nn.blocks import Picture
from safelight.types import Conditioning, Network


@dataclass(frozen=True)
class ControlNetConfig:
    """The shape of a ControlNet.

    Attributes:
        unet: of the U-Net that it steers, or of one with other channels.
        hint_channels: of the picture that it is given, in [0, 1].
        hint_block_channels: of the layers that bring it to the latents' size, halving it between
            two entries; so that a factor of 8 takes four.
        bgr: whether it was trained on pictures with blue first.
        pooled: whether what it adds is averaged over the picture, as for ControlNet Shuffle.
        steered_channels: the `block_out_channels` of the U-Net that it steers, where these are
            others than its own: a small ControlNet.
    """

    unet: UNetConfig = field(default_factory=UNetConfig)
    hint_channels: int = 3
    hint_block_channels: tuple[int, ...] = (16, 32, 96, 256)
    bgr: bool = False
    pooled: bool = False
    steered_channels: tuple[int, ...] | None = None

    def __post_init__(self):
        levels = len(self.unet.block_out_channels)
        if self.steered_channels is not None and len(self.steered_channels) != levels:
            raise ValueError(
                f"steered_channels has {len(self.steered_channels)} entries for {levels} levels."
            )
        if not self.unet.mid_block:
            raise ValueError("A ControlNet needs a U-Net with a middle block.")
        if not self.hint_block_channels:
            raise ValueError("hint_block_channels should have one entry or more.")

    @property
    def steered(self) -> UNetConfig:
        """The shape of the U-Net that it steers, as far as it matters here."""
        channels = self.steered_channels or self.unet.block_out_channels
        return replace(self.unet, block_out_channels=channels)

    @property
    def factor(self) -> int:
        """How many pixels of a hint's side become one of the latents'."""
        return 2 ** (len(self.hint_block_channels) - 1)


class ControlNet(UNetEncoder):
    """What a picture adds to the skips of a U-Net."""

    def __init__(self, config: ControlNetConfig):
        super().__init__(config.unet)
        self.shape = config
        first = config.unet.block_out_channels[0]
        self.controlnet_cond_embedding = _HintEncoder(config, first)
        widths, steered = skip_channels(config.unet), skip_channels(config.steered)
        self.controlnet_down_blocks = nn.ModuleList(
            _zero_convolution(*pair) for pair in zip(widths, steered, strict=True)
        )
        self.controlnet_mid_block = _zero_convolution(
            config.unet.block_out_channels[-1], config.steered.block_out_channels[-1]
        )

    @property
    def hint_channels(self) -> int:
        """Of the picture that it is given."""
        return self.shape.hint_channels

    @property
    def pooled(self) -> bool:
        """Whether it adds the same everywhere."""
        return self.shape.pooled

    @property
    def parts(self) -> int:
        """How many tensors it adds: to each skip, and to the middle."""
        return len(self.controlnet_down_blocks) + 1

    def forward(
        self,
        x: Float[Tensor, "b c h w"],
        t: Float[Tensor, " b"],
        cond: Conditioning,
        hint: Float[Tensor, "b k H W"],
    ) -> tuple[Picture, ...]:
        """What is to be added to each skip in order, and last to the middle.

        Args:
            x: as the U-Net sees it, (b, in_channels less those of `cond.concat`, h, w).
            t: the network's time, (b,).
            cond: as the U-Net is told.
            hint: a picture in [0, 1], `config.factor` times as large as x.

        Raises:
            ValueError: the hint is of another size, or a part of the conditioning is missing.
        """
        factor = self.shape.factor
        wanted = (x.shape[-2] * factor, x.shape[-1] * factor)
        if tuple(hint.shape[-2:]) != wanted:
            raise ValueError(
                f"Expected a hint of {wanted[1]} x {wanted[0]} pixels, got {hint.shape[-1]} x "
                f"{hint.shape[-2]}."
            )
        emb = self.embed(t, cond)
        x = self.conv_in(x if cond.concat is None else torch.cat([x, cond.concat], dim=1))
        hint = hint.flip(1) if self.shape.bgr else hint
        x, skips = self.descend(x + self.controlnet_cond_embedding(hint.to(x)), emb, cond)
        added = [
            layer(skip) for layer, skip in zip(self.controlnet_down_blocks, skips, strict=True)
        ]
        added.append(self.controlnet_mid_block(x))
        if self.shape.pooled:
            added = [part.mean(dim=(2, 3), keepdim=True) for part in added]
        return tuple(added)


class _HintEncoder(nn.Module):
    """A hint to features of the latents' size; the last layer begins at zero."""

    def __init__(self, config: ControlNetConfig, channels: int):
        super().__init__()
        widths = config.hint_block_channels
        self.conv_in = nn.Conv2d(config.hint_channels, widths[0], 3, padding=1)
        self.blocks = nn.ModuleList()
        for before, after in pairwise(widths):
            self.blocks.append(nn.Conv2d(before, before, 3, padding=1))
            self.blocks.append(nn.Conv2d(before, after, 3, padding=1, stride=2))
        self.conv_out = _zeroed(nn.Conv2d(widths[-1], channels, 3, padding=1))

    def forward(self, hint: Float[Tensor, "b k H W"]) -> Picture:
        x = F.silu(self.conv_in(hint))
        for block in self.blocks:
            x = F.silu(block(x))
        return self.conv_out(x)


def _zero_convolution(channels: int, steered: int) -> nn.Conv2d:
    return _zeroed(nn.Conv2d(channels, steered, 1))


def _zeroed(layer: nn.Conv2d) -> nn.Conv2d:
    for parameter in layer.parameters():
        nn.init.zeros_(parameter)
    return layer


def control_of(unet: UNet, config: ControlNetConfig) -> ControlNet:
    """A ControlNet with the weights of a U-Net's first half, which adds nothing yet.

    Raises `ValueError` if `config.unet` is not the U-Net's shape.
    """
    if config.steered != config.unet or config.unet != unet.config:
        raise ValueError("A ControlNet copies the U-Net of its own configuration.")
    control = ControlNet(config)
    fresh = control.state_dict()
    copied = {name: tensor for name, tensor in unet.state_dict().items() if name in fresh}
    control.load_state_dict(fresh | copied)
    return control


SteeringNetwork: TypeAlias = ControlNet | T2IAdapter


@dataclass(frozen=True)
class Steering:
    """One ControlNet or T2I-Adapter at work.

    Attributes:
        network: it.
        weights: what each of its parts is multiplied by: for each skip, and last for the middle;
            or, of an adapter, for each level.
        first: the network's time from which it works, going down.
        last: the time down to which it works.
    """

    network: SteeringNetwork
    weights: tuple[float, ...]
    first: float = math.inf
    last: float = -math.inf


class Controlled:
    """A U-Net steered by ControlNets and T2I-Adapters, one for each of `cond.hints`; itself a
    `Network`.
    """

    def __init__(self, unet: Network, controls: Sequence[Steering]):
        self.unet = unet
        self.controls = tuple(controls)
        self._adapters = {
            control.network: KeptFeatures(control.network)
            for control in self.controls
            if isinstance(control.network, T2IAdapter)
        }

    def __call__(
        self, x: Float[Tensor, "b c h w"], t: Float[Tensor, " b"], cond: Conditioning
    ) -> Float[Tensor, "b c_out h w"]:
        """The U-Net's output with the sum of what they add, multiplied where there are masks by
        these at each size; where none works it is the U-Net's to the bit.

        A row whose mask is zero everywhere, or whose time is none that the control works at, does
        not go through the control's network.

        Raises `ValueError` unless there is a hint, and with masks a mask, for each.
        """
        for what, given in (("hints", cond.hints), ("masks", cond.hint_masks or cond.hints)):
            if len(given) != len(self.controls):
                raise ValueError(f"Expected {len(self.controls)} {what}, got {len(given)}.")
        masks = cond.hint_masks or (None,) * len(cond.hints)
        plain = replace(cond, hints=(), hint_masks=())
        residuals: tuple[Tensor, ...] = ()
        features: tuple[Tensor, ...] = ()
        for control, hint, mask in zip(self.controls, cond.hints, masks, strict=True):
            rows = _working(control, t, mask)
            if isinstance(control.network, T2IAdapter):
                run = self._adapters[control.network]
                features = _sum(features, _added(run, control, x, t, plain, hint, mask, rows))
            else:
                run = partial(_residuals, control.network)
                residuals = _sum(residuals, _added(run, control, x, t, plain, hint, mask, rows))
        return self.unet(x, t, replace(plain, residuals=residuals, features=features))


def _working(control: Steering, t: Tensor, mask: Tensor | None) -> Tensor:
    """The rows in which a control works: each by its own time and mask."""
    rows = (t <= control.first) & (t >= control.last)
    return rows if mask is None else rows & mask.flatten(1).any(dim=1)


def _sum(total: tuple[Tensor, ...], parts: tuple[Tensor, ...]) -> tuple[Tensor, ...]:
    """A total with further parts; either may be empty."""
    return tuple(map(torch.add, total, parts)) if total and parts else total or parts


_Run: TypeAlias = Callable[[Tensor, Tensor, Conditioning, Tensor], Sequence[Tensor]]


def _added(
    run: _Run,
    control: Steering,
    x: Tensor,
    t: Tensor,
    cond: Conditioning,
    hint: Tensor,
    mask: Tensor | None,
    rows: Tensor,
) -> tuple[Tensor, ...]:
    """What a control adds to some `rows` that is run so, weighed; nothing where it works
    nowhere.
    """
    if rows.all():
        parts = run(x, t, cond, hint)
    elif not rows.any():
        return ()
    else:
        added = run(x[rows], t[rows], cond.take(rows), hint[rows])
        parts = tuple(_spread(part, rows) for part in added)
    weighed = (weight * part for weight, part in zip(control.weights, parts, strict=True))
    if mask is None:
        return tuple(weighed)
    return tuple(
        part * F.interpolate(mask.to(part), size=(part.shape[-2], part.shape[-1]), mode="area")
        for part in weighed
    )


def _residuals(
    network: ControlNet, x: Tensor, t: Tensor, cond: Conditioning, hint: Tensor
) -> Sequence[Tensor]:
    return network(x, t, _taken(network, x, cond), hint)


def _spread(part: Tensor, rows: Tensor) -> Tensor:
    """Rows put where `rows` is true, among rows of zeros."""
    whole = part.new_zeros(len(rows), *part.shape[1:])
    whole[rows] = part
    return whole


def _taken(network: ControlNet, x: Tensor, cond: Conditioning) -> Conditioning:
    """The conditioning without what a U-Net is told and its ControlNet is not: the channels of an
    inpainting model, for a ControlNet of the ordinary one, and the guidance scale.
    """
    config = network.config
    width = (config.class_dim or 0) + (config.added_dim or 0)
    return replace(
        cond,
        concat=cond.concat if config.in_channels > x.shape[1] else None,
        vector=cond.vector[:, :width] if cond.vector is not None and width else None,
    )


def even_weights(network: SteeringNetwork, strength: float) -> tuple[float, ...]:
    """The same weight for every part."""
    return (strength,) * network.parts


def rising_weights(network: SteeringNetwork, strength: float) -> tuple[float, ...]:
    """Weights from a tenth at the finest skip to the whole in the middle, evenly in their
    logarithm: guess mode, in which the prompt may be empty (Zhang et al. 2023, section 3.4).
    """
    count = network.parts - 1
    return tuple(strength * 10 ** (place / count - 1) for place in range(count + 1))


def softer_weights(network: SteeringNetwork, strength: float) -> tuple[float, ...]:
    """Weights that fall from the whole in the middle to the finest skip, each 0.825 of the one
    after it, so that the prompt counts for more in the details: AUTOMATIC1111's ControlNet
    extension, "My prompt is more important".
    """
    count = network.parts - 1
    return tuple(strength * 0.825 ** (count - place) for place in range(count + 1))
