"""Guidance as a request asks for it: what goes together, what does nothing, what is refused."""

from dataclasses import replace

import pytest
import torch
from PIL import Image
from safetensors.torch import save_file

import safelight
from safelight.app.remaking import differences
from safelight.checkpoints.folder import write_folder
from safelight.errors import SafelightError
from safelight.models.unet import UNet
from safelight.pipelines.given import Given, give
from safelight.pipelines.guidance_settings import Guidance, Projection, Scales
from safelight.pipelines.manifest import Manifest
from safelight.pipelines.request import Request
from safelight.rng import SeededNoise
from tiny_model import tiny_folder, write_tiny_model

PROMPT, NEGATIVE = "a red cube", "a blue ball"
PLAIN = Request(PROMPT, NEGATIVE, steps=4)


@pytest.fixture(scope="module")
def pipeline(model_folder):
    return safelight.load(model_folder, device="cpu")


@pytest.fixture
def guided(model_folder, tmp_path):
    """The model, guided by another of its kind."""
    return safelight.load(model_folder, device="cpu", guide=write_tiny_model(tmp_path / "w", 1))


def _pixels(pipeline, request=PLAIN, **guidance):
    request = replace(request, guidance=replace(request.guidance, **guidance))
    settings = pipeline.settle(request)
    return pipeline.sample([PROMPT], [7], settings, negative=request.negative)


@pytest.mark.parametrize(
    "guidance",
    [
        {"scales": Scales((2.0, 1.5))},
        {"rescale": 0.7},
        {"interval": (0.0, 2.0)},
        {"pag_scale": 3.0},
        {"pag_scale": 3.0, "pag_layers": ("down_blocks.0",)},
        {"apg": Projection(eta=0.0)},
        {"apg": Projection(norm_threshold=0.1)},
        {"apg": Projection(momentum=-0.5)},
        {"perp_neg": 1.0},
    ],
)
def test_every_part_of_guidance_matters(pipeline, guidance):
    assert (_pixels(pipeline, **guidance) - _pixels(pipeline)).abs().max() > 1e-4


@pytest.mark.parametrize(
    ("guidance", "tolerance"),
    [
        ({"interval": (0.0, 1e9)}, 0),
        ({"scales": Scales((2.0, 2.0), linear=True)}, 0),  # 2 is the model's own
        ({"apg": Projection(eta=1.0, norm_threshold=1e9)}, 1e-4),
    ],
)
def test_guidance_that_changes_nothing(pipeline, guidance, tolerance):
    assert (_pixels(pipeline, **guidance) - _pixels(pipeline)).abs().max() <= tolerance


def test_scales_of_one_are_the_prompt_alone_at_their_steps(pipeline):
    none = _pixels(pipeline, replace(PLAIN, scale=1.0))
    assert not torch.equal(_pixels(pipeline, scales=Scales((2.0, 1.0))), none)
    late = _pixels(pipeline, scales=Scales((1.0, 2.0)))
    interval = pipeline.folder.scheduler.with_sampler("euler").sigmas(4)[2].item()
    assert torch.equal(late, _pixels(pipeline, interval=(0.0, interval * 1.001)))


def test_guidance_outside_of_its_interval_is_the_prompt_alone(pipeline):
    everything = {"interval": (1e8, 1e9), "pag_scale": 3.0, "rescale": 0.7}
    assert torch.equal(
        _pixels(pipeline, **everything), _pixels(pipeline, replace(PLAIN, scale=1.0))
    )


def test_a_weaker_model_leads_away_and_the_model_itself_does_not(guided, pipeline, model_folder):
    plain = _pixels(pipeline)
    assert (_pixels(guided) - plain).abs().max() > 1e-4
    assert not torch.equal(_pixels(guided, guide_scale=3.0), _pixels(guided))
    assert torch.equal(_pixels(guided, guide_scale=1.0), plain)
    itself = safelight.load(model_folder, device="cpu", guide=model_folder)
    for request in (PLAIN, replace(PLAIN, scale=1.0)):
        assert (_pixels(itself, request) - _pixels(pipeline, request)).abs().max() < 1e-4


