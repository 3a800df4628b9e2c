"""What the scenes can be conditioned on: `python conditions.py`, after `scenes.py`.

Writes `work/pictures/conditions/{train,held_out}/metadata.jsonl`: for each scene its picture and
captions, and beside them a class (that of its first object), a depth map, a map of what each pixel
is, painted in colours, and the boxes of its objects with their labels.
"""

import argparse
import json
import os
from pathlib import Path

import numpy as np
from camera import PICTURE
from held_out import HERE
from hints import Row, depth_hint
from PIL import Image
from solids import SHAPES

PERSON = "person"
PALETTE = {
    "room": "#000000",
    "cube": "#e6194b",
    "ball": "#3cb44b",
    "cylinder": "#4363d8",
    "cone": "#f58231",
    "pyramid": "#f032e6",
    "ring": "#ffe119",
    PERSON: "#42d4f4",
}
"""The colours of the painted maps, as the recipes name them."""

SPLITS = {"train": "train", "held_out": "held_out_pictures"}


def class_of(row: Row) -> str:
    """The colour and shape of the first object, or "person"."""
    return PERSON if "person" in row else "{colour} {shape}".format(**row["objects"][0])


def boxes_of(row: Row) -> list[dict[str, object]]:
    """What is where: labels and edges as parts of the picture."""
    found = [("a {colour} {shape}".format(**thing), thing["box"]) for thing in row["objects"]]
    if "person" in row:
        found.append(("a person", row["person"]["box"]))
    return [{"label": label, "box": [edge / PICTURE for edge in box]} for label, box in found]


def painted(folder: Path, row: Row) -> Image.Image:
    """The scene with each thing in the colour of its kind."""
    segments = np.asarray(Image.open(folder / str(row["segmentation"])))
    kinds = {thing["segment"]: thing["shape"] for thing in row["objects"]}
    if "person" in row:
        kinds[row["person"]["segment"]] = PERSON
    levels = np.zeros((*segments.shape, 3), np.uint8)
    for segment, kind in kinds.items():
        levels[segments == segment] = list(bytes.fromhex(PALETTE[kind][1:]))
    return Image.fromarray(levels)


def write(scenes: Path, split: str, folder: Path) -> None:
    """Writes maps and rows of one split."""
    (folder / "maps").mkdir(parents=True, exist_ok=True)
    lines: list[str] = []
    metadata = scenes / split / "metadata.jsonl"
    for line in metadata.read_text(encoding="utf-8").splitlines():
        row: Row = json.loads(line)
        stem = Path(str(row["file_name"])).stem
        depth, semantic = f"maps/{stem}-depth.png", f"maps/{stem}-semantic.png"
        depth_hint(metadata.parent, row).save(folder / depth)
        painted(metadata.parent, row).save(folder / semantic)
        for key in ("file_name", "depth", "segmentation", "keypoints"):
            if key in row:
                row[key] = os.path.relpath(metadata.parent / str(row[key]), folder)
        more = {"conditioning_image": depth, "semantic": semantic}
        lines.append(json.dumps(row | more | {"class": class_of(row), "boxes": boxes_of(row)}))
    scratch = folder / "metadata.writing"
    scratch.write_text("\n".join(lines) + "\n", encoding="utf-8")
    scratch.rename(folder / "metadata.jsonl")
    print(f"conditions: {len(lines)} scenes in {folder.name}", flush=True)


def main() -> None:
    """Writes both splits."""
    assert set(SHAPES) < set(PALETTE)
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--work", type=Path, default=HERE / "work")
    pictures = parser.parse_args().work / "pictures"
    for part, split in SPLITS.items():
        write(pictures / "scenes", split, pictures / "conditions" / part)


if __name__ == "__main__":
    main()
