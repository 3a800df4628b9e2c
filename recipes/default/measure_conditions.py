"""What the conditions do, measured: `python measure_conditions.py` after their trainings.

For each trained condition, 100 held-out scenes (and emoji, where it learned from them): pictures
made under it, beside the same prompts and seeds by the default model without it, and beside the
real pictures as the autoencoder gives them back, which is as good as a latent model can be. Writes
`work/conditions/report.json`, the tables of docs/conditions.md, and sheets to docs/samples/.
"""

import argparse
import json
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from pathlib import Path

import torch
from card import rewrite
from condition_bench import COUNT, Bench
from condition_figures import Figures, table
from condition_trials import enlarged, fill, inputs, make
from held_out import HERE
from PIL import Image
from sheets import sheet
from torch import Tensor

import safelight
from safelight.checkpoints.atomic import write_text
from safelight.eval.pictures import PictureSet
from safelight.pipelines.image import ImagePipeline
from safelight.pipelines.request import Request

ARMS = ("with", "without", "real")
SEVERAL = ("class", "depth", "semantic", "layout")
BESIDE = "what was told, with it, without it, real"
SHOWN = {
    "image": "the picture told, with it, without it",
    "low_resolution": "what was told, with it, bicubic, real",
    "several": (
        "class, depth, semantic map and layout as they were told, what was made with nothing, with "
        "each alone, with all, with all and the prompt, real"
    ),
}
"""The rows of the sheets."""
ALONE = ("nothing", *SEVERAL, "all", "all, prompt", "real")


@dataclass(frozen=True)
class Trial:
    """Pictures to be held to some figures, and the rows of a sheet of them."""

    arms: Mapping[str, Tensor]
    figures: tuple[str, ...]
    above: tuple[Tensor, ...] = ()


def text(bench: Bench, _: ImagePipeline) -> Trial:
    """The prompt itself, beside an empty one."""
    arms = {"with": bench.prompted, "without": bench.unprompted, "real": bench.back}
    return Trial(arms, ("prompt followed", "Fréchet distance"))


def of_a_class(bench: Bench, model: ImagePipeline) -> Trial:
    """A class, without a prompt."""
    made = make(model, bench.real, ("class",), prompted=False)
    arms = {"with": made, "without": bench.unprompted, "real": bench.back}
    return Trial(arms, ("class there", "Fréchet distance"), (inputs("class", bench.real),))


def mapped(kind: str, *figures: str) -> Callable[[Bench, ImagePipeline], Trial]:
    """A map or boxes, beside the prompt."""

    def trial(bench: Bench, model: ImagePipeline) -> Trial:
        made = make(model, bench.real, (kind,), prompted=True)
        arms = {"with": made, "without": bench.prompted, "real": bench.back}
        every = (*figures, "prompt followed", "Fréchet distance")
        return Trial(arms, every, (inputs(kind, bench.real),))

    return trial


def low_resolution(bench: Bench, model: ImagePipeline) -> Trial:
    """Small pictures made large without a prompt, beside Pillow's bicubic."""
    made = make(model, bench.real, ("low_resolution",), prompted=False)
    rows = [enlarged(pixels, Image.Resampling.BICUBIC) for pixels in bench.real.pixels]
    arms = {"with": made, "without": torch.stack(rows), "real": bench.back}
    above = (inputs("low_resolution", bench.real),)
    return Trial(arms, ("PSNR, dB", "Fréchet distance"), above)


def inpainting(bench: Bench, model: ImagePipeline) -> Trial:
    """Holes filled, beside what the default model fills them with."""
    arms = {
        "with": fill(model, bench.real, bench.masks),
        "without": fill(bench.plain, bench.real, bench.masks),
        "real": bench.back,
    }
    above = (bench.real.pixels.masked_fill(bench.masks[:, None], 0.0),)
    figures = ("PSNR of what is kept, dB", "prompt followed", "Fréchet distance")
    return Trial(arms, figures, above)


def image(bench: Bench, model: ImagePipeline) -> Trial:
    """Variations of a picture, without a prompt."""
    made = make(model, bench.real, prompted=False, seen=True)
    arms = {"with": made, "without": bench.unprompted, "real": bench.back}
    figures = ("own picture first of 100", "prompt followed", "Fréchet distance")
    return Trial(arms, figures, (bench.real.pixels,))


