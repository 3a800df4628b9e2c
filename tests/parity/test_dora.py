"""DoRA files against peft's layers, diffusers' own saving, and LyCORIS' formula."""

import json

import pytest
import torch
from diffusers.utils import convert_all_state_dict_to_peft, convert_state_dict_to_kohya
from peft import LoraConfig, get_peft_model
from peft.utils import get_peft_model_state_dict
from safetensors.torch import load_file

from safelight.checkpoints.adapters import networks, read_adapter
from safelight.checkpoints.files import write_state
from safelight.checkpoints.folder import read_folder
from safelight.errors import SafelightError
from safelight.nn.deltas import Decomposed, LowRank
from safelight.nn.lora import eject, fused, inject

from .conftest import relative_error
from .test_adapters import ALL, ATTENTION, _agree, _inputs, pair  # noqa: F401
from .test_single_file import PIPELINES, words  # noqa: F401

RANK, ALPHA = 3, 2.0
BLOCK = "down_blocks.0.attentions.0.transformer_blocks.0.attn1"


def _dora(targets=ALL, **options):
    return LoraConfig(r=RANK, lora_alpha=ALPHA, target_modules=targets, use_dora=True, **options)


def _shake(module):
    """Moves what peft begins at zero, and the magnitudes from the weights' own."""
    for name, parameter in module.named_parameters():
        if "lora_magnitude" in name:
            parameter.mul_(1 + 0.3 * torch.rand_like(parameter))
        elif "lora_" in name:
            parameter.add_(torch.randn_like(parameter) * 0.1)


def _diffusers(theirs, into, name="default"):
    """What diffusers writes of the U-Net's adapter."""
    type(theirs).save_lora_weights(
        into,
        unet_lora_layers=get_peft_model_state_dict(theirs.unet, adapter_name=name),
        unet_lora_adapter_metadata=theirs.unet.peft_config[name].to_dict(),
    )
    return into / "pytorch_lora_weights.safetensors"


@pytest.mark.parametrize("strength", [1.0, 0.6, -0.5])
def test_what_diffusers_saves_at_each_strength(pair, strength, tmp_path):  # noqa: F811
    kind, theirs, ours = pair
    theirs.unet.add_adapter(_dora())
    _shake(theirs.unet)
    adapter = read_adapter(_diffusers(theirs, tmp_path), ours)
    assert adapter.layout == "DoRA"
    theirs.unet.set_adapters("default", strength)
    _agree((kind, theirs.unet, ours, adapter), strength)


def test_pefts_own_folder(pair, tmp_path):  # noqa: F811
    kind, theirs, ours = pair
    model = get_peft_model(theirs.unet, _dora(use_rslora=True))
    _shake(model)
    model.save_pretrained(tmp_path)
    file = tmp_path / "adapter_model.safetensors"
    _agree((kind, model.base_model.model, ours, read_adapter(file, ours)))
    config = json.loads((tmp_path / "adapter_config.json").read_text())
    (tmp_path / "adapter_config.json").write_text(json.dumps(config | {"use_dora": False}))
    with pytest.raises(SafelightError, match="has use_dora False, and it has a magnitude"):
        read_adapter(file, ours)


def test_a_text_tower_as_diffusers_turns_it_into_kohyas(words, tmp_path):  # noqa: F811
    theirs = PIPELINES["sd1"](words)
    theirs.save_pretrained(tmp_path / "model")
    ours = read_folder(tmp_path / "model")
    options = {"r": RANK, "lora_alpha": RANK, "use_dora": True}
    theirs.unet.add_adapter(LoraConfig(**options, target_modules=ATTENTION))
    tower = get_peft_model(
        theirs.text_encoder, LoraConfig(**options, target_modules=["q_proj", "fc1"])
    )
    _shake(theirs.unet)
    _shake(tower)
    type(theirs).save_lora_weights(
        tmp_path,
        unet_lora_layers=get_peft_model_state_dict(theirs.unet),
        text_encoder_lora_layers={
            key.removeprefix("base_model.model."): tensor
            for key, tensor in get_peft_model_state_dict(tower).items()
        },
    )
    plain = tmp_path / "pytorch_lora_weights.safetensors"
    written = load_file(plain)
    written = {  # transformers 5 has no prefix, which the conversion's other readers expect
        key.replace("text_encoder.encoder", "text_encoder.text_model.encoder"): tensor
        for key, tensor in written.items()
    }
    state = convert_state_dict_to_kohya(convert_all_state_dict_to_peft(written))
    assert any(key.endswith("attn1.to_q.lora_magnitude_vector") for key in state)
    write_state(tmp_path / "kohya.safetensors", {k: v.contiguous() for k, v in state.items()})
    ids = torch.tensor([[49406, 320, 736, 49407] + [49407] * 73])
    wanted = theirs.text_encoder(ids).last_hidden_state
    for file in (plain, tmp_path / "kohya.safetensors"):
        adapter = read_adapter(file, ours)
        _agree(("sd1", theirs.unet, ours, adapter))
        tower = networks(ours)["text_encoder"]
        assert relative_error(tower(ids).tokens, wanted) > 1e-3
        inject(tower, "it", adapter.deltas["text_encoder"])
        assert relative_error(tower(ids).tokens, wanted) < 1e-4
        eject(tower)


