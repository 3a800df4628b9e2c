"""Scenes that move, rendered by MuJoCo: `python moving.py`.

Writes clips of 128 px, 24 frames of 42 ms, as animated WebP with a `metadata.jsonl`, to
`work/clips/scenes/{train,held_out,held_out_pairs}/`: solids that roll, slide, bounce, fall, spin
and hit each other by MuJoCo's physics, and people who wave, walk in place and the like.

Clips are drawn in chunks. A chunk that these same sources drew is not drawn again, so that an
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
from camera import Camera, fit
from held_out import HERE, read
from moving_people import draw_acting
from moving_solids import draw_play
from moving_stage import MovingStage
from PIL import Image
from solids import FLOORS, Look

SEED = 0
CHUNK = 20
FRAMES = 24
MILLISECONDS = 42
"""Of a frame, as the animated emoji have it."""

COUNTS = {"train": 1200, "held_out": 96, "held_out_pairs": 48}
PEOPLE = 0.25
"""The part of the clips, but of `held_out_pairs`, that show a person."""

SOURCES = (
    *("camera.py", "held_out.toml", "moving.py", "moving_people.py", "moving_solids.py"),
    *("moving_stage.py", "people.py", "scene_captions.py", "solids.py", "stage.py"),
)
"""The files that decide what is drawn."""

Row = dict[str, object]


@dataclass(frozen=True)
class Drawn:
    """A clip: what it is of, captions, and frames."""

    kind: str
    texts: tuple[str, ...]
    frames: list[Image.Image]


def draw(
    stage: MovingStage, split: str, number: int, held_out: Collection[tuple[str, str]]
) -> Drawn:
    """Draws clip `number` of a split; the same on every run."""
    rng = random.Random(f"{SEED}:moving:{split}:{number}")
    look = draw_look(rng)
    only_held_out = split == "held_out_pairs"
    dt = MILLISECONDS / 1000
    if not only_held_out and rng.random() < PEOPLE:
        acting, texts = draw_acting(rng, look.floor)
        places, points = stage.act([acting.at(k * dt) for k in range(FRAMES)], look)
        kind, fill = "person", (0.84, 0.93)
    else:
        play = draw_play(rng, held_out, look.floor, only_held_out=only_held_out)
        places, points = stage.play(play, look, FRAMES, dt)
        kind, texts, fill = play.kind, play.texts, (0.5, 0.75) if play.held else (0.78, 0.93)
    camera = draw_camera(rng, points, fill)
    frames: list[Image.Image] = []
    for place in places:
        stage.at(place)
        frames.append(stage.shoot(camera))
    return Drawn(kind, texts, frames)


def draw_look(rng: random.Random) -> Look:
    """A room as the scenes that stand still have it."""
    return Look(
        floor=rng.choice(sorted(FLOORS)),
        wall_shade=rng.choice((0.86, 0.93, 1.07, 1.15)),
        light_azimuth=rng.uniform(-60, 60),
        light_elevation=rng.uniform(42, 66),
        light=rng.uniform(0.5, 0.7),
        ambient=rng.uniform(0.36, 0.46),
    )


def draw_camera(rng: random.Random, points: np.ndarray, fill: tuple[float, float]) -> Camera:
    """A camera that sees all points throughout the clip."""
    shift = (rng.uniform(-0.5, 0.5), rng.uniform(-0.4, 0.4))
    return fit(points, rng.uniform(-30, -12), rng.uniform(34, 46), rng.uniform(*fill), shift)


def save(drawn: Drawn, folder: Path, number: int) -> Row:
    """Writes the clip; returns its row of `metadata.jsonl`."""
    name = f"{number:05}.webp"
    first, *others = drawn.frames
    first.save(
        folder / name,
        save_all=True,
        append_images=others,
        duration=MILLISECONDS,
        loop=0,
        quality=92,
        method=2,
    )
    return {
        "file_name": name,
        "texts": list(drawn.texts),
        "style": "scene",
        "label": drawn.texts[0],
        "group": drawn.kind,
    }


_stage: MovingStage | None = None


def draw_chunk(task: tuple[Path, int, int]) -> str:
    """Draws the clips `start` to `stop` of a split and writes their rows to one file, last."""
    global _stage
    _stage = _stage or MovingStage()
    folder, start, stop = task
    held_out = read().colour_shape
    rows = [
        json.dumps(save(draw(_stage, folder.name, number, held_out), folder, number))
        for number in range(start, stop)
    ]
    part = part_path(*task)
    scratch = part.with_suffix(".writing")
    scratch.write_text("\n".join(rows) + "\n", encoding="utf-8")
    scratch.rename(part)
    return f"{folder.name}/{part.name}"


def part_path(folder: Path, start: int, stop: int) -> Path:
    """Where the rows of a chunk lie: hidden, so that no training reads them."""
    return folder / ".rows" / f"{start:05}-{stop:05}.jsonl"


def forget_other_versions(folder: Path) -> None:
    """Forgets chunks that other sources drew, so that they are drawn again."""
    digest = hashlib.sha256(b"".join((HERE / name).read_bytes() for name in SOURCES)).hexdigest()
    version = folder / "version.txt"
    if not version.exists() or version.read_text(encoding="utf-8") != digest:
        for part in folder.glob("*/.rows/*.jsonl"):
            part.unlink()
        version.write_text(digest, encoding="utf-8")


def main() -> None:
    """Draws every split and joins the rows."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--work", type=Path, default=HERE / "work")
    parser.add_argument("--processes", type=int, default=1)
    parser.add_argument("--train", type=int, default=COUNTS["train"], help="training clips")
    parser.add_argument("--held-out", type=int, help="clips of each other split, at most")
    arguments = parser.parse_args()
    folder = arguments.work / "clips" / "scenes"
    counts = COUNTS | {"train": arguments.train}
    if arguments.held_out is not None:
        least = {name: min(count, arguments.held_out) for name, count in counts.items()}
        counts = least | {"train": arguments.train}
    for split in counts:
        (folder / split / ".rows").mkdir(parents=True, exist_ok=True)
    forget_other_versions(folder)
    chunks = [
        (folder / split, start, min(start + CHUNK, count))
        for split, count in counts.items()
        for start in range(0, count, CHUNK)
    ]
    missing = [chunk for chunk in chunks if not part_path(*chunk).exists()]
    context = multiprocessing.get_context("spawn")
    with context.Pool(arguments.processes) as pool:
        for done, name in enumerate(pool.imap_unordered(draw_chunk, missing), start=1):
            print(f"clips: {done} of {len(missing)} chunks ({name})", flush=True)
    for split in counts:
        parts = [part_path(*chunk) for chunk in chunks if chunk[0].name == split]
        text = "".join(part.read_text(encoding="utf-8") for part in parts)
        scratch = folder / split / "metadata.writing"
        scratch.write_text(text, encoding="utf-8")
        scratch.rename(folder / split / "metadata.jsonl")


if __name__ == "__main__":
    main()
