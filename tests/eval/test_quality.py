import numpy as np
import pytest
import torch

from safelight.eval.quality import psnr, ssim


def _pictures(seed: int) -> tuple[torch.Tensor, torch.Tensor]:
    generator = torch.Generator().manual_seed(seed)
    target = torch.rand(2, 3, 20, 17, generator=generator) * 2 - 1
    return (target + 0.3 * torch.randn(target.shape, generator=generator)).clamp(-1, 1), target


def _ssim_by_windows(x: np.ndarray, y: np.ndarray) -> float:
    """Wang et al. 2004, equations 13 to 16, one window at a time, in levels of 0 to 255."""
    offsets = np.arange(11) - 5
    window = np.exp(-(offsets[:, None] ** 2 + offsets[None] ** 2) / (2 * 1.5**2))
    window /= window.sum()
    c1, c2 = (0.01 * 255) ** 2, (0.03 * 255) ** 2
    values = []
    for i in range(x.shape[0] - 10):
        for j in range(x.shape[1] - 10):
            a, b = x[i : i + 11, j : j + 11], y[i : i + 11, j : j + 11]
            mean_a, mean_b = (window * a).sum(), (window * b).sum()
            variance_a = (window * (a - mean_a) ** 2).sum()
            variance_b = (window * (b - mean_b) ** 2).sum()
            covariance = (window * (a - mean_a) * (b - mean_b)).sum()
            values.append(
                (2 * mean_a * mean_b + c1)
                * (2 * covariance + c2)
                / ((mean_a**2 + mean_b**2 + c1) * (variance_a + variance_b + c2))
            )
    return float(np.mean(values))


def test_psnr_of_a_known_error():
    target = torch.zeros(2, 3, 4, 4)
    output = target + torch.tensor([0.2, 0.02]).reshape(2, 1, 1, 1)
    torch.testing.assert_close(psnr(output, target), torch.tensor([20.0, 40.0]))


def test_psnr_is_the_one_of_byte_levels():
    output, target = _pictures(0)
    a, b = ((t.numpy() + 1) * 127.5 for t in (output, target))
    expected = [10 * np.log10(255**2 / np.mean((p - q) ** 2)) for p, q in zip(a, b, strict=True)]
    np.testing.assert_allclose(psnr(output, target).numpy(), expected, rtol=1e-5)


def test_ssim_is_the_papers_window_by_window():
    output, target = _pictures(1)
    levels = [(t.double().numpy() + 1) * 127.5 for t in (output, target)]
    expected = [
        np.mean([_ssim_by_windows(levels[0][i, c], levels[1][i, c]) for c in range(3)])
        for i in range(2)
    ]
    np.testing.assert_allclose(ssim(output, target).numpy(), expected, rtol=1e-6)


def test_ssim_of_equal_and_of_inverted_pictures():
    _, target = _pictures(2)
    torch.testing.assert_close(ssim(target, target), torch.ones(2))
    assert (ssim(-target, target) < 0.05).all()


def test_ssim_refuses_pictures_smaller_than_its_window():
    with pytest.raises(ValueError, match="11 pixels"):
        ssim(torch.zeros(1, 3, 10, 20), torch.zeros(1, 3, 10, 20))
