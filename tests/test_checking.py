"""Mistakes in what is handed over are found, with shapes and without."""

import pytest
import torch
from beartype.roar import BeartypeCallHintViolation
from jaxtyping import TypeCheckError

from safelight.checkpoints.schedulers import SchedulerConfig
from safelight.diffusion.guidance import cfg
from safelight.pictures import stack_pixels, to_image, to_pixels
from safelight.pipelines.request import Hires, first_step


def test_without_shapes():
    for mistake in (
        lambda: first_step("20", None),  # pyright: ignore
        lambda: to_pixels(torch.zeros(3, 4, 4)),  # pyright: ignore
        lambda: Hires("2"),  # pyright: ignore
        lambda: SchedulerConfig().sigmas("20"),  # pyright: ignore
    ):
        with pytest.raises((BeartypeCallHintViolation, TypeCheckError)):
            mistake()


def test_with_shapes():
    def denoise(x, sigma, cond):
        return x

    for mistake in (
        lambda: to_image(torch.zeros(4, 4)),
        lambda: stack_pixels([torch.zeros(4, 4, 3)]),  # pyright: ignore
        lambda: to_image(torch.zeros(4, 4, 4)),
        lambda: cfg(denoise, None, None, 2.0)("x", None),  # pyright: ignore
    ):
        with pytest.raises((BeartypeCallHintViolation, TypeCheckError)):
            mistake()
