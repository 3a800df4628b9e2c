"""The emoji turned, mirrored, stretched and shifted: `python varied.py`, after `emoji.py`.

A model that has learned each emoji by heart needs no hint to draw it where its caption has always
had it; so a control, or a condition, would learn nothing of these pictures. Of pictures that lie
differently every time, it does. Writes `work/pictures/emoji/varied/`: for each picture of `train`
some more on white, with its captions.
"""

import argparse
import json
from pathlib import Path

import numpy as np
from held_out import HERE
from PIL import Image

COUNT, SIDE = 4, 128
TURN = 30.0  # degrees at most, to either side
ZOOM, STRETCH = (0.6, 1.15), 1.25


def varied(picture: Image.Image, rng: np.random.Generator) -> Image.Image:
    """The picture on white, moved by a random affine map about its centre."""
    angle = np.deg2rad(rng.uniform(-TURN, TURN))
    zoom = np.exp(rng.uniform(*np.log(ZOOM)))
    stretch = np.exp(rng.uniform(-1, 1) * np.log(STRETCH) / 2)
    mirror = rng.choice((-1, 1))
    turn = np.array([[np.cos(angle), -np.sin(angle)], [np.sin(angle), np.cos(angle)]])
    forward = turn @ np.diag([mirror * zoom * stretch, zoom / stretch]) * SIDE / picture.width
    centre = SIDE * (0.5 + rng.uniform(-1, 1, 2) * 0.5 * max(0.2, 1 - zoom))
    back = np.linalg.inv(forward)  # Pillow wants where each pixel comes from
    offset = np.array([picture.width, picture.height]) / 2 - back @ centre
    rows = np.column_stack([back, offset])
    premultiplied = picture.convert("RGBA").convert("RGBa")
    moved = premultiplied.transform(
        (SIDE * 2, SIDE * 2), Image.Transform.AFFINE, tuple((rows * [0.5, 0.5, 1]).ravel()),
        Image.Resampling.BICUBIC,
    )  # fmt: skip
    moved = moved.resize((SIDE, SIDE), Image.Resampling.BOX).convert("RGBA")
    ground = Image.new("RGBA", moved.size, "white")
    return Image.alpha_composite(ground, moved).convert("RGB")


def main() -> None:
    """Writes all pictures and their rows."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--work", type=Path, default=HERE / "work")
    parser.add_argument("--count", type=int, default=COUNT, help="of each emoji")
    args = parser.parse_args()
    emoji = args.work / "pictures/emoji"
    folder = emoji / "varied"
    folder.mkdir(parents=True, exist_ok=True)
    lines: list[str] = []
    metadata = (emoji / "train/metadata.jsonl").read_text(encoding="utf-8")
    for place, line in enumerate(metadata.splitlines()):
        row = json.loads(line)
        with Image.open(emoji / "train" / row["file_name"]) as picture:
            picture.load()
        for number in range(args.count):
            name = f"{Path(row['file_name']).stem}-{number}.png"
            varied(picture, np.random.default_rng((place, number))).save(folder / name)
            lines.append(json.dumps({"file_name": name, "texts": row["texts"]}))
    scratch = folder / "metadata.writing"
    scratch.write_text("\n".join(lines) + "\n", encoding="utf-8")
    scratch.rename(folder / "metadata.jsonl")
    print(f"varied: {len(lines)} pictures", flush=True)


if __name__ == "__main__":
    main()
