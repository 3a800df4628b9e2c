"""What the syntax of prompts, sub-seeds and sources of noise make of pictures."""

import dataclasses

import pytest
import torch

import safelight
from safelight.errors import SafelightError
from safelight.pipelines.request import Request
from safelight.pipelines.saying import sayings
from tiny_model import LENGTH

PROMPT, OTHER = "a red cube", "a blue ball"
LONG = " ".join(["cube"] * LENGTH)


@pytest.fixture(scope="module")
def pipeline(model_folder):
    return safelight.load(model_folder, device="cpu")


def pixels(pipeline, prompts, **options):
    """Made in one batch, one seed for all."""
    settings = pipeline.settle(Request("", **{"steps": 4, "scale": 3.0} | options))
    return pipeline.sample(prompts, [5] * len(prompts), settings)


def test_a_prompt_without_marks_is_the_same_picture_by_both_syntaxes(pipeline):
    request = Request(PROMPT, negative="mush", steps=2)
    [read], [plain] = (
        list(pipeline.each(dataclasses.replace(request, prompt_syntax=syntax)))
        for syntax in ("a1111", "plain")
    )
    assert read.image.tobytes() == plain.image.tobytes()
    assert read.manifest == dataclasses.replace(plain.manifest, prompt_syntax="a1111")


def test_a_plain_prompt_is_text_and_is_cut(pipeline):
    plain = pixels(pipeline, ["a (red) cube", LONG, f"{LONG} ball"], prompt_syntax="plain")
    read = pixels(pipeline, [r"a \(red\) cube", LONG, f"{LONG} ball"])
    assert torch.equal(plain[1], plain[2])
    assert not torch.allclose(read[1], read[2], atol=1e-3)
    [escaped] = pixels(pipeline, [r"a \(red\) cube"])
    torch.testing.assert_close(escaped, plain[0], atol=1e-4, rtol=0)


def test_a_schedule_is_its_texts_in_their_steps(pipeline):
    never, always, first = pixels(
        pipeline, [f"[{PROMPT}:{OTHER}:0]", f"[{PROMPT}:{OTHER}:1.0]", f"[{PROMPT}:{OTHER}:2]"]
    )
    one, other = pixels(pipeline, [PROMPT, OTHER])
    torch.testing.assert_close(never, other, atol=1e-4, rtol=0)
    torch.testing.assert_close(always, one, atol=1e-4, rtol=0)
    assert not torch.allclose(first, one, atol=1e-2)
    assert not torch.allclose(first, other, atol=1e-2)


@pytest.mark.parametrize("scale", [1.0, 3.0])
def test_and_adds_the_guidance_of_its_parts(pipeline, scale):
    # Whatever the other rows of the batch ask for.
    both, alone = pixels(pipeline, [f"{PROMPT} AND {PROMPT}:0.5", OTHER], scale=scale)
    [wanted] = pixels(pipeline, [PROMPT], scale=1.5 * scale)
    torch.testing.assert_close(both, wanted, atol=1e-3, rtol=0)
    [other] = pixels(pipeline, [OTHER], scale=scale)
    torch.testing.assert_close(alone, other, atol=1e-3, rtol=0)


def test_the_negative_prompt_is_as_long_as_the_prompt(pipeline):
    for negative in ("", "mush", f"{LONG} BREAK a"):
        [one], [two] = (
            pipeline.generate(prompt, negative=negative, steps=2) for prompt in (PROMPT, LONG)
        )
        assert one.manifest.pixels != two.manifest.pixels


def test_what_is_said_step_by_step():
    said = sayings(["[a|b] AND c:2", "d"], "[e:1]", 3, "a1111")
    assert [step.parts[0][0][0][0].text.strip() for step in said] == ["a", "b", "a"]
    assert [step.negative[0][:1] == () for step in said] == [True, False, False]
    assert said[0].weights == ((1.0, 1.0), (2.0, 0.0))
    plain = sayings(["[a|b] AND c:2"], "", 3, "plain")
    assert len(set(plain)) == 1
    assert plain[0].parts[0][0][0][0].text == "[a|b] AND c:2"


@pytest.mark.parametrize("rng", ["cpu", "a1111-gpu"])
def test_a_sub_seed_varies_the_first_noise(pipeline, rng):
    one, near, far, other = (
        pipeline.generate(PROMPT, seed=seed, rng=rng, steps=2, **options)[0]
        for seed, options in [
            (3, {}),
            (3, {"subseed": 8, "subseed_strength": 0.05}),
            (3, {"subseed": 8, "subseed_strength": 1.0}),
            (8, {}),
        ]
    )
    distance = [
        (to_tensor(picture) - to_tensor(one)).abs().mean() for picture in (near, far, other)
    ]
    assert 0 < distance[0] < distance[1]
    assert (to_tensor(far) - to_tensor(other)).abs().max() <= 1


def test_variations_of_one_seed_count_their_sub_seeds(pipeline):
    options = {"seed": 3, "steps": 2, "subseed_strength": 0.3}
    several = pipeline.generate(PROMPT, subseed=8, count=2, **options)
    [second] = pipeline.generate(PROMPT, subseed=9, **options)
    assert [(p.manifest.seed, p.manifest.subseed) for p in several] == [(3, 8), (3, 9)]
    assert several[1].manifest.pixels == second.manifest.pixels != several[0].manifest.pixels


def test_and_is_refused_where_a_model_edits(pipeline, monkeypatch):
    edits = dataclasses.replace(pipeline.kind, beside="image")
    monkeypatch.setattr(pipeline, "kind", edits)
    monkeypatch.setattr(type(edits), "check", lambda *_: None)
    with pytest.raises(SafelightError, match="AND does not go with"):
        pipeline.settle(Request("make it red AND make it blue"))
    pipeline.settle(Request("make it red AND make it blue", prompt_syntax="plain"))


def to_tensor(picture):
    return torch.tensor(list(picture.image.tobytes()), dtype=torch.float32)
