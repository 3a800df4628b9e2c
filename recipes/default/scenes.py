"""Scenes with exact ground truth, rendered by MuJoCo.

`python scenes.py` writes 128 px pictures and `metadata.jsonl` to
`work/pictures/scenes/{train,held_out_pairs,held_out_pictures}/`, and beside them `truth/` with
depth, segmentation and key points by split. The splits `people`, `held_out_people` and
`judge_people` show people alone, for what learns or judges poses.

Pictures are drawn in chunks. A chunk that these same sources drew is not drawn again, so that an
interrupted run goes on and a larger count adds to what is there.
"""

import argparse
import hashlib
import json
import multiprocessing
import random
from collections.abc import Collection
from dataclasses import dataclass
from pathlib import Path

import numpy as np
from boxes import Box, find_boxes, relation_holds
from camera import PICTURE, Camera, fit
from held_out import HERE, read
from people import KEYPOINTS
from PIL import Image
from scene_layout import Scene, draw_scene
from solids import COLOURS
from stage import FAR, Render, Stage

SEED = 0
CHUNK = 250
COUNTS = {"train": 8500, "held_out_pairs": 500, "held_out_pictures": 500}
PEOPLE = {"people": 3000, "held_out_people": 200, "judge_people": 3000}
DEPTH_SCALE = FAR / 65535
"""Metres per step of the 16-bit depth pictures."""

SOURCES = (
    *("boxes.py", "camera.py", "held_out.toml", "people.py", "scene_captions.py"),
    *("scene_layout.py", "scenes.py", "solids.py", "stage.py"),
)
"""The files that decide what is drawn."""

LEAST_VISIBLE = 0.6
"""The least part of a solid that others may leave in sight."""

LIMB = 0.2
"""How deep inside the body a key point may lie and yet be in sight, in metres."""

Row = dict[str, object]


@dataclass(frozen=True)
class Drawn:
    """A scene with its picture and truth, and the objects' boxes (see `find_boxes`) by id."""

    scene: Scene
    camera: Camera
    render: Render
    boxes: dict[int, Box]
    keypoints: np.ndarray


def draw(stage: Stage, split: str, number: int, held_out: Collection[tuple[str, str]]) -> Drawn:
    """Draws the picture `number` of a split; the same on every run.

    A layout in which a solid is hidden too much, or leaves the picture, is drawn again.
    """
    rng = random.Random(f"{SEED}:{split}:{number}")
    while True:
        scene = draw_scene(rng, held_out, split == "held_out_pairs", split in PEOPLE)
        points, keypoints = stage.place(list(scene.solids), scene.person, scene.look)
        view = scene.view
        camera = fit(points, view.elevation, view.fovy, view.fill, view.shift)
        render = stage.render(camera)
        boxes = find_boxes(render.ids)
        if is_clear(stage, scene, camera, render, boxes):
            return Drawn(scene, camera, render, boxes, keypoints)


def is_clear(
    stage: Stage,
    scene: Scene,
    camera: Camera,
    render: Render,
    boxes: dict[int, Box],
) -> bool:
    """Whether every object is inside the picture, in sight, and where the captions say."""
    count = len(scene.solids) + (scene.person is not None)
    inside = all(min(box) > 0 and max(box) < PICTURE for box in boxes.values())
    if len(boxes) != count or not inside:
        return False
    if scene.relation is not None and not relation_holds(scene.relation, boxes[1], boxes[2]):
        return False
    if count == 1:
        return True
    return all(
        (render.ids == identity).sum()
        >= LEAST_VISIBLE * (stage.segment(camera, only=identity) == identity).sum()
        for identity in boxes
    )


def in_sight(render: Render, x: float, y: float, depth: float) -> bool:
    """Whether nothing but the limb around it lies before a key point at pixel (x, y)."""
    column, row = int(x), int(y)
    if not (0 <= column < PICTURE and 0 <= row < PICTURE):
        return False
    return bool(depth - render.depth[row, column] < LIMB)


