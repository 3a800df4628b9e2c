"""What the qualities of pictures cost and bring, on the default model.

`python benchmarks/quality.py --work recipes/default/work [--plot docs/samples/quality.png]`, where
`make -C recipes/default judges` has left pictures and judges. Each caption, of 80 emoji and of 80
scenes, is made a picture of by every quality and every other approximation, and exactly by as few
steps as take about as long, in turn and one at a time from the same noise. Prints a table in
Markdown: the median processor time of a picture, how far pictures are from the exact ones (PSNR),
the Fréchet distance to held-out real pictures by EfficientNet's features, and how often the caption
is followed, by the recipe's judges.
`--plot` draws distance and following against time.
"""

import argparse
import statistics
import sys
import time
from collections.abc import Sequence
from dataclasses import dataclass, field
from pathlib import Path

import torch
from torch import Tensor

import safelight
from safelight.checkpoints.features import EFFICIENTNET, load_features
from safelight.engine.names import Storage
from safelight.eval.distances import frechet_distance, pooled_features
from safelight.eval.judges import rates
from safelight.eval.quality import psnr
from safelight.pipelines.choices import Quality
from safelight.pipelines.guidance_settings import Guidance
from safelight.pipelines.image import ImagePipeline
from safelight.pipelines.request import Request

RECIPE = Path(__file__).resolve().parents[1] / "recipes" / "default"
sys.path.insert(0, str(RECIPE))
from measure_students import Subject, subjects_of  # noqa: E402


@dataclass(frozen=True)
class Way:
    """How a picture is made: a quality, a number of steps (None is the model's own), and what else
    may be given up. `line` is the one in the plot that it belongs to.
    """

    title: str
    quality: Quality = "exact"
    steps: int | None = None
    token_merging: float = 0.0
    interval: tuple[float, float] | None = None
    storage: Storage | None = None
    vae: str | None = None
    line: str = ""


BY_QUALITY, FEWER = "by quality", "fewer steps"
WAYS = (
    Way("`exact`", line=BY_QUALITY),
    Way("`fast`", "fast", line=BY_QUALITY),
    Way("`fastest`", "fastest", line=BY_QUALITY),
    Way("`exact`, 11 steps", steps=11, line=FEWER),
    Way("`exact`, 8 steps", steps=8, line=FEWER),
    Way("`--storage int8`", storage="int8"),
    Way("`--token-merging 0.5`", token_merging=0.5),
    Way("`--guidance-interval 0.35,7.41`", interval=(0.35, 7.41)),
    Way("`--vae default-tiny`", vae="default-tiny"),
)


@dataclass
class Figures:
    """What was measured of a way and a subject."""

    way: Way
    subject: str
    seconds: list[float] = field(default_factory=list)
    near: list[float] = field(default_factory=list)
    frechet: float = 0.0
    followed: float = 0.0

    @property
    def middle(self) -> float:
        """The median processor time of a picture."""
        return statistics.median(self.seconds)


class Pipelines:
    """The pipelines of all ways; those that differ in a picture's options alone share one."""

    def __init__(self):
        self._loaded: dict[tuple[Storage | None, str | None], ImagePipeline] = {}

    def of(self, way: Way) -> ImagePipeline:
        """The pipeline of a way."""
        how = (way.storage, way.vae)
        if how not in self._loaded:
            loaded = safelight.load("default", engine="torch", storage=way.storage, vae=way.vae)
            self._loaded[how] = loaded
        return self._loaded[how]


def made(pipeline: ImagePipeline, way: Way, prompt: str, seed: int) -> tuple[Tensor, float]:
    """A picture (1, 3, h, w) in [-1, 1], and the processor's seconds."""
    request = Request(
        "",
        quality=way.quality,
        steps=way.steps,
        token_merging=way.token_merging,
        guidance=Guidance(interval=way.interval),
        prompt_syntax="plain",
    )
    settings, start = pipeline.settle(request), time.process_time()
    return pipeline.sample([prompt], [seed], settings), time.process_time() - start


