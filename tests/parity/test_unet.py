"""Every family's U-Net against diffusers' `UNet2DConditionModel`: read, run, written, read back."""

import json
from dataclasses import replace

import pytest
import torch
from diffusers import UNet2DConditionModel

from safelight.checkpoints.components import Writing, read_unet, write_unet
from safelight.checkpoints.tables.unet import unet_config_from_diffusers, unet_config_to_diffusers
from safelight.errors import SafelightError
from safelight.models.unet import UNet, UNetConfig
from safelight.nn.embeddings import sinusoidal
from safelight.types import Conditioning

from .conftest import relative_error, saved, shaken

CROSS, PLAIN = "CrossAttnDownBlock2D", "DownBlock2D"
CROSS_UP, PLAIN_UP = "CrossAttnUpBlock2D", "UpBlock2D"
WIDTH, POOLED, NUMBERS = 24, 20, 8  # context, pooled text, features of each size and crop number

SD1 = {
    "sample_size": 64,
    "block_out_channels": (16, 16, 32, 32),
    "norm_num_groups": 8,
    "down_block_types": (CROSS, CROSS, CROSS, PLAIN),
    "up_block_types": (PLAIN_UP, CROSS_UP, CROSS_UP, CROSS_UP),
    "attention_head_dim": 8,
    "cross_attention_dim": WIDTH,
}
SHALLOW = SD1 | {"layers_per_block": 1}  # where only the inputs differ from a family above
SD2 = SD1 | {
    "attention_head_dim": (2, 4, 8, 8),
    "use_linear_projection": True,
    "upcast_attention": True,
}
XL = {
    "sample_size": 128,
    "block_out_channels": (16, 16, 32),
    "norm_num_groups": 8,
    "down_block_types": (PLAIN, CROSS, CROSS),
    "up_block_types": (CROSS_UP, CROSS_UP, PLAIN_UP),
    "transformer_layers_per_block": (1, 2, 3),
    "attention_head_dim": (2, 4, 8),
    "cross_attention_dim": WIDTH,
    "use_linear_projection": True,
    "addition_embed_type": "text_time",
    "addition_time_embed_dim": NUMBERS,
    "projection_class_embeddings_input_dim": POOLED + 6 * NUMBERS,
}
FAMILIES = {
    "sd1": SD1,
    "sd1-inpaint": SHALLOW | {"in_channels": 9},
    "sd1-lcm": SHALLOW | {"time_cond_proj_dim": 16},
    "sd2": SD2,
    "sd2-depth": SHALLOW | {"in_channels": 5},
    "sd2-unclip": SHALLOW
    | {"class_embed_type": "projection", "projection_class_embeddings_input_dim": 40},
    "x4-upscaler": SD1
    | {
        "in_channels": 7,
        "down_block_types": (PLAIN, CROSS, CROSS, CROSS),
        "up_block_types": (CROSS_UP, CROSS_UP, CROSS_UP, PLAIN_UP),
        "only_cross_attention": (True, True, True, False),
        "num_class_embeds": 50,
        "use_linear_projection": True,
    },
    "xl": XL,
    "xl-refiner": XL
    | {
        "block_out_channels": (16, 16, 32, 32),
        "down_block_types": (PLAIN, CROSS, CROSS, PLAIN),
        "up_block_types": (PLAIN_UP, CROSS_UP, CROSS_UP, PLAIN_UP),
        "transformer_layers_per_block": 2,
        "attention_head_dim": (2, 4, 8, 8),
        "projection_class_embeddings_input_dim": POOLED + 5 * NUMBERS,
    },
    "without-middle": SD1 | {"mid_block_type": None, "layers_per_block": (1, 2, 1, 2)},
    "without-middle-attention": SHALLOW | {"mid_block_type": "UNetMidBlock2D"},
    "scale-shift": SHALLOW
    | {"resnet_time_scale_shift": "scale_shift", "flip_sin_to_cos": False, "freq_shift": 1},
    "pooled-context": SHALLOW | {"addition_embed_type": "text", "addition_embed_type_num_heads": 6},
    "class-identity": SHALLOW | {"class_embed_type": "identity"},
}

