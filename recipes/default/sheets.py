"""Sheets of pictures for the docs, and cells that say or draw what was asked."""

from collections.abc import Sequence

import torch
from PIL import Image, ImageDraw, ImageFont
from solids import COLOURS
from torch import Tensor

from safelight.pictures import to_image, to_pixels
from safelight.types import Box

SHOWN = 10
_GREY = (128, 128, 128)


def sheet(rows: Sequence[Tensor]) -> Image.Image:
    """Rows of pictures in [-1, 1] below each other, ten of each, evenly spaced."""
    places = torch.linspace(0, len(rows[0]) - 1, min(SHOWN, len(rows[0]))).round().long()
    joined = torch.cat([torch.cat(list(row[places]), dim=2) for row in rows], dim=1)
    image = to_image(joined)
    return image.resize((image.width * 3 // 2, image.height * 3 // 2), Image.Resampling.LANCZOS)


def written(text: str, size: int) -> Tensor:
    """A white cell with a word a line."""
    image = Image.new("RGB", (size, size), "white")
    pen, font = ImageDraw.Draw(image), ImageFont.load_default(size // 5)
    pen.multiline_text(
        (size / 2, size / 2), text.replace(" ", "\n"), "black", font, anchor="mm", align="center"
    )
    return to_pixels(image)


def boxed(boxes: Sequence[Box], size: int) -> Tensor:
    """A white cell with boxes in the colours that their labels name (white in grey), and of each
    label the last word.
    """
    image = Image.new("RGB", (size, size), "white")
    pen, font = ImageDraw.Draw(image), ImageFont.load_default(size // 6)
    for box in boxes:
        edges = [min(round(edge * size), size - 1) for edge in box.edges]
        words = box.label.split()
        colour = next((word for word in words if word in COLOURS and word != "white"), None)
        ink = tuple(round(255 * part) for part in COLOURS[colour]) if colour else _GREY
        pen.rectangle(edges, outline=ink, width=2)
        pen.text((edges[0] + 3, edges[1] + 2), words[-1], "black", font)
    return to_pixels(image)
