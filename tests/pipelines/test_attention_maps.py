"""Where words looked while a picture was made."""

from dataclasses import replace

import pytest
import torch

import safelight
from safelight.errors import SafelightError
from safelight.nn.watched_attention import attention_map, watched
from safelight.pipelines.attention import attention
from safelight.pipelines.attention_maps import AttentionMaps
from safelight.pipelines.condition_settings import ImagePrompt
from safelight.pipelines.guidance_settings import Guidance, Scales
from safelight.pipelines.request import Hires, Request
from tiny_model import SIZE, write_tiny_model

PROMPT = "a red cube and a blue ball"
REQUEST = Request(PROMPT, "two red apples", seed=5, steps=3, scale=3.0)


@pytest.fixture(scope="module")
def pipeline(model_folder):
    return safelight.load(model_folder, device="cpu")


def total(maps: AttentionMaps, layer: tuple[int, int]):
    return maps.tokens(layer).sum(0)


@pytest.mark.parametrize(
    "change",
    [
        {},
        {"scale": 1.0},
        {"sampler": "heun"},
        {"width": 40, "height": 24},
        {"hires": Hires(2.0, steps=2)},
        {"guidance": Guidance(perp_neg=1.0)},
        {"guidance": Guidance(pag_scale=2.0)},
        {"scale": None, "guidance": Guidance(scales=Scales((3.0, 1.0)), interval=(0.0, 5.0))},
        {"prompt_syntax": "plain"},
    ],
)
def test_the_picture_is_the_same_bits_and_maps_sum_to_one(pipeline, change):
    request = replace(REQUEST, **change)
    picture, maps = attention(pipeline, request)
    [wanted] = pipeline.each(request)
    assert picture.manifest == wanted.manifest
    assert len(maps.steps) == pipeline.settle(request).total_steps
    assert maps.size == (picture.image.height, picture.image.width)
    for step in maps.steps:
        assert step.layers
        for layer in step.layers.values():
            torch.testing.assert_close(layer.sum(0), torch.ones(layer.shape[1:]))
    assert [word.text for word in maps.words] == PROMPT.split()
    red = maps.of("red")
    assert red.shape == maps.size
    assert red.min() >= 0
    assert red.max() <= 1


def test_only_the_rows_under_the_prompt_are_recorded(pipeline, monkeypatch):
    """Guided, the first step's maps are those of the prompt alone at the same x."""
    one = replace(REQUEST, steps=1)
    _, guided = attention(pipeline, one)
    _, alone = attention(pipeline, replace(one, scale=1.0))
    for layer in alone.layers:
        torch.testing.assert_close(guided.tokens(layer), alone.tokens(layer))
    _, other = attention(pipeline, replace(one, prompt=REQUEST.negative, scale=1.0))
    assert not torch.allclose(other.tokens(alone.layers[0]), alone.tokens(alone.layers[0]))


def test_maps_are_the_softmax_of_the_u_nets_own_layers(pipeline):
    """Against the network called by hand at the first level, layer by layer."""
    request = replace(REQUEST, steps=1, scale=1.0)
    _, maps = attention(pipeline, request)
    model, settings = pipeline.model, pipeline.settle(request)
    scheduler = model.scheduler(settings)
    sigmas = scheduler.sigmas(1)
    x = torch.randn(1, 4, SIZE // 4, SIZE // 4, generator=torch.Generator().manual_seed(5))
    x = x * scheduler.initial_scale(sigmas)
    found: dict[int, list[torch.Tensor]] = {}

    def look(q, k, heads):
        found.setdefault(q.shape[1], []).append(attention_map(q, k, heads)[0])

    sigma = sigmas[:1]
    scalings = scheduler.parameterization()(sigma)
    with torch.inference_mode():
        cond = model.text([PROMPT])
        watched(model.folder.unet, look)(
            (scalings.c_in * x).float(), scheduler.schedule().sigma_to_t(sigma), cond
        )
    assert len(maps.layers) == len(found) == 2
    for height, width in maps.layers:
        mean = sum(found[height * width]) / len(found[height * width])
        assert maps.steps[0].counts[height, width] == len(found[height * width])
        wanted = mean.T.reshape(-1, height, width)
        torch.testing.assert_close(maps.tokens((height, width)), wanted)


def test_a_word_is_the_sum_of_its_tokens_and_all_layers_their_mean(pipeline):
    _, maps = attention(pipeline, REQUEST)
    apart = AttentionMaps(
        tuple(
            replace(maps.words[0], text=str(place), places=(place,))
            for place in range(maps.tokens(maps.layers[0]).shape[0])
        ),
        maps.steps,
        maps.size,
    )
    for options in ({}, {"step": 1}, {"layer": maps.layers[0]}):
        every = [apart.of(i, **options) for i in range(len(apart.words))]
        torch.testing.assert_close(sum(every), torch.ones(maps.size))
        joined = replace(maps, words=(replace(maps.words[0], text="both", places=(2, 3)),))
        torch.testing.assert_close(joined.of("both", **options), every[2] + every[3])
    counts = maps.steps[0].counts
    weighed = sum(counts[layer] * maps.of("red", layer=layer) for layer in maps.layers)
    torch.testing.assert_close(maps.of("red"), weighed / sum(counts.values()))
    steps = [maps.of("ball", step=step) for step in range(3)]
    torch.testing.assert_close(maps.of("ball"), sum(steps) / 3)
    assert not torch.allclose(steps[0], steps[2])


def test_a_prompt_of_several_chunks_has_all_its_words(pipeline):
    prompt = "a red cube " * 8
    _, maps = attention(pipeline, replace(REQUEST, prompt=prompt))
    assert [word.text for word in maps.words] == prompt.split()
    assert maps.tokens(maps.layers[0]).shape[0] == 2 * 16
    assert maps.words[-1].places > (16,)


def test_a_weaker_model_that_guides_is_not_recorded(model_folder, tmp_path):
    weaker = write_tiny_model(tmp_path / "weaker", 1)
    guided = safelight.load(model_folder, device="cpu", guide=weaker)
    request = replace(REQUEST, steps=1)
    _, maps = attention(guided, request)
    _, alone = attention(safelight.load(model_folder, device="cpu"), request)
    torch.testing.assert_close(maps.of("red"), alone.of("red"))


@pytest.mark.parametrize(
    ("change", "told"),
    [
        ({"prompt": "a red cube AND a ball"}, "leave AND"),
        ({"prompt": "a [red:blue:0.5] cube"}, "same in all steps"),
        ({"prompt": ""}, "no word"),
        ({"count": 2}, "several pictures"),
        ({"tiled_diffusion": True, "tile_size": 16}, "tiled diffusion"),
        ({"image_prompts": (ImagePrompt("apple.png"),)}, "image prompts"),
    ],
)
def test_what_cannot_be_watched_is_one_line(pipeline, change, told):
    with pytest.raises(SafelightError, match=told):
        attention(pipeline, replace(REQUEST, **change))
    assert pipeline.watch is None


def test_what_is_not_there_is_told(pipeline):
    _, maps = attention(pipeline, replace(REQUEST, steps=1))
    with pytest.raises(SafelightError, match=r"no word 'bal'.*ball"):
        maps.of("bal")
    with pytest.raises(SafelightError, match="7 words"):
        maps.of(7)
    with pytest.raises(SafelightError, match="1 steps"):
        maps.of("red", step=1)
    with pytest.raises(SafelightError, match="No layer"):
        maps.of("red", layer=(1, 1))
