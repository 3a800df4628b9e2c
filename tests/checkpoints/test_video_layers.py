"""Layers along the frames alone, put together with the model of pictures that they are for."""

import re
from pathlib import Path

import pytest
import torch

from safelight.checkpoints.components import Writing
from safelight.checkpoints.video_layers import (
    holds_layers,
    read_video_layers,
    write_video_layers,
)
from safelight.errors import SafelightError
from safelight.models.unet import UNet
from safelight.models.video import TemporalConfig, VideoUNet, inflate, new_parameters
from tiny_model import tiny_folder


def trained(unet: UNet) -> VideoUNet:
    """An inflated U-Net whose new weights, and no others, have learned."""
    temporal = TemporalConfig(3, "placed", ("fps", "motion"), narrow=2)
    video = inflate(unet, temporal, number_dim=8)
    with torch.no_grad():
        for name in new_parameters(video):
            video.get_parameter(name).add_(0.1 * torch.randn(video.get_parameter(name).shape))
        video.conv_in.weight[:, 4:] += 0.5
    return video


def test_they_are_a_part_of_the_whole_and_come_back(tmp_path: Path):
    unet = tiny_folder().unet
    video = trained(unet)
    write_video_layers(tmp_path / "video", video, unet)
    assert holds_layers(tmp_path / "video")
    again = read_video_layers(tmp_path / "video", unet)
    assert again.temporal == video.temporal
    state = again.state_dict()
    assert all(torch.equal(state[name], tensor) for name, tensor in video.state_dict().items())
    assert not again.training
    bytes_ = sum(path.stat().st_size for path in (tmp_path / "video").iterdir())
    new = sum(video.get_parameter(name).numel() for name in new_parameters(video))
    assert bytes_ < 4 * new + 60_000


def test_a_bundle_in_bfloat16(tmp_path: Path):
    unet = tiny_folder().unet.to(torch.bfloat16).float()
    video = trained(unet)
    write_video_layers(tmp_path / "video", video, unet, Writing(dtype=torch.bfloat16))
    again = read_video_layers(tmp_path / "video", unet).state_dict()
    for name, tensor in video.state_dict().items():
        assert torch.allclose(again[name], tensor, rtol=1e-2)


def test_another_models_layers_are_refused(tmp_path: Path):
    unet, other = tiny_folder(0).unet, tiny_folder(1).unet
    video = trained(unet)
    with pytest.raises(SafelightError, match="not those of the model given"):
        write_video_layers(tmp_path / "video", video, other)
    write_video_layers(tmp_path / "video", video, unet)
    with pytest.raises(SafelightError, match="another model of pictures"):
        read_video_layers(tmp_path / "video", other)


@pytest.mark.parametrize(
    ("wrong", "reason"),
    [
        ('"narrow": 0', "narrow should be at least 1"),
        ('"num_frames": 0', "num_frames should be 1 or more"),
        ('"number_dim": 1000000000', "take 2,000,000,000 features"),
        ('"number_dim": 0', "take 0 features"),
    ],
)
def test_a_configuration_that_cannot_be_built_ends_in_one_line(tmp_path, wrong, reason):
    unet = tiny_folder().unet
    write_video_layers(tmp_path / "video", trained(unet), unet)
    config = tmp_path / "video/config.json"
    key = wrong.split(":")[0]
    config.write_text(re.sub(rf"{key}: \d+", wrong, config.read_text()))
    with pytest.raises(SafelightError, match=reason):
        read_video_layers(tmp_path / "video", unet)


def test_missing_layers_are_told(tmp_path: Path):
    unet = tiny_folder().unet
    write_video_layers(tmp_path / "video", trained(unet), unet)
    config = tmp_path / "video/config.json"
    config.write_text(config.read_text().replace('"narrow": 2', '"narrow": 1'))
    with pytest.raises(SafelightError, match="does not hold the layers of its configuration"):
        read_video_layers(tmp_path / "video", unet)
