"""Plots of a report's sweeps."""

from pathlib import Path

from safelight.checkpoints.atomic import replacing_file
from safelight.eval.report import Report


def plot_sweeps(report: Report, varies: str, path: Path) -> None:
    """Draws what comes of varying one setting, as a PNG: distances above, judges below."""
    from matplotlib.backends.backend_agg import FigureCanvasAgg
    from matplotlib.figure import Figure

    figure = Figure(figsize=(7, 6), layout="constrained")
    FigureCanvasAgg(figure)
    far, right = figure.subplots(2, 1, sharex=True)
    for subject in report.subjects:
        for sweep in subject.sweeps:
            if sweep.varies != varies:
                continue
            values = [point.value for point in sweep.points]
            ratios = [point.frechet / subject.distances.frechet for point in sweep.points]
            far.plot(values, ratios, marker="o", label=subject.name)
            judged = [point for point in sweep.points if point.right is not None]
            parts = [100 * point.right.part for point in judged if point.right is not None]
            right.plot(
                [point.value for point in judged],
                parts,
                marker="o",
                label=f"{subject.name}: {sweep.aspect}",
            )
    far.set_ylabel("Fréchet distance,\nparts of the report's")
    right.set_ylabel("right, %")
    right.set_xlabel("guidance scale" if varies == "scale" else varies)
    right.set_ylim(0, 102)
    for axes in (far, right):
        axes.grid(alpha=0.3)
        axes.legend()
    with replacing_file(path) as temporary:
        figure.savefig(temporary, format="png", dpi=110)
