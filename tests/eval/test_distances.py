import numpy as np
import pytest
import scipy.linalg
import torch

from safelight.eval.distances import frechet_distance, kernel_distance, pooled_features


def _draw(n: int, d: int, seed: int) -> torch.Tensor:
    generator = torch.Generator().manual_seed(seed)
    mixing = torch.randn(d, d, generator=generator, dtype=torch.float64)
    return torch.randn(n, d, generator=generator, dtype=torch.float64) @ mixing


def _frechet_by_scipy(x: torch.Tensor, y: torch.Tensor) -> float:
    a, b = x.double().numpy(), y.double().numpy()
    c1, c2 = np.cov(a, rowvar=False), np.cov(b, rowvar=False)
    root = scipy.linalg.sqrtm(c1 @ c2).real
    shift = a.mean(0) - b.mean(0)
    return float(shift @ shift + np.trace(c1 + c2 - 2 * root))


def _kernel_directly(x: torch.Tensor, y: torch.Tensor) -> float:
    def k(a: torch.Tensor, b: torch.Tensor) -> float:
        return (float(a @ b) / len(a) + 1) ** 3

    n, m = len(x), len(y)
    within = sum(k(x[i], x[j]) for i in range(n) for j in range(n) if i != j) / (n * (n - 1))
    other = sum(k(y[i], y[j]) for i in range(m) for j in range(m) if i != j) / (m * (m - 1))
    across = sum(k(x[i], y[j]) for i in range(n) for j in range(m)) / (n * m)
    return within + other - 2 * across


def test_frechet_agrees_with_scipys_matrix_root():
    x, y = _draw(200, 12, 0), _draw(150, 12, 1) + 0.3
    assert frechet_distance(x, y) == pytest.approx(_frechet_by_scipy(x, y), rel=1e-9)


def test_frechet_of_diagonal_gaussians_is_the_closed_form():
    # Rows at plus and minus each axis have an exactly known mean and covariance.
    def rows(deviations: list[float], mean: list[float]) -> torch.Tensor:
        d = len(deviations)
        axes = torch.diag(torch.tensor(deviations, dtype=torch.float64)) * (d - 0.5) ** 0.5
        return torch.cat([axes, -axes]) + torch.tensor(mean, dtype=torch.float64)

    x, y = rows([1.0, 2.0, 3.0], [0.0, 0.0, 0.0]), rows([2.0, 2.0, 0.5], [1.0, -1.0, 0.5])
    expected = (1 + 1 + 0.25) + (1 - 2) ** 2 + 0 + (3 - 0.5) ** 2
    assert frechet_distance(x, y) == pytest.approx(expected, rel=1e-12)


def test_frechet_of_a_shift_with_fewer_rows_than_dimensions():
    x = _draw(20, 64, 3)
    assert frechet_distance(x, x) == pytest.approx(0, abs=1e-9)
    assert frechet_distance(x, x + 0.5) == pytest.approx(64 * 0.25, rel=1e-9)


def test_frechet_is_the_same_whichever_factor_is_taken():
    x, y = _draw(40, 30, 4), _draw(25, 30, 5)  # more and fewer rows than dimensions
    assert frechet_distance(x, y) == pytest.approx(frechet_distance(y, x), rel=1e-9)
    assert frechet_distance(x, y) == pytest.approx(_frechet_by_scipy(x, y), rel=1e-5)


def test_frechet_keeps_its_precision_far_from_the_origin():
    x = _draw(100, 8, 6).float()
    assert frechet_distance(x + 1000, x + 1000) == pytest.approx(0, abs=1e-6)


def test_kernel_distance_of_whole_sets_is_the_direct_formula():
    x, y = _draw(12, 5, 7) * 0.3, _draw(12, 5, 8) * 0.3 + 0.2
    halves = kernel_distance(x, y, subsets=1, subset_size=6, seed=11)
    generator = torch.Generator().manual_seed(11)
    a = x[torch.randperm(12, generator=generator)[:6]]
    b = y[torch.randperm(12, generator=generator)[:6]]
    assert halves.mean == pytest.approx(_kernel_directly(a, b), rel=1e-9)
    assert halves.deviation == 0


def test_kernel_distance_is_unbiased():
    x, y = torch.randn(400, 6), torch.randn(400, 6)
    same = kernel_distance(x, y, subsets=200, subset_size=20)
    apart = kernel_distance(x, y + 0.5, subsets=200, subset_size=20)
    assert abs(same.mean) < 4 * same.deviation / 200**0.5 + 0.05
    assert apart.mean > 10 * abs(same.mean)


def test_too_few_pictures_are_refused():
    with pytest.raises(ValueError, match="at least 4"):
        frechet_distance(torch.randn(3, 5), torch.randn(10, 5))


def test_features_see_pictures_as_files_would_hold_them():
    seen: list[torch.Tensor] = []

    def pooled(pixels: torch.Tensor) -> torch.Tensor:
        seen.append(pixels)
        return pixels.mean(dim=(2, 3))

    pixels = torch.rand(5, 3, 8, 8) * 3 - 1.5
    rows = pooled_features(pooled, pixels, size=None, batch_size=2)
    assert rows.shape == (5, 3)
    levels = (torch.cat(seen) + 1) * 127.5
    torch.testing.assert_close(levels, levels.round(), atol=1e-4, rtol=0)
    assert pooled_features(pooled, pixels, batch_size=5).shape == (5, 3)
    assert seen[-1].shape == (5, 3, 224, 224)
    assert seen[-1].abs().max() <= 1
