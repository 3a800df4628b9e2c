"""LoRA, LoHa and LoKr files against peft and diffusers, in each layout."""

import json

import pytest
import torch
from peft import LoHaConfig, LoKrConfig, LoraConfig, get_peft_model
from peft.utils import get_peft_model_state_dict

from safelight.checkpoints.adapters import adapter_files, networks, read_adapter
from safelight.checkpoints.files import write_state
from safelight.checkpoints.folder import read_folder
from safelight.checkpoints.rules import their_name
from safelight.checkpoints.tables.clip import CLIP_TEXT
from safelight.checkpoints.tables.compvis import unet_table
from safelight.checkpoints.tables.unet import UNET
from safelight.errors import SafelightError
from safelight.nn.lora import adaptable, eject, fused, inject, set_strength
from safelight.types import Conditioning

from .conftest import relative_error
from .test_single_file import PIPELINES, words  # noqa: F401

ONES = torch.ones(64, 1)
ATTENTION = ["to_q", "to_k", "to_v", "to_out.0"]
ALL = [*ATTENTION, "proj_in", "ff.net.0.proj", "ff.net.2", "conv1", "conv2", "conv_shortcut"]


def _inputs(kind):
    torch.manual_seed(5)
    x, context = torch.randn(2, 4, 8, 8), torch.randn(2, 5, 192 if kind == "xl" else 64)
    t = torch.tensor([900.0, 30.0])
    if kind != "xl":
        return (x, t, context), {}, Conditioning(context=context)
    pooled, numbers = torch.randn(2, 40), torch.zeros(2, 6)
    extra = {"added_cond_kwargs": {"text_embeds": pooled, "time_ids": numbers}}
    features = torch.cat([torch.ones(2, 6, 128), torch.zeros(2, 6, 128)], dim=-1).flatten(1)
    vector = torch.cat([pooled, features], dim=1)
    return (x, t, context), extra, Conditioning(context=context, vector=vector)


def _shake_adapters(module):
    """Moves what peft begins at zero."""
    with torch.no_grad():
        for name, parameter in module.named_parameters():
            if any(mark in name for mark in ("lora_", "hada_", "lokr_")):
                parameter.add_(torch.randn_like(parameter) * 0.1)


@pytest.fixture(params=["sd1", "xl"])
def pair(request, words, tmp_path):  # noqa: F811
    theirs = PIPELINES[request.param](words)
    theirs.save_pretrained(tmp_path / "model")
    return request.param, theirs, read_folder(tmp_path / "model")


def _agree(pair, strength=1.0):
    """Adapters that are in both networks: the outputs agree, injected, fused and taken out."""
    kind, theirs, ours, adapter = pair
    inputs, extra, cond = _inputs(kind)
    wanted = theirs(*inputs, **extra).sample
    plain = ours.unet(inputs[0], inputs[1], cond)
    before = {key: tensor.clone() for key, tensor in ours.unet.state_dict().items()}
    assert relative_error(plain, wanted) > 1e-3  # it makes a difference
    inject(ours.unet, "it", adapter.deltas["unet"], strength)
    assert relative_error(ours.unet(inputs[0], inputs[1], cond), wanted) < 1e-4
    with fused(ours.unet):
        assert ours.unet.state_dict().keys() == before.keys()
        assert relative_error(ours.unet(inputs[0], inputs[1], cond), wanted) < 1e-4
    assert relative_error(ours.unet(inputs[0], inputs[1], cond), wanted) < 1e-4
    set_strength(ours.unet, "it", 0.0)
    assert torch.equal(ours.unet(inputs[0], inputs[1], cond), plain)
    eject(ours.unet, "it")
    after = ours.unet.state_dict()
    assert after.keys() == before.keys()
    assert all(torch.equal(after[key], before[key]) for key in before)
    assert torch.equal(ours.unet(inputs[0], inputs[1], cond), plain)


