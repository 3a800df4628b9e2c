"""What the few-step students do beside their teacher: `python measure_students.py`.

The same prompts of emoji and of scenes, in three seeds, by the teacher under DDIM at 50 and fewer
steps, guided as its students learned it, and by each student. Of each: the Fréchet distance to real
pictures, seed by seed; how often the prompt is followed; how far pictures of one prompt are from
each other in different seeds. With `--sibling`, a model that the teacher was fine-tuned from or to,
the same of that by itself and with LCM's LoRA, which was not trained for it. Pictures are kept in
`work/students/made/`, so that a run that was stopped goes on. Writes `work/students/report.json`,
the table in MODEL_CARD.md, and sheets.
"""

import argparse
import json
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, replace
from itertools import combinations
from pathlib import Path

import torch
import torch.nn.functional as F
from card import rewrite
from held_out import HERE
from sheets import sheet
from torch import Tensor

import safelight
from safelight.checkpoints.atomic import write_text
from safelight.checkpoints.features import load_features
from safelight.checkpoints.lora_file import LORA_FILE
from safelight.data.folders import scan
from safelight.eval.distances import frechet_distance, pooled_features
from safelight.eval.judge_files import load_caption_ranker, load_scene_judge
from safelight.eval.judges import CaptionVerdicts, Judge, SceneVerdicts, rates
from safelight.eval.kept import KeptPictures
from safelight.eval.pictures import PictureSet, read_pictures
from safelight.pipelines.image import ImagePipeline
from safelight.pipelines.provenance import configuration_hashes
from safelight.pipelines.request import Request

COUNT, SEEDS, BATCH = 80, (0, 1, 2), 50
SCALE = 3.0
"""Of the teacher, as the recipes of its students have it."""
TEACHER_STEPS = (50, 8, 4, 2, 1)
STUDENTS = {"lcm": (8, 4, 2, 1), "turbo": (4, 2, 1)}
REFERENCE = 160
SIBLING_STEPS, LENT_STEPS = (50, 4), (4, 1)
"""Of a sibling by itself, and with the LoRA that is lent to it."""
SHOWN = (50, 4, 1)
"""The numbers of steps that the sheets show."""

Figures = dict[str, float]


@dataclass(frozen=True)
class Subject:
    """Pictures whose captions are asked for, real ones to compare with, and who judges."""

    name: str
    asked: PictureSet
    real: PictureSet
    judge: Judge


@dataclass(frozen=True)
class Arm:
    """A model at a number of steps."""

    name: str
    steps: int
    kept: KeptPictures
    sampler: str
    scale: float

    @property
    def title(self) -> str:
        """How it stands in the table."""
        return f"{self.name}, {self.steps} step{'s' if self.steps > 1 else ''}"

    def make(self, prompts: Sequence[str], seed: int) -> Tensor:
        """A picture of each prompt; each prompt has noise of its own in each seed."""
        seeds = [seed * 1000 + place for place in range(len(prompts))]
        parts = [
            self.kept(
                prompts[first : first + BATCH],
                seeds[first : first + BATCH],
                self.steps,
                self.scale,
                self.sampler,
            )
            for first in range(0, len(prompts), BATCH)
        ]
        return torch.cat(parts)


def arms_of(model: str, students: Path, made: Path) -> Iterator[Arm]:
    """The teacher and the students that have been trained, at each number of steps."""
    teacher = safelight.load(model)
    kept = keeping(teacher, made)
    for steps in TEACHER_STEPS:
        yield Arm("teacher, DDIM", steps, kept, "ddim", SCALE)
    for name, numbers in STUDENTS.items():
        folder = students / name / "model"
        if not folder.is_dir():
            print(f"{name}: not trained yet, left out", flush=True)
            continue
        student = safelight.load(folder)
        settings, kept = student.settle(Request("")), keeping(student, made)
        for steps in numbers:
            yield Arm(name, steps, kept, settings.sampler, settings.scale)


def arms_of_sibling(sibling: Path, students: Path, made: Path) -> Iterator[Arm]:
    """A model of the teacher's kind as it is, and with LCM's LoRA put in by name."""
    kept = keeping(safelight.load(sibling), made)
    for steps in SIBLING_STEPS:
        yield Arm("sibling, DDIM", steps, kept, "ddim", SCALE)
    folder = students / "lcm" / "model"
    settings = safelight.load(folder).settle(Request(""))
    lent = keeping(safelight.load(sibling, adapters={folder / LORA_FILE: 1.0}), made)
    for steps in LENT_STEPS:
        yield Arm("sibling with lcm's LoRA", steps, lent, settings.sampler, settings.scale)


