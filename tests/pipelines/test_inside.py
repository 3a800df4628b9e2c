"""What happens while a picture is made."""

import numpy as np
import pytest
import torch

import safelight
from safelight.errors import SafelightError
from safelight.pipelines.generated import to_image
from safelight.pipelines.inside import look_inside
from safelight.pipelines.latent_colours import latent_colours
from safelight.pipelines.previews import Previewer
from safelight.pipelines.request import Hires, Request


@pytest.fixture(scope="module")
def pipeline(model_folder):
    return safelight.load(model_folder, device="cpu")


def test_steps_are_those_of_the_sampler_and_the_picture_the_same_bits(pipeline):
    request = Request("a red cube", seed=3, steps=7)
    previewer = Previewer(pipeline.folder.autoencoder)
    told = []
    seen = look_inside(pipeline, request, 3, previewer, lambda *step: told.append(step))
    [wanted] = pipeline.each(request)
    assert seen.picture.manifest == wanted.manifest
    assert [one.step for one in seen.steps] == [0, 3, 6]
    assert len(told) == len(seen.maps.steps) == 7
    for one in seen.steps:
        _, sigma, _, denoised = told[one.step]
        assert one.sigma == sigma == seen.maps.steps[one.step].sigma
        assert one.picture.tobytes() == previewer(denoised)[0].tobytes()
        assert one.latent.size == one.denoised.size == (8, 8)
    last = seen.steps[-1]  # where the noise is gone, x is what was expected
    assert last.latent.tobytes() == last.denoised.tobytes()
    assert last.picture.tobytes() == seen.picture.image.tobytes()
    assert seen.steps[0].latent.tobytes() != seen.steps[0].denoised.tobytes()


def test_a_second_pass_is_seen_too(pipeline):
    request = Request("a red cube", seed=3, steps=2, hires=Hires(2.0, steps=3, strength=1.0))
    seen = look_inside(pipeline, request, 50, Previewer(pipeline.folder.autoencoder))
    assert [one.picture.width for one in seen.steps] == [32] * 2 + [64] * 3
    assert [one.latent.width for one in seen.steps] == [8] * 2 + [16] * 3


@pytest.mark.parametrize(
    ("most", "steps"), [(1, [3]), (2, [0, 3]), (3, [0, 2, 3]), (9, [0, 1, 2, 3])]
)
def test_as_many_steps_as_are_asked_for_with_the_last_among_them(pipeline, most, steps):
    request = Request("a red cube", seed=3, steps=4)
    seen = look_inside(pipeline, request, most, Previewer(pipeline.folder.autoencoder))
    assert [one.step for one in seen.steps] == steps


def test_no_step_at_all_is_one_line(pipeline):
    request = Request("a red cube", seed=3, steps=4)
    with pytest.raises(SafelightError, match="1 or more"):
        look_inside(pipeline, request, 0, Previewer(pipeline.folder.autoencoder))


def test_colours_are_the_linear_map_that_made_them():
    generator = torch.Generator().manual_seed(0)
    z = torch.randn(4, 8, 6, generator=generator)
    weights = torch.randn(4, 3, generator=generator) / 10
    offset = torch.tensor([0.1, 0.0, -0.2])[:, None, None]
    colours = torch.einsum("chw,ck->khw", z, weights) + offset
    pixels = colours.repeat_interleave(4, 1).repeat_interleave(4, 2)
    found = latent_colours([z], [pixels])
    torch.testing.assert_close(found.weights[:4], weights)
    shown = np.asarray(found(z / 2)).astype(int)
    wanted = np.asarray(to_image((colours - offset) / 2 + offset)).astype(int)
    assert np.abs(shown - wanted).max() <= 1
    noisy = np.asarray(found(z * 50)).astype(int)  # is shown at the size of a picture's
    assert np.abs(noisy - np.asarray(found(z / z.std())).astype(int)).max() <= 1