@pytest.mark.parametrize("alpha", [4, 6])
def test_what_diffusers_saves(pair, alpha, tmp_path):
    kind, theirs, ours = pair
    theirs.unet.add_adapter(LoraConfig(r=4, lora_alpha=alpha, target_modules=ALL))
    _shake_adapters(theirs.unet)
    type(theirs).save_lora_weights(
        tmp_path,
        unet_lora_layers=get_peft_model_state_dict(theirs.unet),
        unet_lora_adapter_metadata=theirs.unet.peft_config["default"].to_dict(),
    )
    adapter = read_adapter(tmp_path / "pytorch_lora_weights.safetensors", ours)
    assert adapter.layout == "LoRA"
    _agree((kind, theirs.unet, ours, adapter))


def _low_rank(layers, spelled, *, alpha, rank=3):
    """A file in kohya's layout: names with underscores, an alpha a layer, kernels in `down`."""
    torch.manual_seed(7)
    state = {}
    for name, layer in layers:
        weight, key = layer.weight, spelled(name)
        shape = (rank, weight.shape[1], *weight.shape[2:])
        ones = (1,) * (weight.ndim - 2)
        state[f"{key}.lora_down.weight"] = torch.randn(shape) * 0.1
        state[f"{key}.lora_up.weight"] = torch.randn(weight.shape[0], rank, *ones) * 0.1
        state[f"{key}.alpha"] = torch.tensor(float(alpha))
    return state


def test_kohya_files_of_the_unet_and_the_towers(pair, tmp_path):
    kind, theirs, ours = pair
    layers = [
        (name, module)
        for name, module in theirs.unet.named_modules()
        if name.endswith((*ATTENTION, "ff.net.0.proj"))
    ]
    table = unet_table(ours.unet.config)

    def spelled(name):
        if kind == "xl":  # as sd-scripts has it
            name = their_name(table, f"{name}.weight").removesuffix(".weight")
        return f"lora_unet_{name.replace('.', '_')}"

    state = _low_rank(layers, spelled, alpha=2)
    towers = [("lora_te1_" if kind == "xl" else "lora_te_", theirs.text_encoder)]
    if kind == "xl":
        towers.append(("lora_te2_", theirs.text_encoder_2))
    for prefix, tower in towers:
        found = [
            (f"text_model.{name.removeprefix('text_model.')}", module)
            for name, module in tower.named_modules()
            if name.endswith(("q_proj", "out_proj", "fc1"))
        ]
        state |= _low_rank(found, lambda n, p=prefix: p + n.replace(".", "_"), alpha=2)
    write_state(tmp_path / "kohya.safetensors", state)
    adapter = read_adapter(tmp_path / "kohya.safetensors", ours)
    assert adapter.layers == len(state) // 3
    theirs.load_lora_weights(tmp_path, weight_name="kohya.safetensors", adapter_name="it")
    _agree((kind, theirs.unet, ours, adapter))

    ids = torch.tensor([[49406, 320, 736, 49407] + [49407] * 73])
    for name, tower in networks(ours).items():
        if name != "unet":
            oracle = getattr(theirs, name)(ids, output_hidden_states=True)
            wanted = oracle.hidden_states[-2] if kind == "xl" else oracle.last_hidden_state
            assert relative_error(tower(ids).tokens, wanted) > 1e-3
            inject(tower, "it", adapter.deltas[name])
            assert relative_error(tower(ids).tokens, wanted) < 1e-4


@pytest.mark.parametrize("config", [LoHaConfig, LoKrConfig])
@pytest.mark.parametrize("decomposed", [False, True])
def test_loha_and_lokr_against_peft(words, config, decomposed, tmp_path):  # noqa: F811
    pipeline = PIPELINES["sd1"](words)
    pipeline.save_pretrained(tmp_path / "model")
    ours = read_folder(tmp_path / "model")
    options = {"use_effective_conv2d": decomposed}
    if config is LoKrConfig:
        options["decompose_both"] = decomposed
    targets = ["to_q", "to_v", "proj_in", "conv1", "ff.net.2"]
    theirs = get_peft_model(
        pipeline.unet, config(r=2, alpha=3, target_modules=targets, init_weights=False, **options)
    )
    state = {}
    for name, module in theirs.base_model.model.named_modules():
        for kind in ("hada_w1_a", "lokr_w1", "lokr_w1_a"):
            if "default" in getattr(module, kind, {}):
                _copy(module, f"lora_unet_{name.replace('.', '_')}", state)
                break
    write_state(tmp_path / "it.safetensors", state)
    adapter = read_adapter(tmp_path / "it.safetensors", ours)
    assert adapter.layout == {LoHaConfig: "LoHa", LoKrConfig: "LoKr"}[config]
    _agree(("sd1", theirs.base_model.model, ours, adapter))


