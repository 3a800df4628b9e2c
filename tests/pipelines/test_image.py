import dataclasses

import numpy as np
import pytest
import torch
from PIL import Image

import safelight
from safelight.checkpoints.folder import write_folder
from safelight.errors import SafelightError
from safelight.models.unet import UNet
from safelight.pipelines.generated import to_image
from safelight.pipelines.manifest import pixel_digest
from safelight.pipelines.picture_files import read_manifest
from safelight.pipelines.provenance import configuration_hashes, library_versions
from safelight.pipelines.request import Request
from tiny_model import FACTOR, LENGTH, SIZE, tiny_folder, write_tiny_model

PROMPT = "a red cube"


@pytest.fixture(scope="module")
def pipeline(model_folder):
    return safelight.load(model_folder, device="cpu")


def test_picture_i_of_several_is_that_of_its_own_seed_bit_for_bit(pipeline):
    together = pipeline.generate(PROMPT, seed=5, count=3)
    for place, picture in enumerate(together):
        [alone] = pipeline.generate(PROMPT, seed=5 + place)
        assert alone.image.tobytes() == picture.image.tobytes()
        assert picture.manifest.seed == 5 + place
        assert (picture.manifest.place, picture.manifest.count) == (place, 3)
    assert len({picture.image.tobytes() for picture in together}) == 3


@pytest.mark.parametrize("sampler", ["euler", "euler_a", "ddim", "heun", "dpmpp_2m", "plms"])
def test_a_batch_changes_no_more_than_rounding_whatever_the_place(pipeline, sampler):
    settings = pipeline.settle(Request("", steps=4, sampler=sampler))
    prompts, seeds = [PROMPT, "a blue ball", "two red apples"], [3, 9, 3]
    batch = pipeline.sample(prompts, seeds, settings)
    for i, (prompt, seed) in enumerate(zip(prompts, seeds, strict=True)):
        alone = pipeline.sample([prompt], [seed], settings)
        torch.testing.assert_close(batch[i : i + 1], alone, atol=2e-5, rtol=0)


def test_the_same_request_gives_the_same_bits_in_a_new_pipeline(pipeline, model_folder):
    again = safelight.load(str(model_folder), device="cpu")
    for sampler in ("euler_a", "dpmpp_2m"):
        [one], [two] = (p.generate(PROMPT, sampler=sampler, seed=1) for p in (pipeline, again))
        assert one.manifest.pixels == two.manifest.pixels


@pytest.mark.parametrize(
    "change",
    [
        {"seed": 1},
        {"prompt": "a blue ball"},
        {"negative": "two red apples"},
        {"scale": 5.0},
        {"scale": 1.0},
        {"steps": 4},
        {"sampler": "heun"},
        {"sampler": "Euler Karras"},
        {"schedule": "beta"},
        {"sigmas": (14.6, 3.0, 0.5, 0.0)},
        {"width": SIZE + FACTOR},
        {"clip_skip": 2},
        {"rng": "a1111-gpu"},
        {"subseed": 1, "subseed_strength": 0.1},
        {"prompt": "a (red) cube"},
        {"prompt": "a red cube BREAK cube"},
        {"prompt": "a red [cube:ball:1]"},
        {"prompt": "a red [cube|ball]"},
        {"prompt": "a red cube AND a ball:0.5"},
        {"negative": "(cube:1.2)"},
    ],
)
def test_every_part_of_a_request_matters(pipeline, change):
    [plain] = pipeline.each(Request(PROMPT))
    [changed] = pipeline.each(dataclasses.replace(Request(PROMPT), **change))
    assert plain.image.tobytes() != changed.image.tobytes()


def test_the_models_defaults_fill_the_gaps(pipeline):
    settings = pipeline.settle(Request(PROMPT))
    assert (settings.steps, settings.scale, settings.sampler) == (3, 2.0, "euler")
    assert (settings.width, settings.height) == (SIZE, SIZE)
    assert pipeline.settle(Request(PROMPT, scale=0.0)).scale == 0.0


