"""The curves of the trainings, from their logs, into docs/samples/: `python curves.py`."""

import argparse
import json
from pathlib import Path

import matplotlib.pyplot as plt
from held_out import HERE

PANELS = {
    "autoencoder": (("loss", "loss", "log"), ("psnr", "PSNR of held-out emoji, dB", "linear")),
    "unet": (("loss", "loss of v", "linear"),),
    "unet_longer": (("loss", "loss of v", "linear"),),
    "unet_scenes": (("loss", "loss of v", "linear"),),
}
"""By training: the measure in the log, the panel's title and its scale."""


def read(log: Path, name: str) -> tuple[list[int], list[float]]:
    """Steps and values of one measure in a training's log."""
    rows = [json.loads(line) for line in log.read_text(encoding="utf-8").splitlines()]
    found = [(row["step"], row[name]) for row in rows if name in row]
    return [step for step, _ in found], [value for _, value in found]


def main() -> None:
    """Draws a row of panels for each training that was run here."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--work", type=Path, default=HERE / "work")
    parser.add_argument("--output", type=Path, default=HERE.parents[1] / "docs" / "samples")
    arguments = parser.parse_args()
    arguments.output.mkdir(parents=True, exist_ok=True)
    for training, panels in PANELS.items():
        log = arguments.work / training / "log.jsonl"
        if not log.is_file():
            print(f"curves: no {log}; {training}.png stays as it is")
            continue
        size = (4 * len(panels), 3.2)
        figure, axes = plt.subplots(
            1, len(panels), figsize=size, layout="constrained", squeeze=False
        )
        for axis, (name, title, scale) in zip(axes.flat, panels, strict=True):
            axis.plot(*read(log, name))
            axis.set(title=title, xlabel="step", yscale=scale)
            axis.grid(alpha=0.3)
        figure.savefig(arguments.output / f"{training}.png", dpi=90)


if __name__ == "__main__":
    main()
