"""Hints with exact truth for the scenes: `python hints.py`, after `scenes.py`.

Writes `work/pictures/hints/{depth,pose}/{train,held_out}/`: a hint for each picture, and a
`metadata.jsonl` that names the picture, its captions and truth, and its hint as
`conditioning_image`, the column that diffusers' ControlNet data sets have.
"""

import argparse
import json
import os
from collections.abc import Callable
from pathlib import Path

import numpy as np
from camera import PICTURE
from held_out import HERE
from PIL import Image

from safelight.conditioners.annotators.pose import Keypoint, Person, draw_pose

Row = dict[str, object]

POSES = {"train": ("train", "people"), "held_out": ("held_out_people",)}
DEPTHS = {"train": ("train",), "held_out": ("held_out_pictures",)}
WIDTH = PICTURE * 4 // 512  # of the sticks, as published models know them at 512 pixels
OPENPOSE = (
    *("nose", "neck", "right_shoulder", "right_elbow", "right_wrist", "left_shoulder"),
    *("left_elbow", "left_wrist", "right_hip", "right_knee", "right_ankle", "left_hip"),
    *("left_knee", "left_ankle", "right_eye", "left_eye", "right_ear", "left_ear"),
)
"""OpenPose's 18 points, in its order."""


def nearness(folder: Path, row: Row) -> np.ndarray:
    """A scene's inverse depth, (h, w), from 0 (far) to 1 (near)."""
    steps = np.asarray(Image.open(folder / str(row["depth"])), dtype=np.float64)
    inverse = 1 / steps.clip(1)
    return (inverse - inverse.min()) / np.ptp(inverse)


def read_points(folder: Path, row: Row) -> tuple[np.ndarray, np.ndarray]:
    """A person's key points in OpenPose's order, (18, 2) as parts of the picture, and which of them
    are in sight, (18,).
    """
    points = json.loads((folder / str(row["keypoints"])).read_text(encoding="utf-8"))
    rows = [points[name] for name in OPENPOSE]
    return np.array([row[:2] for row in rows]) / PICTURE, np.array([row[3] for row in rows])


def depth_hint(folder: Path, row: Row) -> Image.Image:
    """Inverse depth from black (far) to white (near), as MiDaS gives it and ControlNets take it."""
    levels = np.rint(nearness(folder, row) * 255).astype(np.uint8)
    return Image.fromarray(levels).convert("RGB")


def pose_hint(folder: Path, row: Row) -> Image.Image:
    """The person's key points that are in sight, as OpenPose draws them."""
    spots, in_sight = read_points(folder, row)
    body = tuple(
        Keypoint(float(x), float(y)) if seen else None
        for (x, y), seen in zip(spots * PICTURE, in_sight, strict=True)
    )
    return draw_pose([Person(body)], (PICTURE, PICTURE), WIDTH)


def write(
    scenes: Path,
    splits: tuple[str, ...],
    folder: Path,
    has: str,
    draw: Callable[[Path, Row], Image.Image],
) -> None:
    """Writes the hints of those pictures of the splits whose rows have the truth `has`."""
    folder.mkdir(parents=True, exist_ok=True)
    lines: list[str] = []
    for split in splits:
        metadata = scenes / split / "metadata.jsonl"
        for line in metadata.read_text(encoding="utf-8").splitlines():
            row: Row = json.loads(line)
            if has not in row:
                continue
            name = f"{split}-{row['file_name']}"
            draw(metadata.parent, row).save(folder / name)
            for key in ("file_name", "depth", "segmentation", "keypoints"):
                if key in row:
                    row[key] = os.path.relpath(scenes / split / str(row[key]), folder)
            lines.append(json.dumps(row | {"conditioning_image": name}))
    scratch = folder / "metadata.writing"
    scratch.write_text("\n".join(lines) + "\n", encoding="utf-8")
    scratch.rename(folder / "metadata.jsonl")
    print(f"hints: {len(lines)} in {folder.parent.name}/{folder.name}", flush=True)


def main() -> None:
    """Writes all hints."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--work", type=Path, default=HERE / "work")
    pictures = parser.parse_args().work / "pictures"
    for part, splits in DEPTHS.items():
        write(pictures / "scenes", splits, pictures / "hints/depth" / part, "depth", depth_hint)
    for part, splits in POSES.items():
        write(pictures / "scenes", splits, pictures / "hints/pose" / part, "keypoints", pose_hint)


if __name__ == "__main__":
    main()
