"""A small segmentation network that names the coloured solids in a picture, and where they are."""

from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from typing import cast

import numpy as np
import torch
import torch.nn.functional as F
from jaxtyping import Bool, Float, Int64
from torch import Tensor

from safelight.eval.pixel_network import PixelNetwork, at_size
from safelight.eval.scene_truth import FoundObject

DENSE = 0.0012
"""Votes at a place, in parts of all pixels, from which on they tell of a centre."""


@dataclass(frozen=True)
class SceneJudgeConfig:
    """The names it tells apart, the side of the pictures it sees, and its channels by level.

    `shapes` lists solids first; others (a person) come after, and have no colour.
    """

    colours: tuple[str, ...]
    shapes: tuple[str, ...]
    size: int = 64
    channels: tuple[int, ...] = (24, 48, 96, 128)


@dataclass(frozen=True)
class SceneMaps:
    """What the network says of every pixel.

    `shape` (b, 1 + shapes, h, w) and `colour` (b, colours, h, w) are logits, the first shape being
    background; `offset` (b, 2, h, w) points to the object's centre, x then y, in pictures.
    """

    shape: Tensor
    colour: Tensor
    offset: Tensor


@dataclass(frozen=True)
class SceneLabels:
    """The truth of every pixel, as `SceneMaps`; colour is -1 where it is not to be learned."""

    shape: Int64[Tensor, "b h w"]
    colour: Int64[Tensor, "b h w"]
    offset: Float[Tensor, "b 2 h w"]


class SceneJudge(PixelNetwork):
    """A `PixelNetwork` of half a million parameters, with three maps as output."""

    def __init__(self, config: SceneJudgeConfig):
        outputs = (1 + len(config.shapes), len(config.colours), 2)
        super().__init__(config.channels, sum(outputs))
        self.config = config
        self._outputs = outputs

    def forward(self, pixels: Float[Tensor, "b 3 h w"]) -> SceneMaps:
        """The maps of pictures in [-1, 1] whose sides are multiples of 2 per level."""
        parts = cast(Sequence[Tensor], self.maps(pixels).split(self._outputs, dim=1))
        return SceneMaps(*parts)

    def loss(self, pixels: Float[Tensor, "b 3 h w"], labels: SceneLabels) -> Float[Tensor, ""]:
        """Cross-entropy of shape and colour, and the offsets' absolute error on objects."""
        maps = self(pixels)
        on_object = labels.shape > 0
        shape = F.cross_entropy(maps.shape, labels.shape)
        on_shapes = F.cross_entropy(maps.shape.movedim(1, -1)[on_object], labels.shape[on_object])
        known = labels.colour >= 0
        colour = F.cross_entropy(maps.colour.movedim(1, -1)[known], labels.colour[known])
        error = (maps.offset - labels.offset).abs().sum(dim=1)[on_object].mean()
        return shape + on_shapes + colour + 4 * error

    @torch.inference_mode()
    def find(
        self, pixels: Float[Tensor, "b 3 h w"], batch_size: int = 50
    ) -> list[tuple[FoundObject, ...]]:
        """The objects in each picture in [-1, 1], of any size, the largest first."""
        found: list[tuple[FoundObject, ...]] = []
        for maps in self._seen(pixels, batch_size):
            shapes, colours = maps.shape.softmax(dim=1), maps.colour.log_softmax(dim=1)
            found += map(self._objects, shapes, colours, maps.offset)
        return found

    @torch.inference_mode()
    def kinds(
        self, pixels: Float[Tensor, "b 3 h w"], batch_size: int = 50
    ) -> Int64[Tensor, "b side side"]:
        """What each place of the pictures is, at the judge's own size: 0 for background, else one
        more than its place in `shapes`.
        """
        rows = [maps.shape.argmax(dim=1) for maps in self._seen(pixels, batch_size)]
        side = self.config.size
        return torch.cat(rows) if rows else torch.zeros(0, side, side, dtype=torch.int64)

    def _seen(self, pixels: Float[Tensor, "b 3 h w"], batch_size: int) -> Iterator[SceneMaps]:
        for start in range(0, len(pixels), batch_size):
            batch = at_size(pixels[start : start + batch_size].float(), self.config.size)
            yield self(batch.clamp(-1, 1))

    def _objects(self, shape: Tensor, colour: Tensor, offset: Tensor) -> tuple[FoundObject, ...]:
        objects: list[FoundObject] = []
        for mask in instances(shape[0] < 0.5, offset):
            scores = shape[1:, mask].clamp(min=1e-6).log().sum(dim=1)  # (shapes)
            hues = colour[:, mask].sum(dim=1)
            rows, columns = (axis.float() for axis in torch.nonzero(mask, as_tuple=True))
            side = len(mask)
            objects.append(
                FoundObject(
                    colour=self.config.colours[int(hues.argmax())],
                    shape=self.config.shapes[int(scores.argmax())],
                    box=(
                        float(columns.min()) / side,
                        float(rows.min()) / side,
                        (float(columns.max()) + 1) / side,
                        (float(rows.max()) + 1) / side,
                    ),
                    area=float(mask.sum()) / mask.numel(),
                )
            )
        return tuple(sorted(objects, key=lambda thing: -thing.area))


