"""The benchmark of one call of the U-Net, on a narrow one."""

import json
import os
import subprocess
import sys
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[2]
SMALL = ["--narrow", "10", "--size", "64", "--rounds", "1", "--threads", "1"]


def run(*options: str) -> subprocess.CompletedProcess[str]:
    paths = os.pathsep.join([str(ROOT / "src"), os.environ.get("PYTHONPATH", "")])
    return subprocess.run(
        [sys.executable, str(ROOT / "benchmarks" / "unet.py"), *options],
        capture_output=True,
        text=True,
        env=os.environ | {"PYTHONPATH": paths},
    )


@pytest.fixture(scope="module")
def written(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """What a run of three ways wrote: of two in one group, and one in another."""
    file = tmp_path_factory.mktemp("unet") / "unet.json"
    ways = ["--ways", "diffusers", "safelight", "safelight, prepared", "stable-diffusion.cpp"]
    done = run(*SMALL, *ways, "--together", "1", "--output", str(file))
    assert done.returncode == 0, done.stderr
    assert "Left out: stable-diffusion.cpp" in done.stderr
    return file


def test_each_way_is_measured_beside_diffusers_and_gives_what_it_gives(written: Path):
    ways = json.loads(written.read_text())["ways"]
    assert list(ways) == ["diffusers", "safelight", "safelight, prepared"]
    assert len(ways["diffusers"]["wall"]) == 2  # a call in each group
    for way in ("safelight", "safelight, prepared"):
        [difference] = ways[way]["differences"]
        assert 0 < difference < 1e-4
        assert len(ways[way]["wall"]) == len(ways[way]["peer_wall"]) == 1
    assert ways["safelight"]["peer_wall"] == ways["diffusers"]["wall"][:1]
    assert ways["safelight, prepared"]["peer_wall"] == ways["diffusers"]["wall"][1:]


def test_what_was_written_is_shown_and_drawn_again(written: Path, tmp_path: Path):
    plot = tmp_path / "unet.png"
    done = run("--read", str(written), "--plot", str(plot))
    assert done.returncode == 0, done.stderr
    assert "| safelight, prepared |" in done.stdout
    assert plot.read_bytes().startswith(b"\x89PNG")


@pytest.mark.parametrize("wrong", [0.5, float("nan")])
def test_outputs_that_are_others_are_a_failure(written: Path, tmp_path: Path, wrong: float):
    told = json.loads(written.read_text())
    told["ways"]["safelight"]["differences"] = [1e-6, wrong]
    file = tmp_path / "wrong.json"
    file.write_text(json.dumps(told))
    done = run("--read", str(file))
    assert done.returncode == 1
    assert "from diffusers: safelight (" in done.stderr


def test_a_way_that_ended_before_its_time_is_a_failure(written: Path, tmp_path: Path):
    told = json.loads(written.read_text()) | {"failed": ["openvino"]}
    file = tmp_path / "failed.json"
    file.write_text(json.dumps(told))
    done = run("--read", str(file))
    assert done.returncode == 1
    assert "Failed: openvino" in done.stderr
