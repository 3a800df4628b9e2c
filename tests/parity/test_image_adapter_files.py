"""Files of IP-Adapters in their published shapes; broken and hostile ones are one line."""

import os
import pickle

import pytest
import torch
from diffusers import UNet2DConditionModel
from PIL import Image
from safetensors.torch import save_file

from safelight.checkpoints.detect import describe_state
from safelight.checkpoints.image_encoder import check_encoder, read_image_encoder
from safelight.checkpoints.inspection import inspect
from safelight.checkpoints.ip_adapter import config_of, is_image_adapter, read_image_adapter
from safelight.checkpoints.tables.unet import unet_config_from_diffusers
from safelight.errors import SafelightError
from safelight.models.image_adapter import ImageAdapter, ImageAdapterConfig, check_fit
from safelight.models.unet import UNet

from .image_adapters import (
    VECTOR,
    layer_widths,
    nested,
    published_shapes,
    save_adapter,
    small_adapter,
    small_image_tower,
)
from .published import UNETS
from .small import small_unet

H, BIGG = {"vector": 1024, "tokens": 1280}, {"vector": 1280, "tokens": 1664}  # image towers
SMALL = {"hidden": 768, "inner": 12 * 64, "queries": 16}
LARGE = {"hidden": 1280, "inner": 20 * 64, "queries": 16}
PUBLISHED = {  # each published file: its kind, its U-Net, what it looks at, its resampler
    "ip-adapter_sd15": ("plain", "sd1.5", H, SMALL),
    "ip-adapter_sd15_light": ("plain", "sd1.5", H, SMALL),
    "ip-adapter_sd15_vit-G": ("plain", "sd1.5", BIGG, SMALL),
    "ip-adapter-plus_sd15": ("plus", "sd1.5", H, SMALL),
    "ip-adapter-plus-face_sd15": ("plus", "sd1.5", H, SMALL),
    "ip-adapter-full-face_sd15": ("full", "sd1.5", H, SMALL),
    "ip-adapter_sdxl": ("plain", "sdxl", BIGG, SMALL),
    "ip-adapter_sdxl_vit-h": ("plain", "sdxl", H, SMALL),
    "ip-adapter-plus_sdxl_vit-h": ("plus", "sdxl", H, LARGE),
    "ip-adapter-plus-face_sdxl_vit-h": ("plus", "sdxl", H, LARGE),
}
SAID = {"plain": "an IP-Adapter", "plus": "an IP-Adapter, plus", "full": "an IP-Adapter, full"}
FAMILY = {"sd1.5": "a Stable Diffusion 1.x U-Net", "sdxl": "an SDXL U-Net"}


@pytest.mark.parametrize("name", PUBLISHED)
def test_a_published_file_is_told_and_is_of_its_unet(name):
    kind, family, tower, resampler = PUBLISHED[name]
    with torch.device("meta"):
        theirs = UNet2DConditionModel.from_config(UNETS[family])
        ours = UNet(unet_config_from_diffusers(UNETS[family]))
        shapes = published_shapes(
            kind, ours.config.cross_attention_dim, layer_widths(theirs), **tower, **resampler
        )
        state = {key: torch.empty(shape) for key, shape in shapes.items()}
        config = config_of(state, name)
        built = ImageAdapter(config).state_dict()
    check_fit(ours, config)
    assert {key: tuple(part.shape) for key, part in built.items()} == shapes
    assert config.embedding_dim == tower["vector" if kind == "plain" else "tokens"]
    assert config.tokens == {"plain": 4, "plus": 16, "full": 257}[kind]
    assert describe_state(state) == f"{SAID[kind]}, for {FAMILY[family]}"
    other = "sdxl" if family == "sd1.5" else "sd1.5"
    with torch.device("meta"), pytest.raises(ValueError, match="layers of cross-attention"):
        check_fit(UNet(unet_config_from_diffusers(UNETS[other])), config)


@pytest.mark.parametrize("kind", SAID)
def test_a_file_is_inspected_and_read_by_its_tensors_and_never_by_its_name(kind, tmp_path):
    state = small_adapter(small_unet(), kind)
    save_file(state, tmp_path / "a.bin")
    torch.save(nested(state), tmp_path / "b.safetensors")
    torch.save(nested(state), tmp_path / "c", _use_new_zipfile_serialization=False)
    torch.save(state, tmp_path / "flat")
    for name in ("a.bin", "b.safetensors", "c", "flat"):
        assert inspect(tmp_path / name).kind == SAID[kind]
        read = read_image_adapter(tmp_path / name).state_dict()
        assert read.keys() == state.keys()
        assert all(torch.equal(read[key], tensor) for key, tensor in state.items())


