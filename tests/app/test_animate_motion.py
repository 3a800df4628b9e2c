"""`safelight animate` by a motion module of AnimateDiff, with a LoRA, and the same clip again."""

import json
from pathlib import Path

import pytest
import torch
from PIL import Image

from safelight.app.cli import main
from safelight.checkpoints.files import write_state
from safelight.checkpoints.motion import write_motion
from safelight.models.motion import MotionAdapter, MotionConfig
from safelight.pipelines.clip_files import read_clip_manifest
from tiny_video import write_video_model

NAME = "lora_unet_down_blocks_0_attentions_0_transformer_blocks_0_attn1_to_q"


@pytest.fixture
def motion(tmp_path, monkeypatch) -> Path:
    monkeypatch.chdir(tmp_path)
    torch.manual_seed(0)
    config = MotionConfig((32, 64), (1, 1), groups=8, max_frames=4)
    write_motion(tmp_path / "motion", MotionAdapter(config))
    return tmp_path / "motion"


def animate(model: Path, motion: Path, name: str, *options: str) -> int:
    frames = () if "--frames" in options else ("--frames", "3")
    sizes = (*frames, "--steps", "2", "--width", "16", "--height", "16")
    models = ("--model", str(model), "--motion-module", str(motion), "--device", "cpu")
    return main(["animate", "--prompt", "a red cube", "-o", name, *sizes, *models, *options])


def test_a_prompt_becomes_a_clip_with_a_lora_and_comes_again(model_folder, motion, capsys):
    assert animate(model_folder, motion, "plain.webp") == 0
    torch.manual_seed(1)
    down, up = torch.randn(2, 32), torch.randn(32, 2)
    write_state(
        Path("style.safetensors"),
        {f"{NAME}.lora_down.weight": down, f"{NAME}.lora_up.weight": up},
    )
    assert animate(model_folder, motion, "x.webp", "--lora", "style.safetensors:0.8") == 0
    plain, styled = (read_clip_manifest(Path(name)) for name in ("plain.webp", "x.webp"))
    assert plain is not None
    assert styled is not None
    assert plain.pixels != styled.pixels
    assert [adapter.strength for adapter in styled.adapters] == [0.8]
    capsys.readouterr()
    assert main(["rerun", "x.webp"]) == 0
    assert "the same pixels" in capsys.readouterr().err
    torch.manual_seed(2)
    adapter = MotionAdapter(MotionConfig((32, 64), (1, 1), groups=8, max_frames=4))
    write_motion(motion, adapter)
    assert main(["rerun", "x.webp"]) == 2
    assert "the motion module" in capsys.readouterr().err


def test_what_does_not_go_together_is_one_line(model_folder, motion, tmp_path, capsys):
    for options, said in (
        (("--window", "9", "--frames", "9"), "knows 4 frames"),
        (("--motion", "9"), "is not told of motion"),
        (("--last", str(_picture(tmp_path))), "of a prompt alone; leave the picture out"),
    ):
        assert animate(model_folder, motion, "x.webp", *options) == 2
        assert said in capsys.readouterr().err
    video = write_video_model(tmp_path / "video")
    assert animate(video, motion, "x.webp") == 2
    assert "makes clips by itself" in capsys.readouterr().err
    config = json.loads((motion / "config.json").read_text()) | {"block_out_channels": [32, 32]}
    (motion / "config.json").write_text(json.dumps(config))
    assert animate(model_folder, motion, "x.webp") == 2
    assert "motion" in capsys.readouterr().err


def _picture(folder: Path) -> Path:
    Image.new("RGB", (16, 16), "red").save(folder / "last.png")
    return folder / "last.png"
