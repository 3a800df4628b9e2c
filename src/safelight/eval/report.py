"""The figures of an evaluation: as dataclasses, as JSON, and as Markdown tables."""

import json
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path

from safelight.checkpoints.atomic import write_text
from safelight.config import Value, to_dict
from safelight.eval.judges import Rate

Rates = Mapping[str, Rate]


@dataclass(frozen=True)
class Distances:
    """How far generated pictures, and other real ones as many, are from the reference pictures."""

    frechet: float
    frechet_real: float
    kernel: float
    kernel_real: float
    pictures: int
    reference: int

    @property
    def frechet_ratio(self) -> float | None:
        """How many times as far as real pictures, by Fréchet distance; None if those are at 0."""
        return _ratio(self.frechet, self.frechet_real)

    @property
    def kernel_ratio(self) -> float | None:
        """The same by kernel distance, which is unbiased: None where noise takes it below 0."""
        return _ratio(self.kernel, self.kernel_real)


@dataclass(frozen=True)
class Fidelity:
    """The autoencoder's reconstruction of real pictures: mean PSNR in dB, mean SSIM."""

    psnr: float
    ssim: float
    pictures: int


@dataclass(frozen=True)
class Following:
    """How well pictures show what was asked, beside the real pictures of the same prompts."""

    prompts: int
    generated: Rates
    real: Rates


@dataclass(frozen=True)
class SweepPoint:
    """The figures at one value of what a sweep varies; `right` is of the judge's main aspect."""

    value: float
    frechet: float
    kernel: float
    right: Rate | None


@dataclass(frozen=True)
class Sweep:
    """One setting varied, the others as in the rest of the report, over the same prompts."""

    varies: str
    aspect: str | None
    pictures: int
    points: tuple[SweepPoint, ...]


@dataclass(frozen=True)
class SubjectReport:
    """The figures of one kind of picture."""

    name: str
    distances: Distances
    fidelity: Fidelity | None = None
    seen: Following | None = None
    held_out: Following | None = None
    sweeps: tuple[Sweep, ...] = ()


@dataclass(frozen=True)
class Report:
    """The figures of a model, and how they were got."""

    model: str
    features: str
    sampler: str
    steps: int
    scale: float
    seed: int
    seconds: float
    subjects: tuple[SubjectReport, ...]
    size: int | None = None  # pixels
    weights: Mapping[str, str] = field(default_factory=dict[str, str])


def write_report(report: Report, folder: Path) -> tuple[Path, ...]:
    """Writes `report.json`, `report.md` and, for each sweep, a plot into a folder, and says which.

    Needs matplotlib if there are sweeps.
    """
    folder.mkdir(parents=True, exist_ok=True)
    numbers, words = folder / "report.json", folder / "report.md"
    write_text(numbers, json.dumps(_with_ratios(report), indent=2, allow_nan=True) + "\n")
    plots: list[Path] = []
    for varied in dict.fromkeys(s.varies for subject in report.subjects for s in subject.sweeps):
        from safelight.eval.plots import plot_sweeps

        plots.append(folder / f"{varied}.png")
        plot_sweeps(report, varied, plots[-1])
    write_text(words, to_markdown(report, [plot.name for plot in plots]))
    return (numbers, words, *plots)


def to_markdown(report: Report, plots: Sequence[str] = ()) -> str:
    """The report as Markdown: one section for each kind of picture, real pictures beside each
    figure.
    """
    size = "" if report.size is None else f"{report.size} x {report.size} pixels; "
    parts = [
        f"# Measured: {report.model}",
        f"{size}{report.sampler}, {report.steps} steps, guidance scale {report.scale:g}, seed "
        f"{report.seed}; features of {report.features}; {report.seconds:.0f} s.",
    ]
    for subject in report.subjects:
        parts += [f"## {subject.name}", *_subject(subject)]
    parts += [f"![By {Path(plot).stem}]({plot})" for plot in plots]
    return "\n\n".join(parts) + "\n"


def _subject(subject: SubjectReport) -> Iterable[str]:
    far = subject.distances
    yield _table(
        ("distance to held-out real pictures", "generated", "real", "ratio"),
        [
            (
                f"Fréchet ({far.pictures} against {far.reference})",
                f"{far.frechet:.1f}",
                f"{far.frechet_real:.1f}",
                _times(far.frechet_ratio),
            ),
            (
                "kernel × 1000",
                f"{1e3 * far.kernel:.2f}",
                f"{1e3 * far.kernel_real:.2f}",
                _times(far.kernel_ratio),
            ),
        ],
    )
    if subject.fidelity is not None:
        yield (
            f"Autoencoder on {subject.fidelity.pictures} held-out pictures: PSNR "
            f"{subject.fidelity.psnr:.2f} dB, SSIM {subject.fidelity.ssim:.3f}."
        )
    followings = [("seen", subject.seen), ("held out", subject.held_out)]
    rows = [
        (
            f"{kind}: {aspect}",
            _rate(rate),
            _rate(following.real.get(aspect)),
            _part_of(rate, following.real.get(aspect)),
        )
        for kind, following in followings
        if following is not None
        for aspect, rate in following.generated.items()
    ]
    if rows:
        yield _table(("right", "generated", "real", "generated of real"), rows)
    for sweep in subject.sweeps:
        yield _table(
            (sweep.varies, "Fréchet", "kernel × 1000", sweep.aspect or ""),
            [
                (
                    f"{point.value:g}",
                    f"{point.frechet:.1f}",
                    f"{1e3 * point.kernel:.2f}",
                    _rate(point.right),
                )
                for point in sweep.points
            ],
        )


def _rate(rate: Rate | None) -> str:
    if rate is None or not rate.of:
        return ""
    low, high = rate.interval
    return f"{100 * rate.part:.1f} % ({100 * low:.0f} to {100 * high:.0f}, n = {rate.of})"


def _part_of(rate: Rate, real: Rate | None) -> str:
    """How much of what the judge finds in real pictures it finds in generated ones."""
    if real is None or not (real.right and rate.of):
        return ""
    return f"{100 * rate.part / real.part:.0f} %"


def _times(ratio: float | None) -> str:
    return "n/a" if ratio is None else f"{ratio:.2f}"


def _ratio(distance: float, real: float) -> float | None:
    return distance / real if distance >= 0 and real > 0 else None


def _with_ratios(report: Report) -> dict[str, Value]:
    """The report's plain values, and in each subject's distances their ratios to real ones."""
    subjects: list[Value] = []
    for subject in report.subjects:
        far = subject.distances
        ratios = {"frechet_ratio": far.frechet_ratio, "kernel_ratio": far.kernel_ratio}
        subjects.append({**to_dict(subject), "distances": {**to_dict(far), **ratios}})
    return {**to_dict(report), "subjects": subjects}


def _table(head: Sequence[str], rows: Sequence[Sequence[str]]) -> str:
    lines = [head, ["---", *["---:"] * (len(head) - 1)], *rows]
    return "\n".join(f"| {' | '.join(line)} |" for line in lines)