SMALL = {
    "block_out_channels": (8, 16),
    "layers_per_block": (1, 1),
    "attention": (False, False),
    "transformer_layers": (1, 1),
    "attention_heads": (2, 2),
    "only_cross_attention": (False, False),
    "mid_attention": False,
    "norm_num_groups": 4,
}
LIKE_OTHERS = {  # in all but the number of input channels, or of two parts tested apart
    "sd1-edit": SD1 | {"in_channels": 8},
    "sd2-inpaint": SD2 | {"in_channels": 9},
    "xl-inpaint": XL | {"in_channels": 9},
    "xl-lcm": XL | {"time_cond_proj_dim": 16},
}


def _inputs(options, size):
    """The same random inputs for the oracle (as its arguments) and for ours (as `Conditioning`)."""
    x = torch.randn(2, options.get("in_channels", 4), *size)
    context = torch.randn(2, 7, WIDTH)
    arguments, parts = {}, []
    if options.get("num_class_embeds"):
        labels = torch.tensor([3, 41])
        arguments["class_labels"] = labels
        parts.append(torch.nn.functional.one_hot(labels, options["num_class_embeds"]).float())
    elif options.get("class_embed_type"):
        width = options.get("projection_class_embeddings_input_dim") or 64
        arguments["class_labels"] = torch.randn(2, width)
        parts.append(arguments["class_labels"])
    if options.get("addition_embed_type") == "text_time":
        count = (options["projection_class_embeddings_input_dim"] - POOLED) // NUMBERS
        pooled, numbers = torch.randn(2, POOLED), torch.randint(0, 1024, (2, count)).float()
        arguments["added_cond_kwargs"] = {"text_embeds": pooled, "time_ids": numbers}
        features = sinusoidal(numbers.flatten(), NUMBERS).reshape(2, -1)
        parts.append(torch.cat([pooled, features], dim=1))
    if options.get("time_cond_proj_dim"):
        arguments["timestep_cond"] = torch.randn(2, options["time_cond_proj_dim"])
        parts.append(arguments["timestep_cond"])
    cond = Conditioning(context=context, vector=torch.cat(parts, dim=1) if parts else None)
    return x, torch.tensor([999.0, 17.0]), context, arguments, cond


@pytest.mark.parametrize("family", FAMILIES)
def test_agrees_with_diffusers_and_is_read_back_by_it(family, tmp_path):
    options = FAMILIES[family]
    theirs = shaken(UNet2DConditionModel(**options))
    ours = read_unet(saved(theirs, tmp_path / "theirs"))
    for size in ((16, 24), (11, 13)):  # multiples of all strides, and of none
        x, t, context, arguments, cond = _inputs(options, size)
        wanted = theirs(x, t, context, **arguments).sample
        assert relative_error(ours(x, t, cond), wanted) < 1e-5

    write_unet(tmp_path / "ours", ours, Writing(max_shard_bytes=200_000))
    again = UNet2DConditionModel.from_pretrained(tmp_path / "ours")
    torch.testing.assert_close(again(x, t, context, **arguments).sample, wanted, rtol=0, atol=0)


def test_a_separate_concat_is_the_same_as_channels_joined_beforehand(tmp_path):
    theirs = shaken(UNet2DConditionModel(**FAMILIES["sd1-inpaint"]))
    ours = read_unet(saved(theirs, tmp_path))
    x, t, context, _, cond = _inputs(FAMILIES["sd1-inpaint"], (8, 8))
    split = Conditioning(context=cond.context, concat=x[:, 4:])
    wanted = theirs(x, t, context).sample
    assert relative_error(ours(x[:, :4], t, split), wanted) < 1e-5


