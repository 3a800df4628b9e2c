"""Windows along the frames."""

import pytest
import torch

from safelight.diffusion.frame_windows import by_clip, over_windows, windows
from safelight.types import Conditioning


def test_windows_cover_all_frames_and_go_round_in_a_loop():
    assert [w.tolist() for w in windows(5, 3, 1, loop=False)] == [[0, 1, 2], [2, 3, 4]]
    assert [w.tolist() for w in windows(2, 3, 1, loop=False)] == [[0, 1]]
    assert [w.tolist() for w in windows(4, 3, 1, loop=True)] == [[0, 1, 2], [2, 3, 0]]
    assert [w.tolist() for w in windows(4, 4, 1, loop=True)] == [[0, 1, 2, 3], [2, 3, 0, 1]]
    with pytest.raises(ValueError, match="overlap"):
        windows(9, 3, 3, loop=True)


def _mean_of_what_it_sees(x, sigma, cond):
    clips = x.unflatten(0, (-1, cond.num_frames))
    return clips.mean(1, keepdim=True).expand_as(clips).flatten(0, 1) + cond.concat


@pytest.mark.parametrize("loop", [False, True])
def test_each_frame_is_the_weighted_mean_of_its_windows(loop):
    x = torch.arange(8.0)[:, None, None, None]  # two clips of four frames
    cond = Conditioning(torch.zeros(2, 1, 1), concat=10 * x, num_frames=4)
    denoise = over_windows(_mean_of_what_it_sees, 3, 2, loop=loop)
    found = denoise(x, torch.ones(8), cond).flatten()
    for clip in range(2):
        values = x.flatten()[4 * clip : 4 * clip + 4]
        total, count = torch.zeros(4), torch.zeros(4)
        for places in windows(4, 3, 2, loop=loop):
            for weight, place in zip((1.0, 2.0, 1.0), places.tolist(), strict=True):
                total[place] += weight * (values[places].mean() + 10 * values[place])
                count[place] += weight
        torch.testing.assert_close(found[4 * clip : 4 * clip + 4], total / count)


def test_one_window_is_the_denoiser_to_the_bit_and_clips_go_alone():
    x = torch.randn(6, 2, 3, 3)
    cond = Conditioning(torch.zeros(2, 1, 1), concat=torch.randn(6, 2, 3, 3), num_frames=3)
    wanted = _mean_of_what_it_sees(x, torch.ones(6), cond)
    ours = over_windows(_mean_of_what_it_sees, 4, 1)(x, torch.ones(6), cond)
    assert torch.equal(ours, wanted)
    seen: list[int] = []

    def counting(x, sigma, cond):
        seen.append(len(x))
        return _mean_of_what_it_sees(x, sigma, cond)

    assert torch.equal(by_clip(counting)(x, torch.ones(6), cond), wanted)
    assert seen == [3, 3]


def test_a_conditioning_without_frames_is_refused():
    with pytest.raises(ValueError, match="num_frames"):
        over_windows(_mean_of_what_it_sees, 2, 1)(
            torch.zeros(3, 1, 1, 1), torch.ones(3), Conditioning()
        )
