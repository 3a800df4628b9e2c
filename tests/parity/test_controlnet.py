"""ControlNets against diffusers' `ControlNetModel`: read, run, written, read back."""

from dataclasses import replace

import pytest
import torch
from diffusers import ControlNetModel, UNet2DConditionModel

from safelight.checkpoints.components import read_unet
from safelight.checkpoints.controlnet import read_controlnet, write_controlnet
from safelight.models.controlnet import (
    Controlled,
    ControlNetConfig,
    Steering,
    control_of,
    even_weights,
    rising_weights,
)
from safelight.nn.embeddings import sinusoidal
from safelight.types import Conditioning

from .conftest import relative_error, saved, shaken
from .test_unet import NUMBERS, POOLED, SD1, WIDTH, XL

FAMILIES = {"sd1": SD1, "xl": XL}
NOT_THEIRS = ("sample_size", "up_block_types")


def _theirs(family, **options):
    unet = UNet2DConditionModel(**FAMILIES[family])
    control = ControlNetModel.from_unet(unet, conditioning_embedding_out_channels=(4, 6, 8))
    control.register_to_config(**options)
    return shaken(unet), shaken(control)


def _inputs(family):
    torch.manual_seed(3)
    x, t = torch.randn(2, 4, 8, 8), torch.tensor([801.0, 801.0])
    hint, context = torch.rand(2, 3, 32, 32), torch.randn(2, 5, WIDTH)
    if family == "sd1":
        return x, t, hint, Conditioning(context=context), {}
    text, numbers = torch.randn(2, POOLED), torch.rand(2, 6) * 100
    rows = sinusoidal(numbers.flatten(), NUMBERS).reshape(2, -1)
    cond = Conditioning(context=context, vector=torch.cat([text, rows], dim=1))
    return x, t, hint, cond, {"text_embeds": text, "time_ids": numbers}


@pytest.mark.parametrize("family", FAMILIES)
@pytest.mark.parametrize(
    ("guess", "options"),
    [
        (False, {}),
        (True, {}),
        (False, {"controlnet_conditioning_channel_order": "bgr", "global_pool_conditions": True}),
    ],
)
def test_a_steered_unet_agrees(tmp_path, family, guess, options):
    unet, control = _theirs(family, **options)
    x, t, hint, cond, added = _inputs(family)
    with torch.no_grad():
        down, mid = control(
            x,
            t,
            cond.context,
            hint,
            conditioning_scale=0.7,
            guess_mode=guess,
            added_cond_kwargs=added,
            return_dict=False,
        )
        wanted = unet(
            x,
            t,
            cond.context,
            down_block_additional_residuals=down,
            mid_block_additional_residual=mid,
            added_cond_kwargs=added,
        ).sample
        plain = unet(x, t, cond.context, added_cond_kwargs=added).sample
    ours = read_controlnet(saved(control, tmp_path / "control"))
    weights = (rising_weights if guess else even_weights)(ours, 0.7)
    network = read_unet(saved(unet, tmp_path / "unet"))
    steered = Controlled(network, [Steering(ours, weights)])
    with torch.no_grad():
        made = steered(x, t, replace(cond, hints=(hint,)))
    assert relative_error(made, wanted) < 1e-4
    assert relative_error(plain, wanted) > 1e-2  # it steers


def test_several_add_up_and_rest_outside_their_times(tmp_path):
    unet, control = _theirs("sd1")
    x, t, hint, cond, _ = _inputs("sd1")
    ours = read_controlnet(saved(control, tmp_path / "control"))
    network = read_unet(saved(unet, tmp_path / "unet"))
    once = Steering(ours, even_weights(ours, 1.0))
    halves = [Steering(ours, even_weights(ours, 0.5))] * 2
    resting = replace(once, first=800.0)
    with torch.no_grad():
        whole = Controlled(network, [once])(x, t, replace(cond, hints=(hint,)))
        both = Controlled(network, halves)(x, t, replace(cond, hints=(hint, hint)))
        none = Controlled(network, [resting])(x, t, replace(cond, hints=(hint,)))
        plain = network(x, t, cond)
    assert relative_error(both, whole) < 1e-5
    assert torch.equal(none, plain)
    with pytest.raises(ValueError, match="Expected 1 hints, got 0"):
        Controlled(network, [once])(x, t, cond)
    with pytest.raises(ValueError, match="a hint of 32 x 32 pixels, got 16 x 32"):
        Controlled(network, [once])(x, t, replace(cond, hints=(hint[..., :16],)))


def test_a_fresh_copy_adds_nothing_and_is_written_as_theirs(tmp_path):
    unet, _ = _theirs("xl")
    x, t, hint, cond, added = _inputs("xl")
    network = read_unet(saved(unet, tmp_path / "unet"))
    config = ControlNetConfig(network.config, hint_block_channels=(4, 6, 8))
    fresh = control_of(network, config).eval()
    steered = Controlled(network, [Steering(fresh, even_weights(fresh, 1.0))])
    with torch.no_grad():
        assert torch.equal(steered(x, t, replace(cond, hints=(hint,))), network(x, t, cond))
    assert torch.equal(fresh.conv_in.weight, network.conv_in.weight)
    write_controlnet(tmp_path / "ours", shaken(fresh))
    again = read_controlnet(tmp_path / "ours")
    assert again.shape.factor == 4
    theirs = ControlNetModel.from_pretrained(tmp_path / "ours")
    with torch.no_grad():
        down, mid = theirs(x, t, cond.context, hint, added_cond_kwargs=added, return_dict=False)
        made = again(x, t, cond, hint)
    for part, wanted in zip(made, (*down, mid), strict=True):
        assert relative_error(part, wanted) < 1e-4
