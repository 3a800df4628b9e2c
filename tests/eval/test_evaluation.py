"""A whole evaluation over a painter that makes flat pictures of the colour a prompt names."""

import json
from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path

import pytest
import torch
from PIL import Image

from safelight.data.folders import PictureItem
from safelight.eval.evaluation import (
    EvaluationConfig,
    FeatureNetwork,
    Subject,
    pictures_to_make,
    run_evaluation,
)
from safelight.eval.judges import Rate, Verdict
from safelight.eval.pictures import PictureSet, read_pictures
from safelight.eval.report import Distances, Report, to_markdown, write_report

HUES = {"red": (1.0, -1.0, -1.0), "green": (-1.0, 1.0, -1.0), "blue": (-1.0, -1.0, 1.0)}
CONFIG = EvaluationConfig(
    "euler", 10, 3.0, 5, batch_size=4, sweep_prompts=6, sweep_scales=(1.0, 3.0), sweep_steps=(2, 10)
)


class ColourJudge:
    main = "colour"

    def __call__(self, pixels: torch.Tensor, items: Sequence[PictureItem]) -> list[Verdict]:
        means = pixels.mean(dim=(2, 3))
        nearest = [list(HUES)[int(mean.argmax())] for mean in means]
        return [
            {"colour": hue in item.captions[0]} for hue, item in zip(nearest, items, strict=True)
        ]


class Painter:
    """Paints the right hue where the scale is above 1, noisily where steps are few."""

    def __init__(self) -> None:
        self.seeds: list[int] = []

    def __call__(
        self, prompts: Sequence[str], seeds: Sequence[int], steps: int, scale: float, sampler: str
    ) -> torch.Tensor:
        assert sampler == "euler"
        self.seeds += seeds
        rows = []
        for prompt, seed in zip(prompts, seeds, strict=True):
            hue = HUES[prompt] if scale > 1 else HUES["red"]
            noise = torch.randn(3, 16, 16, generator=torch.Generator().manual_seed(seed))
            rows.append(torch.tensor(hue)[:, None, None] * 0.8 + noise / steps)
        return torch.stack(rows).clamp(-1, 1)


def _real(count: int, seed: int) -> PictureSet:
    generator = torch.Generator().manual_seed(seed)
    names = [list(HUES)[i % 3] for i in range(count)]
    hues = torch.tensor([HUES[name] for name in names])[:, :, None, None]
    pixels = hues * 0.8 + 0.1 * torch.randn(count, 3, 16, 16, generator=generator)
    items = tuple(PictureItem(Path(f"{i}.png"), (16, 16), (name,)) for i, name in enumerate(names))
    return PictureSet(pixels.clamp(-1, 1), items)


def _features(pixels: torch.Tensor) -> torch.Tensor:
    return torch.cat([pixels.mean(dim=(2, 3)), pixels.std(dim=(2, 3))], dim=1)


@pytest.fixture(scope="module")
def report() -> Report:
    subject = Subject("hues", _real(12, 0), _real(15, 1), _real(12, 2), _real(9, 3), ColourJudge())
    features = FeatureNetwork("means", _features, size=None)
    painter = Painter()
    made: list[tuple[str, int]] = []
    rebuilt: list[int] = []

    def reconstruct(pixels: torch.Tensor) -> torch.Tensor:
        rebuilt.append(len(pixels))
        return pixels * 0.9

    report = run_evaluation(
        painter,
        [subject],
        features,
        CONFIG,
        model="painter",
        reconstruct=reconstruct,
        on_pictures=lambda what, count: made.append((what, count)),
    )
    assert painter.seeds[:12] == list(range(5, 17))
    assert sum(count for _, count in made) == pictures_to_make([subject], CONFIG)
    assert made[0] == ("hues: seen prompts", 4)
    assert rebuilt == [4, 4, 4, 3]  # in batches, as pictures are made
    return report


def test_figures_are_what_the_painter_deserves(report: Report):
    (subject,) = report.subjects
    assert subject.seen is not None
    assert subject.held_out is not None
    assert subject.seen.generated == {"colour": Rate(12, 12)}
    assert subject.seen.real == {"colour": Rate(12, 12)}
    assert subject.held_out.generated == {"colour": Rate(9, 9)}
    assert subject.distances.frechet_ratio > 0
    assert (subject.distances.pictures, subject.distances.reference) == (12, 15)
    assert subject.fidelity is not None
    assert subject.fidelity.psnr > 20
    assert subject.fidelity.pictures == 15


