"""What the default model never trains on, as `held_out.toml` lists it.

`python held_out.py` draws the list anew; it is drawn once and committed, so that figures stay
comparable.
"""

import argparse
import random
import tomllib
from dataclasses import dataclass
from pathlib import Path

HERE = Path(__file__).parent
SEED = 20
EMOJI_FRACTION = 0.12


@dataclass(frozen=True)
class HeldOut:
    """Style x idea pairs of emoji (hexcodes by style) and colour x shape pairs of scenes."""

    emoji: dict[str, frozenset[str]]
    colour_shape: frozenset[tuple[str, str]]


def read(path: Path = HERE / "held_out.toml") -> HeldOut:
    """Reads the committed list."""
    table = tomllib.loads(path.read_text(encoding="utf-8"))
    return HeldOut(
        emoji={style: frozenset(codes) for style, codes in table["emoji"].items()},
        colour_shape=frozenset(
            (colour, shape) for colour, shape in table["scenes"]["colour_shape"]
        ),
    )


def draw_emoji(in_both_styles: list[str], seed: int = SEED) -> dict[str, list[str]]:
    """Draws the ideas to hold out in one of the two styles; each stays in training in the other."""
    rng = random.Random(seed)
    drawn = rng.sample(sorted(in_both_styles), 2 * round(len(in_both_styles) * EMOJI_FRACTION / 2))
    half = len(drawn) // 2
    return {"3d": sorted(drawn[:half]), "flat": sorted(drawn[half:])}


def draw_pairs(colours: list[str], shapes: list[str], seed: int = SEED) -> list[tuple[str, str]]:
    """Draws a colour for every shape, no colour twice."""
    rng = random.Random(seed)
    return sorted(zip(rng.sample(colours, len(shapes)), shapes, strict=True))


def main() -> None:
    """Writes `held_out.toml` from the ideas that both emoji sets draw."""
    from emoji import read_sources
    from solids import COLOURS, SHAPES

    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--work", type=Path, default=HERE / "work")
    work = parser.parse_args().work
    sources = read_sources(work / "node_modules")
    codes = draw_emoji([source.idea.hexcode for source in sources if source.in_3d])
    pairs = draw_pairs(list(COLOURS), list(SHAPES))
    lines = [
        f"# Drawn once by held_out.py with seed {SEED}; never in a training folder.",
        "",
        "[emoji]  # ideas, by code point, held out in one style and trained on in the other",
        *(f'"{style}" = [\n{_wrapped(codes[style])}]' for style in codes),
        "",
        "[scenes]  # colours and shapes that training sees only apart",
        "colour_shape = [",
        *(f'    ["{colour}", "{shape}"],' for colour, shape in pairs),
        "]",
    ]
    (HERE / "held_out.toml").write_text("\n".join(lines) + "\n", encoding="utf-8")


def _wrapped(codes: list[str]) -> str:
    lines, line = [], "   "
    for code in codes:
        if len(line) + len(code) + 4 > 100:
            lines.append(line)
            line = "   "
        line += f' "{code}",'
    return "\n".join([*lines, line]) + "\n"


if __name__ == "__main__":
    main()
