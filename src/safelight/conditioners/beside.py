"""Conditioners of what stands beside the prompt: from a user's inputs to parts of a conditioning.

Each takes a conditioning, the inputs of a batch, and which rows of them count, and puts its part
into the conditioning: its null where they do not.
"""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from typing import cast

import torch
import torch.nn.functional as F
from einops import rearrange
from jaxtyping import Bool, Float, Int64
from torch import Tensor

from safelight.conditioners.conditions import (
    Class,
    Depth,
    Inpainting,
    Layout,
    LowResolution,
    Semantic,
    cell_detail,
)
from safelight.models.any_autoencoder import AnyAutoencoder, likeliest
from safelight.models.clip import ClipText
from safelight.models.image_adapter import ImageAdapter
from safelight.models.layout import LayoutEncoder
from safelight.types import Box, Conditioning, Inputs

Kept = Bool[Tensor, " b"]


@dataclass(frozen=True)
class ClassConditioner:
    """Class numbers, int64 (b,), to one-hot rows first in `vector`; the null is the last class."""

    condition: Class

    def __call__(self, cond: Conditioning, inputs: Inputs, kept: Kept) -> Conditioning:
        """Adds rows of width `len(names) + 1`."""
        (numbers,) = inputs
        null = len(self.condition.names)
        rows = F.one_hot(torch.where(kept, numbers, null), null + 1).float()
        vector = rows if cond.vector is None else torch.cat([rows.to(cond.vector), cond.vector], 1)
        return replace(cond, vector=vector)


