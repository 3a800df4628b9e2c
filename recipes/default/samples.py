"""Grids of what a model makes, for the model card: `python samples.py` writes docs/samples/*.png.

One grid over guidance scales and one over steps, for prompts from training and for pairs held out
from it (`held_out.toml`): no caption of training puts these words together.
"""

import argparse
from collections.abc import Callable, Sequence
from pathlib import Path

from held_out import HERE
from PIL import Image, ImageDraw, ImageFont

import safelight
from safelight.pipelines.image import ImagePipeline

SEEN = (
    "a 3d emoji of a red apple",
    "a flat emoji of a sun",
    "a 3d emoji of a green apple",
    "a flat emoji of a blue heart",
    "a blue cube",
    "two green balls",
    "a yellow cone left of a red ball",
    "a person with both arms raised",
)
HELD_OUT = (
    "a 3d emoji of grapes",
    "a 3d emoji of a bear",
    "a flat emoji of a balloon",
    "a flat emoji of a locomotive",
    "a black ball",
    "a red cone",
    "a yellow cube",
    "a purple cylinder left of a green cube",
)
SCALES = (1.0, 3.0, 7.0)
STEPS = (5, 10, 20, 50)
SEED = 11
CELL, MARGIN, LABEL = 96, 4, 44  # room for three lines


def grid(
    columns: Sequence[str], rows: Sequence[str], make: Callable[[int, int], Image.Image]
) -> Image.Image:
    """Labelled pictures; `make(row, column)` gives each."""
    font = ImageFont.load_default(10)
    left = 62
    width = left + len(columns) * (CELL + MARGIN)
    sheet = Image.new("RGB", (width, LABEL + len(rows) * (CELL + MARGIN)), "white")
    draw = ImageDraw.Draw(sheet)
    for c, name in enumerate(columns):
        at = (left + c * (CELL + MARGIN), 2)
        draw.multiline_text(at, _wrapped(name), fill="black", font=font, spacing=1)
    for r, name in enumerate(rows):
        top = LABEL + r * (CELL + MARGIN)
        draw.text((4, top + CELL // 2 - 6), name, fill="black", font=font)
        for c in range(len(columns)):
            picture = make(r, c).resize((CELL, CELL), Image.Resampling.LANCZOS)
            sheet.paste(picture, (left + c * (CELL + MARGIN), top))
    return sheet


def by_scale(pipeline: ImagePipeline, prompts: Sequence[str]) -> Image.Image:
    """Guidance scales against prompts, at the model's own steps."""

    def make(row: int, column: int) -> Image.Image:
        return pipeline.generate(prompts[column], scale=SCALES[row], seed=SEED + column)[0].image

    return grid(prompts, [f"scale {scale:g}" for scale in SCALES], make)


def by_steps(pipeline: ImagePipeline, prompts: Sequence[str]) -> Image.Image:
    """Numbers of steps against prompts, at the model's own scale."""

    def make(row: int, column: int) -> Image.Image:
        return pipeline.generate(prompts[column], steps=STEPS[row], seed=SEED + column)[0].image

    return grid(prompts, [f"{steps} steps" for steps in STEPS], make)


def _wrapped(text: str, width: int = 18) -> str:
    lines = [""]
    for word in text.split():
        if len(lines[-1]) + len(word) >= width:
            lines.append("")
        lines[-1] = f"{lines[-1]} {word}".strip()
    return "\n".join(lines)


def main() -> None:
    """Writes the four grids."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--model", default="default")
    parser.add_argument("--prompts", type=int, help="how many of each grid's; by default all")
    parser.add_argument("--output", type=Path, default=HERE.parents[1] / "docs" / "samples")
    arguments = parser.parse_args()
    pipeline = safelight.load(arguments.model)
    arguments.output.mkdir(parents=True, exist_ok=True)
    for name, prompts in (("seen", SEEN), ("held_out", HELD_OUT)):
        some = prompts[: arguments.prompts]
        by_scale(pipeline, some).save(arguments.output / f"{name}_by_scale.png", optimize=True)
        by_steps(pipeline, some).save(arguments.output / f"{name}_by_steps.png", optimize=True)


if __name__ == "__main__":
    main()
