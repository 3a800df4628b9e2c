"""AnimateDiff's motion modules against diffusers', from folders and from their authors' files."""

import pytest
import torch
from diffusers import MotionAdapter as TheirAdapter
from diffusers import UNet2DConditionModel, UNetMotionModel
from safetensors.torch import save_file

from safelight.checkpoints.components import read_unet
from safelight.checkpoints.motion import read_motion, write_motion
from safelight.errors import SafelightError
from safelight.models.motion import with_motion
from safelight.models.unet import UNet
from safelight.types import Conditioning

from .conftest import relative_error, saved
from .small_video import motion_adapter, moving_unet, original_names


@pytest.mark.parametrize("middle", [True, False])
@pytest.mark.parametrize("form", ["folder", "safetensors", "ckpt"])
def test_a_unet_with_motion_agrees_with_diffusers(form, middle, tmp_path):
    unet, adapter = moving_unet(), motion_adapter(middle=middle)
    theirs = UNetMotionModel.from_unet2d(unet, adapter).eval()
    path = tmp_path / f"mm.{form}"
    if form == "folder":
        saved(adapter, path)
    elif form == "safetensors":
        save_file(original_names(adapter), path)
    else:
        named = {f"module.{key}": value for key, value in original_names(adapter).items()}
        torch.save({"state_dict": named, "epoch": 3}, path)
    picture = read_unet(saved(unet, tmp_path / "unet"))
    ours = with_motion(picture, read_motion(path))
    x, t, context = torch.randn(2, 4, 5, 8, 12), torch.tensor([999.0]), torch.randn(2, 7, 32)
    per_frame = context.repeat_interleave(5, dim=0)
    wanted = theirs(x, t, encoder_hidden_states=per_frame).sample
    cond = Conditioning(context, num_frames=5)
    rows = x.transpose(1, 2).flatten(0, 1)
    got = ours(rows, torch.full((10,), 999.0), cond)
    assert relative_error(got.unflatten(0, (2, 5)).transpose(1, 2), wanted) < 1e-5

    ours.chunk = 3
    torch.testing.assert_close(
        ours(rows, torch.full((10,), 999.0), cond), got, rtol=1e-4, atol=1e-5
    )
    plain = Conditioning(per_frame)
    still = UNet.forward(picture, rows, torch.full((10,), 999.0), plain)
    assert torch.equal(ours(rows, torch.full((10,), 999.0), plain), still)


def test_diffusers_reads_what_is_written(tmp_path):
    theirs = motion_adapter()
    ours = read_motion(saved(theirs, tmp_path / "theirs"))
    write_motion(tmp_path / "ours", ours)
    again = TheirAdapter.from_pretrained(tmp_path / "ours")
    for name, tensor in theirs.state_dict().items():
        assert torch.equal(again.state_dict()[name], tensor), name


def test_modules_for_another_unet_or_none_are_refused(tmp_path):
    other = UNet2DConditionModel(
        block_out_channels=(32, 32),
        layers_per_block=1,
        down_block_types=("CrossAttnDownBlock2D", "DownBlock2D"),
        up_block_types=("UpBlock2D", "CrossAttnUpBlock2D"),
        cross_attention_dim=32,
    )
    network = read_unet(saved(other, tmp_path / "unet"))
    adapter = read_motion(saved(motion_adapter(), tmp_path / "mm"))
    with pytest.raises(ValueError, match="for levels of 32, 64 channels with 1, 1 layers"):
        with_motion(network, adapter)
    save_file({"a.weight": torch.zeros(2)}, tmp_path / "no.safetensors")
    with pytest.raises(SafelightError, match="expected the motion module of AnimateDiff"):
        read_motion(tmp_path / "no.safetensors")
    state = original_names(motion_adapter())
    del state["up_blocks.0.motion_modules.1.temporal_transformer.proj_out.bias"]
    save_file(state, tmp_path / "part.safetensors")
    with pytest.raises(SafelightError, match=r"missing: up_blocks.0.motion_modules.1.*proj_out"):
        read_motion(tmp_path / "part.safetensors")
    moving = with_motion(read_unet(saved(moving_unet(), tmp_path / "unet2")), adapter)
    x = torch.randn(9, 4, 8, 8)
    with pytest.raises(ValueError, match="knows 8 frames, got 9"):
        moving(x, torch.ones(9), Conditioning(torch.randn(1, 7, 32), num_frames=9))
