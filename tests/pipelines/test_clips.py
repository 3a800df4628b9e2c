"""Clips by a tiny model: known frames, loops, windows, chunks and numbers."""

import copy
import json
from dataclasses import replace

import numpy as np
import pytest
import torch
from PIL import Image

from safelight.checkpoints.components import write_unet
from safelight.checkpoints.folder import DEFAULTS, Defaults, write_folder
from safelight.checkpoints.video_layers import write_video_layers
from safelight.config import to_dict
from safelight.errors import SafelightError
from safelight.models.video import TemporalConfig, inflate, new_parameters
from safelight.pictures import to_pixels
from safelight.pipelines.coding import encoded_surely
from safelight.pipelines.generated import to_image
from safelight.pipelines.load_video import load_video
from safelight.pipelines.video import VideoPipeline
from tiny_model import tiny_folder
from tiny_video import FRAMES, video_folder, write_video_model


@pytest.fixture(scope="module")
def pipeline() -> VideoPipeline:
    return VideoPipeline(video_folder(), "tiny", dtype=torch.float32, device="cpu")


@pytest.fixture
def picture() -> Image.Image:
    levels = np.random.default_rng(0).integers(0, 256, (4, 4, 3), dtype=np.uint8)
    return Image.fromarray(levels).resize((16, 16))


def pixels(clip) -> np.ndarray:
    return np.stack([np.array(frame, dtype=float) for frame in clip.frames])


def test_the_model_hears_of_each_thing_that_it_is_told(pipeline, picture):
    plain = pixels(pipeline.animate(prompt="a red cube"))
    assert plain.shape == (FRAMES, 16, 16, 3)
    for options in (
        {"image": picture},
        {"last": picture},
        {"motion": 200.0},
        {"fps": 30.0},
        {"negative": "a blue ball"},
        {"seed": 1},
        {"scale": 4.0},
        {"first_scale": 1.0},
    ):
        assert np.abs(pixels(pipeline.animate(prompt="a red cube", **options)) - plain).max() > 0
    assert np.array_equal(pixels(pipeline.animate(prompt="a red cube")), plain)


def test_a_known_last_frame_is_told_at_the_end(pipeline, picture):
    first = pixels(pipeline.animate(picture))
    last = pixels(pipeline.animate(last=picture))
    assert np.abs(first - last).max() > 0


@pytest.mark.parametrize("sampler", ["euler", "euler_a", "dpmpp_2m"])
@pytest.mark.parametrize("options", [{}, {"frames": 7}, {"low_memory": True}])
def test_known_frames_are_those_given_as_the_autoencoder_has_them(
    pipeline, picture, sampler, options
):
    other = picture.transpose(Image.Transpose.FLIP_LEFT_RIGHT)
    clip = pixels(pipeline.animate(picture, last=other, sampler=sampler, **options))
    vae = pipeline.folder.autoencoder
    for frame, given in ((clip[0], picture), (clip[-1], other)):
        with torch.inference_mode():
            seen = vae.decode(encoded_surely(vae, to_pixels(given)[None]))
        assert np.abs(frame - np.array(to_image(seen[0].clamp(-1, 1)), dtype=float)).max() <= 1


def with_temporal(pipeline: VideoPipeline, **changes) -> VideoPipeline:
    """The same model, of which its configuration says something else."""
    unet = copy.deepcopy(pipeline.folder.unet)
    unet.temporal = replace(unet.temporal, **changes)
    folder = replace(pipeline.folder, unet=unet)
    return VideoPipeline(folder, "tiny", dtype=torch.float32, device="cpu")


def test_guidance_leads_towards_the_numbers_of_a_model_that_knows_clips_without(pipeline):
    knowing = with_temporal(pipeline, null_numbers=True)

    def apart(model: VideoPipeline) -> float:  # both sides have the same prompt
        weak, strong = (pixels(model.animate(motion=255.0, scale=s)) for s in (1.5, 6.0))
        return float(np.abs(weak - strong).max())

    assert apart(pipeline) <= 1  # rounding
    assert apart(knowing) > 1


