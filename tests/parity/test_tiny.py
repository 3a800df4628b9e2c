"""Our tiny autoencoder against diffusers' `AutoencoderTiny`, in its layout and in TAESD's own."""

import json

import numpy as np
import pytest
import torch
from diffusers import AutoencoderTiny, DDIMScheduler
from safetensors.torch import load_file

import safelight
from safelight.checkpoints.components import read_autoencoder, write_autoencoder
from safelight.checkpoints.detect import describe_state
from safelight.checkpoints.folder import read_folder, write_folder
from safelight.checkpoints.swap import with_autoencoder
from safelight.checkpoints.tables.tiny import (
    tiny_config_from_diffusers,
    tiny_config_of,
    tiny_config_to_diffusers,
)
from safelight.errors import SafelightError
from safelight.models.tiny import TinyAutoencoder
from safelight.pipelines.previews import Previewer

from .conftest import relative_error, saved, shaken
from .test_images import BETAS, PROMPT, SEED, STEPS, _pipeline, _theirs, parts  # noqa: F401
from .test_swaps import model  # noqa: F401

PUBLISHED = {  # madebyollin/taesd
    "_class_name": "AutoencoderTiny",
    "_diffusers_version": "0.20.0.dev0",
    "act_fn": "relu",
    "block_out_channels": [64, 64, 64, 64],
    "decoder_block_out_channels": [64, 64, 64, 64],
    "encoder_block_out_channels": [64, 64, 64, 64],
    "force_upcast": False,
    "in_channels": 3,
    "latent_channels": 4,
    "latent_magnitude": 3,
    "latent_shift": 0.5,
    "num_decoder_blocks": [3, 3, 3, 1],
    "num_encoder_blocks": [1, 3, 3, 3],
    "out_channels": 3,
    "scaling_factor": 1.0,
    "upsampling_scaling_factor": 2,
}
SHAPES = {
    "taesd": {},
    "two-levels": {
        "encoder_block_out_channels": (16, 16),
        "decoder_block_out_channels": (24, 24),
        "num_encoder_blocks": (1, 2),
        "num_decoder_blocks": (2, 0),
        "latent_channels": 16,
        "scaling_factor": 0.5,
    },
}
TWO = {
    "encoder_block_out_channels": (16, 16),
    "decoder_block_out_channels": (16, 16),
    "num_encoder_blocks": (1, 2),
    "num_decoder_blocks": (2, 1),
}


def _taesd(theirs):
    """An autoencoder's two halves in TAESD's own names, whose decoder counts its clamp."""
    state = theirs.state_dict()
    encoder = {
        k.removeprefix("encoder.layers."): t for k, t in state.items() if k.startswith("encoder.")
    }
    decoder = {}
    for key, tensor in state.items():
        if key.startswith("decoder."):
            number, _, rest = key.removeprefix("decoder.layers.").partition(".")
            decoder[f"{int(number) + 1}.{rest}"] = tensor
    return encoder, decoder


@pytest.mark.parametrize("name", SHAPES)
def test_it_agrees_with_diffusers_and_is_read_back_by_it(name, tmp_path):
    theirs = shaken(AutoencoderTiny(**SHAPES[name]))
    ours = read_autoencoder(saved(theirs, tmp_path / "theirs"))
    assert isinstance(ours, TinyAutoencoder)
    pixels = torch.rand(2, 3, 32, 48) * 2 - 1
    wanted = theirs.encode(pixels).latents
    assert relative_error(ours.encode(pixels), wanted) < 2e-5
    z = 4 * torch.randn_like(wanted)  # beyond where the decoder presses them
    assert relative_error(ours.decode(z), theirs.decode(z).sample) < 2e-5

    write_autoencoder(tmp_path / "ours", ours)
    again = AutoencoderTiny.from_pretrained(tmp_path / "ours")
    torch.testing.assert_close(again.decode(z).sample, theirs.decode(z).sample, rtol=0, atol=0)
    assert again.config.scaling_factor == theirs.config.scaling_factor
    state = load_file(tmp_path / "theirs" / "diffusion_pytorch_model.safetensors")
    assert describe_state(state) == "a tiny autoencoder, or half of one"
    told = tiny_config_of(state, "x")
    assert told.encoder_blocks == ours.config.encoder_blocks
    assert told.decoder_blocks == ours.config.decoder_blocks


@pytest.mark.parametrize("name", SHAPES)
def test_its_configuration_survives_the_way_there_and_back(name):
    theirs = json.loads(AutoencoderTiny(**SHAPES[name]).to_json_string())
    ours = tiny_config_from_diffusers(theirs)
    written = tiny_config_to_diffusers(ours)
    assert tiny_config_from_diffusers(written) == ours
    assert written.keys() >= {key for key in theirs if not key.startswith("_")}


def test_the_published_configuration_is_taesd():
    config = tiny_config_from_diffusers(PUBLISHED)
    with torch.device("meta"):
        ours, theirs = TinyAutoencoder(config), AutoencoderTiny.from_config(PUBLISHED)
    assert ours.factor == 8
    shapes = [{k: t.shape for k, t in net.state_dict().items()} for net in (ours, theirs)]
    assert shapes[0] == shapes[1]