FACES = {
    "faceid": {"image_proj.norm.weight": (32,), "ip_adapter.0.to_q_lora.down.weight": (4, 32)},
    "faceid-portrait": {"image_proj.norm.weight": (32,)},
    "faceid-plus": {"image_proj.perceiver_resampler.proj_in.weight": (8, 8)}
    | {"image_proj.norm.weight": (32,), "ip_adapter.1.to_k_lora.up.weight": (32, 4)},
}


@pytest.mark.parametrize("name", FACES)
def test_faceid_is_refused_in_a_line_that_says_what_it_needs(name, tmp_path):
    shapes = {"image_proj.proj.0.weight": (64, 512), "ip_adapter.1.to_k_ip.weight": (32, 768)}
    state = {key: torch.ones(shape) for key, shape in (shapes | FACES[name]).items()}
    save_adapter(tmp_path / "face.bin", state)
    with pytest.raises(SafelightError, match=r"FaceID kind.*InsightFace") as caught:
        read_image_adapter(tmp_path / "face.bin")
    assert "\n" not in str(caught.value)
    assert inspect(tmp_path / "face.bin").kind == (
        "an IP-Adapter, of faces (FaceID), which is not read, for a Stable Diffusion 1.x U-Net"
    )


def _without(state, *names):
    return {name: part for name, part in state.items() if not name.startswith(names)}


BROKEN = {  # of a file of each kind: what is done to it, and what the line says
    "another file": ("plain", lambda s: {"a.weight": torch.ones(2)}, "is no IP-Adapter"),
    "a gap": ("plain", lambda s: _without(s, "ip_adapter.3."), "are numbered 1, 3, 5"),
    "even": (
        "plain",
        lambda s: s | {"ip_adapter.2.to_k_ip.weight": torch.ones(2, 2)},
        "are numbered 1, 3, 5",
    ),
    "a padded number": (
        "plain",
        lambda s: s | {"ip_adapter.01.to_k_ip.weight": torch.ones(2, 2)},
        "are numbered 1, 3, 5",
    ),
    "an endless number": (
        "plain",
        lambda s: {f"ip_adapter.{'9' * 5000}.to_k_ip.weight": torch.ones(2, 2)},
        "is no IP-Adapter",
    ),
    "no values": ("plain", lambda s: _without(s, "ip_adapter.1.to_v"), "missing.*1.to_v_ip"),
    "no projection": ("plain", lambda s: _without(s, "image_proj"), "of no known kind"),
    "no norm": ("full", lambda s: _without(s, "image_proj.proj.3"), "missing"),
    "more": ("plus", lambda s: s | {"image_proj.extra": torch.ones(2)}, "left over"),
    "a layer less": ("plus", lambda s: _without(s, "image_proj.layers.0"), "to_q.weight"),
    "flat": (
        "plus",
        lambda s: s | {"image_proj.latents": torch.ones(4)},
        "no image_proj.latents with 3 axes",
    ),
    "a scalar": (
        "plain",
        lambda s: s | {"ip_adapter.1.to_k_ip.weight": torch.tensor(1.0)},
        "with 2 axes",
    ),
    "no heads": (
        "plus",
        lambda s: s | {"image_proj.layers.0.0.to_q.weight": torch.ones(0, 48)},
        "does not split into the resampler's heads",
    ),
    "uneven heads": (
        "plus",
        lambda s: s | {"image_proj.layers.0.0.to_q.weight": torch.ones(100, 48)},
        "does not split into the resampler's heads",
    ),
    "uneven tokens": (
        "plain",
        lambda s: s | {"image_proj.proj.weight": torch.ones(101, VECTOR)},
        "does not split into the tokens",
    ),
    "no context": (
        "plain",
        lambda s: s | {"ip_adapter.1.to_k_ip.weight": torch.ones(32, 0)},
        "does not split into the tokens",
    ),
    "another shape": (
        "plain",
        lambda s: s | {"ip_adapter.3.to_v_ip.weight": torch.ones(3, 3)},
        "misshapen",
    ),
    "whole numbers": (
        "plain",
        lambda s: s | {"image_proj.norm.weight": torch.ones(32, dtype=torch.int32)},
        "of the wrong kind",
    ),
}