def test_a_guide_knows_the_words_that_the_model_is_taught(guided, tmp_path):
    save_file({"emb_params": torch.randn(1, 32)}, tmp_path / "snail.safetensors")
    guided.embed(tmp_path / "snail.safetensors")
    assert [word.token for word in guided.guide.pipeline.embeddings] == ["snail"]


def test_a_guide_of_another_kind_is_refused(model_folder, tmp_path):
    folder = tiny_folder()
    wide = UNet(replace(folder.unet.config, in_channels=9)).eval()
    write_folder(tmp_path / "wide", replace(folder, unet=wide))
    with pytest.raises(SafelightError, match="take other channels \\(9 and 4\\); give an earlier"):
        safelight.load(model_folder, device="cpu", guide=tmp_path / "wide")


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"rescale": 1.1}, "guidance_rescale should lie from 0 to 1, got 1.1"),
        ({"interval": (3.0, 1.0)}, "guidance_interval should be two noise levels .* got 3,1"),
        ({"interval": (float("nan"), 1.0)}, "guidance_interval should be"),
        ({"pag_scale": -1.0}, "pag_scale should be a finite number from 0 up"),
        ({"pag_scale": 3.0, "pag_layers": ("mid(",)}, "'mid\\(' is no pattern"),
        ({"pag_scale": 3.0, "pag_layers": ()}, "there is one or more"),
        ({"pag_scale": 3.0, "pag_layers": ("x",)}, "'x' is found in no path .* in down_blocks.0, "),
        ({"pag_layers": ("up",)}, "pag_layers go with a pag_scale above 0"),
        ({"apg": Projection(eta=float("inf"))}, "apg_eta should be a finite number"),
        ({"apg": Projection(norm_threshold=-1.0)}, "apg_norm_threshold should be"),
        ({"apg": Projection(momentum=1.0)}, "apg_momentum should lie between -1 and 1"),
        ({"apg": Projection(eta=0.0), "perp_neg": 1.0}, "take one of them"),
        ({"perp_neg": -1.0}, "perp_neg should be a finite number from 0 up"),
        ({"guide_scale": 0.5}, "guide_scale should be a finite number from 1 up"),
        ({"guide_scale": 2.0}, "give a guide too"),
        ({"scales": Scales((1.0, -2.0))}, "Each scale should be a finite number from 0 up"),
        ({"scales": Scales((5.0,) * 5)}, "5 scales are more than 4 steps"),
    ],
)
def test_guidance_that_cannot_be_is_refused(pipeline, change, message):
    with pytest.raises(SafelightError, match=message):
        pipeline.settle(replace(PLAIN, guidance=Guidance(**change)))


@pytest.mark.parametrize(
    ("change", "guidance", "message"),
    [
        ({"scale": 1.0}, {"rescale": 0.7}, "guidance_rescale goes with .* take a scale above 1"),
        ({"scale": 0.0}, {"interval": (0.0, 1.0)}, "guidance_interval goes with guidance"),
        ({"scale": 1.0}, {"apg": Projection(eta=0.0)}, "apg is a form of classifier-free guidance"),
        ({"scale": 1.0}, {"perp_neg": 1.0}, "perp_neg is a form of classifier-free guidance"),
        ({"negative": ""}, {"perp_neg": 1.0}, "perp_neg is of the negative prompt; give one"),
        ({"scale": 3.0}, {"scales": Scales((3.0,))}, "give one or the other"),
    ],
)
def test_guidance_that_would_do_nothing_is_refused(pipeline, change, guidance, message):
    with pytest.raises(SafelightError, match=message):
        pipeline.settle(replace(PLAIN, **change, guidance=Guidance(**guidance)))


@pytest.mark.parametrize("guidance", [{"rescale": 0.7}, {"interval": (0.0, 1.0)}])
def test_perturbed_attention_is_guidance_without_a_scale(pipeline, guidance):
    pipeline.settle(replace(PLAIN, scale=1.0, guidance=Guidance(pag_scale=3.0, **guidance)))


