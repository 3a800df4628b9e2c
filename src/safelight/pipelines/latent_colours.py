"""Latents as colours, by the linear map that comes nearest to what they are decoded to."""

from collections.abc import Sequence
from dataclasses import dataclass
from typing import cast

import torch
import torch.nn.functional as F
from jaxtyping import Float
from PIL import Image
from torch import Tensor

from safelight.pipelines.generated import to_image

Pixels = Float[Tensor, "3 _ _"]


@dataclass(frozen=True)
class LatentColours:
    """Each place of a latent to one colour: `channels @ weights + offset`, which is the last row of
    `weights`, (channels + 1, 3).
    """

    weights: Float[Tensor, "k 3"]

    def __call__(self, z: Float[Tensor, "c h w"]) -> Image.Image:
        """A latent as a picture, a pixel a place. One that is larger than a picture's are, for it
        is noise yet, is brought to their size before.
        """
        z = z.float().cpu()
        colours = _rows(z / z.std().clamp(min=1.0)) @ self.weights
        return to_image(colours.T.reshape(3, *z.shape[-2:]).clamp(-1, 1))


def latent_colours(
    latents: Sequence[Float[Tensor, "c _ _"]], pictures: Sequence[Pixels]
) -> LatentColours:
    """The map by least squares, from latents and the pictures in [-1, 1] that they are decoded to,
    the mean of each place's pixels its colour.
    """
    places = torch.cat([_rows(z.float().cpu()) for z in latents])
    colours = torch.cat(
        [
            F.adaptive_avg_pool2d(pixels.float().cpu(), (z.shape[-2], z.shape[-1])).flatten(1).T
            for z, pixels in zip(latents, pictures, strict=True)
        ]
    )
    solution = cast(Tensor, torch.linalg.lstsq(places, colours, driver="gelsd").solution)
    return LatentColours(solution)


def _rows(z: Float[Tensor, "c h w"]) -> Float[Tensor, "n k"]:
    """A row for each place: its channels, and 1."""
    rows = z.flatten(1).T
    return torch.cat([rows, torch.ones(len(rows), 1)], dim=1)
