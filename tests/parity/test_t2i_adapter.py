"""T2I-Adapters against diffusers' `T2IAdapter`: read, run in a U-Net, written, read back."""

from dataclasses import replace

import pytest
import torch
from diffusers import T2IAdapter as Theirs
from diffusers import UNet2DConditionModel
from safetensors.torch import load_file, save_file

from safelight.checkpoints.components import read_unet
from safelight.checkpoints.controlnet import read_control
from safelight.checkpoints.files import write_state
from safelight.checkpoints.inspection import inspect
from safelight.checkpoints.t2i_adapter import write_adapter, write_adapter_file
from safelight.errors import SafelightError
from safelight.models.controlnet import Controlled, Steering, even_weights
from safelight.models.t2i_adapter import T2IAdapterConfig

from .conftest import relative_error, saved, shaken
from .test_controlnet import _inputs
from .test_unet import SD1, XL

KINDS = {
    "full_adapter": {"channels": [16, 16, 32, 32], "downscale_factor": 8},
    "full_adapter_xl": {"channels": [16, 16, 32, 32], "downscale_factor": 16},
    "light_adapter": {"channels": [16, 16, 32], "downscale_factor": 8, "in_channels": 1},
}
# TencentARC's own files tell a level's beginning by where the channels change
WIDER = {
    "full_adapter": KINDS["full_adapter"] | {"channels": [8, 16, 32, 32], "num_res_blocks": 3},
    "full_adapter_xl": KINDS["full_adapter_xl"] | {"channels": [8, 16, 32, 32]},
    "light_adapter": KINDS["light_adapter"] | {"num_res_blocks": 3},
}


def _theirs(kind, options=KINDS):
    torch.manual_seed(5)
    return shaken(Theirs(adapter_type=kind, **options[kind]))


@pytest.mark.parametrize("kind", KINDS)
def test_a_unet_with_its_features_agrees(kind, tmp_path):
    family = "xl" if kind == "full_adapter_xl" else "sd1"
    unet = shaken(UNet2DConditionModel(**(XL if family == "xl" else SD1)))
    theirs = _theirs(kind)
    x, t, _, cond, added = _inputs(family)
    hint = torch.rand(2, theirs.config.in_channels, 64, 64)
    features = [0.7 * feature for feature in theirs(hint)]
    wanted = unet(
        x,
        t,
        cond.context,
        added_cond_kwargs=added,
        down_intrablock_additional_residuals=features,
    ).sample
    plain = unet(x, t, cond.context, added_cond_kwargs=added).sample
    ours = read_control(saved(theirs, tmp_path / "adapter"))
    network = read_unet(saved(unet, tmp_path / "unet"))
    steering = Steering(ours, even_weights(ours, 0.7))
    made = Controlled(network, [steering])(x, t, replace(cond, hints=(hint,)))
    assert relative_error(made, wanted) < 1e-4
    assert relative_error(plain, wanted) > 1e-3  # it steers
    halves = [Steering(ours, even_weights(ours, 0.35))] * 2
    both = Controlled(network, halves)(x, t, replace(cond, hints=(hint, hint)))
    assert relative_error(both, wanted) < 1e-4
    resting = Controlled(network, [replace(steering, first=800.0)])
    assert torch.equal(resting(x, t, replace(cond, hints=(hint,))), network(x, t, cond))
    with pytest.raises(ValueError, match="multiples of"):
        ours(hint[..., :60])
    with pytest.raises(ValueError, match="Expected features for"):
        network(x, t, replace(cond, features=(x,)))


@pytest.mark.parametrize("kind", KINDS)
def test_folders_and_files_go_there_and_back(kind, tmp_path):
    theirs = _theirs(kind, WIDER)
    hint = torch.rand(1, theirs.config.in_channels, 64, 96)
    ours = read_control(saved(theirs, tmp_path / "theirs"))
    write_adapter(tmp_path / "ours", ours)
    again = Theirs.from_pretrained(tmp_path / "ours")
    write_adapter_file(tmp_path / "original", ours)
    bare = load_file(tmp_path / "original")
    first = "body.0.body.1" if kind == "light_adapter" else "body.1"
    assert f"{first}.block2.weight" in bare  # as in TencentARC's own files
    save_file(bare, tmp_path / "bare")
    nested = {"adapter": {key: tensor.clone() for key, tensor in bare.items()}}
    torch.save(nested, tmp_path / "nested.pth")
    weights = tmp_path / "theirs/diffusion_pytorch_model.safetensors"
    for source in ("ours", "original", "bare", "nested.pth", weights):
        read = read_control(tmp_path / source)
        assert read.config == ours.config
        for made, wanted, back in zip(read(hint), theirs(hint), again(hint), strict=True):
            assert relative_error(made, wanted) < 1e-4
            assert torch.equal(back, wanted)
    assert inspect(tmp_path / "bare").kind == "a T2I-Adapter"


def test_what_is_no_adapter_is_one_line(tmp_path):
    ours = read_control(saved(_theirs("full_adapter"), tmp_path / "theirs"))
    write_adapter_file(tmp_path / "one", ours)
    whole = load_file(tmp_path / "one")
    broken = {
        "missing": {key: tensor for key, tensor in whole.items() if "body.3.block2" not in key},
        "no row": whole | {"body.2.skep.extra.weight": torch.ones(2), "other": torch.ones(2)},
    }
    for told, state in broken.items():
        write_state(tmp_path / "odd", state)
        with pytest.raises(SafelightError, match=told) as caught:
            read_control(tmp_path / "odd")
        assert "\n" not in str(caught.value)
    with pytest.raises(ValueError, match="needs a level"):
        T2IAdapterConfig(block_out_channels=())
