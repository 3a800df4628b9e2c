"""The benchmark of the memory of one picture, on a tiny model."""

import os
import subprocess
import sys
from pathlib import Path

from tiny_model import write_tiny_model

ROOT = Path(__file__).parents[2]


def test_each_way_makes_a_picture_in_a_process_of_its_own(tmp_path: Path):
    folder = write_tiny_model(tmp_path / "tiny")
    ways = ["safelight", "safelight, stored as int8"]
    options = ["--folder", str(folder), "--size", "32", "--threads", "1", "--ways", *ways]
    paths = os.pathsep.join([str(ROOT / "src"), os.environ.get("PYTHONPATH", "")])
    done = subprocess.run(
        [sys.executable, str(ROOT / "benchmarks" / "memory.py"), *options],
        capture_output=True,
        text=True,
        env=os.environ | {"PYTHONPATH": paths},
    )
    assert done.returncode == 0, done.stderr
    rows = [line.split("|")[1:-1] for line in done.stdout.splitlines() if line.startswith("| safe")]
    assert [row[0].strip() for row in rows] == ways
    for row in rows:
        most = float(row[1].removesuffix("GiB "))
        assert 0.05 < most < 4
        if sys.platform == "linux":
            assert 0 < float(row[2].removesuffix("GiB ")) <= most


def test_a_published_architecture_is_written_in_its_precision_and_drawn_as_layers_are():
    script = "; ".join(
        (
            "import torch, published",
            "from torch import nn",
            "build = lambda: nn.Sequential(nn.Linear(16, 8), nn.LayerNorm(8))",
            "made = published.drawn(build, torch.float16)",
            "weight = made[0].weight",
            "assert weight.dtype == torch.float16 and 0.2 < float(weight.abs().max()) <= 0.25",
            "assert float(made[0].bias.abs().max()) == 0 and float(made[1].weight.min()) == 1",
        )
    )
    paths = os.pathsep.join([str(ROOT / "src"), str(ROOT / "benchmarks")])
    done = subprocess.run(
        [sys.executable, "-c", script],
        capture_output=True,
        text=True,
        env=os.environ | {"PYTHONPATH": paths},
    )
    assert done.returncode == 0, done.stderr