def several(bench: Bench, model: ImagePipeline) -> Trial:
    """One model under each of its conditions alone, each guided by the model's scale, and under all
    at once, where guidance is by class and layout; without a prompt, and all with it.
    """
    alone = model.settle(Request("")).scale
    arms = {"nothing": make(model, bench.real, prompted=False)}
    for kind in SEVERAL:
        arms[kind] = make(model, bench.real, (kind,), prompted=False, beside_scale=alone)
    arms["all"] = make(model, bench.real, SEVERAL, prompted=False)
    arms["all, prompt"] = make(model, bench.real, SEVERAL, prompted=True)
    figures = ("class there", "depth error", "pixel accuracy", "mean IoU", "boxes kept")
    return Trial(
        {**arms, "real": bench.back},
        (*figures, "prompt followed", "Fréchet distance"),
        tuple(inputs(kind, bench.real) for kind in SEVERAL),
    )


TRIALS: dict[str, tuple[tuple[str, ...], Callable[[Bench, ImagePipeline], Trial]]] = {
    "text": (("scenes", "emoji"), text),
    "class": (("scenes",), of_a_class),
    "depth": (("scenes",), mapped("depth", "depth error")),
    "semantic": (("scenes",), mapped("semantic", "pixel accuracy", "mean IoU")),
    "layout": (("scenes",), mapped("layout", "boxes kept")),
    "low_resolution": (("scenes", "emoji"), low_resolution),
    "inpainting": (("scenes", "emoji"), inpainting),
    "image": (("scenes", "emoji"), image),
    "several": (("scenes",), several),
}


def figures_of(bench: Bench, trial: Trial) -> Figures:
    """Each figure of each arm."""
    measures = bench.measures
    return {
        name: {arm: round(measures[name](made), 4) for arm, made in trial.arms.items()}
        for name in trial.figures
    }


def sheet_of(trial: Trial, real: PictureSet) -> Image.Image:
    """What was told, what was made of it, and the real pictures where they were not told."""
    made = [pixels for arm, pixels in trial.arms.items() if arm != "real"]
    below = [] if any(told is real.pixels for told in trial.above) else [real.pixels]
    return sheet([*trial.above, *made, *below])


def tables(report: Mapping[str, Mapping[str, Figures]], samples: Path) -> str:
    """What stands in the docs: each condition by its own model, the model of several, and sheets.

    `samples` is the folder in which sheets are looked for, beside the page.
    """
    each = {kind: report[kind] for kind in TRIALS if kind in report and kind != "several"}
    parts = [table(each, ARMS)] if each else []
    if "several" in report:
        parts.append("One model told several:\n\n" + table({"several": report["several"]}, ALONE))
    for kind in TRIALS:
        for subject in report.get(kind, ()):
            if (samples / sheet_name(kind, subject)).is_file():
                name = f"{kind.replace('_', ' ')}, {subject}: {SHOWN.get(kind, BESIDE)}"
                parts.append(f"![{name}]({samples.name}/{sheet_name(kind, subject)})")
    return "\n\n".join(parts)


def sheet_name(kind: str, subject: str) -> str:
    """The file of a condition's sheet."""
    return f"condition_{kind}_{subject}.png"


def main() -> None:
    """Measures every condition that has been trained."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--work", type=Path, default=HERE / "work")
    parser.add_argument("--judges", type=Path, default=HERE / "work" / "judges")
    parser.add_argument("--conditions", type=Path, default=HERE / "work" / "conditions")
    parser.add_argument("--model", default="default")
    parser.add_argument("--docs", type=Path, default=HERE.parents[1] / "docs")
    parser.add_argument("--count", type=int, default=COUNT)
    parser.add_argument("--kinds", nargs="*", choices=list(TRIALS), default=list(TRIALS))
    arguments = parser.parse_args()
    plain, samples = safelight.load(arguments.model), arguments.docs / "samples"
    samples.mkdir(parents=True, exist_ok=True)
    benches: dict[str, Bench] = {}
    path = arguments.conditions / "report.json"
    report = json.loads(path.read_text(encoding="utf-8")) if path.is_file() else {}
    for kind in arguments.kinds:
        trained = arguments.conditions / kind / "model"
        if kind != "text" and not trained.is_dir():
            print(f"{kind}: not trained yet, left out", flush=True)
            continue
        model = plain if kind == "text" else safelight.load(str(trained))
        subjects, trial_of = TRIALS[kind]
        report[kind] = {}
        for subject in subjects:
            if subject not in benches:
                benches[subject] = Bench(
                    subject, arguments.work, arguments.judges, plain, arguments.count
                )
            bench = benches[subject]
            trial = trial_of(bench, model)
            report[kind][subject] = figures_of(bench, trial)
            print(kind, subject, json.dumps(report[kind][subject]), flush=True)
            if trial.above:
                sheet_of(trial, bench.real).save(samples / sheet_name(kind, subject), optimize=True)
        write_text(path, json.dumps(report, indent=2) + "\n")
    rewrite(arguments.docs / "conditions.md", tables(report, samples))


if __name__ == "__main__":
    main()
