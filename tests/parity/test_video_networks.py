"""Stable Video Diffusion's networks against diffusers', and their folders both ways."""

import json

import pytest
import torch
from diffusers import AutoencoderKLTemporalDecoder, UNetSpatioTemporalConditionModel

from safelight.checkpoints.components import (
    read_autoencoder,
    read_unet,
    write_autoencoder,
    write_unet,
)
from safelight.conditioners.numbers import with_numbers
from safelight.errors import SafelightError
from safelight.models.temporal_autoencoder import TemporalAutoencoder
from safelight.models.unet import UNet, UNetConfig
from safelight.models.video import TemporalConfig, VideoUNet, inflate
from safelight.types import Conditioning

from .conftest import relative_error, saved, shaken
from .small_video import NUMBER, svd_unet, temporal_vae


@pytest.mark.parametrize("attends", [(True, False), (False, True)])
def test_the_video_unet_agrees_with_diffusers_and_is_read_back_by_it(attends, tmp_path):
    theirs = svd_unet(attends)
    ours = read_unet(saved(theirs, tmp_path / "theirs"))
    assert isinstance(ours, VideoUNet)
    numbers = torch.tensor([[6.0, 127.0, 0.02], [11.0, 80.0, 0.1]])
    context = torch.randn(2, 1, 24)
    for size in ((16, 24), (10, 14)):
        x, t = torch.randn(2, 3, 8, *size), torch.tensor([0.7, -0.4])
        wanted = theirs(x, t, context, added_time_ids=numbers).sample.flatten(0, 1)
        cond = with_numbers(Conditioning(context), numbers, ours.config)
        cond = Conditioning(cond.context, vector=cond.vector, num_frames=3)
        got = ours(x.flatten(0, 1), t.repeat_interleave(3), cond)
        assert relative_error(got, wanted) < 1e-5

    write_unet(tmp_path / "ours", ours)
    again = UNetSpatioTemporalConditionModel.from_pretrained(tmp_path / "ours")
    same = again(x, t, context, added_time_ids=numbers).sample.flatten(0, 1)
    torch.testing.assert_close(same, wanted, rtol=0, atol=0)


def test_the_temporal_autoencoder_agrees_with_diffusers_and_is_read_back_by_it(tmp_path):
    theirs = temporal_vae()
    ours = read_autoencoder(saved(theirs, tmp_path / "theirs"))
    assert isinstance(ours, TemporalAutoencoder)
    pixels = torch.rand(1, 3, 32, 48) * 2 - 1
    wanted = theirs.encode(pixels).latent_dist
    assert relative_error(ours.encode(pixels).mode(), wanted.mode()) < 1e-5
    z = torch.randn(5, 4, 16, 24)
    for frames in (5, 1):
        wanted = theirs.decode(z[:frames], num_frames=frames).sample
        assert relative_error(ours.decode(z[:frames]), wanted) < 1e-5

    write_autoencoder(tmp_path / "ours", ours)
    again = AutoencoderKLTemporalDecoder.from_pretrained(tmp_path / "ours")
    same = again.decode(z[:1], num_frames=1).sample
    torch.testing.assert_close(same, wanted, rtol=0, atol=0)


def test_a_video_unet_of_another_shape_is_written_as_ours_and_read_back(tmp_path):
    unet = UNet(
        UNetConfig(
            block_out_channels=(16, 32),
            layers_per_block=(1, 1),
            attention=(False, True),
            transformer_layers=(1, 1),
            attention_heads=(2, 2),
            only_cross_attention=(False, False),
            cross_attention_dim=16,
            norm_num_groups=8,
            context_heads=2,
            resnet_scale_shift=True,
        )
    )
    temporal = TemporalConfig(num_frames=4, given="placed", numbers=("fps", "motion"))
    ours = shaken(inflate(unet, temporal, number_dim=NUMBER))
    write_unet(tmp_path, ours)
    again = read_unet(tmp_path)
    assert isinstance(again, VideoUNet)
    assert (again.config, again.temporal) == (ours.config, temporal)
    x, t = torch.randn(4, 4, 8, 8), torch.full((4,), 400.0)
    cond = Conditioning(
        torch.randn(1, 3, 16),
        vector=torch.randn(1, 2 * NUMBER),
        concat=torch.randn(4, 5, 8, 8),
        num_frames=4,
    )
    assert torch.equal(again(x, t, cond), ours(x, t, cond))


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"addition_time_embed_dim": 12}, "projection_class_embeddings_input_dim = 24"),
        ({"in_channels": 9}, "in_channels = 9; expected 8"),
        ({"num_attention_heads": 5}, "32 channels do not split into 5 heads"),
        ({"num_frames": 0}, "num_frames should be 1 or more"),
        ({"down_block_types": ["DownBlock2D"] * 2}, "down blocks DownBlock2D"),
        ({"spin": 1}, "Unknown key"),
    ],
)
def test_other_video_unets_are_refused(options, message, tmp_path):
    folder = saved(svd_unet((True, False)), tmp_path)
    config = folder / "config.json"
    config.write_text(json.dumps(json.loads(config.read_text()) | options))
    with pytest.raises(SafelightError, match=message):
        read_unet(folder)
