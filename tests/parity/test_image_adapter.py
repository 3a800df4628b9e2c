"""U-Nets that attend to pictures against diffusers', by IP-Adapters of each public kind."""

import pytest
import torch
from diffusers import UNet2DConditionModel

from safelight.checkpoints.components import read_unet
from safelight.checkpoints.image_encoder import read_image_encoder
from safelight.checkpoints.ip_adapter import read_image_adapter, write_image_adapter
from safelight.models.image_adapter import ImageAdapter, ImageAdapterConfig, Pictured
from safelight.nn.decoupled import context_readers
from safelight.types import Conditioning

from .conftest import relative_error, saved, shaken
from .image_adapters import (
    SIDE,
    TOKENS_WIDTH,
    VECTOR,
    nested,
    save_adapter,
    small_adapter,
    small_image_tower,
)

CROSS, PLAIN = "CrossAttnDownBlock2D", "DownBlock2D"
CROSS_UP, PLAIN_UP = "CrossAttnUpBlock2D", "UpBlock2D"
CONTEXT, POOLED, NUMBERS = 24, 20, 8
SD1 = {  # several layers of one width, down, up and in the middle: their order shows
    "block_out_channels": (16, 32),
    "norm_num_groups": 8,
    "layers_per_block": 2,
    "down_block_types": (CROSS, CROSS),
    "up_block_types": (CROSS_UP, CROSS_UP),
    "attention_head_dim": 4,
    "cross_attention_dim": CONTEXT,
}
XL = SD1 | {
    "layers_per_block": 1,
    "down_block_types": (PLAIN, CROSS),
    "up_block_types": (CROSS_UP, PLAIN_UP),
    "transformer_layers_per_block": (1, 3),
    "attention_head_dim": (2, 4),
    "use_linear_projection": True,
    "addition_embed_type": "text_time",
    "addition_time_embed_dim": NUMBERS,
    "projection_class_embeddings_input_dim": POOLED + 6 * NUMBERS,
}
FAMILIES = {
    "sd1": SD1,
    "sd2": SD1 | {"use_linear_projection": True, "upcast_attention": True},
    "xl": XL,
    "pooled-context": SD1 | {"addition_embed_type": "text", "addition_embed_type_num_heads": 6},
    "without-middle": SD1 | {"mid_block_type": None},
}
KINDS = ("plain", "plus", "full")


def _unets(family, tmp_path):
    theirs = shaken(UNet2DConditionModel(**FAMILIES[family]))
    return theirs, read_unet(saved(theirs, tmp_path / "unet"))


def _embeddings(kind, count=2):
    shape = (count, VECTOR) if kind == "plain" else (count, 17, TOKENS_WIDTH)
    return torch.randn(shape)


def _inputs(family):
    """For both: x, t, context; what theirs takes beside the text; our vector."""
    x, t = torch.randn(2, 4, 9, 12), torch.tensor([901.0, 17.0])
    context = torch.randn(2, 7, CONTEXT)
    if family != "xl":
        return x, t, context, {}, None
    added = {"text_embeds": torch.randn(2, POOLED), "time_ids": torch.rand(2, 6) * 100}
    return x, t, context, added, added


def _vector(theirs, added):
    if added is None:
        return None
    rows = theirs.add_time_proj(added["time_ids"].flatten()).reshape(2, -1)
    return torch.cat([added["text_embeds"], rows], dim=1)


def _seen(theirs, ours, adapters, family, embeddings, weights):
    """The outputs of theirs and ours, and of ours without pictures."""
    x, t, context, added, beside = _inputs(family)
    vector = _vector(theirs, beside)
    plain = ours(x, t, Conditioning(context=context, vector=vector))
    theirs._load_ip_adapter_weights([nested(adapters[0]) for _ in embeddings])
    for name, processor in theirs.attn_processors.items():
        if "attn2" in name:
            processor.scale = list(weights)
    added = added | {"image_embeds": [one[:, None] for one in embeddings]}
    wanted = theirs(x, t, context, added_cond_kwargs=added).sample
    tokens = tuple(adapters[1](one) for one in embeddings)
    seeing = Pictured(ours, adapters[1], weights, tokens[0].shape[1])
    made = seeing(x, t, Conditioning(context=context, vector=vector, pictures=tokens))
    return wanted, made, plain


