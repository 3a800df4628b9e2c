"""Pictures in rows and columns with their labels, as one picture."""

import re
from collections.abc import Sequence
from itertools import accumulate

from PIL import Image, ImageDraw, ImageFont

_LEAST, _MOST = 14, 48  # pixels of a letter's height, legible and not huge
_PER_CELL = 20  # letters' heights that a cell is wide
_NARROWEST = 7  # letters' heights that a column is at least wide where its label needs them
_PAPER, _INK = "white", "black"
_PIECE = re.compile(r"\s*(?:[^\s_/.:-]|(?<=\d)\.(?=\d))+[_/.:-]*|\s*[_/.:-]+")

Font = ImageFont.FreeTypeFont | ImageFont.ImageFont


def grid_picture(
    rows: Sequence[Sequence[Image.Image]], x_labels: Sequence[str], y_labels: Sequence[str]
) -> Image.Image:
    """The pictures with `x_labels` above the columns and `y_labels` before the rows.

    Cells may differ in size: a column is as wide as its widest. Labels are broken into lines where
    they do not fit, so that none meets another; without any y label there is no column for them.
    """
    widest = max(cell.width for row in rows for cell in row)
    size = min(max(widest // _PER_CELL, _LEAST), _MOST)
    font, gap = ImageFont.load_default(size), size // 2
    line = round(size * 1.3)
    columns = [
        max(*(row[i].width for row in rows), min(_width(label, font) + 2 * gap, size * _NARROWEST))
        for i, label in enumerate(x_labels)
    ]
    above = [
        _lines(label, font, width - 2 * gap) for label, width in zip(x_labels, columns, strict=True)
    ]
    before = [_lines(label, font, max(widest // 2, size * _NARROWEST)) for label in y_labels]
    side = max((_width(text, font) for lines in before for text in lines), default=0)
    top = max(map(len, above)) * line
    heights = [
        max(*(cell.height for cell in row), len(lines) * line)
        for row, lines in zip(rows, before, strict=True)
    ]
    lefts = [*accumulate(columns, lambda x, width: x + width + gap, initial=side + 2 * gap)]
    tops = [*accumulate(heights, lambda y, height: y + height + gap, initial=top + 2 * gap)]
    picture = Image.new("RGB", (lefts[-1], tops[-1]), _PAPER)
    draw = ImageDraw.Draw(picture)
    for left, width, lines in zip(lefts, columns, above, strict=False):
        y = gap + top - len(lines) * line
        _write(draw, lines, (left + width // 2, y), "ma", font, line)
    for y, height, lines in zip(tops, heights, before, strict=False):
        middle = y + (height - len(lines) * line) // 2
        _write(draw, lines, (gap + side, middle), "ra", font, line)
    for y, height, row in zip(tops, heights, rows, strict=False):
        for left, width, cell in zip(lefts, columns, row, strict=False):
            place = (left + (width - cell.width) // 2, y + (height - cell.height) // 2)
            picture.paste(cell, place)
    return picture


def _lines(label: str, font: Font, width: int) -> list[str]:
    """A label in lines of at most a width: broken between words, else after the marks that part
    names, else anywhere.
    """
    lines = [""]
    for piece in _PIECE.findall(" ".join(label.split())):
        if _width(lines[-1] + piece.rstrip(), font) <= width:
            lines[-1] += piece
            continue
        rest = piece.lstrip()
        while _width(rest, font) > width and len(rest) > 1:
            fits = max(n for n in range(1, len(rest)) if n == 1 or _width(rest[:n], font) <= width)
            lines.append(rest[:fits])
            rest = rest[fits:]
        lines.append(rest)
    return [line.strip() for line in lines if line.strip()]


def _width(text: str, font: Font) -> int:
    return int(font.getlength(text)) + 1


def _write(
    draw: ImageDraw.ImageDraw,
    lines: Sequence[str],
    place: tuple[int, int],
    anchor: str,
    font: Font,
    line: int,
) -> None:
    x, y = place
    for i, text in enumerate(lines):
        draw.text((x, y + i * line), text, _INK, font=font, anchor=anchor)
