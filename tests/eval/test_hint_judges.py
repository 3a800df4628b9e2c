import math

import numpy as np
import pytest
import torch

from safelight.errors import SafelightError
from safelight.eval.edges import edge_f1
from safelight.eval.fit import fit
from safelight.eval.hint_judges import DepthJudge, HintJudgeConfig, PoseJudge, pck
from safelight.eval.judge_files import load_hint_judge, save_hint_judge
from safelight.train.optim import OptimConfig

SMALL = HintJudgeConfig(size=16, channels=(16, 24), points=2)
OPTIM = OptimConfig(lr=1e-2, optimizer="muon", warmup=2, betas=(0.95, 0.99))


def _line(row: int) -> np.ndarray:
    edges = np.zeros((16, 16), dtype=bool)
    edges[row] = True
    return edges


def test_edges_count_within_the_tolerance():
    assert edge_f1(_line(5), _line(5)) == 1
    assert edge_f1(_line(5), _line(7)) == 1
    assert edge_f1(_line(5), _line(8)) == 0
    assert edge_f1(_line(5), _line(8), tolerance=3.0) == 1
    both = _line(5) | _line(12)
    assert edge_f1(both, _line(5)) == pytest.approx(2 / 3)  # half of what is there is wanted
    assert edge_f1(_line(5), both) == pytest.approx(2 / 3)
    assert edge_f1(np.zeros((16, 16), dtype=bool), _line(5)) == 0
    assert math.isnan(edge_f1(_line(5), np.zeros((16, 16), dtype=bool)))


def test_pck_counts_points_in_sight_by_the_persons_size():
    points = torch.tensor([[[0.2, 0.2], [0.5, 0.5], [0.9, 0.9]]])
    found = points + torch.tensor([[0.0, 0.04], [0.06, 0.0], [0.5, 0.5]])
    seen = torch.tensor([[True, True, False]])
    assert pck(found, points, seen, torch.tensor([0.5])).tolist() == [0.5]
    assert pck(found, points, seen, torch.tensor([0.7])).tolist() == [1.0]


def _dots(count: int, seed: int):
    """Pictures with a red and a blue dot, and where these are."""
    generator = torch.Generator().manual_seed(seed)
    places = torch.randint(2, 14, (count, 2, 2), generator=generator)
    pixels = torch.full((count, 3, 16, 16), -1.0)
    for i in range(count):
        for point, channel in ((0, 0), (1, 2)):
            x, y = places[i, point].tolist()
            pixels[i, channel, y - 1 : y + 2, x - 1 : x + 2] = 1
    return pixels, (places + 0.5) / 16


def doubled(pixels: torch.Tensor) -> torch.Tensor:
    """The same pictures, twice as large as the judges were trained for."""
    return torch.nn.functional.interpolate(pixels, scale_factor=2)


def test_a_judge_of_poses_learns_to_find_points_and_is_read_back(tmp_path):
    torch.manual_seed(0)
    judge = PoseJudge(SMALL)
    seen = torch.ones(32, 2, dtype=torch.bool)

    def loss_at(step: int):
        return judge.loss(*_dots(32, step), seen)

    fit(judge, loss_at, OPTIM, steps=60)
    pixels, points = _dots(32, 1000)
    right = pck(judge.find(pixels), points, seen, torch.full((32,), 1.0))
    assert right.mean() > 0.9
    right = pck(judge.find(doubled(pixels)), points, seen, torch.full((32,), 1.0))
    assert right.mean() > 0.9
    save_hint_judge(judge, tmp_path / "pose")
    assert torch.equal(
        load_hint_judge(tmp_path / "pose", PoseJudge).find(pixels), judge.find(pixels)
    )
    with pytest.raises(SafelightError):
        load_hint_judge(tmp_path / "pose", DepthJudge)


def test_a_judge_of_depth_learns_what_is_bright_to_be_near():
    torch.manual_seed(0)
    judge = DepthJudge(SMALL)

    def example(step: int):
        near = torch.rand(16, 1, 4, 4, generator=torch.Generator().manual_seed(step))
        near = torch.nn.functional.interpolate(near, (16, 16))[:, 0]
        return (2 * near - 1)[:, None].expand(-1, 3, -1, -1).contiguous(), near

    fit(judge, lambda step: judge.loss(*example(step)), OPTIM, steps=80)
    pixels, near = example(1000)
    assert judge.errors(pixels, near).mean() < 0.1
    assert judge.errors(doubled(pixels), near).mean() < 0.1
    assert judge.errors(pixels, 1 - near).mean() > 0.3
