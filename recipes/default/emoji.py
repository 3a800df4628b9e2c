"""Emoji pictures with captions: Fluent 3D and Noto flat, from the npm packages in `package.json`.

`python emoji.py` writes 128 px RGBA pictures and `metadata.jsonl` to
`work/pictures/emoji/{train,held_out}/`.
"""

import argparse
import hashlib
import io
import json
from dataclasses import dataclass
from importlib.metadata import version
from pathlib import Path

import resvg_py
from emoji_captions import Idea, captions
from held_out import HERE, read
from PIL import Image

SIZE = 128
SEED = 0
SKIPPED_GROUPS = {"component", "symbols", "flags"}


@dataclass(frozen=True)
class Source:
    """An idea with its flat drawing (the body of an SVG) and its 3D picture, where there is one."""

    idea: Idea
    svg: str
    webp: Path | None

    @property
    def in_3d(self) -> bool:
        return self.webp is not None


def read_sources(node_modules: Path) -> list[Source]:
    """Every emoji that is a picture: no flags, symbols or skin tones, in emojibase's order."""
    base = node_modules / "emojibase-data"
    noto = node_modules / "@iconify-json" / "noto"
    assets = node_modules / "@lobehub" / "fluent-emoji-3d" / "assets"
    names = json.loads((base / "meta" / "groups.json").read_text(encoding="utf-8"))
    groups, subgroups = names["groups"], names["subgroups"]
    icons = json.loads((noto / "icons.json").read_text(encoding="utf-8"))["icons"]
    chars = json.loads((noto / "chars.json").read_text(encoding="utf-8"))
    flat = {_plain(code): icons[name]["body"] for code, name in chars.items() if name in icons}
    fluent = {_plain(path.stem): path for path in assets.glob("*.webp")}
    sources = []
    for entry in json.loads((base / "en" / "data.json").read_text(encoding="utf-8")):
        group = groups[str(entry["group"])] if "group" in entry else "component"
        code = _plain(entry["hexcode"])
        if group in SKIPPED_GROUPS or code not in flat:
            continue
        idea = Idea(
            hexcode=code,
            label=entry["label"],
            tags=tuple(entry.get("tags", ())),
            group=group,
            subgroup=subgroups[str(entry["subgroup"])],
        )
        sources.append(Source(idea, flat[code], fluent.get(code)))
    return sources


def draw(source: Source, style: str) -> Image.Image:
    """The emoji at 128 px as RGBA, antialiased."""
    if style == "flat":
        svg = (
            '<svg xmlns="http://www.w3.org/2000/svg" '
            'xmlns:xlink="http://www.w3.org/1999/xlink" viewBox="0 0 128 128" '
            f'width="128" height="128">{source.svg}</svg>'
        )
        png = bytes(
            resvg_py.svg_to_bytes(svg_string=svg, width=2 * SIZE, height=2 * SIZE, dpi=96.0)
        )
        picture = Image.open(io.BytesIO(png))
    elif source.webp is not None:
        picture = Image.open(source.webp)
    else:
        raise ValueError(f"{source.idea.label!r} has no 3D picture.")
    return shrink(picture.convert("RGBA"), SIZE)


def shrink(picture: Image.Image, size: int) -> Image.Image:
    """Resizes RGBA with premultiplied alpha, so that no colour bleeds from transparent pixels."""
    return picture.convert("RGBa").resize((size, size), Image.Resampling.LANCZOS).convert("RGBA")


def origin(source: Source, style: str) -> str:
    """A hash of all that decides how an emoji is drawn: its drawing, this file, the rasteriser."""
    webp = source.webp.read_bytes() if style == "3d" and source.webp is not None else b""
    svg = source.svg.encode() + version("resvg_py").encode() if style == "flat" else b""
    return hashlib.sha256(Path(__file__).read_bytes() + webp + svg).hexdigest()


def write(sources: list[Source], folder: Path) -> dict[str, int]:
    """Draws every emoji into `train` or `held_out` below the folder; returns how many went where.

    A picture of the same `origin` is kept, so that new captions cost nothing; one of another split
    is not.
    """
    held_out = read().emoji
    rows: dict[str, list[str]] = {"train": [], "held_out": []}
    for split in rows:
        (folder / split).mkdir(parents=True, exist_ok=True)
    drawn = folder / "drawn.json"
    origins = json.loads(drawn.read_text(encoding="utf-8")) if drawn.exists() else {}
    try:
        for source in sources:
            idea = source.idea
            for style in ("3d", "flat") if source.in_3d else ("flat",):
                split = "held_out" if idea.hexcode in held_out[style] else "train"
                path = folder / split / f"{style}-{idea.hexcode}.png"
                wanted = origin(source, style)
                if not path.exists() or origins.get(f"{split}/{path.name}") != wanted:
                    scratch = path.with_suffix(".writing")
                    draw(source, style).save(scratch, format="PNG")
                    scratch.rename(path)
                    origins[f"{split}/{path.name}"] = wanted
                rows[split].append(_row(idea, style, path.name))
    finally:
        _write_text(drawn, json.dumps(origins, indent=0))
    for split, lines in rows.items():
        named = {json.loads(line)["file_name"] for line in lines}
        for path in (folder / split).glob("*.png"):
            if path.name not in named:
                path.unlink()
        _write_text(folder / split / "metadata.jsonl", "".join(lines))
    return {split: len(lines) for split, lines in rows.items()}


def main() -> None:
    """Draws the whole set."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--work", type=Path, default=HERE / "work")
    work = parser.parse_args().work
    print("emoji:", write(read_sources(work / "node_modules"), work / "pictures" / "emoji"))


def _row(idea: Idea, style: str, name: str) -> str:
    row = {
        "file_name": name,
        "texts": captions(idea, style, SEED),
        "hexcode": idea.hexcode,
        "style": style,
        "label": idea.label,
        "tags": list(idea.tags),
        "group": idea.group,
        "subgroup": idea.subgroup,
    }
    return json.dumps(row, ensure_ascii=False) + "\n"


def _write_text(path: Path, text: str) -> None:
    scratch = path.with_suffix(".writing")
    scratch.write_text(text, encoding="utf-8")
    scratch.rename(path)


def _plain(hexcode: str) -> str:
    return hexcode.lower().replace("-fe0f", "")


if __name__ == "__main__":
    main()