def save(drawn: Drawn, folder: Path, split: str, number: int) -> Row:
    """Writes the picture and its truth; returns its row of `metadata.jsonl`."""
    scene, render, camera = drawn.scene, drawn.render, drawn.camera
    name = f"{number:05}"
    Image.fromarray(render.rgb).save(folder / split / f"{name}.png")
    truth = folder / "truth" / split
    steps = np.clip(np.rint(render.depth / DEPTH_SCALE), 0, 65535).astype(np.uint16)
    Image.fromarray(steps).save(truth / "depth" / f"{name}.png")
    Image.fromarray(render.ids).save(truth / "segmentation" / f"{name}.png")
    row: Row = {
        "file_name": f"{name}.png",
        "texts": list(scene.texts),
        "id": f"{split}-{name}",
        "style": "scene",
        "label": scene.texts[0],
        "group": scene.kind,
        "objects": [
            {
                "colour": solid.colour,
                "rgb": list(COLOURS[solid.colour]),
                "shape": solid.shape,
                "size": solid.size,
                "box": list(drawn.boxes[identity]),
                "position": [round(solid.x, 4), round(solid.y, 4)],
                "yaw": round(solid.yaw, 2),
                "segment": identity,
            }
            for identity, solid in enumerate(scene.solids, start=1)
        ],
        "relation": scene.relation,
        "floor": scene.look.floor,
        "camera": {
            "position": [round(float(value), 5) for value in camera.position],
            "lookat": [round(value, 5) for value in camera.lookat],
            "elevation": round(camera.elevation, 4),
            "fovy": round(camera.fovy, 4),
        },
        "depth": f"../truth/{split}/depth/{name}.png",
        "depth_scale": DEPTH_SCALE,
        "segmentation": f"../truth/{split}/segmentation/{name}.png",
    }
    if scene.person is not None:
        spots, depths = camera.project(drawn.keypoints)
        points = {
            point: [
                round(float(x), 2),
                round(float(y), 2),
                round(float(z), 4),
                in_sight(render, x, y, z),
            ]
            for point, (x, y), z in zip(KEYPOINTS, spots * PICTURE, depths, strict=True)
        }
        (truth / "keypoints" / f"{name}.json").write_text(json.dumps(points), encoding="utf-8")
        row["keypoints"] = f"../truth/{split}/keypoints/{name}.json"
        row["person"] = {
            "pose": scene.person.names[0],
            "shirt": scene.person.shirt,
            "trousers": scene.person.trousers,
            "yaw": round(scene.person.yaw, 2),
            "box": list(drawn.boxes[1]),
            "segment": 1,
        }
    return row


_stage: Stage | None = None


def draw_chunk(task: tuple[Path, str, int, int]) -> str:
    """Draws the pictures `start` to `stop` of a split and writes their rows to one file, last."""
    global _stage
    _stage = _stage or Stage()
    folder, split, start, stop = task
    held_out = read().colour_shape
    rows = [
        json.dumps(save(draw(_stage, split, number, held_out), folder, split, number))
        for number in range(start, stop)
    ]
    part = part_path(folder, split, start, stop)
    scratch = part.with_suffix(".writing")
    scratch.write_text("\n".join(rows) + "\n", encoding="utf-8")
    scratch.rename(part)
    return part.name


def part_path(folder: Path, split: str, start: int, stop: int) -> Path:
    """Where the rows of a chunk lie."""
    return folder / "truth" / split / f"rows-{start:05}-{stop:05}.jsonl"


def forget_other_versions(truth: Path) -> None:
    """Forgets chunks that other sources drew, so that they are drawn again."""
    digest = hashlib.sha256(b"".join((HERE / name).read_bytes() for name in SOURCES)).hexdigest()
    version = truth / "version.txt"
    if not version.exists() or version.read_text(encoding="utf-8") != digest:
        for part in truth.glob("*/rows-*.jsonl"):
            part.unlink()
        version.write_text(digest, encoding="utf-8")


def main() -> None:
    """Draws every split and joins the rows."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--work", type=Path, default=HERE / "work")
    parser.add_argument("--processes", type=int, default=1)
    parser.add_argument("--train", type=int, default=COUNTS["train"], help="training pictures")
    arguments = parser.parse_args()
    folder = arguments.work / "pictures" / "scenes"
    counts = COUNTS | {"train": arguments.train} | PEOPLE
    for split in counts:
        (folder / split).mkdir(parents=True, exist_ok=True)
        for truth in ("depth", "segmentation", "keypoints"):
            (folder / "truth" / split / truth).mkdir(parents=True, exist_ok=True)
    forget_other_versions(folder / "truth")
    chunks = [
        (folder, split, start, min(start + CHUNK, count))
        for split, count in counts.items()
        for start in range(0, count, CHUNK)
    ]
    missing = [chunk for chunk in chunks if not part_path(*chunk).exists()]
    context = multiprocessing.get_context("spawn")
    with context.Pool(arguments.processes) as pool:
        for done, name in enumerate(pool.imap_unordered(draw_chunk, missing), start=1):
            print(f"scenes: {done} of {len(missing)} chunks ({name})", flush=True)
    for split in counts:
        parts = [part_path(*chunk) for chunk in chunks if chunk[1] == split]
        text = "".join(part.read_text(encoding="utf-8") for part in parts)
        scratch = folder / split / "metadata.writing"
        scratch.write_text(text, encoding="utf-8")
        scratch.rename(folder / split / "metadata.jsonl")


if __name__ == "__main__":
    main()