def _copy(module, key, state):
    for part in ("hada_w1_a", "hada_w1_b", "hada_w2_a", "hada_w2_b", "hada_t1", "hada_t2"):
        if "default" in getattr(module, part, {}):
            state[f"{key}.{part}"] = getattr(module, part)["default"].detach().clone()
    for part in ("w1", "w1_a", "w1_b", "w2", "w2_a", "w2_b", "t2"):
        if "default" in getattr(module, f"lokr_{part}", {}):
            state[f"{key}.lokr_{part}"] = (
                getattr(module, f"lokr_{part}")["default"].detach().clone()
            )
    state[f"{key}.alpha"] = torch.tensor(3.0)


def test_two_adapters_add_up(pair, tmp_path):
    kind, theirs, ours = pair
    inputs, extra, _ = _inputs(kind)
    for name in ("a", "b"):
        theirs.unet.add_adapter(LoraConfig(r=2, target_modules=ATTENTION), adapter_name=name)
    _shake_adapters(theirs.unet)
    theirs.set_adapters(["a", "b"], [0.7, -0.4])
    wanted = theirs.unet(*inputs, **extra).sample
    for name, strength in (("a", 0.7), ("b", -0.4)):
        type(theirs).save_lora_weights(
            tmp_path / name,
            unet_lora_layers=get_peft_model_state_dict(theirs.unet, adapter_name=name),
            unet_lora_adapter_metadata=theirs.unet.peft_config[name].to_dict(),
        )
        adapter = read_adapter(tmp_path / name / "pytorch_lora_weights.safetensors", ours)
        inject(ours.unet, name, adapter.deltas["unet"], strength)
    _, _, cond = _inputs(kind)
    assert relative_error(ours.unet(inputs[0], inputs[1], cond), wanted) < 1e-4
    with fused(ours.unet):
        assert relative_error(ours.unet(inputs[0], inputs[1], cond), wanted) < 1e-4
    with pytest.raises(ValueError, match="there already"):
        inject(ours.unet, "b", adapter.deltas["unet"])
    eject(ours.unet)
    with pytest.raises(KeyError):
        set_strength(ours.unet, "a", 1.0)


