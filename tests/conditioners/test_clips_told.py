"""Known frames and numbers of clips, as a video model is told them."""

import pytest
import torch

from safelight.conditioners.clips import with_clip_numbers, with_known_frames, without_numbers
from safelight.models.unet import UNetConfig
from safelight.models.video import TemporalConfig
from safelight.nn.embeddings import sinusoidal
from safelight.types import Conditioning

LATENTS = torch.randn(2, 3, 4, 5, 6, generator=torch.Generator().manual_seed(0))
KNOWN = torch.tensor([[True, False, True], [False, False, False]])
CONTEXT = Conditioning(torch.zeros(2, 1, 8))


def test_placed_frames_stand_beside_themselves_with_a_mask():
    told = with_known_frames(CONTEXT, LATENTS, KNOWN, TemporalConfig(3, "placed"))
    assert told.num_frames == 3
    assert told.concat is not None
    rows = told.concat.unflatten(0, (2, 3))
    assert torch.equal(rows[0, 0, :4], LATENTS[0, 0])
    assert torch.equal(rows[0, 2, :4], LATENTS[0, 2])
    assert float(rows[0, 1].abs().max()) == 0
    assert float(rows[1].abs().max()) == 0
    assert rows[0, :, 4].amax((1, 2)).tolist() == [1, 0, 1]


def test_around_tells_each_frame_of_the_known_one_up_to_it_and_of_the_one_from_it_on():
    latents = torch.randn(2, 5, 4, 1, 1, generator=torch.Generator().manual_seed(1))
    known = torch.tensor([[True, False, True, False, False], [False] * 5])
    told = with_known_frames(CONTEXT, latents, known, TemporalConfig(5, "around"))
    assert told.concat is not None
    rows = told.concat.unflatten(0, (2, 5)).unflatten(2, (2, 5))[..., 0, 0]
    assert float(rows[1].abs().max()) == 0
    for side, nearness, places in (
        (0, [1, 1 / 2, 1, 1 / 2, 1 / 3], [0, 0, 2, 2, 2]),
        (1, [1, 1 / 2, 1, 0, 0], [0, 2, 2, None, None]),
    ):
        assert torch.equal(rows[0, :, side, 4], torch.tensor(nearness))
        for frame, place in enumerate(places):
            wanted = torch.zeros(4) if place is None else latents[0, place, :, 0, 0]
            assert torch.equal(rows[0, frame, side, :4], wanted)


def test_repeated_is_the_first_alone():
    told = with_known_frames(CONTEXT, LATENTS, KNOWN, TemporalConfig(3, "repeated"))
    assert told.concat is not None
    rows = told.concat.unflatten(0, (2, 3))
    assert torch.equal(rows[0], LATENTS[0, :1].expand(3, -1, -1, -1))
    assert float(rows[1].abs().max()) == 0
    with pytest.raises(ValueError, match="told no frames"):
        with_known_frames(CONTEXT, LATENTS, KNOWN, TemporalConfig(3))


def test_numbers_come_in_the_models_order_and_fps_is_one_less():
    unet = UNetConfig(added_dim=16, added_time_dim=8)
    numbers = {"motion": torch.tensor([127, 30]), "fps": torch.tensor([8.0, 25.0])}
    temporal = TemporalConfig(3, numbers=("fps", "motion"))
    told = with_clip_numbers(CONTEXT, numbers, temporal, unet)
    assert told.vector is not None
    for row, pair in zip(told.vector, ((7.0, 127.0), (24.0, 30.0)), strict=True):
        assert torch.equal(row, sinusoidal(torch.tensor(pair), 8).flatten())
    assert with_clip_numbers(CONTEXT, numbers, TemporalConfig(3), unet) is CONTEXT


def test_a_clip_that_is_told_no_number_gets_zeros():
    unet = UNetConfig(added_dim=16, added_time_dim=8)
    numbers = {"motion": torch.tensor([0, 30]), "fps": torch.tensor([1.0, 25.0])}
    temporal = TemporalConfig(3, numbers=("fps", "motion"))
    cond = with_clip_numbers(CONTEXT, numbers, temporal, unet)
    all_told, told = cond.vector, without_numbers(cond, torch.tensor([False, True])).vector
    assert torch.equal(without_numbers(cond).vector, torch.zeros(2, 16))
    assert all_told is not None
    assert told is not None
    assert float(told[0].abs().max()) == 0
    assert float(all_told[0].abs().max()) > 0  # of numbers that are 0
    assert torch.equal(told[1], all_told[1])
