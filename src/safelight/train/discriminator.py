"""The patch discriminator of adversarial autoencoder training.

Source: Isola et al. 2017 (arXiv 1611.07004), section 3.2.2.
"""

from dataclasses import dataclass

import torch
from jaxtyping import Float
from torch import Tensor, nn

from safelight.errors import SafelightError


@dataclass(frozen=True)
class AdversaryConfig:
    """The discriminator and its part in the loss; it joins after `start` steps.

    `weight` multiplies the adaptive weight, and 0 leaves the discriminator out.
    """

    weight: float = 0.0
    start: int = 10_000
    channels: int = 64
    layers: int = 3
    lr_scale: float = 1.0

    def __post_init__(self):
        for name in ("weight", "start", "layers", "lr_scale"):
            if not getattr(self, name) >= 0:
                raise SafelightError(
                    f"adversary.{name} should be at least 0, got {getattr(self, name)}."
                )
        if self.channels < 1 or self.channels % _GROUPS:
            raise SafelightError(
                f"adversary.channels should be a multiple of {_GROUPS}, got {self.channels}."
            )


class PatchDiscriminator(nn.Module):
    """Pixels (b, 3, h, w) in [-1, 1] to one logit for each overlapping patch; high means real.

    Differs from Isola et al. in that it normalises by groups, not by the batch, so that a batch
    worked off in parts gives the same gradients.
    """

    def __init__(self, config: AdversaryConfig, in_channels: int = 3):
        super().__init__()
        width = config.channels
        layers: list[nn.Module] = [
            nn.Conv2d(in_channels, width, 4, stride=2, padding=1),
            nn.LeakyReLU(0.2),
        ]
        for layer in range(1, config.layers + 1):
            wider = config.channels * min(2**layer, 8)
            stride = 2 if layer < config.layers else 1
            layers += [
                nn.Conv2d(width, wider, 4, stride=stride, padding=1, bias=False),
                nn.GroupNorm(_GROUPS, wider),
                nn.LeakyReLU(0.2),
            ]
            width = wider
        self.layers = nn.Sequential(*layers, nn.Conv2d(width, 1, 4, padding=1))
        for module in self.modules():
            if isinstance(module, nn.Conv2d):
                nn.init.normal_(module.weight, std=0.02)

    def forward(self, pixels: Float[Tensor, "b c h w"]) -> Float[Tensor, "b 1 ph pw"]:
        """The logits of all patches."""
        return self.layers(pixels)


_GROUPS = 8


def frozen_call(module: nn.Module, *inputs: Tensor) -> Tensor:
    """`module(*inputs)` with gradients to its inputs but not to the module's own weights."""
    weights = {name: tensor.detach() for name, tensor in module.state_dict(keep_vars=True).items()}
    return torch.func.functional_call(module, weights, inputs)
