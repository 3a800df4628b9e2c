"""ControlNets in one file against diffusers' `ControlNetModel`: each layout, there and back."""

import json

import pytest
import torch
from diffusers import ControlNetModel
from safetensors.torch import load_file, save_file

from safelight.checkpoints.controlnet import read_control, write_controlnet
from safelight.checkpoints.controlnet_file import write_controlnet_file
from safelight.checkpoints.files import read_state, write_state
from safelight.errors import SafelightError
from safelight.types import Conditioning

from .conftest import relative_error, saved, shaken

CROSS, PLAIN = "CrossAttnDownBlock2D", "DownBlock2D"
TIMES, ADDED = 256, 20 + 6 * 256
SMALL = {
    "block_out_channels": (32, 32, 64),
    "layers_per_block": 2,
    "down_block_types": (CROSS, CROSS, PLAIN),
    "attention_head_dim": 8,
    "cross_attention_dim": 24,
    "conditioning_embedding_out_channels": (4, 6, 8, 8),
}
XL = SMALL | {
    "down_block_types": (PLAIN, CROSS, CROSS),
    "transformer_layers_per_block": (1, 2, 3),
    "attention_head_dim": 1,
    "use_linear_projection": True,
    "addition_embed_type": "text_time",
    "addition_time_embed_dim": TIMES,
    "projection_class_embeddings_input_dim": ADDED,
}
FAMILIES = {
    "sd1": SMALL,
    "sd2": SMALL
    | {"cross_attention_dim": 1024, "attention_head_dim": 1, "use_linear_projection": True},
    "xl": XL,
    "xl-small": XL  # without attention, as the smallest that diffusers published
    | {"down_block_types": (PLAIN,) * 3, "mid_block_type": "UNetMidBlock2D"},
}
COMPVIS = ("sd1", "sd2")  # whose original layout diffusers reads: of XL it leaves out `label_emb`


def _theirs(family):
    return shaken(ControlNetModel(**FAMILIES[family]))


def _outputs(theirs, ours):
    """What both make of the same."""
    torch.manual_seed(3)
    x, t, hint = torch.randn(2, 4, 8, 8), torch.tensor([801.0, 801.0]), torch.rand(2, 3, 64, 64)
    context = torch.randn(2, 5, theirs.config.cross_attention_dim)
    added, vector = {}, None
    if theirs.config.addition_embed_type:
        added = {"text_embeds": torch.randn(2, 20), "time_ids": torch.rand(2, 6) * 100}
        rows = theirs.add_time_proj(added["time_ids"].flatten()).reshape(2, -1)
        vector = torch.cat([added["text_embeds"], rows], dim=1)
    down, mid = theirs(x, t, context, hint, added_cond_kwargs=added, return_dict=False)
    made = ours(x, t, Conditioning(context=context, vector=vector), hint)
    return zip(made, (*down, mid), strict=True)


@pytest.mark.parametrize("family", FAMILIES)
def test_a_file_with_diffusers_names_is_told_by_its_tensors(family, tmp_path):
    theirs = _theirs(family)
    saved(theirs, tmp_path / "theirs")
    one = tmp_path / "some.file"
    (tmp_path / "theirs/diffusion_pytorch_model.safetensors").rename(one)
    for made, wanted in _outputs(theirs, read_control(one)):
        assert relative_error(made, wanted) < 1e-4


@pytest.mark.parametrize("family", FAMILIES)
def test_the_original_layout_goes_there_and_back_and_diffusers_reads_it(family, tmp_path):
    theirs = _theirs(family)
    ours = read_control(saved(theirs, tmp_path / "theirs"))
    write_controlnet_file(tmp_path / "ours.safetensors", ours)
    again = read_control(tmp_path / "ours.safetensors")
    assert again.shape == ours.shape
    assert all((ours.state_dict()[k] == part).all() for k, part in again.state_dict().items())
    bare = load_file(tmp_path / "ours.safetensors")  # as others write it: nothing in the header
    save_file(bare, tmp_path / "bare.safetensors")
    for made, wanted in _outputs(theirs, read_control(tmp_path / "bare.safetensors")):
        assert relative_error(made, wanted) < 1e-4
    if family in COMPVIS:
        loaded = ControlNetModel.from_single_file(
            str(tmp_path / "bare.safetensors"), config=str(tmp_path / "theirs")
        )
        found = loaded.state_dict()
        assert all(torch.equal(found[name], part) for name, part in theirs.state_dict().items())


def test_pickles_whole_models_and_files_without_a_prefix_are_read(tmp_path):
    theirs = _theirs("sd1")
    ours = read_control(saved(theirs, tmp_path / "theirs"))
    write_controlnet_file(tmp_path / "one", ours)
    state = read_state(tmp_path / "one")
    assert all(name.startswith("control_model.") for name in state)
    plain = {name.removeprefix("control_model."): part.clone() for name, part in state.items()}
    torch.save({"state_dict": plain}, tmp_path / "plain.pth")
    other = {"model.diffusion_model.input_blocks.0.0.weight": torch.zeros(3, 4, 3, 3)}
    torch.save({k: part.clone() for k, part in state.items()} | other, tmp_path / "whole.pth")
    for name in ("plain.pth", "whole.pth"):
        read = read_control(tmp_path / name).state_dict()
        assert all((ours.state_dict()[key] == part).all() for key, part in read.items())


def test_what_a_file_is_not_and_lacks_is_one_line(tmp_path):
    theirs = _theirs("sd1")
    ours = read_control(saved(theirs, tmp_path / "theirs"))
    write_controlnet(tmp_path / "folder", ours)
    write_controlnet_file(tmp_path / "one", ours)
    whole = read_state(tmp_path / "one")
    diffusers = read_state(tmp_path / "folder/diffusion_pytorch_model.safetensors")
    odd = {
        "a LoRA": {"lora_unet_x.lora_down.weight": torch.ones(2, 2)},
        "missing": {name: part for name, part in whole.items() if "zero_convs.3" not in name},
        "whole": {name: part for name, part in diffusers.items() if name != "conv_in.weight"},
        "no row": whole | {"control_model.extra.weight": torch.ones(2)},
    }
    for told, state in odd.items():
        write_state(tmp_path / "odd", {name: part.clone() for name, part in state.items()})
        with pytest.raises(SafelightError, match=told) as caught:
            read_control(tmp_path / "odd")
        assert "\n" not in str(caught.value)
    (tmp_path / "folder/config.json").write_text(json.dumps({"_class_name": "UNet2DModel"}))
    with pytest.raises(SafelightError, match="expected ControlNetModel"):
        read_control(tmp_path / "folder")