@pytest.mark.parametrize(
    ("change", "told"),
    [
        ({"lora_unet_a.lora_down.weight": torch.ones(2, 2)}, "which the model has not"),
        ({"something": torch.ones(1)}, "no part of an adapter"),
        ({"NAME.lora_up.weight": None}, "broken"),
        ({"NAME.lora_up.weight": torch.ones(64, 5)}, "broken"),
        ({"NAME.lora_up.weight": torch.ones(32, 3)}, "made for a context of width 5"),
        ({"NAME.dora_scale": torch.ones(63, 1)}, "magnitude is \\(63, 1\\), and the layer has 64"),
        ({"NAME.lora_magnitude_vector": torch.ones(1)}, "magnitude is \\(1,\\)"),
        ({"NAME.dora_scale": torch.full((64, 1), float("inf"))}, "dora_scale is not finite"),
        ({"NAME.lora_down.weight": torch.full((3, 64), float("nan"))}, "down is not finite"),
        (
            {
                "NAME.lora_down.weight": None,
                "NAME.lora_up.weight": None,
                "NAME.lora_magnitude_vector": torch.ones(64),
            },
            "a magnitude without its matrices",
        ),
        (
            {"NAME.dora_scale": ONES, "NAME.lora_magnitude_vector": torch.ones(64)},
            "of no one kind: dora_scale",
        ),
        ({"NAME.lora_up.weight": torch.ones(())}, "broken"),
        ({"NAME.lora_up.weight": torch.ones(32, 3, 2, 1)}, "broken"),
        ({"NAME.alpha": torch.tensor(float("nan"))}, "alpha is nan"),
        ({"NAME.hada_w1_a": torch.ones(2, 2)}, "of no one kind"),
        ({"NAME.lora_A.weight": torch.ones(3, 64)}, "under another name"),
        (
            {"unet.OTHER.lora_A.weight": torch.ones(1, 64), "unet.OTHER.lora_B.weight": ONES},
            "twice",
        ),
    ],
)
def test_a_file_that_does_not_fit_is_one_line(words, change, told, tmp_path):  # noqa: F811
    pipeline = PIPELINES["sd1"](words)
    pipeline.save_pretrained(tmp_path / "model")
    name = "lora_unet_down_blocks_0_attentions_0_transformer_blocks_0_attn1_to_q"
    crossing = name.replace("attn1_to_q", "attn2_to_k")
    state = {
        f"{name}.lora_down.weight": torch.ones(3, 64),
        f"{name}.lora_up.weight": torch.ones(64, 3),
        f"{crossing}.lora_down.weight": torch.ones(3, 5 if "width 5" in told else 64),
        f"{crossing}.lora_up.weight": torch.ones(64, 3),
    }
    for key, tensor in change.items():
        dotted = "down_blocks.0.attentions.0.transformer_blocks.0.attn1.to_q"
        key = key.replace("NAME", name).replace("OTHER", dotted)
        if tensor is None:
            del state[key]
        else:
            state[key] = tensor
    write_state(tmp_path / "it.safetensors", state)
    with pytest.raises(SafelightError, match=told) as caught:
        read_adapter(tmp_path / "it.safetensors", read_folder(tmp_path / "model"))
    assert "\n" not in str(caught.value)


def test_the_alphas_of_pefts_configuration(words, tmp_path):  # noqa: F811
    PIPELINES["sd1"](words).save_pretrained(tmp_path / "model")
    model = read_folder(tmp_path / "model")
    block = "down_blocks.0.attentions.0.transformer_blocks.0.attn1"
    state = {}
    for layer in ("to_q", "to_k"):
        state |= {f"unet.{block}.{layer}.lora_A.weight": torch.ones(2, 64)}
        state |= {f"unet.{block}.{layer}.lora_B.weight": torch.ones(64, 2)}
    told = {"unet.lora_alpha": 6, "unet.alpha_pattern": {"attn1.to_k": 1.0}}
    header = {"lora_adapter_metadata": json.dumps(told)}
    write_state(tmp_path / "it.safetensors", state, header)
    deltas = read_adapter(tmp_path / "it.safetensors", model).deltas["unet"]
    assert [deltas[f"{block}.{layer}"].scale for layer in ("to_q", "to_k")] == [3.0, 0.5]
    for broken in ("{", "[]"):
        write_state(tmp_path / "it.safetensors", state, {"lora_adapter_metadata": broken})
        with pytest.raises(SafelightError, match="header"):
            read_adapter(tmp_path / "it.safetensors", model)


def test_the_older_names_of_diffusers_are_known(words, tmp_path):  # noqa: F811
    pipeline = PIPELINES["sd1"](words)
    pipeline.save_pretrained(tmp_path / "model")
    model = read_folder(tmp_path / "model")
    block = "down_blocks.0.attentions.0.transformer_blocks.0.attn1"
    state = {}
    for name in (
        f"unet.{block}.processor.to_out_lora",
        f"unet.{block}.to_q.lora",
        f"base_model.model.{block}.to_k.lora_",
    ):
        down, up = (
            ("A.weight", "B.weight") if name.endswith("_") else (".down.weight", ".up.weight")
        )
        state |= {f"{name}{down}": torch.ones(2, 64), f"{name}{up}": torch.ones(64, 2)}
    write_state(tmp_path / "it.safetensors", state)
    paths = read_adapter(tmp_path / "it.safetensors", model).deltas["unet"].keys()
    assert paths == {f"{block}.{layer}" for layer in ("to_out", "to_q", "to_k")}