@dataclass(frozen=True)
class MapConditioner:
    """Maps of depth, (b, 3, h, w) in [-1, 1] of three equal channels, to `concat`; null zeros.

    `factor` is the width of a latent cell in pixels.
    """

    condition: Depth
    factor: int

    def __call__(self, cond: Conditioning, inputs: Inputs, kept: Kept) -> Conditioning:
        """Adds `detail ** 2` channels."""
        (pixels,) = inputs
        detail = cell_detail(self.condition, self.factor)
        grid = (pixels.shape[-2] // self.factor, pixels.shape[-1] // self.factor)
        return _beside(cond, in_cells(pixels.mean(1, keepdim=True), grid, detail), kept)


@dataclass(frozen=True)
class SemanticConditioner:
    """Painted classes, (b, 3, h, w) in [-1, 1], to one-hot channels of `concat`; null zeros."""

    condition: Semantic
    factor: int

    def __call__(self, cond: Conditioning, inputs: Inputs, kept: Kept) -> Conditioning:
        """Adds a channel a class and place."""
        (pixels,) = inputs
        detail = cell_detail(self.condition, self.factor)
        grid = (pixels.shape[-2] // self.factor, pixels.shape[-1] // self.factor)
        return _beside(cond, in_cells(self.one_hot(pixels), grid, detail), kept)

    def one_hot(self, pixels: Float[Tensor, "b 3 h w"]) -> Float[Tensor, "b k h w"]:
        """The class of each pixel: that of the nearest colour."""
        colours = torch.tensor(
            [list(bytes.fromhex(code[1:])) for code in self.condition.palette.values()],
            device=pixels.device,
        )
        rows = rearrange(pixels, "b c h w -> b (h w) c").float()
        nearest = torch.cdist(rows, colours / 127.5 - 1).argmin(-1)
        hot = F.one_hot(nearest, len(colours)).float()
        return rearrange(hot, "b (h w) k -> b k h w", h=pixels.shape[-2])


@dataclass(frozen=True)
class LowResolutionConditioner:
    """Small pictures, (b, 3, h, w) in [-1, 1], to `concat`; null zeros."""

    condition: LowResolution
    autoencoder: AnyAutoencoder

    def __call__(self, cond: Conditioning, inputs: Inputs, kept: Kept) -> Conditioning:
        """Adds three channels a place, or latents; a picture that is smaller than the latents is
        enlarged.
        """
        (pixels,) = inputs
        factor = self.autoencoder.factor
        height, width = (side * self.condition.factor // factor for side in pixels.shape[-2:])
        if self.condition.encoded:
            size = (height * factor, width * factor)
            large = F.interpolate(pixels, size=size, mode="bicubic", align_corners=False)
            with torch.no_grad():
                z = likeliest(self.autoencoder, large.clamp(-1, 1))
            return _beside(cond, self.autoencoder.scale(z).float(), kept)
        detail = cell_detail(self.condition, factor)
        return _beside(cond, in_cells(pixels, (height, width), detail), kept)


@dataclass(frozen=True)
class InpaintingConditioner:
    """Masks (b, 1, h, w), ones where pictures are made anew, and pictures (b, 3, h, w) in [-1, 1],
    to `concat`; the null is a mask of ones.
    """

    condition: Inpainting
    autoencoder: AnyAutoencoder

    def __call__(self, cond: Conditioning, inputs: Inputs, kept: Kept) -> Conditioning:
        """Adds the mask and the latents of what is left of the picture."""
        mask, pixels = inputs
        mask = torch.where(kept[:, None, None, None], mask, 1.0)
        with torch.no_grad():
            z = likeliest(self.autoencoder, pixels * (mask < 0.5))
        small = F.interpolate(mask, size=(z.shape[-2], z.shape[-1]))
        every = torch.ones_like(kept)
        return _beside(cond, torch.cat([small, self.autoencoder.scale(z).float()], 1), every)


@dataclass(frozen=True)
class LayoutConditioner:
    """Labels (b, n, l) as token ids, edges (b, n, 4), and which are there (b, n), to tokens at the
    end of `context`; the null is no box.
    """

    condition: Layout
    encoder: LayoutEncoder
    tower: ClipText

    def __call__(self, cond: Conditioning, inputs: Inputs, kept: Kept) -> Conditioning:
        """Adds `n` tokens."""
        ids, edges, there = inputs
        rows, places = _different(ids.flatten(0, 1))  # few labels are asked for again and again
        labels = self.tower(rows).pooled[places].unflatten(0, ids.shape[:2])
        tokens = self.encoder(labels, edges, there & kept[:, None])
        if cond.context is None:
            return replace(cond, context=tokens)
        return replace(cond, context=torch.cat([cond.context, tokens.to(cond.context)], 1))


@dataclass(frozen=True)
class ImageConditioner:
    """Embeddings of pictures, (b, e) or (b, m, e), to `pictures`; the null is that of nothing."""

    adapter: ImageAdapter
    null: Float[Tensor, "1 ..."]

    def __call__(self, cond: Conditioning, inputs: Inputs, kept: Kept) -> Conditioning:
        """Adds the tokens of one picture."""
        (embeddings,) = inputs
        rows = kept.reshape(-1, *[1] * (embeddings.ndim - 1))
        tokens = self.adapter(torch.where(rows, embeddings, self.null.to(embeddings)))
        return replace(cond, pictures=(*cond.pictures, tokens))


def laid_out(boxes: Sequence[Box], most: int, ids: Mapping[str, Tensor]) -> Inputs:
    """Boxes as the inputs of a layout, with room for `most`; `ids` are the tokens of each label,
    and of the empty one.
    """
    there = torch.arange(most) < len(boxes)
    rows = torch.stack([ids[box.label] for box in boxes] + [ids[""]] * (most - len(boxes)))
    edges = torch.zeros(most, 4)
    for place, box in enumerate(boxes):
        edges[place] = torch.tensor(box.edges)
    return rows, edges, there


def in_cells(
    pixels: Float[Tensor, "b c h w"], grid: tuple[int, int], detail: int
) -> Float[Tensor, "b k gh gw"]:
    """A map in the channels of a coarse grid, `detail` x `detail` places of it in each cell, so
    that nothing of them is lost; the mean of what falls into one place.
    """
    size = (grid[0] * detail, grid[1] * detail)
    if pixels.shape[-2] >= size[0] and pixels.shape[-1] >= size[1]:
        fine = F.interpolate(pixels, size=size, mode="area")
    else:
        fine = F.interpolate(pixels, size=size, mode="bicubic", align_corners=False)
    return F.pixel_unshuffle(fine, detail)


def _different(rows: Int64[Tensor, "n l"]) -> tuple[Int64[Tensor, "k l"], Int64[Tensor, " n"]]:
    """Each different row once, and where each row is among them."""
    return cast(tuple[Tensor, Tensor], torch.unique(rows, dim=0, return_inverse=True))


def _beside(cond: Conditioning, channels: Float[Tensor, "b c h w"], kept: Kept) -> Conditioning:
    rows = channels * kept[:, None, None, None]
    return replace(cond, concat=rows if cond.concat is None else torch.cat([cond.concat, rows], 1))
