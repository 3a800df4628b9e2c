"""Another autoencoder in a model's place, from every layout, against diffusers' reading of it."""

import shutil
from dataclasses import replace

import numpy as np
import pytest
import torch
from diffusers import AutoencoderKL, DDIMScheduler, VQModel
from safetensors.torch import load_file, save_file

import safelight
from safelight.checkpoints.folder import read_folder, write_folder
from safelight.checkpoints.rules import from_ours
from safelight.checkpoints.single_file import write_single_file
from safelight.checkpoints.swap import with_autoencoder
from safelight.checkpoints.tables import compvis
from safelight.errors import SafelightError
from safelight.models.tiny import TinyAutoencoder, TinyConfig
from safelight.models.vq import VQAutoencoder

from .conftest import relative_error, saved, shaken
from .test_images import BETAS, NEGATIVE, PROMPT, SEED, STEPS, _pipeline, _theirs, parts  # noqa: F401

SHAPE = {
    "block_out_channels": (32, 32),
    "down_block_types": ("DownEncoderBlock2D",) * 2,
    "up_block_types": ("UpDecoderBlock2D",) * 2,
    "layers_per_block": 2,
    "sample_size": 16,
}
LAYOUTS = ["compvis", "prefixed", "diffusers", "old-diffusers", "pickle"]


@pytest.fixture(scope="module")
def model(parts, tmp_path_factory):  # noqa: F811
    """A tiny Stable Diffusion whose own latents have the scale 0.4."""
    folder = tmp_path_factory.mktemp("model")
    scheduler = DDIMScheduler(**BETAS, timestep_spacing="trailing", clip_sample=False)
    _pipeline(parts, scheduler).save_pretrained(folder)
    return folder


def _file(theirs, layout, folder):
    """An autoencoder of diffusers as one file of that layout."""
    state = {key: tensor.contiguous() for key, tensor in theirs.state_dict().items()}
    renamed = from_ours(compvis.autoencoder_table(2), state)
    if layout == "old-diffusers":
        olds = {"to_q": "query", "to_k": "key", "to_v": "value", "to_out.0": "proj_attn"}
        for new, old in olds.items():
            state = {k.replace(f".{new}.", f".{old}."): tensor for k, tensor in state.items()}
    if layout == "pickle":
        renamed = {**renamed, "loss.logvar": torch.zeros(())}
        torch.save({"state_dict": renamed, "epoch": 3}, folder / "vae.anything")
        return folder / "vae.anything"
    if layout in ("compvis", "prefixed"):
        prefix = "first_stage_model." if layout == "prefixed" else ""
        state = {prefix + key: tensor.contiguous() for key, tensor in renamed.items()}
    save_file(state, folder / "vae.safetensors")
    return folder / "vae.safetensors"


def _made(pipeline):
    picture = pipeline.generate(PROMPT, negative=NEGATIVE, steps=STEPS, scale=4.0, seed=SEED)[0]
    return np.asarray(picture.image, dtype=np.float32)


@pytest.mark.parametrize("layout", LAYOUTS)
def test_a_file_is_read_as_diffusers_reads_it(model, layout, tmp_path):
    theirs = shaken(AutoencoderKL(**SHAPE, scaling_factor=0.4))
    file = _file(theirs, layout, tmp_path)
    ours = with_autoencoder(read_folder(model), file).autoencoder
    if layout in ("compvis", "diffusers"):
        saved(theirs, tmp_path / "config")
        theirs = AutoencoderKL.from_single_file(
            str(file), config=str(tmp_path / "config"), local_files_only=True
        )
    z, pixels = torch.randn(1, 4, 4, 6), torch.rand(1, 3, 8, 16) * 2 - 1
    assert relative_error(ours.decode(z), theirs.decode(z).sample) < 2e-5
    wanted = theirs.encode(pixels).latent_dist.mean
    assert relative_error(ours.encode(pixels).mean, wanted) < 2e-5
    assert ours.config.scaling_factor == 0.4  # the model's own, of which the file says nothing


@pytest.mark.parametrize("form", ["file", "folder", "model"])
def test_a_picture_agrees_with_diffusers(parts, model, form, tmp_path):  # noqa: F811
    scale = 0.4 if form == "file" else 0.3
    other = shaken(AutoencoderKL(**SHAPE, scaling_factor=scale))
    scheduler = DDIMScheduler(**BETAS, timestep_spacing="trailing", clip_sample=False)
    theirs = _pipeline({**parts, "vae": other}, scheduler)
    match form:
        case "file":
            vae = _file(other, "compvis", tmp_path)
        case "folder":
            vae = saved(other, tmp_path / "vae")
        case "model":
            theirs.save_pretrained(tmp_path / "model")
            vae = tmp_path / "model"
    made = _made(safelight.load(model, device="cpu", vae=vae))
    assert np.abs(made - np.round(_theirs(theirs)[0] * 255)).max() <= 1
    assert np.abs(made - _made(safelight.load(model, device="cpu"))).max() > 8