def test_sweeps_vary_one_setting_and_see_its_effect(report: Report):
    by_scale, by_steps = report.subjects[0].sweeps
    assert [point.value for point in by_scale.points] == [1, 3]
    unguided, guided = by_scale.points
    assert unguided.right == Rate(2, 6)  # always red
    assert guided.right == Rate(6, 6)
    assert unguided.frechet > guided.frechet
    few, many = by_steps.points
    assert (few.value, many.value) == (2, 10)
    assert few.kernel > many.kernel


def test_files_hold_the_report(report: Report, tmp_path: Path):
    numbers, words, *plots = write_report(report, tmp_path / "evaluation")
    held = json.loads(numbers.read_text())
    assert held["subjects"][0]["seen"]["generated"]["colour"] == {"right": 12, "of": 12}
    assert held["sampler"] == "euler"
    distances = held["subjects"][0]["distances"]
    assert distances["frechet_ratio"] == distances["frechet"] / distances["frechet_real"]
    text = words.read_text()
    hundred = "100.0 % (76 to 100, n = 12)"
    assert f"| seen: colour | {hundred} | {hundred} | 100 % |" in text
    assert [plot.name for plot in plots] == ["scale.png", "steps.png"]
    for plot in plots:
        assert f"]({plot.name})" in text
        with Image.open(plot) as image:
            assert image.format == "PNG"
            image.load()
            assert min(image.size) > 300


@pytest.mark.parametrize(
    ("kernel", "kernel_real", "ratio", "told"),
    [
        (0.006, 0.002, 3.0, "3.00"),
        (0.006, 0.0, None, "n/a"),
        (0.006, -0.001, None, "n/a"),
        (-0.001, 0.002, None, "n/a"),
    ],
)
def test_kernel_distances_have_a_ratio_where_noise_leaves_one(
    report: Report, kernel: float, kernel_real: float, ratio: float | None, told: str
):
    far = Distances(2.0, 1.0, kernel, kernel_real, 10, 10)
    assert far.kernel_ratio == (None if ratio is None else pytest.approx(ratio))
    subject = replace(report.subjects[0], distances=far)
    text = to_markdown(replace(report, subjects=(subject,)))
    [row] = [line for line in text.splitlines() if line.startswith("| kernel × 1000 | ")]
    assert row.endswith(f" | {told} |")


def test_a_subject_without_a_judge_has_distances_alone():
    subject = Subject("hues", _real(6, 0), _real(6, 1), _real(6, 2))
    config = EvaluationConfig("euler", 10, 3.0, sweep_scales=(), sweep_steps=())
    features = FeatureNetwork("means", _features, size=None)
    report = run_evaluation(Painter(), [subject], features, config, model="painter")
    (measured,) = report.subjects
    assert measured.seen is None
    assert measured.sweeps == ()
    assert "generated | real |" in to_markdown(report)
    assert "PSNR" not in to_markdown(report)


def test_pictures_are_read_as_training_cuts_them(tmp_path: Path):
    wide = Image.new("RGBA", (60, 20), (0, 0, 0, 0))  # laid over white, cut at the centre
    wide.paste((255, 0, 0, 255), (15, 0, 45, 20))
    wide.save(tmp_path / "a red square.png")
    Image.new("RGB", (20, 20), "blue").save(tmp_path / "blue.png")
    found = read_pictures(tmp_path, 10)
    assert found.prompts == ("a red square", "blue")
    torch.testing.assert_close(found.pixels[0].mean(dim=(1, 2)), torch.tensor([1.0, -1.0, -1.0]))
    assert read_pictures(tmp_path, 10, keep=lambda item: "blue" in item.captions[0]).prompts == (
        "blue",
    )
    assert len(read_pictures(tmp_path, 10, most=1).items) == 1
    assert found.sample(5).prompts == found.prompts


def test_a_picture_with_a_damaged_body_gives_its_place_to_another(tmp_path: Path):
    noise = torch.randint(0, 256, (40, 40, 3), dtype=torch.uint8).numpy()
    for name in "abcd":
        Image.fromarray(noise).save(tmp_path / f"{name}.png")
    whole = (tmp_path / "b.png").read_bytes()
    middle = len(whole) // 2
    damaged = whole[:middle] + bytes(64) + whole[middle + 64 :]
    (tmp_path / "b.png").write_bytes(damaged)
    found = read_pictures(tmp_path, 10)
    assert [item.path.name for item in found.items] == ["a.png", "c.png", "d.png"]
    assert [skipped.path.name for skipped in found.skipped] == ["b.png"]
    assert "damaged" in found.skipped[0].reason
    for seed in range(4):  # whichever are drawn first
        assert len(read_pictures(tmp_path, 10, most=3, seed=seed).items) == 3
