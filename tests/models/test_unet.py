"""The U-Net's sizes, its conditioning, and what it refuses."""

from dataclasses import replace

import pytest
import torch

from safelight.models.unet import UNet, UNetConfig, zero_residuals
from safelight.types import Conditioning

SMALL = UNetConfig(
    block_out_channels=(16, 32),
    layers_per_block=(1, 2),
    attention=(True, False),
    transformer_layers=(1, 1),
    attention_heads=(2, 2),
    only_cross_attention=(False, False),
    cross_attention_dim=12,
    norm_num_groups=8,
)
SD2 = UNetConfig(
    cross_attention_dim=1024, attention_heads=(5, 10, 20, 20), use_linear_projection=True
)
XL = UNetConfig(
    block_out_channels=(320, 640, 1280),
    layers_per_block=(2, 2, 2),
    attention=(False, True, True),
    transformer_layers=(1, 2, 10),
    attention_heads=(5, 10, 20),
    only_cross_attention=(False,) * 3,
    cross_attention_dim=2048,
    use_linear_projection=True,
    added_dim=2816,
)


def inputs(b: int = 2, h: int = 8, w: int = 8, **parts: torch.Tensor):
    generator = torch.Generator().manual_seed(0)
    context = torch.randn(b, 5, 12, generator=generator)
    x = torch.randn(b, 4, h, w, generator=generator)
    return x, torch.linspace(1, 900, b), Conditioning(context=context, **parts)


@pytest.mark.parametrize(
    ("config", "weights"),
    [(UNetConfig(), 859_520_964), (SD2, 865_910_724), (XL, 2_567_463_684)],
    ids=["SD 1.5", "SD 2.1", "SDXL"],
)
def test_public_configurations_have_the_published_number_of_weights(
    config: UNetConfig, weights: int
):
    with torch.device("meta"):
        unet = UNet(config)
    assert sum(p.numel() for p in unet.parameters()) == weights


@pytest.mark.parametrize("size", [(8, 8), (7, 9), (5, 12), (1, 3)])
def test_keeps_any_size(size: tuple[int, int]):
    x, t, cond = inputs(2, *size)
    assert UNet(SMALL)(x, t, cond).shape == x.shape


def test_recomputing_activations_changes_no_gradient():
    torch.manual_seed(0)
    unet = UNet(SMALL)
    x, t, cond = inputs()
    gradients: list[list[torch.Tensor]] = []
    for on in (False, True):
        unet.gradient_checkpointing = on
        unet.zero_grad()
        unet(x, t, cond).square().mean().backward()
        gradients.append([p.grad.clone() for p in unet.parameters() if p.grad is not None])
    assert len(gradients[0]) == len(list(unet.parameters()))
    for kept, recomputed in zip(*gradients, strict=True):
        torch.testing.assert_close(recomputed, kept)


def test_concatenated_channels_stand_beside_x():
    torch.manual_seed(0)
    unet = UNet(replace(SMALL, in_channels=7))
    x, t, cond = inputs(concat=torch.ones(2, 3, 8, 8))
    plain = unet(torch.cat([x, torch.ones(2, 3, 8, 8)], dim=1), t, inputs()[2])
    assert torch.equal(unet(x, t, cond), plain)


def test_the_vector_is_split_into_class_added_and_guidance():
    torch.manual_seed(0)
    unet = UNet(replace(SMALL, class_dim=3, added_dim=6, guidance_dim=4))
    x, t, _ = inputs()
    for start, stop in ((0, 3), (3, 9), (9, 13)):
        vector = torch.zeros(2, 13)
        before = unet(*inputs(vector=vector.clone())[:2], inputs(vector=vector.clone())[2])
        vector[:, start:stop] = 1
        after = unet(x, t, inputs(vector=vector)[2])
        assert not torch.allclose(before, after), (start, stop)


def test_a_one_hot_class_is_a_row_of_the_table():
    torch.manual_seed(0)
    unet = UNet(replace(SMALL, class_dim=3))
    x, t, cond = inputs(b=1, vector=torch.tensor([[0.0, 1.0, 0.0]]))
    assert unet.class_embedding is not None
    null = replace(cond, vector=torch.zeros(1, 3))
    difference = unet.embed(t, cond) - unet.embed(t, null)
    torch.testing.assert_close(difference[0], unet.class_embedding.weight[1], rtol=1e-4, atol=1e-5)
    assert unet(x, t, cond).shape == x.shape


def test_a_vector_of_the_wrong_width_is_refused_with_the_widths():
    x, t, cond = inputs(vector=torch.zeros(2, 5))
    with pytest.raises(ValueError, match=r"width 6 .*added 6.*got 5"):
        UNet(replace(SMALL, added_dim=6))(x, t, cond)


def test_residuals_are_added_to_the_skips_and_the_middle():
    torch.manual_seed(0)
    unet = UNet(SMALL)
    x, t, cond = inputs()
    shapes = [(16, 8), (16, 8), (16, 4), (32, 4), (32, 4), (32, 4)]  # conv, resnets, middle
    zeros = tuple(torch.zeros(2, c, s, s) for c, s in shapes)
    plain = unet(x, t, cond)
    assert torch.equal(unet(x, t, replace(cond, residuals=zeros)), plain)
    for i in range(len(zeros)):
        changed = tuple(r + (1.0 if j == i else 0.0) for j, r in enumerate(zeros))
        assert not torch.allclose(unet(x, t, replace(cond, residuals=changed)), plain), i


def test_zeroed_residuals_give_zero_and_yet_learn():
    unet = UNet(SMALL)
    zero_residuals(unet)
    x, t, cond = inputs()
    out = unet(x, t, cond)
    assert out.abs().max() == 0
    (out - 1).square().mean().backward()
    assert unet.conv_out.weight.grad is not None
    assert unet.conv_out.weight.grad.abs().max() > 0


def test_levels_must_agree():
    with pytest.raises(ValueError, match="attention_heads has 3 entries for 2 levels"):
        replace(SMALL, attention_heads=(1, 1, 1))