def instances(
    on_object: Bool[Tensor, "h w"], offset: Float[Tensor, "2 h w"], least: float = 0.012
) -> list[Bool[Tensor, "h w"]]:
    """Masks of the single objects: pixels that point to the same centre.

    Every pixel votes for the centre it points to, and dense votes that touch are one centre; so
    objects that overlap are told apart, and one that another cuts in two stays one (after Neven et
    al. 2019). Objects below `least` of the picture are left out.
    """
    from scipy import ndimage

    height, width = on_object.shape
    rows, columns = torch.nonzero(on_object, as_tuple=True)
    x = (columns + 0.5 + offset[0, rows, columns] * width).floor().long().clamp(0, width - 1)
    y = (rows + 0.5 + offset[1, rows, columns] * height).floor().long().clamp(0, height - 1)
    votes = np.zeros((height, width))
    np.add.at(votes, (y.numpy(), x.numpy()), 1)
    dense = ndimage.gaussian_filter(votes, width / 64) > DENSE * votes.size
    centres, count = cast(tuple[np.ndarray, int], ndimage.label(dense, structure=np.ones((3, 3))))
    if count == 0:
        return []
    nearest = cast(
        np.ndarray,
        ndimage.distance_transform_edt(centres == 0, return_distances=False, return_indices=True),
    )
    owner = torch.from_numpy(centres[nearest[0], nearest[1]])[y, x]
    masks: list[Tensor] = []
    for centre in range(1, count + 1):
        mask = torch.zeros_like(on_object)
        mask[rows[owner == centre], columns[owner == centre]] = True
        if float(mask.float().mean()) >= least:
            masks.append(mask)
    return masks


def make_labels(
    ids: Int64[Tensor, "b h w"],
    shapes: Sequence[Sequence[int]],
    colours: Sequence[Sequence[int]],
) -> SceneLabels:
    """Labels from object ids per pixel (0 is background, id i is entry i - 1 of each picture's
    `shapes` and `colours`, given as places in the judge's names; a colour of -1 is not learned).
    """
    batch, height, width = ids.shape
    shape = torch.zeros_like(ids)
    colour = torch.full_like(ids, -1)
    offset = torch.zeros(batch, 2, height, width)
    xs = (torch.arange(width) + 0.5) / width
    ys = (torch.arange(height) + 0.5) / height
    for i in range(batch):
        for identity in range(1, len(shapes[i]) + 1):
            mask = ids[i] == identity
            if not mask.any():
                continue
            rows, columns = mask.any(dim=1).nonzero(), mask.any(dim=0).nonzero()
            centre_x = (columns.min() + columns.max() + 1) / (2 * width)
            centre_y = (rows.min() + rows.max() + 1) / (2 * height)
            shape[i][mask] = 1 + shapes[i][identity - 1]
            colour[i][mask] = colours[i][identity - 1]
            offset[i, 0][mask] = (centre_x - xs).expand(height, width)[mask]
            offset[i, 1][mask] = (centre_y - ys)[:, None].expand(height, width)[mask]
    return SceneLabels(shape, colour, offset)
