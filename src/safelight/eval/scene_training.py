"""Training of the scene judge on pictures with object ids per pixel."""

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import torch
from jaxtyping import UInt8
from PIL import Image
from torch import Tensor

from safelight.config import Value, near
from safelight.data.folders import PictureItem, scan
from safelight.data.order import BatchOrder
from safelight.errors import SafelightError
from safelight.eval.augment import disturb, move, random_shifts, recolour
from safelight.eval.fit import fit
from safelight.eval.scene_judge import SceneJudge, SceneJudgeConfig, make_labels
from safelight.pictures import load_picture
from safelight.rng import generator_for
from safelight.train.optim import OptimConfig

NO_COLOUR = -1

OPTIM = OptimConfig(lr=1.5e-2, optimizer="muon", schedule="cosine", warmup=50, betas=(0.95, 0.99))

RECOLOURED = 0.25
"""The part of the training pictures that are recoloured at random."""


@dataclass(frozen=True)
class SceneExamples:
    """Pictures with the objects in them.

    `ids` names the object of each pixel: 0 is background, i is entry i - 1 of the picture's
    `shapes` and `colours`, which are places in the judge's names (`NO_COLOUR` for a person).
    """

    pixels: UInt8[Tensor, "n 3 h w"]
    ids: UInt8[Tensor, "n h w"]
    shapes: tuple[tuple[int, ...], ...]
    colours: tuple[tuple[int, ...], ...]


def read_scenes(folder: Path, config: SceneJudgeConfig) -> SceneExamples:
    """Reads a folder whose metadata lists `objects` (colour, shape, segment), perhaps a `person`
    (segment), and the path of a `segmentation` picture of segment numbers.

    Raises `SafelightError` for a folder without these, or for names that the judge does not know.
    """
    items = [item for item in scan(folder).items if "segmentation" in item.extras]
    if not items:
        raise SafelightError(f"No picture in {folder} has a 'segmentation' in its metadata.")
    pixels: list[Tensor] = []
    ids: list[Tensor] = []
    names = [_objects(item, config) for item in items]
    for item in items:
        pixels.append(_read(load_picture(item.path), config.size, Image.Resampling.BOX))
        segmentation = item.path.parent / str(item.extras["segmentation"])
        with Image.open(segmentation) as image:
            ids.append(_read(image, config.size, Image.Resampling.NEAREST))
    return SceneExamples(
        torch.stack(pixels).permute(0, 3, 1, 2).contiguous(),
        torch.stack(ids),
        tuple(tuple(shape for shape, _ in objects) for objects in names),
        tuple(tuple(colour for _, colour in objects) for objects in names),
    )


def train_scene_judge(
    config: SceneJudgeConfig,
    examples: SceneExamples,
    *,
    steps: int = 2500,
    batch_size: int = 16,
    optim: OptimConfig = OPTIM,
    seed: int = 0,
    on_step: Callable[[int, float], None] | None = None,
) -> SceneJudge:
    """Trains a judge from scratch on pictures that are moved, mirrored and disturbed.

    Some pictures are recoloured at random and teach shape alone. Let the examples hold every colour
    in every shape: what never comes together is not seen together.
    """
    torch.manual_seed(seed)
    judge = SceneJudge(config)
    order = BatchOrder([len(examples.pixels)], batch_size, seed)

    def loss_at(step: int) -> Tensor:
        generator = generator_for(seed, step)
        members = [member for member, _ in order.at(step)[1]]
        picked = torch.tensor(members)
        maps = random_shifts(len(members), generator, shift=0.08, zoom=0.1, flip=True)
        pixels = move(examples.pixels[picked].float() / 127.5 - 1, maps)
        ids = move(examples.ids[picked, None].float(), maps, nearest=True)[:, 0].long()
        recoloured = torch.rand(len(members), generator=generator) < RECOLOURED
        pixels = disturb(recolour(pixels, recoloured, generator), generator)
        labels = make_labels(
            ids,
            [examples.shapes[i] for i in members],
            [
                [NO_COLOUR] * len(examples.colours[i]) if changed else examples.colours[i]
                for i, changed in zip(members, recoloured, strict=True)
            ],
        )
        return judge.loss(pixels.contiguous(memory_format=torch.channels_last), labels)

    judge.to(memory_format=torch.channels_last)  # pyright: ignore[reportCallIssue]
    fit(judge, loss_at, optim, steps=steps, on_step=on_step)
    return judge


def _objects(item: PictureItem, config: SceneJudgeConfig) -> list[tuple[int, int]]:
    """The places in the judge's names of each object's shape and colour, by segment number."""
    rows = item.extras.get("objects") or ()
    by_segment: dict[int, tuple[int, int]] = {}
    if isinstance(rows, str) or not isinstance(rows, Sequence):
        raise SafelightError(f"{item.path}: 'objects' should be a list, got {rows!r}.")
    for row in rows:
        if not isinstance(row, Mapping):
            raise SafelightError(f"{item.path}: an object should be a table, got {row!r}.")
        shape = _place(row, "shape", config.shapes, item.path)
        colour = _place(row, "colour", config.colours, item.path)
        by_segment[_segment(row, item.path)] = (shape, colour)
    person = item.extras.get("person")
    if isinstance(person, Mapping):
        by_segment[_segment(person, item.path)] = (config.shapes.index("person"), NO_COLOUR)
    if sorted(by_segment) != list(range(1, len(by_segment) + 1)):
        raise SafelightError(f"{item.path}: segments should be 1, 2, ..., got {list(by_segment)}.")
    return [by_segment[segment] for segment in sorted(by_segment)]


def _place(row: Mapping[str, Value], key: str, names: Sequence[str], path: Path) -> int:
    name = str(row.get(key))
    if name not in names:
        raise SafelightError(
            f"{path}: {key} {name!r} is not one the judge knows. {near(name, names)}"
        )
    return names.index(name)


def _segment(row: Mapping[str, Value], path: Path) -> int:
    segment = row.get("segment")
    if not isinstance(segment, int):
        raise SafelightError(f"{path}: an object needs its 'segment' number, got {segment!r}.")
    return segment


def _read(image: Image.Image, size: int, resampling: Image.Resampling) -> Tensor:
    return torch.from_numpy(np.array(image.resize((size, size), resampling)))
