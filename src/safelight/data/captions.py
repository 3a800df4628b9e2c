"""Captions of pictures: metadata files, text files beside the pictures, or names."""

import csv
import json
import os
import re
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import cast

from safelight.config import Value
from safelight.errors import SafelightError
from safelight.pictures import SUFFIXES

METADATA_NAMES = ("metadata.jsonl", "metadata.csv")


@dataclass
class Row:
    """What metadata says of one picture: its captions, its other columns as they came, and the
    folder from which files in these are named.
    """

    captions: tuple[str, ...] = ()
    extras: dict[str, Value] = field(default_factory=dict[str, Value])
    folder: Path = Path()

    def joined(self, other: "Row") -> "Row":
        """Both rows' captions, and the other's extras over ours, with its folder."""
        return Row(self.captions + other.captions, self.extras | other.extras, other.folder)


def read_metadata(path: Path) -> dict[Path, Row]:
    """The rows of a `metadata.jsonl` or `metadata.csv` by picture path.

    Each row names its picture in `file_name`, relative to the metadata file, and may caption it by
    `text` (one caption) or, in JSON, `texts` (a list of which one is drawn per epoch). Rows of the
    same picture are joined.

    Raises `SafelightError`, with the line number, for a row that cannot be understood.
    """
    rows: dict[Path, Row] = {}
    values = _jsonl_rows(path) if path.suffix == ".jsonl" else _csv_rows(path)
    for line, columns in values:
        name = columns.pop("file_name", None)
        if not isinstance(name, str) or not name:
            raise SafelightError(f"{path}, line {line}: no file_name; each row should have one.")
        picture = Path(os.path.normpath(path.parent / name))
        row = Row(_row_captions(columns, f"{path}, line {line}"), columns, path.parent)
        rows[picture] = rows[picture].joined(row) if picture in rows else row
    return rows


def mentioned_pictures(rows: Mapping[Path, Row], folder: Path) -> Iterator[Path]:
    """Pictures that a column beside `file_name` names: depth, segmentation and so on."""
    for row in rows.values():
        for text in _texts_within(list(row.extras.values())):
            if text.lower().endswith(_SUFFIXES):
                yield Path(os.path.normpath(folder / text))


def caption_beside(picture: Path) -> str | None:
    """The text of the `.txt` file beside a picture, lines joined; None if there is none.

    Raises `SafelightError` if it is not UTF-8 text.
    """
    path = picture.with_suffix(".txt")
    try:
        return " ".join(path.read_text(encoding="utf-8-sig").split())
    except FileNotFoundError:
        return None
    except UnicodeDecodeError as error:
        raise SafelightError(f"{path} is not UTF-8 text; save it as UTF-8.") from error


def caption_from_name(picture: Path, root: Path) -> str:
    """The words of a picture's name, or, where that is a camera's numbering, of its folder's.

    `root` is the outermost folder that may give the name. Empty if no name says anything.
    """
    folders = [folder for folder in picture.parents if folder == root or root in folder.parents]
    for name in [picture.stem, *(folder.resolve().name for folder in folders)]:
        words = _words(name)
        if words:
            return words
    return ""


_SUFFIXES = tuple(SUFFIXES)
_CAMERA = re.compile(
    r"(img|imgp|image|dsc|dscn|dscf|pxl|mvimg|gopr|dji|wp|pic|pict|photo|picture|screenshot|"
    r"dcim|camera|camera roll|untitled|unnamed|download|whatsapp image.*|signal)",
    re.IGNORECASE,
)
_CODE = re.compile(r"(?=.*\d)[0-9a-f]{4,}|[a-z]{0,4}\d{4,}|\d+", re.IGNORECASE)


def _words(name: str) -> str:
    words = [word for word in re.split(r"[\s_\-.()\[\],]+", name) if word]
    text = " ".join(word for word in words if not _CODE.fullmatch(word))
    if _CAMERA.fullmatch(text) or not re.search(r"[^\W\d_]{2}", text):
        return ""
    return text


def _row_captions(columns: dict[str, Value], where: str) -> tuple[str, ...]:
    captions: list[str] = []
    text = columns.pop("text", None)
    if isinstance(text, str):
        captions.append(text)
    elif text is not None:
        raise SafelightError(f"{where}: text should be a string, got {text!r}.")
    texts = columns.pop("texts", [])
    if isinstance(texts, str) or not isinstance(texts, Sequence):
        raise SafelightError(f"{where}: texts should be a list of strings, got {texts!r}.")
    for caption in texts:
        if not isinstance(caption, str):
            raise SafelightError(f"{where}: texts should hold strings only, got {caption!r}.")
        captions.append(caption)
    return tuple(captions)


def _jsonl_rows(path: Path) -> Iterator[tuple[int, dict[str, Value]]]:
    for number, text in enumerate(_text(path).split("\n"), start=1):
        if not text.strip():
            continue
        try:
            columns = json.loads(text)
        except (json.JSONDecodeError, RecursionError) as error:
            raise SafelightError(f"{path}, line {number}: not valid JSON ({error}).") from error
        if not isinstance(columns, dict):
            raise SafelightError(f"{path}, line {number}: expected a JSON object {{...}}.")
        yield number, cast(dict[str, Value], columns)


def _csv_rows(path: Path) -> Iterator[tuple[int, dict[str, Value]]]:
    reader = csv.reader(_text(path).splitlines(keepends=True), strict=True)
    try:
        header = next(reader, list[str]())
        if "file_name" not in header:
            raise SafelightError(
                f"{path}: the first line should name the columns, file_name among them; "
                f"it is {','.join(header)!r}."
            )
        for cells in reader:
            if not cells:
                continue
            if len(cells) != len(header):
                raise SafelightError(
                    f"{path}, line {reader.line_num}: expected {len(header)} cells, got "
                    f"{len(cells)}; a cell with a comma goes in double quotes."
                )
            yield reader.line_num, dict(zip(header, cells, strict=True))
    except csv.Error as error:
        raise SafelightError(f"{path}, line {reader.line_num}: {error}.") from error


def _text(path: Path) -> str:
    try:
        return path.read_text(encoding="utf-8-sig")
    except UnicodeDecodeError as error:
        raise SafelightError(f"{path} is not UTF-8 text; save it as UTF-8.") from error


def _texts_within(values: Sequence[Value]) -> Iterator[str]:
    for value in values:
        if isinstance(value, str):
            yield value
        elif isinstance(value, Mapping):
            yield from _texts_within(list(value.values()))
        elif isinstance(value, Sequence):
            yield from _texts_within(value)
