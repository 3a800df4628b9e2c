"""Philox, and the normal numbers that CUDA makes of it."""

import numpy as np
import pytest
import torch

from safelight.philox import GpuDraws, philox
from safelight.rng import SeededNoise, spherical


@pytest.mark.parametrize(
    ("counter", "key", "words"),
    [
        ([0] * 4, [0] * 2, [0x6627E8D5, 0xE169C58D, 0xBC57AC4C, 0x9B00DBD8]),
        ([2**32 - 1] * 4, [2**32 - 1] * 2, [0x408F276D, 0x41C83B0E, 0xA20BC7C6, 0x6D5451FD]),
        (
            [0x243F6A88, 0x85A308D3, 0x13198A2E, 0x03707344],
            [0xA4093822, 0x299F31D0],
            [0xD16CFE09, 0x94FDCCEB, 0x5001E420, 0x24126EA1],
        ),
    ],
)
def test_the_words_are_those_that_are_published(counter, key, words):
    # Random123's known answers for philox4x32 of 10 rounds.
    counters = np.array(counter, dtype=np.uint64)[:, None]
    assert philox(counters, (key[0], key[1]))[:, 0].tolist() == words


def test_the_numbers_are_those_of_a_gpu():
    # What AUTOMATIC1111 documents of torch.randn((3, 4), device="cuda") after the seed 0.
    wanted = torch.tensor(
        [
            [-0.92466259, -0.42534415, -2.6438457, 0.14518388],
            [-0.12086647, -0.57972564, -0.62285122, -0.32838709],
            [-1.07454231, -0.36314407, -1.67105067, 2.26550497],
        ]
    )
    torch.testing.assert_close(GpuDraws(0)((3, 4)), wanted, atol=3e-7, rtol=0)


def test_draws_and_seeds_are_unrelated_and_normal():
    noise = SeededNoise([0, 1, 2**32, -1], draws=GpuDraws)
    rows = torch.cat([noise((4, 2, 32, 32), index) for index in (0, 1)]).flatten(1)
    assert rows.mean().abs() < 0.03
    assert (rows.std() - 1).abs() < 0.03
    correlations = (rows @ rows.T / rows.shape[1]).fill_diagonal_(0)
    assert correlations.abs().max() < 0.1


def test_a_gpus_seed_is_taken_modulo_two_to_the_64th():
    assert torch.equal(GpuDraws(-1)((8,)), GpuDraws(2**64 - 1)((8,)))


def test_spherical_interpolates_columns():
    noise = SeededNoise([3, 4])
    one, other = noise((2, 2, 16, 3), 0), noise((2, 2, 16, 3), 1)
    assert torch.equal(spherical(one, one, 0.5), one)
    torch.testing.assert_close(spherical(one, other, 0.0), one)
    torch.testing.assert_close(spherical(one, other, 1.0), other, atol=1e-5, rtol=1e-5)
    half = spherical(one, other, 0.5)
    for i in range(2):  # the formula, written for one column
        low, high = one[i, 1, :, 2].double(), other[i, 1, :, 2].double()
        angle = torch.acos(low @ high / low.norm() / high.norm())
        wanted = torch.sin(angle / 2) / torch.sin(angle) * (low + high)
        torch.testing.assert_close(half[i, 1, :, 2].double(), wanted, atol=1e-5, rtol=1e-5)
    assert torch.equal(spherical(one[:1], other[:1], 0.3), spherical(one, other, 0.3)[:1])