def keeping(pipeline: ImagePipeline, made: Path) -> KeptPictures:
    """A model that makes each picture once."""

    def generate(
        prompts: Sequence[str], seeds: Sequence[int], steps: int, scale: float, sampler: str
    ) -> Tensor:
        settings = pipeline.settle(Request("", sampler=sampler, prompt_syntax="plain"))
        return pipeline.sample(prompts, seeds, replace(settings, steps=steps, scale=scale))

    by = {"weights": pipeline.weights, "configuration": configuration_hashes(pipeline.folder)}
    return KeptPictures(generate, made, by)


def measured(arm: Arm, subject: Subject, real: Tensor) -> tuple[Figures, Tensor]:
    """The figures of an arm, and its pictures in the first seed."""
    pooled = load_features("efficientnet-lite0").pooled
    made = [arm.make(subject.asked.prompts, seed) for seed in SEEDS]
    features = [pooled_features(pooled, pixels) for pixels in made]
    distances = torch.tensor([frechet_distance(rows, real) for rows in features])
    followed = [rates(subject.judge(pixels, subject.asked.items)) for pixels in made]
    apart = [1 - F.cosine_similarity(*pair).mean() for pair in combinations(features, 2)]
    return {
        "frechet": round(float(distances.mean()), 2),
        "frechet_deviation": round(float(distances.std()), 2),
        "following": round(
            sum(rate[subject.judge.main].part for rate in followed) / len(followed), 4
        ),
        "diversity": round(float(torch.stack(apart).mean()), 4),
    }, made[0]


def subjects_of(work: Path, size: int, count: int) -> Iterator[Subject]:
    """Emoji of the training, and scenes of seen pairs."""
    pictures, judges = work / "pictures", work / "judges"
    emoji = read_pictures(pictures / "emoji/train", size, most=count)
    others = [item.captions[0] for item in scan(pictures / "emoji/train").items]
    ranker = CaptionVerdicts(load_caption_ranker(judges / "captions"), others)
    real = read_pictures(pictures / "emoji/held_out", size, most=REFERENCE)
    yield Subject("emoji", emoji, real, ranker)
    scenes = pictures / "scenes/held_out_pictures"
    solids = read_pictures(
        scenes, size, keep=lambda item: bool(item.extras.get("objects")), most=count
    )
    real = read_pictures(scenes, size, most=REFERENCE, seed=1)
    yield Subject("scenes", solids, real, SceneVerdicts(load_scene_judge(judges / "scenes")))


def table(report: dict[str, dict[str, Figures]]) -> str:
    """The figures as Markdown."""
    subjects = list(report)
    heads = [f"{name}: FD | of 50 steps | following | diversity" for name in subjects]
    lines = [f"| | {' | '.join(heads)} |", f"|---|{'---:|' * 4 * len(subjects)}"]
    first = next(iter(report[subjects[0]]))
    for title in report[subjects[0]]:
        cells = [title]
        for name in subjects:
            row, best = report[name][title], report[name][first]
            cells += [
                f"{row['frechet']:.1f} ± {row['frechet_deviation']:.1f}",
                f"{row['frechet'] / best['frechet']:.2f}",
                f"{100 * row['following']:.1f} %",
                f"{row['diversity']:.3f}",
            ]
        lines.append(f"| {' | '.join(cells)} |")
    return "\n".join(lines)


def main() -> None:
    """Measures teacher and students."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--work", type=Path, default=HERE / "work")
    parser.add_argument("--students", type=Path, default=HERE / "work" / "students")
    parser.add_argument("--model", default="default")
    parser.add_argument("--card", type=Path, default=HERE / "MODEL_CARD.md")
    parser.add_argument("--samples", type=Path, default=HERE.parents[1] / "docs" / "samples")
    parser.add_argument("--count", type=int, default=COUNT, help="prompts of each subject")
    parser.add_argument("--sibling", type=Path, help="to which LCM's LoRA is lent")
    arguments = parser.parse_args()
    made = arguments.students / "made"
    arms = list(arms_of(arguments.model, arguments.students, made))
    if arguments.sibling is not None:
        arms += arms_of_sibling(arguments.sibling, arguments.students, made)
    size = safelight.load(arguments.model).settle(Request("")).width
    pooled = load_features("efficientnet-lite0").pooled
    report: dict[str, dict[str, Figures]] = {}
    for subject in subjects_of(arguments.work, size, arguments.count):
        real, rows = pooled_features(pooled, subject.real.pixels), []
        report[subject.name] = {}
        for arm in arms:
            figures, pixels = measured(arm, subject, real)
            report[subject.name][arm.title] = figures
            if arm.steps in SHOWN and not arm.name.startswith("sibling"):
                rows.append(pixels)
            print(subject.name, arm.title, json.dumps(figures), flush=True)
        arguments.samples.mkdir(parents=True, exist_ok=True)
        path = arguments.samples / f"students_{subject.name}.png"
        sheet(rows).save(path, optimize=True)
    write_text(arguments.students / "report.json", json.dumps(report, indent=2) + "\n")
    rewrite(arguments.card, table(report), "students")


if __name__ == "__main__":
    main()