def test_the_older_names_of_text_towers_are_known(words, tmp_path):  # noqa: F811
    pipeline = PIPELINES["sd1"](words)
    pipeline.save_pretrained(tmp_path / "model")
    model = read_folder(tmp_path / "model")
    block = "encoder.layers.0.self_attn"
    width = pipeline.text_encoder.config.hidden_size
    state = {}
    for layer in ("to_q", "to_k", "to_v", "to_out"):
        name = f"text_encoder.text_model.{block}.{layer}_lora"
        state[f"{name}.down.weight"] = torch.ones(2, width)
        state[f"{name}.up.weight"] = torch.ones(width, 2)
    write_state(tmp_path / "it.safetensors", state)
    found = read_adapter(tmp_path / "it.safetensors", model).deltas["text_encoder"].keys()
    assert {path.rpartition(".")[2] for path in found} == {"q_proj", "k_proj", "v_proj", "out_proj"}
    assert all("layers.0." in path for path in found)


@pytest.mark.parametrize("stabilised", [False, True])
def test_pefts_own_folder(pair, stabilised, tmp_path):
    kind, theirs, ours = pair
    config = LoraConfig(
        r=4,
        lora_alpha=6,
        alpha_pattern={"attn1.to_q": 3},
        rank_pattern={"attn1.to_v": 2},
        use_rslora=stabilised,
        target_modules=ALL,
    )
    model = get_peft_model(theirs.unet, config)
    _shake_adapters(model)
    model.save_pretrained(tmp_path / "peft")
    file = tmp_path / "peft/adapter_model.safetensors"
    _agree((kind, model.base_model.model, ours, read_adapter(file, ours)))
    assert len(adapter_files(file)) == 2
    (tmp_path / "peft/adapter_config.json").write_text('{"peft_type": "LOHA"}')
    with pytest.raises(SafelightError, match="LOHA"):
        read_adapter(file, ours)


def test_what_comfyui_saves(pair, tmp_path):
    """Differences as ComfyUI names them: W + up @ down + diff, of the U-Net and of every tower."""
    _, _, ours = pair
    state, wanted = {}, {}
    compvis = unet_table(ours.unet.config)
    for network, module in networks(ours).items():
        for number, (path, layer) in enumerate(adaptable(module)):
            if number % 9 > 1:
                continue
            if network == "unet":
                theirs = their_name(UNET, f"{path}.weight")
                name = "diffusion_model." + their_name(compvis, theirs)
            else:
                tower = "clip_g" if network == "text_encoder_2" else "clip_l"
                start = "text_encoders." if number else ""
                name = f"{start}{tower}.transformer.{their_name(CLIP_TEXT, f'{path}.weight')}"
            name = name.removesuffix(".weight")
            if number % 9:
                state[f"{name}.diff"] = torch.randn_like(layer.weight)
                wanted[network, path] = state[f"{name}.diff"].flatten(1)
            else:
                down, up = (
                    torch.randn(2, *layer.weight.shape[1:]),
                    torch.randn(len(layer.weight), 2),
                )
                state |= {
                    f"{name}.lora_down.weight": down,
                    f"{name}.lora_up.weight": up.reshape(-1, 2, *(1,) * (down.ndim - 2)),
                }
                wanted[network, path] = up @ down.flatten(1)
    write_state(tmp_path / "a.safetensors", state)
    adapter = read_adapter(tmp_path / "a.safetensors", ours)
    assert adapter.layout == "LoRA and difference"
    assert adapter.layers == len(wanted)
    assert adapter.deltas.keys() == networks(ours).keys()
    for (network, path), addition in wanted.items():
        base = networks(ours)[network].get_submodule(path).weight
        made = adapter.deltas[network][path].applied(base, base, 0.5)
        torch.testing.assert_close(made, base + 0.5 * addition.reshape(base.shape))
    state[f"{name}.diff_b"] = torch.zeros(3)
    write_state(tmp_path / "b.safetensors", state)
    with pytest.raises(SafelightError, match=r"differences of biases .*diff_b"):
        read_adapter(tmp_path / "b.safetensors", ours)
