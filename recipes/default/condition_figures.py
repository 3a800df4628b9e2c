"""What pictures made under a condition are held to: figures of what a judge found in them."""

from collections.abc import Mapping, Sequence

import torch
from conditions import PALETTE, PERSON
from jaxtyping import Bool, Float, Int64, UInt8
from torch import Tensor

from safelight.eval.scene_truth import FoundObject
from safelight.types import Box

Edges = tuple[float, float, float, float]
Figures = Mapping[str, Mapping[str, float]]
"""Each figure by its name, and of each the values by what was measured."""

NEAR = 0.5
"""The intersection over union from which on a box is where it was asked for."""

LOWER = {"Fréchet distance", "depth error"}  # is better
PARTS = {
    "prompt followed",
    "class there",
    "pixel accuracy",
    "mean IoU",
    "boxes kept",
    "own picture first of 100",
}


def name_of(thing: FoundObject) -> str:
    """The class of an object as `conditions.py` names it."""
    return PERSON if thing.shape == PERSON else f"{thing.colour} {thing.shape}"


def box_iou(a: Edges, b: Edges) -> float:
    """Intersection over union of two boxes."""
    across = min(a[2], b[2]) - max(a[0], b[0])
    down = min(a[3], b[3]) - max(a[1], b[1])
    common = max(across, 0.0) * max(down, 0.0)
    whole = sum((box[2] - box[0]) * (box[3] - box[1]) for box in (a, b))
    return common / (whole - common)


def classes_there(
    names: Sequence[str], found: Sequence[Sequence[FoundObject]]
) -> Float[Tensor, " n"]:
    """Whether each picture shows an object of the class that was asked of it."""
    there = [name in map(name_of, things) for name, things in zip(names, found, strict=True)]
    return torch.tensor(there).float()


def boxes_kept(
    asked: Sequence[Sequence[Box]], found: Sequence[Sequence[FoundObject]]
) -> Float[Tensor, " k"]:
    """Whether, for each box of each picture, an object that its label names stands there."""
    kept = [
        any(
            f"a {name_of(thing)}" == box.label and box_iou(thing.box, box.edges) >= NEAR
            for thing in things
        )
        for boxes, things in zip(asked, found, strict=True)
        for box in boxes
    ]
    return torch.tensor(kept).float()


def painted_kinds(
    levels: UInt8[Tensor, "n h w 3"], shapes: Sequence[str]
) -> Int64[Tensor, "n h w"]:
    """What each pixel of painted maps is: 0 for the room, else one more than its place in `shapes`.

    Raises `ValueError` for a colour that the palette has not.
    """
    kinds = torch.full(levels.shape[:3], -1, dtype=torch.int64)
    for name, colour in PALETTE.items():
        here = (levels == torch.tensor(list(bytes.fromhex(colour[1:])))).all(dim=3)
        kinds[here] = 1 + shapes.index(name) if name in shapes else 0
    if (kinds < 0).any():
        raise ValueError("A painted map has colours that conditions.py does not paint with.")
    return kinds


def kept_psnr(
    made: Float[Tensor, "n 3 h w"], real: Float[Tensor, "n 3 h w"], masks: Bool[Tensor, "n h w"]
) -> Float[Tensor, " n"]:
    """Peak signal-to-noise ratio in dB of pixels in [-1, 1] where the mask is not."""
    kept = ~masks[:, None]
    error = ((made - real).square() * kept).sum(dim=(1, 2, 3)) / (3 * kept.sum(dim=(1, 2, 3)))
    return 10 * torch.log10(4 / error)


def own_first(made: Float[Tensor, "n d"], real: Float[Tensor, "n d"]) -> Float[Tensor, " n"]:
    """Whether the embedding of each picture's own original is the nearest to its own by cosine."""
    cosines = (
        torch.nn.functional.normalize(made, dim=1) @ torch.nn.functional.normalize(real, dim=1).T
    )
    own = cosines.diagonal()[:, None]
    others = cosines.masked_fill(torch.eye(len(cosines), dtype=torch.bool), -2.0)
    return (others < own).all(dim=1).float()


def table(report: Mapping[str, Mapping[str, Figures]], arms: Sequence[str]) -> str:
    """The figures as a Markdown table: one row for each condition, kind of pictures and figure."""
    head = ["condition", "pictures", "", *arms]
    lines = [_row(head), "|---|---|---|" + "---:|" * len(arms)]
    for kind, subjects in report.items():
        for subject, figures in subjects.items():
            for figure, values in figures.items():
                name = f"{figure} (lower is better)" if figure in LOWER else figure
                cells = [shown(figure, values.get(arm)) for arm in arms]
                lines.append(_row([kind.replace("_", " "), subject, name, *cells]))
    return "\n".join(lines)


def shown(figure: str, value: float | None) -> str:
    """A figure as a table has it."""
    if value is None:
        return ""
    if figure in PARTS:
        return f"{100 * value:.1f} %"
    return f"{value:.3f}" if figure == "depth error" else f"{value:.1f}"


def _row(cells: Sequence[str]) -> str:
    return f"| {' | '.join(cells)} |"
