"""Animated emoji with captions: Microsoft's Fluent emoji, from the package in `package_clips.json`.

`python moving_emoji.py`, after `emoji.py`'s packages are there, puts the animations, 256 px RGBA of
about 72 frames of 42 ms, with `metadata.jsonl` into `work/clips/emoji/{train,held_out}/`. Skin
tones, flags and symbols are left out, and so are those that do not move.

`--draw` draws the held-out ideas anew; they are drawn once and committed, so that figures stay
comparable.
"""

import argparse
import json
import random
import shutil
import tomllib
from collections.abc import Sequence
from pathlib import Path

from emoji import SEED, read_sources
from emoji_captions import Idea, captions
from held_out import HERE, read

from safelight.data.clip_files import is_clip

LIST = HERE / "held_out_clips.toml"
DRAWN = 20
"""How many ideas are held out beside those that `held_out.toml` holds out as 3d pictures."""


def animations(work: Path) -> dict[str, Path]:
    """The animations that move, by hexcode without variation selectors."""
    assets = work / "clips" / "node_modules" / "@lobehub" / "fluent-emoji-anim-1" / "assets"
    found = {path.stem.lower().replace("-fe0f", ""): path for path in assets.glob("*.webp")}
    return {code: path for code, path in sorted(found.items()) if is_clip(path)}


def moving_ideas(work: Path) -> list[tuple[Idea, Path]]:
    """The ideas that have an animation, each with it, in emojibase's order."""
    there = animations(work)
    ideas = [source.idea for source in read_sources(work / "node_modules")]
    return [(idea, there[idea.hexcode]) for idea in ideas if idea.hexcode in there]


def held_out_ideas(path: Path = LIST) -> frozenset[str]:
    """The hexcodes that no clip of a training shows: those of the committed list, and those that
    the image model never saw as 3d pictures.
    """
    table = tomllib.loads(path.read_text(encoding="utf-8"))
    return frozenset(table["emoji"]) | read().emoji["3d"]


def draw_held_out(codes: Sequence[str], seed: int = 20) -> list[str]:
    """Draws ideas to hold out, of those that `held_out.toml` does not hold out already."""
    others = sorted(set(codes) - read().emoji["3d"])
    return sorted(random.Random(seed).sample(others, DRAWN))


def write(work: Path, most: int | None = None) -> dict[str, int]:
    """Puts the animations where they belong; returns how many went where."""
    folder, held_out = work / "clips" / "emoji", held_out_ideas()
    rows: dict[str, list[str]] = {"train": [], "held_out": []}
    for split in rows:
        (folder / split).mkdir(parents=True, exist_ok=True)
    for idea, path in moving_ideas(work):
        split = "held_out" if idea.hexcode in held_out else "train"
        if most is not None and len(rows[split]) >= most:
            continue
        name = f"{idea.hexcode}.webp"
        if not (folder / split / name).exists():
            scratch = folder / split / f".{name}"
            shutil.copyfile(path, scratch)
            scratch.rename(folder / split / name)
        row = {
            "file_name": name,
            "texts": captions(idea, "3d", SEED),
            "hexcode": idea.hexcode,
            "style": "3d",
            "label": idea.label,
            "group": idea.group,
        }
        rows[split].append(json.dumps(row, ensure_ascii=False) + "\n")
    for split, lines in rows.items():
        named = {json.loads(line)["file_name"] for line in lines}
        for path in (folder / split).glob("*.webp"):
            if path.name not in named:
                path.unlink()
        scratch = folder / split / "metadata.writing"
        scratch.write_text("".join(lines), encoding="utf-8")
        scratch.rename(folder / split / "metadata.jsonl")
    return {split: len(lines) for split, lines in rows.items()}


def main() -> None:
    """Writes the clips, or draws the list."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--work", type=Path, default=HERE / "work")
    parser.add_argument("--most", type=int, help="clips of each split, at most")
    parser.add_argument("--draw", action="store_true", help="draw the held-out ideas anew")
    arguments = parser.parse_args()
    if arguments.draw:
        codes = draw_held_out([idea.hexcode for idea, _ in moving_ideas(arguments.work)])
        lines = [
            "# Drawn once by moving_emoji.py --draw with seed 20, beside the 3d ideas of",
            "# held_out.toml; never in a training folder. Scenes that move hold out the pairs of",
            "# colour and shape of held_out.toml.",
            "",
            "emoji = [",
            *(f'    "{code}",' for code in codes),
            "]",
        ]
        LIST.write_text("\n".join(lines) + "\n", encoding="utf-8")
        return
    print("animated emoji:", write(arguments.work, arguments.most))


if __name__ == "__main__":
    main()
