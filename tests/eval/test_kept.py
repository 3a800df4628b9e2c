"""Pictures kept between two runs of an evaluation."""

from collections.abc import Sequence
from pathlib import Path

import pytest
import torch

from safelight.eval.kept import KeptPictures

PROMPTS, SEEDS = ["a red cube", "a blue ball"], [3, 4]


class Counter:
    """Makes noise, and counts how often."""

    def __init__(self) -> None:
        self.calls = 0

    def __call__(
        self, prompts: Sequence[str], seeds: Sequence[int], steps: int, scale: float, sampler: str
    ) -> torch.Tensor:
        self.calls += 1
        return torch.rand(len(prompts), 3, 8, 8) * 2 - 1


def test_what_was_made_is_read_the_next_time(tmp_path: Path):
    maker = Counter()
    first = KeptPictures(maker, tmp_path / "made", {"weights": "a"})(
        PROMPTS, SEEDS, 5, 3.0, "euler"
    )
    again = KeptPictures(maker, tmp_path / "made", {"weights": "a"})(
        PROMPTS, SEEDS, 5, 3.0, "euler"
    )
    assert maker.calls == 1
    assert torch.equal(first, again)
    levels = (first + 1) * 127.5
    torch.testing.assert_close(levels, levels.round(), atol=1e-4, rtol=0)
    assert first.std() > 0.3


@pytest.mark.parametrize(
    ("weights", "call"),
    [
        ("b", (PROMPTS, SEEDS, 5, 3.0, "euler")),
        ("a", (["a red cube", "a red ball"], SEEDS, 5, 3.0, "euler")),
        ("a", (PROMPTS, [3, 5], 5, 3.0, "euler")),
        ("a", (PROMPTS, SEEDS, 6, 3.0, "euler")),
        ("a", (PROMPTS, SEEDS, 5, 2.0, "euler")),
        ("a", (PROMPTS, SEEDS, 5, 3.0, "ddim")),
    ],
)
def test_other_weights_prompts_seeds_or_settings_are_made_anew(tmp_path: Path, weights, call):
    maker = Counter()
    KeptPictures(maker, tmp_path, {"weights": "a"})(PROMPTS, SEEDS, 5, 3.0, "euler")
    kept = KeptPictures(maker, tmp_path, {"weights": weights})
    kept(*call)
    assert maker.calls == 2
    assert len(list(tmp_path.iterdir())) == 2
    kept.forget_others()
    assert len(list(tmp_path.iterdir())) == 1
    kept(*call)
    assert maker.calls == 2


def test_a_damaged_file_is_made_anew(tmp_path: Path):
    maker = Counter()
    kept = KeptPictures(maker, tmp_path, {})
    kept(PROMPTS, SEEDS, 5, 3.0, "euler")
    [path] = tmp_path.iterdir()
    path.write_bytes(b"damaged")
    kept(PROMPTS, SEEDS, 5, 3.0, "euler")
    assert maker.calls == 2
    kept(PROMPTS, SEEDS, 5, 3.0, "euler")
    assert maker.calls == 2
