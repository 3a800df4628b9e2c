"""The video model's layers in the bundle, and what its measures say of a page without marks."""

from dataclasses import replace
from pathlib import Path

import bundle_video
import pytest
import steady_video
import torch

from safelight.checkpoints.folder import Defaults, read_folder, write_folder
from safelight.checkpoints.tables.video import OWN_PIPELINE
from safelight.errors import SafelightError
from safelight.models.video import TemporalConfig, inflate, new_parameters
from safelight.pipelines.load_video import load_video
from tiny_model import tiny_folder


def write_models(root: Path) -> None:
    """A model of pictures, and a video model of new layers that have learned and its own."""
    pictures = tiny_folder()
    pictures = replace(pictures, unet=pictures.unet.to(torch.bfloat16).float())
    video = inflate(pictures.unet, TemporalConfig(3, "placed", ("fps",), narrow=2), number_dim=8)
    with torch.no_grad():
        for name in new_parameters(video):
            learned = 0.05 * torch.randn(video.get_parameter(name).shape)
            video.get_parameter(name).add_(learned).copy_(video.get_parameter(name).bfloat16())
    write_folder(root / "base", pictures)
    defaults = Defaults("euler", 2, 2.0, 16, 16, fps=5.0)
    whole = replace(pictures, unet=video, pipeline_class=OWN_PIPELINE, defaults=defaults)
    write_folder(root / "model", whole)


def test_a_bundle_makes_the_clips_of_the_whole_model(tmp_path: Path, monkeypatch):
    write_models(tmp_path)
    base = tmp_path / "base"
    bundle_video.bundle(tmp_path / "model", base, base / "video")
    clips = [
        load_video(path, device="cpu").animate(prompt="a cat")
        for path in (base, tmp_path / "model")
    ]
    assert len(clips[0].frames) == 3
    assert clips[0].manifest.pixels == clips[1].manifest.pixels
    monkeypatch.setattr(bundle_video, "LARGEST", 1000)
    with pytest.raises(SafelightError, match="a bundle may have"):
        bundle_video.bundle(tmp_path / "model", base, base / "video")


def test_a_page_without_marks_is_told_before_anything_is_measured(tmp_path, monkeypatch, capsys):
    pytest.importorskip("cv2")
    import measure_video

    monkeypatch.setattr(measure_video, "measure", lambda arguments: pytest.fail("it measured"))
    (tmp_path / "card.md").write_text("# No marks")
    monkeypatch.setattr("sys.argv", ["measure_video.py", "--card", str(tmp_path / "card.md")])
    assert measure_video.main() == 2
    assert "should hold <!-- video -->" in capsys.readouterr().err


def test_real_clips_are_measured_as_those_that_are_made():
    pytest.importorskip("cv2")
    import measure_video
    from video_clips import Wanted

    still = torch.zeros(3, 3, 16, 16)
    moving = torch.stack([torch.roll(torch.rand(3, 16, 16), k, 2) for k in range(3)])
    asked = [Wanted(still, "", 8.0, 20), Wanted(still, "", 8.0, 70)]
    asked.append(Wanted(moving, "", 8.0, 60))
    figures = measure_video.by_bucket(asked, (16, 64, 208))
    assert figures.keys() == {"speed at 16", "speed at 64"}
    assert figures["speed at 16"] == 0
    wanted = measure_video.speed(moving, 8.0) / 2
    assert figures["speed at 64"] == pytest.approx(wanted, abs=1e-4)


def test_clips_are_made_from_steadier_noise_than_in_training(tmp_path: Path):
    pictures = tiny_folder()
    shape = TemporalConfig(3, "placed", ("motion",), noise_correlation=1.0, moving_correlation=0.8)
    video = inflate(pictures.unet, shape, number_dim=8)
    write_folder(tmp_path / "model", replace(pictures, unet=video, pipeline_class=OWN_PIPELINE))
    steady_video.steady(tmp_path / "model", 0.93)
    again = read_folder(tmp_path / "model").unet
    assert again.temporal == replace(shape, moving_correlation=0.93)
    write_folder(tmp_path / "still", pictures)
    with pytest.raises(SafelightError, match="no clips from noise by their motion"):
        steady_video.steady(tmp_path / "still", 0.93)
