"""The video U-Net: exact at the start, in parity with diffusers, whole in chunks."""

from dataclasses import replace

import pytest
import torch

from safelight.conditioners.clips import with_known_frames
from safelight.models.unet import UNet, UNetConfig
from safelight.models.video import (
    TemporalConfig,
    VideoUNet,
    inflate,
    new_parameters,
    told_around,
)
from safelight.types import Conditioning

CONFIG = UNetConfig(
    block_out_channels=(32, 64),
    layers_per_block=(1, 1),
    attention=(True, False),
    transformer_layers=(1, 1),
    attention_heads=(2, 4),
    only_cross_attention=(False, False),
    cross_attention_dim=16,
    use_linear_projection=True,
    norm_num_groups=8,
)
TOLD = TemporalConfig(num_frames=3, given="placed", numbers=("fps", "motion"))


def randomised(network: torch.nn.Module) -> None:
    generator = torch.Generator().manual_seed(5)
    for parameter in network.parameters():
        parameter.data += 0.1 * torch.randn(parameter.shape, generator=generator)


@pytest.mark.parametrize(
    "config",
    [
        CONFIG,
        replace(CONFIG, context_heads=2, resnet_scale_shift=True),
        replace(CONFIG, use_linear_projection=False, mid_attention=False),
    ],
)
def test_an_inflated_unet_makes_the_frames_of_the_picture_unet_to_the_bit(config: UNetConfig):
    torch.manual_seed(0)
    unet = UNet(config).eval()
    video = inflate(unet, TOLD, number_dim=8)
    x, t = torch.randn(6, 4, 16, 16), torch.full((6,), 400.0)
    context = torch.randn(6, 5, 16)
    cond = Conditioning(
        context, vector=torch.randn(2, 16), concat=torch.randn(6, 5, 16, 16), num_frames=3
    )
    with torch.no_grad():
        ours = video(x, t, cond)
        assert torch.equal(ours, unet(x, t, Conditioning(context)))
        randomised(video)
        assert not torch.allclose(video(x, t, cond), ours, atol=0.1)


def test_all_that_is_new_learns():
    torch.manual_seed(0)
    video = inflate(UNet(CONFIG), TOLD, number_dim=8)
    x, t = torch.randn(3, 4, 8, 8), torch.full((3,), 400.0)
    cond = Conditioning(
        torch.randn(1, 5, 16), vector=torch.randn(1, 16), concat=torch.randn(3, 5, 8, 8)
    )
    cond = replace(cond, num_frames=3)
    before = {name: p.detach().clone() for name, p in video.named_parameters()}
    optimiser = torch.optim.Adam(video.parameters(), lr=0.01)
    for _ in range(3):
        optimiser.zero_grad()
        video(x, t, cond).square().mean().backward()
        optimiser.step()
    new = new_parameters(video)
    assert new
    still = [name for name in new if torch.equal(before[name], video.get_parameter(name))]
    assert not still


def test_frames_see_each_other_and_clips_do_not():
    torch.manual_seed(0)
    video = inflate(UNet(CONFIG), TemporalConfig(num_frames=3)).eval()
    randomised(video)
    x, t = torch.randn(6, 4, 8, 8), torch.full((6,), 400.0)
    cond = Conditioning(torch.randn(2, 5, 16), num_frames=3)
    changed = x.clone()
    changed[0] += 1
    with torch.no_grad():
        moved = (video(changed, t, cond) - video(x, t, cond)).abs().amax(dim=(1, 2, 3))
    assert (moved[:3] > 1e-4).all()
    assert (moved[3:] == 0).all()


def test_known_frames_told_around_are_at_first_seen_as_those_placed_and_the_others_by_half():
    torch.manual_seed(0)
    placed = inflate(UNet(CONFIG), TOLD, number_dim=8).eval()
    randomised(placed)
    around = told_around(placed)
    assert around.temporal == replace(TOLD, given="around")
    latents, known = torch.randn(1, 3, 4, 8, 8), torch.tensor([[True, False, False]])
    x = torch.randn(3, 4, 8, 8)
    cond = Conditioning(torch.randn(1, 5, 16), vector=torch.randn(1, 16))

    def seen(unet: VideoUNet) -> torch.Tensor:
        told = with_known_frames(cond, latents, known, unet.temporal)
        assert told.concat is not None
        return unet.conv_in(torch.cat([x, told.concat], 1))

    with torch.no_grad():
        torch.testing.assert_close(seen(around)[0], seen(placed)[0])
        all_known = torch.full((1, 3), True)
        still = with_known_frames(cond, latents[:, :1].expand_as(latents), all_known, TOLD)
        assert still.concat is not None
        mask, half = still.concat[1:, 4:] / 4, still.concat[1:, :4] / 2
        beside = torch.cat([half, mask / torch.tensor([1.0, 1.5]).reshape(2, 1, 1, 1)], 1)
        wanted = placed.conv_in(torch.cat([x[1:], beside], 1))
        torch.testing.assert_close(seen(around)[1:], wanted)
    with pytest.raises(ValueError, match='told frames as "around"'):
        told_around(around)


def test_rows_without_num_frames_are_pictures():
    torch.manual_seed(0)
    video = inflate(UNet(CONFIG), TemporalConfig(num_frames=3)).eval()
    randomised(video)
    x, t, context = torch.randn(3, 4, 8, 8), torch.full((3,), 400.0), torch.randn(3, 5, 16)
    changed = x.clone()
    changed[0] += 1
    with torch.no_grad():
        ours, other = video(x, t, Conditioning(context)), video(changed, t, Conditioning(context))
    assert torch.equal(ours[1:], other[1:])


def test_chunks_of_frames_give_the_same():
    torch.manual_seed(0)
    video = inflate(UNet(CONFIG), TemporalConfig(num_frames=5)).eval()
    randomised(video)
    x, t = torch.randn(10, 4, 16, 16), torch.full((10,), 400.0)
    cond = Conditioning(torch.randn(2, 5, 16), num_frames=5)
    with torch.no_grad():
        whole = video(x, t, cond)
        assert video.chunk is None
        video.chunk = 2
        chunked = video(x, t, cond)
    torch.testing.assert_close(chunked, whole, rtol=1e-4, atol=1e-5)


def test_what_does_not_fit_is_refused():
    video = inflate(UNet(CONFIG), TemporalConfig(num_frames=3))
    x, t = torch.randn(4, 4, 8, 8), torch.zeros(4)
    with pytest.raises(ValueError, match="4 frames do not divide into clips of 3"):
        video(x, t, Conditioning(torch.randn(4, 5, 16), num_frames=3))
    with pytest.raises(ValueError, match="3 rows fits neither 4 frames nor their 2 clips"):
        video(x, t, Conditioning(torch.randn(3, 5, 16), num_frames=2))
    with pytest.raises(ValueError, match="told numbers already"):
        inflate(UNet(replace(CONFIG, added_dim=16, added_time_dim=8)), TOLD)
    with pytest.raises(ValueError, match="attends to a context"):
        inflate(UNet(replace(CONFIG, cross_attention_dim=None)), TOLD)
    with pytest.raises(ValueError, match="num_frames"):
        TemporalConfig(num_frames=0)