@pytest.mark.parametrize("suffix", [".safetensors", ".pt"])
@pytest.mark.parametrize("what", BROKEN)
def test_a_broken_file_is_one_line(what, suffix, tmp_path):
    kind, broken, said = BROKEN[what]
    state = broken(small_adapter(small_unet(), kind))
    path = tmp_path / f"odd{suffix}"
    if suffix == ".pt" and what != "an endless number":  # which is refused before it is looked at
        torch.save(state, path)
    else:
        save_file(state, path)
    with pytest.raises(SafelightError, match=said) as caught:
        read_image_adapter(path)
    assert "\n" not in str(caught.value)
    assert inspect(path).kind  # says what it is, and breaks at none


def test_missing_truncated_and_hostile_files_run_nothing_and_are_one_line(tmp_path):
    state = small_adapter(small_unet(), "plain")
    whole = save_adapter(tmp_path / "whole.bin", state).read_bytes()
    (tmp_path / "cut.bin").write_bytes(whole[: len(whole) // 2])
    (tmp_path / "text.bin").write_text("no weights")
    canary = tmp_path / "canary"

    class Hostile:
        def __reduce__(self):
            return os.system, (f"touch {canary}",)

    (tmp_path / "hostile.bin").write_bytes(pickle.dumps({"image_proj": Hostile()}))
    torch.save(nested(state) | {"ip_adapter": Hostile()}, tmp_path / "half.bin")
    for name in ("nowhere.bin", "cut.bin", "text.bin", "hostile.bin", "half.bin"):
        with pytest.raises(SafelightError) as caught:
            read_image_adapter(tmp_path / name)
        assert "\n" not in str(caught.value)
    torch.save(nested(state) | {"about": Hostile()}, tmp_path / "beside.bin")
    assert torch.equal(
        read_image_adapter(tmp_path / "beside.bin").state_dict()["image_proj.proj.bias"],
        state["image_proj.proj.bias"],
    )
    assert not canary.exists()


def test_encoders_that_cannot_be_used_are_one_line(tmp_path):
    folder = tmp_path / "image_encoder"
    small_image_tower().save_pretrained(folder)
    encoder = read_image_encoder(folder)
    config = ImageAdapterConfig(VECTOR, 32, (32,))
    check_encoder(encoder, config, "it")
    with pytest.raises(SafelightError, match=f"width {VECTOR + 1}, the image encoder it gives"):
        check_encoder(encoder, ImageAdapterConfig(VECTOR + 1, 32, (32,)), "it")
    with pytest.raises(SafelightError, match="takes the tokens of a CLIP image tower"):
        read_image_encoder("efficientnet-lite0", tokens=True)
    (folder / "preprocessor_config.json").write_text('{"crop_size": 30, "size": 30}')
    with pytest.raises(SafelightError, match="cut to 30 pixels, the image tower takes 28"):
        read_image_encoder(folder)
    (folder / "model.safetensors").unlink()
    for path in (folder, tmp_path / "nowhere"):
        with pytest.raises(SafelightError) as caught:
            read_image_encoder(path)
        assert "\n" not in str(caught.value)


def test_the_packaged_encoder_tells_pictures_apart_at_any_size():
    encoder = read_image_encoder("efficientnet-lite0")
    one, other = (Image.effect_noise(size, 60).convert("RGB") for size in ((64, 64), (90, 50)))
    first, second = encoder.embed([one]), encoder.embed([other])
    assert first.shape == second.shape == (1, encoder.width)
    assert torch.equal(first, encoder.embed([one]))
    assert not torch.allclose(first, second, atol=0.1)
    assert abs(first.std().item() - 1) < 1e-5
    assert encoder.null().abs().max() == 0
    assert len(encoder.files) == 1
    assert encoder.files[0].is_file()


def test_a_file_is_known_by_any_of_its_layers():
    assert is_image_adapter({"ip_adapter.31.to_k_ip.weight": None})
    assert not is_image_adapter({"ip_adapter.31.to_k_ip.bias": None, "image_proj.latents": None})
