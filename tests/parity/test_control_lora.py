"""Control-LoRAs, and ControlNets kept as differences, by their formulas: weight + up @ down."""

import pytest
import torch
from diffusers import ControlNetModel, UNet2DConditionModel

from safelight.checkpoints.components import read_unet
from safelight.checkpoints.controlnet import read_control
from safelight.checkpoints.controlnet_file import write_controlnet_file
from safelight.checkpoints.files import read_state, write_state
from safelight.checkpoints.inspection import inspect
from safelight.errors import SafelightError

from .conftest import saved, shaken
from .test_unet import SD1, XL

OWN = ("time_embed.", "label_emb.", "input_blocks.", "middle_block.")
BY_HAND = {
    "conv_in.weight": "input_blocks.0.0.weight",
    "time_embedding.linear_1.weight": "time_embed.0.weight",
    "down_blocks.0.resnets.0.conv1.weight": "input_blocks.1.0.in_layers.2.weight",
    "down_blocks.1.attentions.0.transformer_blocks.0.attn2.to_q.weight": (
        "input_blocks.4.1.transformer_blocks.0.attn2.to_q.weight"
    ),
    "mid_block.resnets.1.time_emb_proj.weight": "middle_block.2.emb_layers.1.weight",
}


@pytest.fixture(params=[SD1, XL], ids=["sd1", "xl"])
def parts(request, tmp_path):
    """A U-Net, and a ControlNet of its shape, also in the original names, both random."""
    theirs = shaken(UNet2DConditionModel(**request.param))
    control = shaken(ControlNetModel.from_unet(theirs))
    base = read_unet(saved(theirs, tmp_path / "unet"))
    ours = read_control(saved(control, tmp_path / "control"))
    write_controlnet_file(tmp_path / "control.safetensors", ours)
    state = read_state(tmp_path / "control.safetensors")
    plain = {name.removeprefix("control_model."): part.clone() for name, part in state.items()}
    return base, ours, plain


def _factored(state, begins):
    """The file of a Control-LoRA with two factors of each weight that begins so, and each product
    by the weight's name.
    """
    file, products = {"lora_controlnet": torch.zeros(0)}, {}
    for name, tensor in state.items():
        layer = name.removesuffix(".weight")
        if layer == name or tensor.ndim < 2 or not name.startswith(begins):
            file[name] = tensor
            continue
        up = torch.randn(tensor.shape[0], 2, *[1] * (tensor.ndim - 2))
        down = torch.randn(2, *tensor.shape[1:])
        file |= {f"{layer}.up": up, f"{layer}.down": down}
        products[name] = (up.flatten(1) @ down.flatten(1)).reshape(tensor.shape)
    return file, products


def test_a_control_lora_adds_the_product_of_its_factors(parts, tmp_path):
    base, ours, plain = parts
    file, products = _factored(plain, OWN)
    write_state(tmp_path / "lora", file)
    before = {name: tensor.clone() for name, tensor in base.state_dict().items()}
    made, kept = read_control(tmp_path / "lora", base).state_dict(), ours.state_dict()
    for name, theirs in BY_HAND.items():
        torch.testing.assert_close(made[name], before[name] + products[theirs])
    for name in kept:  # what is there as it is: zero convolutions, hints, norms, biases
        if name.startswith("controlnet_") or name.endswith("bias"):
            assert torch.equal(made[name], kept[name])
    assert all(torch.equal(before[name], part) for name, part in base.state_dict().items())
    assert inspect(tmp_path / "lora").kind.startswith("a Control-LoRA")


def test_a_difference_is_added_to_the_unet(parts, tmp_path):
    base, ours, plain = parts
    whole = {f"control_model.{name}": tensor for name, tensor in plain.items()}
    write_state(tmp_path / "difference", whole | {"difference": torch.zeros(1)})
    made, kept = read_control(tmp_path / "difference", base).state_dict(), ours.state_dict()
    for name, tensor in base.state_dict().items():
        if name in made:
            torch.testing.assert_close(made[name], tensor + kept[name])
    assert torch.equal(made["controlnet_mid_block.weight"], kept["controlnet_mid_block.weight"])


def test_what_does_not_fit_is_one_line(parts, tmp_path):
    base, _, plain = parts
    layer = "input_blocks.0.0"
    file, _ = _factored(plain, layer)
    odd = {
        "without the other": {k: v for k, v in file.items() if k != f"{layer}.up"},
        "do not fit each other": file | {f"{layer}.up": torch.ones(16, 5, 1, 1)},
        "another family": file | {f"{layer}.down": torch.ones(2, 9, 3, 3)},
        "no row": file | {"other.up": torch.ones(2)},
        "whole": {k: v for k, v in file.items() if k != "input_hint_block.0.weight"},
    }
    for told, state in odd.items():
        write_state(tmp_path / "odd", {name: tensor.clone() for name, tensor in state.items()})
        with pytest.raises(SafelightError, match=told) as caught:
            read_control(tmp_path / "odd", base)
        assert "\n" not in str(caught.value)
    with pytest.raises(SafelightError, match="give the model"):
        read_control(tmp_path / "odd")
