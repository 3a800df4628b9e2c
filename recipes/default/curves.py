"""The curves of both trainings, from their logs: `python curves.py` writes samples/curves.png."""

import argparse
import json
from pathlib import Path

import matplotlib.pyplot as plt
from held_out import HERE


def read(log: Path, name: str) -> tuple[list[int], list[float]]:
    """Steps and values of one measure in a training's log."""
    rows = [json.loads(line) for line in log.read_text(encoding="utf-8").splitlines()]
    found = [(row["step"], row[name]) for row in rows if name in row]
    return [step for step, _ in found], [value for _, value in found]


def main() -> None:
    """Draws three panels."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--work", type=Path, default=HERE / "work")
    parser.add_argument("--output", type=Path, default=HERE.parents[1] / "docs" / "samples")
    arguments = parser.parse_args()
    panels = (
        ("autoencoder", "loss", "autoencoder: loss"),
        ("autoencoder", "psnr", "autoencoder: PSNR of held-out emoji, dB"),
        ("unet", "loss", "U-Net: loss of v"),
    )
    figure, axes = plt.subplots(1, len(panels), figsize=(12, 3.2), layout="constrained")
    for axis, (folder, name, title) in zip(axes, panels, strict=True):
        axis.plot(*read(arguments.work / folder / "log.jsonl", name))
        axis.set(title=title, xlabel="step")
        axis.grid(alpha=0.3)
    axes[0].set_yscale("log")
    arguments.output.mkdir(parents=True, exist_ok=True)
    figure.savefig(arguments.output / "curves.png", dpi=90)


if __name__ == "__main__":
    main()