def test_the_single_file_of_a_whole_model_gives_its_autoencoder(model, tmp_path):
    folder = read_folder(model)
    write_single_file(tmp_path / "one.safetensors", folder)
    swapped = with_autoencoder(folder, tmp_path / "one.safetensors")
    assert swapped.autoencoder.config.scaling_factor == 0.4
    wanted = folder.autoencoder.state_dict()
    assert all(torch.equal(t, wanted[k]) for k, t in swapped.autoencoder.state_dict().items())


def test_a_vq_autoencoders_file_is_read(model, tmp_path):
    theirs = shaken(VQModel(**SHAPE, latent_channels=4, vq_embed_dim=4, num_vq_embeddings=32))
    for layout in ("compvis", "diffusers"):
        ours = with_autoencoder(read_folder(model), _file(theirs, layout, tmp_path)).autoencoder
        assert isinstance(ours, VQAutoencoder)
        z = torch.randn(1, 4, 4, 6)
        assert relative_error(ours.decode(z), theirs.decode(z).sample) < 2e-5


def test_what_is_written_has_the_swapped_autoencoder(model, tmp_path):
    other = shaken(AutoencoderKL(**SHAPE, scaling_factor=0.3))
    folder = with_autoencoder(read_folder(model), saved(other, tmp_path / "vae"))
    write_folder(tmp_path / "written", folder)
    again = AutoencoderKL.from_pretrained(tmp_path / "written" / "vae")
    assert again.config.scaling_factor == 0.3
    z = torch.randn(1, 4, 4, 6)
    assert torch.equal(again.decode(z).sample, other.decode(z).sample)


def _refused(model, path, match):
    with pytest.raises(SafelightError, match=match) as raised:
        with_autoencoder(read_folder(model), path)
    assert "\n" not in str(raised.value)


def test_another_number_of_latent_channels_is_one_line(model, tmp_path):
    sd3 = AutoencoderKL(**SHAPE, latent_channels=16)
    match = "latents of 16 channels, the model's U-Net makes 4"
    _refused(model, saved(sd3, tmp_path / "vae"), match)
    _refused(model, _file(sd3, "compvis", tmp_path), match)


def test_what_is_no_autoencoder_is_one_line(model, tmp_path):
    _refused(model, tmp_path / "none", "no autoencoder at .*none; it is not there")
    _refused(model, model / "unet", "expected AutoencoderKL or VQModel or AutoencoderTiny")
    unet = model / "unet" / "diffusion_pytorch_model.safetensors"
    _refused(model, unet, "U-Net.*expected an autoencoder")
    (tmp_path / "empty").mkdir()
    _refused(model, tmp_path / "empty", "it holds nothing.*config.json")
    for name in ("a", "b"):
        shutil.copy(unet, tmp_path / "empty" / f"{name}.safetensors")
    _refused(model, tmp_path / "empty", "expected one half of TAESD")


def test_a_file_that_lacks_a_tensor_or_has_one_too_many_is_one_line(model, tmp_path):
    file = _file(AutoencoderKL(**SHAPE), "compvis", tmp_path)
    state = load_file(file)
    cut = {key: t for key, t in state.items() if key != "decoder.mid.block_1.conv1.weight"}
    save_file(cut, tmp_path / "cut.safetensors")
    _refused(model, tmp_path / "cut.safetensors", "missing: decoder.mid_block.resnets.0.conv1")
    save_file(state | {"decoder.more": torch.zeros(2)}, tmp_path / "more.safetensors")
    _refused(model, tmp_path / "more.safetensors", "holds 'decoder.more'")
    shape = {key: t for key, t in state.items() if not key.startswith("decoder.")}
    save_file(shape, tmp_path / "half.safetensors")
    _refused(model, tmp_path / "half.safetensors", "holds no autoencoder.*that is whole")


def test_a_scale_that_nobody_says_is_one_line(model, tmp_path):
    file = _file(AutoencoderKL(**SHAPE), "compvis", tmp_path)
    folder = read_folder(model)
    config = TinyConfig(encoder_width=8, decoder_width=8)
    with pytest.raises(SafelightError, match="does not say the scale"):
        with_autoencoder(replace(folder, autoencoder=TinyAutoencoder(config)), file)