@pytest.mark.parametrize("names", [("lora", "dora"), ("dora", "lora"), ("dora", "other")])
def test_several_are_put_in_in_their_order(pair, names, tmp_path):  # noqa: F811
    kind, theirs, ours = pair
    inputs, extra, cond = _inputs(kind)
    for name in names:
        config = LoraConfig(r=2, target_modules=ALL) if name == "lora" else _dora()
        theirs.unet.add_adapter(config, adapter_name=name)
    _shake(theirs.unet)
    theirs.unet.set_adapters(list(names), [0.7, 1.2])
    wanted = theirs.unet(*inputs, **extra).sample
    before = {key: tensor.clone() for key, tensor in ours.unet.state_dict().items()}
    for name, strength in zip(names, (0.7, 1.2), strict=True):
        adapter = read_adapter(_diffusers(theirs, tmp_path / name, name), ours)
        inject(ours.unet, name, adapter.deltas["unet"], strength)
    assert relative_error(ours.unet(*inputs[:2], cond), wanted) < 1e-4
    with fused(ours.unet):
        assert relative_error(ours.unet(*inputs[:2], cond), wanted) < 1e-4
    eject(ours.unet)
    after = ours.unet.state_dict()
    assert after.keys() == before.keys()
    assert all(torch.equal(after[key], before[key]) for key in before)


def _lycoris(weight, addition, magnitude):
    """LyCORIS' `weight_decompose` at 1, by the axis that the magnitude's shape names."""
    whole = weight + addition.reshape(weight.shape)
    kept = 0 if magnitude.shape[0] == weight.shape[0] else 1
    norm = whole.transpose(0, kept).flatten(1).norm(dim=1)
    return magnitude * whole / norm.reshape(magnitude.shape)


@pytest.mark.parametrize("of_inputs", [False, True])
@pytest.mark.parametrize("kind", ["LoRA", "LoHa", "LoKr"])
@pytest.mark.parametrize("layer", ["time_emb_proj", "conv1"])
def test_lycoris_scales_outputs_or_inputs(words, kind, layer, of_inputs, tmp_path):  # noqa: F811
    pipeline = PIPELINES["sd1"](words)
    pipeline.save_pretrained(tmp_path / "model")
    ours = read_folder(tmp_path / "model")
    path = f"down_blocks.1.resnets.0.{layer}"
    weight = pipeline.unet.get_submodule(path).weight
    out, columns = weight.shape[0], weight[0].numel()
    if kind == "LoRA":
        down, up = torch.randn(RANK, *weight.shape[1:]), torch.randn(out, RANK)
        parts = {
            "lora_down.weight": down,
            "lora_up.weight": up[(...,) + (None,) * (weight.ndim - 2)],
        }
        addition = up @ down.flatten(1) * (ALPHA / RANK)
    elif kind == "LoHa":
        first, second = torch.randn(2, out, RANK), torch.randn(2, RANK, columns)
        parts = {f"hada_w{n + 1}_a": first[n] for n in range(2)}
        parts |= {f"hada_w{n + 1}_b": second[n] for n in range(2)}
        products = first @ second
        addition = products[0] * products[1] * (ALPHA / RANK)
    else:
        small = torch.randn(4, 2)
        large = torch.randn(out // 4, weight.shape[1] // 2, *weight.shape[2:])
        parts = {"lokr_w1": small, "lokr_w2": large}
        addition = torch.kron(small.reshape(4, 2, *(1,) * (weight.ndim - 2)), large)
    axis = int(of_inputs)
    ones = [1] * weight.ndim
    ones[axis] = weight.shape[axis]
    magnitude = torch.rand(ones) + 0.5
    name = f"lora_unet_{path.replace('.', '_')}"
    state = {f"{name}.{part}": tensor.clone() for part, tensor in parts.items()}
    state |= {f"{name}.dora_scale": magnitude, f"{name}.alpha": torch.tensor(ALPHA)}
    write_state(tmp_path / "it.safetensors", state)
    adapter = read_adapter(tmp_path / "it.safetensors", ours)
    assert adapter.layout == ("DoRA" if kind == "LoRA" else f"{kind} with DoRA")
    weight.copy_(_lycoris(weight, addition, magnitude))
    _agree(("sd1", pipeline.unet, ours, adapter))


def test_a_row_of_zeros_stays_one_and_a_wrong_length_is_refused():
    addition = LowRank(torch.zeros(1, 3), torch.zeros(2, 1), 1.0)
    layer = torch.nn.Linear(3, 2)
    network = torch.nn.Sequential(layer)
    layer.weight[0] = 0
    inject(network, "it", {"0": Decomposed(addition, torch.ones(2))})
    rows = network.get_submodule("0").whole_weight().norm(dim=1)
    assert torch.allclose(rows, torch.tensor([0.0, 1.0]))
    with pytest.raises(ValueError, match="another length"):
        inject(network, "two", {"0": Decomposed(addition, torch.ones(2), of_inputs=True)})