@pytest.mark.parametrize("suffix", [".safetensors", ".bin"])
@pytest.mark.parametrize("kind", KINDS)
@pytest.mark.parametrize("family", FAMILIES)
def test_a_unet_that_sees_pictures_is_diffusers(family, kind, suffix, tmp_path):
    theirs, ours = _unets(family, tmp_path)
    state = small_adapter(theirs, kind)
    adapter = read_image_adapter(save_adapter(tmp_path / f"one{suffix}", state))
    assert adapter.config.kind == kind
    embeddings = [_embeddings(kind), _embeddings(kind)]
    wanted, made, plain = _seen(theirs, ours, (state, adapter), family, embeddings, (0.9, -0.6))
    assert relative_error(made, wanted) < 1e-5
    assert relative_error(plain, wanted) > 1e-2  # the pictures are seen


@pytest.mark.parametrize("kind", KINDS)
def test_what_is_written_has_the_authors_names_to_the_bit(kind, tmp_path):
    state = small_adapter(UNet2DConditionModel(**SD1), kind)
    adapter = read_image_adapter(save_adapter(tmp_path / "one.bin", state))
    write_image_adapter(tmp_path / "again.safetensors", adapter)
    again = read_image_adapter(tmp_path / "again.safetensors")
    assert again.config == adapter.config
    found = again.state_dict()
    assert found.keys() == state.keys()  # under the authors' names
    assert all(torch.equal(found[name], tensor) for name, tensor in state.items())


def test_a_fresh_adapter_begins_with_the_layers_of_the_unet_and_diffusers_reads_it(tmp_path):
    theirs, ours = _unets("sd1", tmp_path)
    fresh = ImageAdapter.for_unet(ours, ImageAdapterConfig(VECTOR, 1, ()))
    write_image_adapter(tmp_path / "fresh.safetensors", fresh)
    state = {name: tensor.clone() for name, tensor in fresh.state_dict().items()}
    paths = [name.removesuffix(".processor") for name in theirs.attn_processors if "attn2" in name]
    for place, path in enumerate(paths):
        layer = theirs.get_submodule(path)
        assert torch.equal(state[f"ip_adapter.{2 * place + 1}.to_k_ip.weight"], layer.to_k.weight)
        assert torch.equal(state[f"ip_adapter.{2 * place + 1}.to_v_ip.weight"], layer.to_v.weight)
    adapter = read_image_adapter(tmp_path / "fresh.safetensors")
    wanted, made, plain = _seen(
        theirs, ours, (state, adapter), "sd1", [_embeddings("plain")], (1.0,)
    )
    assert relative_error(made, wanted) < 1e-5
    assert relative_error(plain, wanted) > 1e-3


def test_at_weight_zero_nothing_is_seen_where_the_context_is_read_elsewhere_too(tmp_path):
    """By layers that look at the context alone, which diffusers' adapters cannot stand beside."""
    options = SD1 | {"only_cross_attention": (True, False)}
    theirs = shaken(UNet2DConditionModel(**options))
    ours = read_unet(saved(theirs, tmp_path / "unet"))
    assert list(context_readers(ours))
    adapter = read_image_adapter(
        save_adapter(tmp_path / "one.safetensors", small_adapter(theirs, "plain"))
    )
    x, t, context, _, _ = _inputs("sd1")
    tokens = adapter(_embeddings("plain"))
    cond = Conditioning(context=context, pictures=(tokens,))
    wanted = theirs(x, t, context).sample
    assert relative_error(Pictured(ours, adapter, (0.0,))(x, t, cond), wanted) < 1e-5
    assert relative_error(Pictured(ours, adapter, (1.0,))(x, t, cond), wanted) > 1e-2


@pytest.mark.parametrize("kind", ["plain", "tokens"])
@pytest.mark.parametrize("act", ["quick_gelu", "gelu"])
def test_an_image_encoder_sees_as_transformers_does(kind, act, tmp_path):
    from diffusers import StableDiffusionPipeline
    from PIL import Image
    from transformers import CLIPImageProcessor

    tower = small_image_tower(hidden_act=act)
    tower.save_pretrained(tmp_path / "image_encoder")
    encoder = read_image_encoder(tmp_path / "image_encoder", tokens=kind == "tokens")
    picture = Image.effect_noise((50, 71), 90).convert("RGB")
    pixels = CLIPImageProcessor(size=SIDE, crop_size=SIDE)(
        picture, return_tensors="pt"
    ).pixel_values

    class Theirs:  # what of their pipeline encodes a picture
        image_encoder = tower
        encode_image = StableDiffusionPipeline.encode_image

    wanted, null = Theirs().encode_image(pixels, "cpu", 1, kind == "tokens")
    assert relative_error(encoder.embed([picture]), wanted) < 1e-5
    assert encoder.width == wanted.shape[-1]
    assert torch.allclose(encoder.null(), null, atol=1e-6)
