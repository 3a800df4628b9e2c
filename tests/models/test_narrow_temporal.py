"""Layers along the frames that are narrower inside than those of pictures."""

from dataclasses import replace
from pathlib import Path

import pytest
import torch

from safelight.checkpoints.components import read_unet, write_unet
from safelight.models.unet import UNet, UNetConfig
from safelight.models.video import TemporalConfig, VideoUNet, inflate, new_parameters
from safelight.types import Conditioning

CONFIG = UNetConfig(
    block_out_channels=(32, 64),
    layers_per_block=(1, 1),
    attention=(True, True),
    transformer_layers=(1, 1),
    attention_heads=(4, 5),
    only_cross_attention=(False, False),
    cross_attention_dim=16,
    use_linear_projection=True,
    norm_num_groups=8,
)
CONFIG = replace(CONFIG, block_out_channels=(32, 80))


def added(video: VideoUNet) -> int:
    return sum(video.get_parameter(name).numel() for name in new_parameters(video))


def test_a_narrow_one_begins_as_the_pictures_and_is_read_as_it_was_written(tmp_path: Path):
    torch.manual_seed(0)
    unet = UNet(CONFIG).eval()
    wide, narrow = (inflate(unet, TemporalConfig(2, narrow=n)) for n in (1, 3))
    assert added(narrow) < 0.45 * added(wide)
    x, t, context = torch.randn(4, 4, 8, 8), torch.full((4,), 300.0), torch.randn(4, 5, 16)
    cond = Conditioning(context, num_frames=2)
    with torch.no_grad():
        assert torch.equal(narrow(x, t, cond), unet(x, t, Conditioning(context)))
        for parameter in narrow.parameters():
            parameter += 0.1 * torch.randn(parameter.shape)
        write_unet(tmp_path, narrow)
        again = read_unet(tmp_path).eval()
        assert isinstance(again, VideoUNet)
        assert again.temporal == narrow.temporal
        assert torch.equal(again(x, t, cond), narrow(x, t, cond))


def test_no_width_is_refused():
    with pytest.raises(ValueError, match="narrow should be at least 1"):
        TemporalConfig(narrow=0)
