"""Random masks, by which inpainting is learned."""

import math
from typing import cast

import numpy as np
import torch
from jaxtyping import Float
from PIL import Image, ImageDraw
from torch import Tensor

_WHOLE = 0.25
"""How often all is made anew, which is how Stable Diffusion's inpainting model was trained."""
_STROKED = 0.6


def draw_mask(size: tuple[int, int], random: torch.Generator) -> Float[Tensor, "1 h w"]:
    """A mask of a height and width: ones where the picture is made anew, at least one of them.

    A quarter are whole; of the others some are rectangles, more are strokes of a wide brush with
    rectangles between (Suvorov et al. 2021, arXiv 2109.07161, section 2.3).
    """
    height, width = size
    draws = iter(cast(list[float], torch.rand(128, generator=random).tolist()))
    if next(draws) < _WHOLE:
        return torch.ones(1, height, width)
    mask = Image.new("L", (width, height))
    pen = ImageDraw.Draw(mask)
    strokes = next(draws) < _STROKED
    for _ in range(1 + int(3 * next(draws)) if strokes else 0):
        x, y, angle = next(draws) * width, next(draws) * height, next(draws) * 2 * math.pi
        thick = max(1, round((0.08 + 0.17 * next(draws)) * min(size)))
        for _ in range(2 + int(4 * next(draws))):
            angle += (next(draws) - 0.5) * math.pi
            length = (0.1 + 0.3 * next(draws)) * max(size)
            end = (x + length * math.cos(angle), y + length * math.sin(angle))
            pen.line([(x, y), end], fill=255, width=thick)
            pen.ellipse(_around(x, y, thick / 2), fill=255)
            pen.ellipse(_around(*end, thick / 2), fill=255)
            x, y = min(max(end[0], 0.0), float(width)), min(max(end[1], 0.0), float(height))
    for _ in range(int(2 * next(draws)) if strokes else 1 + int(2 * next(draws))):
        across, down = ((0.15 + 0.55 * next(draws)) * side for side in (width, height))
        left, top = next(draws) * (width - across), next(draws) * (height - down)
        pen.rectangle((left, top, left + across, top + down), fill=255)
    levels = torch.from_numpy(np.array(mask))
    return (levels[None] > 0).float() if levels.any() else torch.ones(1, height, width)


def _around(x: float, y: float, radius: float) -> tuple[float, float, float, float]:
    return x - radius, y - radius, x + radius, y + radius