def test_residuals_of_a_control_network_are_added_where_diffusers_adds_them(tmp_path):
    theirs = shaken(UNet2DConditionModel(**SD1))
    ours = read_unet(saved(theirs, tmp_path))
    x, t, context, _, cond = _inputs(SD1, (16, 16))
    shapes = [(16, 16)] * 3 + [(16, 8)] * 3 + [(16, 4)] + [(32, 4)] * 2 + [(32, 2)] * 4
    residuals = tuple(torch.randn(2, channels, side, side) for channels, side in shapes)
    wanted = theirs(
        x,
        t,
        context,
        down_block_additional_residuals=residuals[:-1],
        mid_block_additional_residual=residuals[-1],
    ).sample
    controlled = Conditioning(context=cond.context, residuals=residuals)
    assert relative_error(ours(x, t, controlled), wanted) < 1e-5
    assert relative_error(ours(x, t, cond), wanted) > 1e-3


@pytest.mark.parametrize("family", FAMILIES | LIKE_OTHERS)
def test_a_configuration_survives_the_way_there_and_back(family):
    theirs = json.loads(UNet2DConditionModel(**(FAMILIES | LIKE_OTHERS)[family]).to_json_string())
    ours = unet_config_from_diffusers(theirs)
    assert unet_config_from_diffusers(unet_config_to_diffusers(ours)) == ours
    written = unet_config_to_diffusers(ours)
    assert written.keys() >= {key for key in theirs if not key.startswith("_")}


def test_a_context_to_pool_is_missed_by_name_and_not_wanted_beside_sizes():
    ours = UNet(UNetConfig(context_heads=6, cross_attention_dim=WIDTH, **SMALL))
    with pytest.raises(ValueError, match="context"):
        ours(torch.randn(1, 4, 8, 8), torch.tensor([1.0]), Conditioning())
    with pytest.raises(ValueError, match="addition_embed_type"):
        unet_config_to_diffusers(replace(ours.config, added_dim=8))
    for heads, width in ((0, WIDTH), (7, WIDTH), (6, None)):
        with pytest.raises(ValueError, match="context_heads"):
            UNetConfig(context_heads=heads, cross_attention_dim=width, **SMALL)


@pytest.mark.parametrize(
    ("change", "named"),
    [
        ({"dual_cross_attention": True}, "dual_cross_attention"),
        ({"down_block_types": ["SimpleCrossAttnDownBlock2D"] * 4}, "SimpleCrossAttnDownBlock2D"),
        ({"addition_embed_type": "image"}, "addition_embed_type"),
        ({"addition_embed_type": "text", "addition_embed_type_num_heads": 7}, "7 heads"),
        ({"class_embed_type": "timestep"}, "class_embed_type"),
        ({"attention_head_dim": 7}, "7 heads"),
        ({"attention_head_dim": [8, 8]}, "attention_head_dim"),
        ({"block_out_channels": "wide"}, "block_out_channels"),
        ({"mid_block_type": "UNetMidBlock2DSimpleCrossAttn"}, "mid_block_type"),
        ({"a_key_of_tomorrow": 3}, "a_key_of_tomorrow"),
        ({"cross_attention_dim": [24, 24, 24, 32]}, "cross_attention_dim"),
    ],
)
def test_a_part_that_is_not_built_is_named_in_one_line(change, named):
    values = json.loads(UNet2DConditionModel(**SD1).to_json_string()) | change
    with pytest.raises(SafelightError, match=named) as caught:
        unet_config_from_diffusers(values)
    assert "\n" not in str(caught.value)


def test_a_neutral_key_of_tomorrow_makes_no_difference():
    values = json.loads(UNet2DConditionModel(**SD1).to_json_string())
    tomorrow = values | {"a_key_of_tomorrow": None, "another": False}
    assert unet_config_from_diffusers(tomorrow) == unet_config_from_diffusers(values)