def measured(pipelines: Pipelines, subject: Subject, first_seed: int) -> list[Figures]:
    """The figures of all ways of one subject."""
    found = [Figures(way, subject.name) for way in WAYS]
    pictures: list[list[Tensor]] = [[] for _ in WAYS]
    for way in WAYS:  # the first is slower
        made(pipelines.of(way), way, subject.asked.prompts[0], 0)
    for place, prompt in enumerate(subject.asked.prompts):
        for figures, rows in zip(found, pictures, strict=True):
            way = figures.way
            pixels, seconds = made(pipelines.of(way), way, prompt, first_seed + place)
            rows.append(pixels)
            figures.seconds.append(seconds)
    pooled = torch.no_grad()(load_features(EFFICIENTNET).pooled)
    real, exact = pooled_features(pooled, subject.real.pixels), torch.cat(pictures[0])
    for figures, rows in zip(found, pictures, strict=True):
        pixels = torch.cat(rows)
        figures.near = psnr(pixels, exact).tolist()
        figures.frechet = frechet_distance(pooled_features(pooled, pixels), real)
        verdicts = rates(subject.judge(pixels, subject.asked.items))
        figures.followed = verdicts[subject.judge.main].part
    return found


def show(found: Sequence[list[Figures]]) -> None:
    """Prints the table, a way a row."""
    names = [figures[0].subject for figures in found]
    heads = " | ".join(f"{name}: PSNR, median (least) | FD | followed" for name in names)
    print(f"| | time | {heads} |")
    print("|---|---:|" + "---:|" * 3 * len(names))
    for each in zip(*found, strict=True):
        shares = [one.middle / first[0].middle for one, first in zip(each, found, strict=True)]
        cells = [each[0].way.title, f"{statistics.mean(shares):.2f}"]
        for one in each:
            far = f"{statistics.median(one.near):.1f} dB ({min(one.near):.1f})"
            cells += ["" if each[0].way == WAYS[0] else far]
            cells += [f"{one.frechet:.1f}", f"{100 * one.followed:.1f} %"]
        print("| " + " | ".join(cells) + " |")
    for figures in found:
        print(f"- {figures[0].subject}: a picture of `exact` takes {figures[0].middle:.2f} s")


def draw(found: Sequence[list[Figures]], path: Path) -> None:
    """Distances and following against time, in parts of the exact pictures' time."""
    from matplotlib.backends.backend_agg import FigureCanvasAgg
    from matplotlib.figure import Figure

    figure = Figure(figsize=(10, 3.6), layout="constrained")
    FigureCanvasAgg(figure)
    far, right = figure.subplots(1, 2)
    for colour, figures in zip(("tab:blue", "tab:orange"), found, strict=True):
        exact = figures[0]
        others = [one for one in figures if not one.way.line]
        lines = {
            BY_QUALITY: ("o", "-", [one for one in figures if one.way.line == BY_QUALITY]),
            FEWER: ("s", "--", [exact, *(one for one in figures if one.way.line == FEWER)]),
            **{
                one.way.title.strip("`").removeprefix("--"): (marker, "", [one])
                for marker, one in zip("^vDP", others, strict=True)
            },
        }
        for name, (marker, style, points) in lines.items():
            spent = [one.middle / exact.middle for one in points]
            label = f"{exact.subject}, {name}" if style else name if exact is found[0][0] else None
            looks = {"marker": marker, "linestyle": style, "color": colour, "label": label}
            far.plot(spent, [one.frechet for one in points], **looks)
            right.plot(spent, [100 * one.followed for one in points], **looks)
    for one, offset in zip(found[0][:3], ((4, 6), (0, 8), (-10, 8)), strict=True):
        place = (one.middle / found[0][0].middle, one.frechet)
        far.annotate(one.way.quality, place, offset, textcoords="offset points")
    far.set_ylabel("Fréchet distance to real pictures")
    right.set_ylabel("caption followed, %")
    for axes in (far, right):
        axes.set_xlabel("processor time, parts of exact")
        axes.set_xlim(0, 1.2)
        axes.grid(alpha=0.3)
    figure.legend(*right.get_legend_handles_labels(), loc="outside right center", fontsize="small")
    figure.savefig(path, format="png", dpi=110)


def main() -> None:
    """Prints the table."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--work", type=Path, default=RECIPE / "work")
    parser.add_argument("--count", type=int, default=80, help="captions of each subject")
    parser.add_argument("--seed", type=int, default=0, help="of the first picture")
    parser.add_argument("--plot", type=Path)
    given = parser.parse_args()
    pipelines = Pipelines()
    size = pipelines.of(WAYS[0]).settle(Request("")).width
    subjects = subjects_of(given.work, size, given.count)
    found = [measured(pipelines, subject, given.seed) for subject in subjects]
    show(found)
    if given.plot is not None:
        draw(found, given.plot)


if __name__ == "__main__":
    main()