def test_levels_are_asked_for_by_schedule_by_the_samplers_name_or_by_themselves(pipeline):
    def levels(**request):
        settings = pipeline.settle(Request(PROMPT, **request))
        return settings.sampler, settings.schedule, settings.sigmas, settings.steps

    assert levels() == ("euler", None, None, 3)
    assert levels(sampler="DPM++ 2M", schedule="Karras") == ("dpmpp_2m", "karras", None, 3)
    assert levels(sampler="DPM++ 2M Karras") == ("dpmpp_2m", "karras", None, 3)
    assert levels(sampler="DPM++ 2M", schedule="Automatic") == ("dpmpp_2m", None, None, 3)
    assert levels(schedule="Align Your Steps") == ("euler", "ays", None, 3)
    assert levels(sigmas=(9.0, 1.0, 0.0)) == ("euler", None, (9.0, 1.0, 0.0), 2)


def test_without_defaults_they_are_those_of_diffusers(tmp_path):
    write_folder(tmp_path / "m", tiny_folder())
    (tmp_path / "m" / "safelight.json").unlink()
    settings = safelight.load(tmp_path / "m", device="cpu").settle(Request(PROMPT))
    assert (settings.steps, settings.scale, settings.sampler) == (50, 7.5, "ddim")
    assert (settings.width, settings.height) == (SIZE, SIZE)


def test_sizes_are_what_was_asked_for(pipeline):
    [picture] = pipeline.generate(PROMPT, width=SIZE + FACTOR, height=3 * FACTOR, steps=2)
    assert picture.image.size == (SIZE + FACTOR, 3 * FACTOR)
    assert (picture.manifest.width, picture.manifest.height) == (SIZE + FACTOR, 3 * FACTOR)


def test_each_gives_a_picture_before_the_next_is_begun(pipeline):
    steps: list[int] = []
    pictures = pipeline.each(
        Request(PROMPT, count=2, steps=4), lambda step, sigma, x, denoised: steps.append(step)
    )
    next(pictures)
    assert steps == [0, 1, 2, 3]
    next(pictures)
    assert steps == [0, 1, 2, 3] * 2


def test_the_manifest_in_the_file_makes_the_picture_again(pipeline, model_folder, tmp_path):
    [picture] = pipeline.generate(PROMPT, seed=4, negative="mush", steps=2, scale=3.0)
    picture.save(tmp_path / "x.png")
    manifest = read_manifest(tmp_path / "x.png")
    assert manifest == picture.manifest
    assert manifest.pixels == pixel_digest(picture.image)
    assert manifest.model == str(model_folder)
    assert manifest.weights.keys() == {"unet", "vae", "text_encoder"}
    assert manifest.versions == library_versions()
    assert manifest.configuration == configuration_hashes(pipeline.folder)
    assert "scheduler/scheduler_config.json" in manifest.configuration
    assert (manifest.precision, manifest.device) == ("float32", "cpu")
    assert manifest.threads == torch.get_num_threads()


def test_other_weights_have_another_hash(pipeline, tmp_path):
    other = safelight.load(write_tiny_model(tmp_path / "other", seed=1), device="cpu")
    for name, digest in pipeline.weights.items():
        assert other.weights[name] != digest


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"sampler": "eulr"}, "Unknown sampler 'eulr'. Did you mean 'euler'"),
        ({"width": 33}, "width should be a multiple of 4 for this model, got 33; nearest: 32 and"),
        ({"height": 2}, "nearest: 4"),
        ({"steps": 0}, "steps should be 1 or more"),
        ({"steps": 1001}, "Expected 1 to 1000 steps, got 1001"),
        ({"schedule": "karas"}, "Unknown schedule 'karas'. Did you mean 'karras'"),
        ({"sampler": "Heun Karras", "schedule": "beta"}, "names the schedule karras, and beta is"),
        ({"sampler": "lcm", "schedule": "trailing"}, "trailing is for samplers on a table"),
        ({"sigmas": (1.0, 2.0)}, "sigmas should be two or more numbers that fall"),
        ({"sigmas": (2.0, 0.0), "steps": 3}, "2 sigmas make 1 steps, not 3"),
        ({"sigmas": (2.0, 0.0), "schedule": "beta"}, "a schedule or sigmas, not both"),
        ({"seed": 2**64}, "seed should lie between"),
        ({"clip_skip": 0}, "clip_skip should lie between 1 and 2 here, got 0"),
        ({"clip_skip": 3}, "clip_skip should lie between 1 and 2 here, got 3"),
        ({"subseed_strength": 1.5}, "subseed_strength should lie between 0 and 1"),
        ({"subseed": 2**64 - 1, "subseed_strength": 0.5, "count": 2}, "subseed should lie between"),
    ],
)
def test_mistakes_are_told_before_anything_is_made(pipeline, change, message):
    with pytest.raises(SafelightError, match=message):
        pipeline.each(dataclasses.replace(Request(PROMPT), **change))