@pytest.mark.parametrize(
    ("change", "named"),
    [
        ({"act_fn": "gelu"}, "act_fn"),
        ({"upsampling_scaling_factor": 4}, "upsampling_scaling_factor"),
        ({"decoder_block_out_channels": [64, 64, 64, 32]}, "all the same"),
        ({"num_encoder_blocks": [1, 3, 3]}, "one number for each level"),
        ({"block_out_channels": [8]}, "block_out_channels"),
        (
            {"num_encoder_blocks": [1, 3], "encoder_block_out_channels": [64, 64]},
            "do not go with 4 of decoder_blocks",
        ),
    ],
)
def test_a_part_that_is_not_built_is_named_in_one_line(change, named):
    with pytest.raises(SafelightError, match=named) as raised:
        tiny_config_from_diffusers(PUBLISHED | change)
    assert "\n" not in str(raised.value)


@pytest.mark.parametrize("form", ["halves", "prefixed", "module", "decoder"])
def test_the_original_layout_is_read(model, form, tmp_path):  # noqa: F811
    theirs = shaken(AutoencoderTiny(**TWO))
    encoder, decoder = _taesd(theirs)
    path = tmp_path / "coders"
    match form:
        case "halves":
            path.mkdir()
            torch.save(encoder, path / "a.pth")
            torch.save(decoder, path / "b.pth")
        case "decoder":
            torch.save(decoder, path)
        case "prefixed" | "module":
            mark = "taesd_" if form == "prefixed" else ""
            both = {f"{mark}encoder.{k}": t for k, t in encoder.items()}
            torch.save(both | {f"{mark}decoder.{k}": t for k, t in decoder.items()}, path)
    ours = with_autoencoder(read_folder(model), path).autoencoder
    z = torch.randn(1, 4, 4, 4)
    assert relative_error(ours.decode(z), theirs.decode(z).sample) < 2e-5
    pixels = torch.rand(1, 3, 8, 8) * 2 - 1
    if form == "decoder":
        with pytest.raises(SafelightError, match="a decoder alone"):
            ours.encode(pixels)
        with pytest.raises(SafelightError, match="a decoder alone"):
            write_autoencoder(tmp_path / "never", ours)
    else:
        assert relative_error(ours.encode(pixels), theirs.encode(pixels).latents) < 2e-5


def test_an_encoder_alone_is_told(model, tmp_path):  # noqa: F811
    encoder, _ = _taesd(AutoencoderTiny(**TWO))
    torch.save(encoder, tmp_path / "x")
    with pytest.raises(SafelightError, match="expected its decoder, or both"):
        with_autoencoder(read_folder(model), tmp_path / "x")


def test_a_picture_agrees_with_diffusers(parts, model, tmp_path):  # noqa: F811
    tiny = shaken(AutoencoderTiny(**TWO))
    theirs = _pipeline({**parts, "vae": tiny}, _scheduler())
    theirs.save_pretrained(tmp_path / "whole")
    saved(tiny, tmp_path / "tiny")
    wanted = np.round(_theirs(theirs)[0] * 255)
    write_folder(tmp_path / "again", read_folder(tmp_path / "whole"))
    for pipeline in (
        safelight.load(tmp_path / "whole", device="cpu"),
        safelight.load(tmp_path / "again", device="cpu"),
        safelight.load(model, device="cpu", vae=tmp_path / "tiny"),
    ):
        made = pipeline.generate(
            PROMPT, negative="grey mush", steps=STEPS, scale=4.0, seed=SEED, width=16, height=16
        )[0]
        assert np.abs(np.asarray(made.image, dtype=np.float32) - wanted).max() <= 1


def test_a_preview_of_the_last_step_is_what_diffusers_decodes(parts, model, tmp_path):  # noqa: F811
    tiny = shaken(AutoencoderTiny(**TWO))
    wanted = _theirs(_pipeline({**parts, "vae": tiny}, _scheduler()))[0]
    pipeline = safelight.load(model, device="cpu")
    preview = Previewer(pipeline.autoencoder_at(saved(tiny, tmp_path / "tiny")))
    shown = []
    options = {"steps": STEPS, "scale": 4.0, "seed": SEED, "width": 16, "height": 16}
    pipeline.generate(
        PROMPT, negative="grey mush", on_step=preview.showing(shown.append), **options
    )
    assert len(shown) == STEPS
    assert np.abs(np.asarray(shown[-1], dtype=np.float32) - wanted * 255).max() <= 1
    assert (np.asarray(shown[0]) != np.asarray(shown[-1])).any()
    with pytest.raises(SafelightError, match="takes latents of 4 channels, got 3"):
        preview(torch.zeros(1, 3, 4, 4))


def _scheduler():
    return DDIMScheduler(**BETAS, timestep_spacing="trailing", clip_sample=False)
