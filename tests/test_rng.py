import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st

from safelight.rng import Counted, SeededNoise, chained, generator_for

seeds = st.integers(-(2**63), 2**64 - 1)


@given(st.lists(seeds, min_size=1, max_size=5), st.integers(0, 4))
def test_an_image_does_not_change_with_its_batch_or_its_place(batch: list[int], index: int):
    together = SeededNoise(batch)((len(batch), 2, 3), index)
    backwards = SeededNoise(batch[::-1])((len(batch), 2, 3), index).flip(0)
    alone = torch.cat([SeededNoise([seed])((1, 2, 3), index) for seed in batch])
    assert torch.equal(together, alone)
    assert torch.equal(together, backwards)


@given(st.permutations(range(5)))
def test_draws_may_be_asked_for_in_any_order_and_again(order: list[int]):
    shape = (2, 4, 8)
    noise = SeededNoise([3, 4])
    expected = [noise(shape, index) for index in range(5)]
    assert len({float(draw.sum()) for draw in expected}) == 5
    other = SeededNoise([3, 4])
    for index in (*order, *order):
        assert torch.equal(other(shape, index), expected[index])


def test_the_draws_are_those_of_a_seeded_generator():
    generator = torch.Generator("cpu").manual_seed(42)
    first, second = (torch.randn((1, 4, 8, 8), generator=generator) for _ in range(2))
    noise = SeededNoise([7, 42])
    assert torch.equal(noise((2, 4, 8, 8), 0)[1:], first)
    assert torch.equal(noise((2, 4, 8, 8), 1)[1:], second)


def test_noise_is_standard_normal():
    noise = SeededNoise(range(16))((16, 4, 32, 32), 0)
    assert noise.mean().abs() < 0.01
    assert (noise.std() - 1).abs() < 0.01
    flat = noise.flatten(1)
    correlations = (flat @ flat.T / flat.shape[1]).fill_diagonal_(0)
    assert correlations.abs().max() < 0.07


def test_dtype_is_only_a_rounding():
    shape = (1, 4, 8, 8)
    half = SeededNoise([1], dtype=torch.bfloat16)(shape, 0)
    assert half.dtype == torch.bfloat16
    assert torch.equal(half, SeededNoise([1])(shape, 0).bfloat16())


def test_a_batch_of_another_size_is_an_error():
    with pytest.raises(ValueError, match=r"batch of 2 .* got 3"):
        SeededNoise([1, 2])((3, 4), 0)


def test_torchs_own_state_is_left_alone():
    before = torch.get_rng_state()
    SeededNoise([1])((1, 4), 3)
    torch.rand(3, generator=generator_for(1, 2))
    assert torch.equal(torch.get_rng_state(), before)


@given(seeds, st.lists(st.integers(-(2**70), 2**70), max_size=4))
def test_a_generator_is_a_function_of_its_keys(seed: int, keys: list[int]):
    one, other = (torch.rand(4, generator=generator_for(seed, *keys)) for _ in range(2))
    assert torch.equal(one, other)


def test_neighbouring_keys_are_unrelated():
    keys = [(s, a, b) for s in range(4) for a in range(24) for b in range(24)]
    starts = {generator_for(*key).initial_seed() & 0xFFFF_FFFF for key in keys}
    assert len(starts) > len(keys) - 5  # of the 32 bits that torch keeps
    assert generator_for(0, 1, 2).initial_seed() != generator_for(0, 2, 1).initial_seed()
    assert generator_for(0, 1).initial_seed() != generator_for(0, 1, 0).initial_seed()
    draws = torch.stack([torch.randn(4096, generator=generator_for(0, step)) for step in range(32)])
    correlations = (draws @ draws.T / 4096).fill_diagonal_(0)
    assert correlations.abs().max() < 0.08


def test_the_mixing_is_splitmix64():
    # The first outputs of the reference implementation from the state 1234567.
    from safelight.rng import _splitmix64

    gamma, state = 0x9E37_79B9_7F4A_7C15, 1234567
    outputs = [_splitmix64((state + i * gamma) & (2**64 - 1)) for i in range(3)]
    assert outputs == [6457827717110365317, 3203168211198807973, 9817491932198370423]


def test_noise_that_is_counted_is_the_same_and_tells_what_was_taken():
    noise = SeededNoise([3, 5])
    counted = Counted(noise)
    assert counted.taken == 1  # the initial x's
    for index in (1, 2, 4):
        assert torch.equal(counted((2, 1, 4, 4), index), noise((2, 1, 4, 4), index))
    assert counted.taken == 5


def test_chained_noise_is_standard_and_as_alike_as_each_clip_asks_for():
    white = torch.randn(4, 5, 20_000, 1, 1, generator=torch.Generator().manual_seed(0))
    correlations = torch.tensor([0.0, 0.5, 0.9, 1.0])
    clips = chained(white, correlations).flatten(2)
    places = torch.arange(5.0)
    for rows, correlation in zip(clips, correlations, strict=True):
        wanted = correlation ** (places[:, None] - places[None]).abs()
        assert torch.allclose(rows @ rows.T / rows.shape[1], wanted, atol=0.03)
    assert torch.equal(clips[:, 0], white[:, 0].flatten(1))
    assert torch.equal(clips[0], white[0].flatten(1))
    assert torch.equal(chained(white[:2], torch.zeros(2)), white[:2])