def test_noise_is_chained_as_the_model_was_trained(pipeline):
    chained = with_temporal(pipeline, noise_correlation=0.99)

    def changing(model: VideoPipeline) -> float:
        return float(np.abs(np.diff(pixels(model.animate(prompt="a red cube")), axis=0)).mean())

    assert changing(chained) < 0.5 * changing(pipeline)


def test_noise_is_the_more_alike_the_less_a_clip_is_asked_to_move(pipeline):
    chained = with_temporal(pipeline, noise_correlation=1.0, moving_correlation=0.5)

    def changing(motion: float) -> float:
        frames = pixels(chained.animate(prompt="a red cube", motion=motion))
        return float(np.abs(np.diff(frames, axis=0)).mean())

    still, little, much, most = (changing(motion) for motion in (0.0, 20.0, 250.0, 255.0))
    assert 1.2 * still < little
    assert 1.5 * little < much
    assert much == pytest.approx(most, rel=0.1)


def test_a_loop_is_closed_by_its_first_frame(pipeline, picture):
    loop = pipeline.animate(picture, loop=True)
    assert len(loop.frames) == FRAMES - 1
    ends = pipeline.animate(picture, last=picture)
    assert np.array_equal(pixels(loop), pixels(ends)[:-1])
    assert pipeline.animate(picture, loop=True, frames=6).manifest.settings.frames == 6


def test_progress_ends_at_the_total_and_counts_each_decoded_frame(pipeline):
    seen: list[tuple[int, int]] = []
    pipeline.animate(prompt="a red cube", decode=1, on_frames=lambda *told: seen.append(told))
    steps = 2
    total = FRAMES * (steps + 1)
    assert seen == [(FRAMES * (i + 1), total) for i in range(steps)] + [
        (FRAMES * steps + i + 1, total) for i in range(FRAMES)
    ]


def test_decoding_in_chunks_and_low_memory_change_nothing_but_rounding(pipeline, picture):
    whole = pixels(pipeline.animate(picture, decode=FRAMES))
    for options in ({"decode": 1}, {"low_memory": True}):
        assert np.abs(pixels(pipeline.animate(picture, **options)) - whole).max() <= 1


def test_a_folder_of_pictures_may_bring_its_video_unet(tmp_path, picture):
    folder = video_folder()
    write_folder(tmp_path, replace(tiny_folder(), defaults=folder.defaults))
    write_unet(tmp_path / "video", folder.unet)
    ours = load_video(tmp_path, device="cpu").animate(picture)
    whole = VideoPipeline(folder, "tiny", dtype=torch.float32, device="cpu").animate(picture)
    assert ours.manifest.pixels == whole.manifest.pixels


def test_a_folder_of_pictures_may_bring_the_layers_alone(tmp_path, picture):
    pictures = tiny_folder()
    video = inflate(pictures.unet, TemporalConfig(FRAMES, "placed", ("fps",)), number_dim=8)
    with torch.no_grad():
        for name in new_parameters(video):
            video.get_parameter(name).add_(torch.randn(video.get_parameter(name).shape) * 0.05)
    defaults = Defaults("euler", 2, 2.0, 16, 16, fps=5.0)
    write_folder(tmp_path, pictures)
    write_video_layers(tmp_path / "video", video, pictures.unet)
    (tmp_path / "video" / DEFAULTS).write_text(json.dumps(to_dict(defaults)))
    brought = load_video(tmp_path, device="cpu")
    assert brought.weights.keys() == {"unet", "vae", "text_encoder", "video"}
    whole = replace(pictures, unet=video.eval(), defaults=defaults)
    wanted = VideoPipeline(whole, "tiny", dtype=torch.float32, device="cpu").animate(picture)
    assert brought.animate(picture).manifest.pixels == wanted.manifest.pixels
    with pytest.raises(SafelightError, match="makes clips by itself"):
        load_video(write_video_model(tmp_path / "own"), motion_module="mm.ckpt", device="cpu")