def test_running_out_of_memory_is_one_line(pipeline):
    with pytest.raises(SafelightError, match="width should be 32768 pixels at most, got 4000000"):
        pipeline.generate(PROMPT, width=4_000_000, height=4_000_000)
    settings = dataclasses.replace(
        pipeline.settle(Request(PROMPT)), width=4_000_000, height=4_000_000
    )
    with pytest.raises(SafelightError, match="Not enough memory for 4000000 x 4000000 pixels"):
        pipeline.sample([PROMPT], [0], settings)


def test_what_a_long_prompt_loses(pipeline):
    assert pipeline.unread(PROMPT) == ""
    short = " ".join(["cube"] * (LENGTH - 2))
    assert pipeline.unread(short) == ""
    assert pipeline.unread(f"{short} ball apple") == "ball apple"
    assert pipeline.unread(f"{short} ball apple", "a1111") == ""  # it is read in chunks


@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16])
@pytest.mark.parametrize(
    ("part", "given", "message"),
    [
        ("unet.conv_out", False, "latents came out as not-a-number by the U-Net"),
        ("autoencoder.decoder.conv_out", False, "not-a-number by the autoencoder"),
        ("autoencoder.encoder.conv_out", True, "not-a-number by the autoencoder"),
    ],
)
def test_what_is_not_a_number_is_refused_by_the_network_that_made_it(
    part, given, message, dtype, tmp_path
):
    folder = tiny_folder()
    network, name = part.split(".", 1)
    torch.nn.init.constant_(getattr(folder, network).get_submodule(name).bias, float("nan"))
    write_folder(tmp_path / "nan", folder)
    pipeline = safelight.load(tmp_path / "nan", device="cpu", dtype=dtype)
    image = Image.new("RGB", (SIZE, SIZE)) if given else None
    with pytest.raises(SafelightError, match=message):
        pipeline.generate(PROMPT, image=image)


def test_a_model_that_takes_what_is_not_known_is_refused(tmp_path):
    folder = tiny_folder()
    config = dataclasses.replace(folder.unet.config, in_channels=11)
    strange = dataclasses.replace(folder, unet=UNet(config))
    write_folder(tmp_path / "strange", strange)
    with pytest.raises(SafelightError, match="takes 11 channels"):
        safelight.load(tmp_path / "strange", device="cpu")


def test_an_unknown_device_is_refused(model_folder):
    with pytest.raises(SafelightError, match="no device 'tpu'; it has cpu"):
        safelight.load(model_folder, device="tpu")


def test_low_precision_is_near(pipeline, model_folder):
    low = safelight.load(model_folder, dtype=torch.bfloat16, device="cpu")
    [near], [plain] = (p.generate(PROMPT, seed=2) for p in (low, pipeline))
    assert near.manifest.precision == "bfloat16"
    difference = np.abs(np.asarray(near.image, float) - np.asarray(plain.image, float))
    assert 0 < difference.mean() < 8


def test_pixels_become_the_nearest_level():
    pixels = torch.tensor([-1.5, -1.0, -1 + 0.4 / 127.5, -1 + 0.6 / 127.5, 0.0, 1.0, 2.0])
    image = to_image(pixels.reshape(1, 1, -1).expand(3, 1, -1))
    assert np.asarray(image)[0, :, 0].tolist() == [0, 0, 0, 1, 128, 255, 255]