@pytest.mark.parametrize(
    ("guidance", "message"),
    [
        (Guidance(scales=Scales((7.0, 3.0))), "told one scale for all steps"),
        (Guidance(rescale=0.7), "there is none; take another model"),
        (Guidance(apg=Projection(eta=0.0)), "there is none; take another model"),
    ],
)
def test_a_model_that_is_told_its_scale_has_no_other_guidance_of_it(tmp_path, guidance, message):
    folder = tiny_folder()
    told = UNet(replace(folder.unet.config, guidance_dim=16)).eval()
    write_folder(tmp_path, replace(folder, unet=told))
    pipeline = safelight.load(tmp_path, device="cpu")
    with pytest.raises(SafelightError, match=message):
        pipeline.settle(replace(PLAIN, guidance=guidance))
    assert (_pixels(pipeline, pag_scale=3.0) - _pixels(pipeline)).abs().max() > 1e-4


def test_an_editing_model_has_what_is_published_for_it(tmp_path):
    folder = tiny_folder()
    unet = UNet(replace(folder.unet.config, in_channels=8)).eval()
    write_folder(tmp_path, replace(folder, unet=unet))
    pipeline = safelight.load(tmp_path, device="cpu")
    request = replace(PLAIN, given=Given(give("image", Image.new("RGB", (32, 32), "red"))))

    def made(guidance):
        settings = pipeline.settle(replace(request, guidance=guidance))
        return pipeline.sample([PROMPT], [7], settings, given=request.given)

    with pytest.raises(SafelightError, match="apg is not for models that edit by instruction"):
        made(Guidance(apg=Projection(eta=0.0)))
    plain = made(Guidance())
    assert (made(Guidance(rescale=0.7)) - plain).abs().max() > 1e-4
    assert torch.equal(made(Guidance(scales=Scales((2.0,)))), plain)


@pytest.mark.parametrize(
    ("text", "steps", "over"),
    [
        ("7,7,5,3", 4, (7, 7, 5, 3)),
        ("6,2", 5, (6, 6, 6, 2, 2)),
        ("7:1", 4, (7, 5, 3, 1)),
        ("1:5:1", 5, (1, 3, 5, 3, 1)),
        ("4:1", 1, (4,)),
    ],
)
def test_scales_are_spread_over_the_steps(text, steps, over):
    assert Scales.of(text).over(steps) == pytest.approx(over)


@pytest.mark.parametrize("text", ["", "x", "7,", "7:x", "7,5:3", "7,nan", "7,-1"])
def test_what_are_no_scales_is_refused(text):
    with pytest.raises(SafelightError, match="scale should be"):
        Scales.of(text)


def test_a_manifest_keeps_guidance_and_the_guide(guided):
    guidance = Guidance(
        Scales((3.0, 1.0), linear=True), 0.5, (0.1, 9.0), 2.0, ("up",), Projection(0.0, 3.0, -0.5)
    )
    [made] = guided.each(replace(PLAIN, guidance=guidance))
    manifest = Manifest.from_json(made.manifest.to_json(), "x")
    assert manifest == made.manifest
    assert (manifest.guidance, manifest.scale) == (replace(guidance, guide_scale=2.0), 3.0)
    assert manifest.guide is not None
    assert manifest.guide.weights == dict(guided.guide.pipeline.weights) != manifest.weights


def test_a_guide_beside_a_refiner_is_refused(model_folder, guided):
    guided.refine_by(safelight.load(model_folder, device="cpu"), 0.5)
    with pytest.raises(SafelightError, match="take one of the two"):
        guided.settle(PLAIN)


def test_another_guide_is_among_the_causes_of_other_pixels(guided):
    [made] = guided.each(PLAIN)
    guide = replace(made.manifest.guide, weights={"unet": "0" * 64})
    told = differences(replace(made.manifest, guide=guide), made.manifest)
    assert any(cause.startswith("the guide's weights of unet 000000000000 -> ") for cause in told)


@pytest.mark.parametrize("sampler", ["dpmpp_sde", "euler_a"])
def test_a_refiner_draws_on_from_where_the_base_stopped(model_folder, monkeypatch, sampler):
    pipeline = safelight.load(model_folder, device="cpu")
    pipeline.refine_by(safelight.load(model_folder, device="cpu"), 0.5)
    drawn = []
    draw = SeededNoise.__call__

    def noted(self, shape, index):
        drawn.append(index)
        return draw(self, shape, index)

    monkeypatch.setattr(SeededNoise, "__call__", noted)
    _pixels(pipeline, replace(PLAIN, steps=8, sampler=sampler))
    assert len(drawn) == len(set(drawn)) > 8 - (sampler == "euler_a")
