"""Small networks that read depth and a person's key points off a picture, to hold it to its hint.

Source: heat maps of key points, Tompson et al. 2014 (arXiv 1406.2984), section 3.1; the measure of
poses, PCK, Yang and Ramanan 2013, section 6.1.
"""

from dataclasses import dataclass

import torch
from jaxtyping import Bool, Float
from torch import Tensor

from safelight.eval.pixel_network import PixelNetwork, at_size

Pixels = Float[Tensor, "b 3 h w"]
Points = Float[Tensor, "b k 2"]
"""Where key points are, x then y, as parts of the picture."""


@dataclass(frozen=True)
class HintJudgeConfig:
    """The side of the pictures it sees, its channels by level, and for poses how many points."""

    size: int = 64
    channels: tuple[int, ...] = (24, 48, 96, 128)
    points: int = 0


class DepthJudge(PixelNetwork):
    """Reads inverse depth off a picture, from 0 (its farthest place) to 1 (its nearest)."""

    def __init__(self, config: HintJudgeConfig):
        super().__init__(config.channels, 1)
        self.config = config

    def forward(self, pixels: Pixels) -> Float[Tensor, "b h w"]:
        """Inverse depth of pictures in [-1, 1], as it is guessed: about 0 to 1."""
        return self.maps(pixels)[:, 0]

    def loss(self, pixels: Pixels, nearness: Float[Tensor, "b h w"]) -> Float[Tensor, ""]:
        """The mean absolute error."""
        return (self(pixels) - nearness).abs().mean()

    @torch.inference_mode()
    def errors(
        self, pixels: Float[Tensor, "b 3 height width"], nearness: Float[Tensor, "b h w"]
    ) -> Float[Tensor, " b"]:
        """The mean absolute error of each picture, of any size, against the depth that it should
        have, at the judge's own size.
        """
        return (self(at_size(pixels, self.config.size)) - nearness).abs().mean(dim=(1, 2))


class PoseJudge(PixelNetwork):
    """Finds one person's key points in a picture, each by a heat map."""

    def __init__(self, config: HintJudgeConfig):
        super().__init__(config.channels, config.points)
        self.config = config

    def forward(self, pixels: Pixels) -> Float[Tensor, "b k h w"]:
        """A map of logits for each key point."""
        return self.maps(pixels)

    def loss(
        self, pixels: Pixels, points: Points, in_sight: Bool[Tensor, "b k"]
    ) -> Float[Tensor, ""]:
        """Cross-entropy over places, of the points that are in sight, against a small blot."""
        logits = self(pixels)
        wanted = _blots(points, logits.shape[-1])
        entropy = -(wanted.flatten(2) * logits.flatten(2).log_softmax(dim=2)).sum(dim=2)
        return entropy[in_sight].mean()

    @torch.inference_mode()
    def find(self, pixels: Pixels) -> Points:
        """Where each key point is most likely in pictures of any size."""
        logits = self(at_size(pixels, self.config.size))
        side = logits.shape[-1]
        place = logits.flatten(2).argmax(dim=2)
        return torch.stack([place % side + 0.5, place // side + 0.5], dim=2) / side


def pck(
    found: Points,
    points: Points,
    in_sight: Bool[Tensor, "b k"],
    reach: Float[Tensor, " b"],
    part: float = 0.1,
) -> Float[Tensor, " b"]:
    """The part of each picture's points in sight that is found within `part` times `reach`, the
    longer side of the person's box as a part of the picture: PCK@0.1 by default.
    """
    distance = (found - points).square().sum(dim=2).sqrt()
    near = distance <= part * reach[:, None]
    return (near & in_sight).sum(dim=1) / in_sight.sum(dim=1)


def _blots(points: Points, side: int) -> Float[Tensor, "b k h w"]:
    """Gaussians of one pixel's width around the points, each of sum 1."""
    place = (torch.arange(side, device=points.device) + 0.5) / side
    distance = (points[..., None] - place) * side  # (b, k, 2, side)
    across, down = torch.exp(-0.5 * distance.square()).unbind(dim=2)
    blots = down[..., :, None] * across[..., None, :]
    return blots / blots.sum(dim=(2, 3), keepdim=True).clamp_min(1e-6)
