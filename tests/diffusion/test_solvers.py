"""Samplers against distributions whose flow is known in closed form."""

import math

import pytest
import torch

from safelight.diffusion.samplers import SAMPLERS, sampler_by_name
from safelight.diffusion.sigmas import exponential_sigmas
from safelight.diffusion.solvers import sample_ddim, sample_euler, sample_euler_ancestral
from safelight.errors import SafelightError
from safelight.rng import SeededNoise

from .conftest import mixture_denoise

HIGH, LOW = 6.0, 0.2
DETERMINISTIC = ("euler", "ddim", "heun", "dpmpp_2m", "plms")


def _levels(steps: int, even_in: str):
    """(steps + 1,) levels from HIGH to LOW, in float64."""
    if even_in == "sigma":
        return torch.linspace(HIGH, LOW, steps + 1, dtype=torch.float64)
    return exponential_sigmas(steps + 1, LOW, HIGH)[:-1]


def _points(count=64):
    generator = torch.Generator().manual_seed(0)
    return HIGH * torch.randn((count, 2, 1, 1), generator=generator, dtype=torch.float64)


def _error(sampler, denoise, steps, even_in, truth, silent):
    x = SAMPLERS[sampler](denoise, _points(), _levels(steps, even_in), noise=silent)
    return (x - truth).square().mean().sqrt().item()


@pytest.fixture(scope="module")
def truth(mixture, silent):
    """Where the flow takes the points: Heun on fine grids, carried on to a step of 0."""
    coarse, middle, fine = (
        SAMPLERS["heun"](mixture, _points(), _levels(n, "log"), noise=silent)
        for n in (200, 400, 800)
    )
    # Richardson's extrapolation at order 2; its own error falls with order 3 at least
    rough, good = (4 * middle - coarse) / 3, (4 * fine - middle) / 3
    assert (rough - good).abs().max() < 2e-6
    return good


@pytest.mark.parametrize(
    ("sampler", "even_in", "order"),
    [
        ("euler", "log", 1),
        ("ddim", "log", 1),
        ("heun", "log", 2),
        ("dpmpp_2m", "log", 2),  # its steps are even in lambda = -ln(sigma)
        ("plms", "sigma", 4),  # its first steps, of lower order, fall where the flow is straight
    ],
)
def test_errors_fall_with_the_order(sampler, even_in, order, mixture, truth, silent):
    counts = (80, 160, 320)
    errors = [_error(sampler, mixture, n, even_in, truth, silent) for n in counts]
    slope = math.log(errors[0] / errors[-1]) / math.log(counts[-1] / counts[0])
    assert slope == pytest.approx(order, abs=0.25)


def test_second_order_beats_first_at_equal_cost(mixture, truth, silent):
    def error(sampler, steps):
        return _error(sampler, mixture, steps, "log", truth, silent)

    assert error("dpmpp_2m", 40) < error("euler", 40) / 4
    assert error("heun", 20) < error("euler", 40) / 2


@pytest.mark.parametrize("sampler", DETERMINISTIC)
def test_one_gaussian_is_followed_to_its_place(sampler, silent):
    mean, std = torch.tensor([[0.4, -0.7]]).double(), torch.tensor([0.5]).double()
    denoise = mixture_denoise(mean, std, torch.ones(1).double())
    x = _points()
    even_in = "sigma" if sampler == "plms" else "log"
    out = SAMPLERS[sampler](denoise, x, _levels(800, even_in), noise=silent)
    shrink = math.sqrt((0.25 + LOW**2) / (0.25 + HIGH**2))
    exact = mean[0, :, None, None] + shrink * (x - mean[0, :, None, None])
    tolerance = 2e-2 if sampler in ("euler", "ddim") else 2e-4
    torch.testing.assert_close(out, exact, rtol=0, atol=tolerance)


@pytest.mark.parametrize("eta", [0.5, 1.0])
def test_fresh_noise_keeps_the_distribution(eta, mixture):
    generator = torch.Generator().manual_seed(1)

    def noise(shape, index):
        return torch.randn(tuple(shape), generator=generator, dtype=torch.float64)

    x = noise((6000, 2, 1, 1), 0) * 40
    sigmas = exponential_sigmas(150, 0.01, 40.0)
    out = sample_ddim(mixture, x, sigmas, noise=noise, eta=eta)[:, :, 0, 0]
    # moments of the mixture in conftest
    means = torch.tensor([[1.0, 0.5], [-1.0, 0.8], [0.2, -1.1]]).double()
    weights, stds = torch.tensor([0.5, 0.3, 0.2]).double(), torch.tensor([0.5, 0.3, 0.4]).double()
    mean = weights @ means
    away = means - mean
    covariance = (away.T * weights) @ away + (weights * stds**2).sum() * torch.eye(2)
    torch.testing.assert_close(out.mean(0), mean, rtol=0, atol=0.05)
    torch.testing.assert_close(out.T.cov(), covariance, rtol=0, atol=0.06)
    nearest = (out[:, None] - means).square().sum(-1).argmin(1)
    shares = torch.bincount(nearest, minlength=3) / len(out)
    exact = mixture_shares(means, stds, weights)
    torch.testing.assert_close(shares.double(), exact, rtol=0, atol=0.03)


def mixture_shares(means, stds, weights, count=200_000):
    """How often a draw of the mixture is nearest to each mean."""
    generator = torch.Generator().manual_seed(2)
    which = torch.multinomial(weights, count, replacement=True, generator=generator)
    points = means[which] + stds[which, None] * torch.randn(
        (count, 2), generator=generator, dtype=torch.float64
    )
    nearest = (points[:, None] - means).square().sum(-1).argmin(1)
    return (torch.bincount(nearest, minlength=3) / count).double()


@pytest.mark.parametrize("sampler", SAMPLERS)
@pytest.mark.parametrize("high", [14.6, 4096.0, 2.0**20])
def test_float32_holds_at_any_sigma(sampler, high, mixture):
    sigmas = exponential_sigmas(40, 0.03, high)
    noise = SeededNoise(range(64))
    x = noise((64, 2, 1, 1), 0) * high
    coarse = SAMPLERS[sampler](mixture, x, sigmas.float(), noise=noise)
    fine = SAMPLERS[sampler](
        mixture, x.double(), sigmas, noise=SeededNoise(range(64), dtype=torch.float64)
    )
    assert coarse.dtype == torch.float32
    torch.testing.assert_close(coarse.double(), fine, rtol=0, atol=1e-3)


@pytest.mark.parametrize("sampler", SAMPLERS)
def test_an_image_does_not_change_with_its_batch(sampler, mixture):
    sigmas = exponential_sigmas(12, 0.03, 14.6)

    def run(seeds):
        noise = SeededNoise(seeds)
        return SAMPLERS[sampler](
            mixture, noise((len(seeds), 2, 1, 1), 0) * 14.6, sigmas, noise=noise
        )

    together, alone = run([3, 4, 5]), run([4])
    torch.testing.assert_close(together[1], alone[0], rtol=1e-5, atol=1e-6)


def test_draws_are_numbered_from_one_and_only_where_needed(mixture):
    drawn = []

    def noise(shape, index):
        drawn.append(index)
        return torch.zeros(tuple(shape), dtype=torch.float64)

    sample_euler_ancestral(mixture, _points(2), exponential_sigmas(4, 0.1, 3.0), noise=noise)
    assert drawn == [1, 2, 3]  # the last step, to 0, needs none


@pytest.mark.parametrize("sampler", SAMPLERS)
def test_each_step_is_told(sampler, mixture, noise):
    told = []

    def on_step(step, sigma, x, denoised):
        told.append((step, sigma, x))
        assert denoised.shape == x.shape

    sigmas = exponential_sigmas(5, 0.1, 3.0)
    x = noise((2, 2, 1, 1), 0).double() * 3
    out = SAMPLERS[sampler](mixture, x, sigmas, noise=noise, on_step=on_step)
    assert [step for step, _, _ in told] == list(range(5))
    assert [sigma for _, sigma, _ in told] == sigmas[:-1].tolist()
    assert torch.equal(told[-1][2], out)


@pytest.mark.parametrize(
    ("sampler", "calls"),
    [("euler", 7), ("euler_a", 7), ("ddim", 7), ("dpmpp_2m", 7), ("plms", 8), ("heun", 13)],
)
def test_cost_in_network_calls(sampler, calls, mixture, noise):
    count = 0

    def denoise(x, sigma):
        nonlocal count
        count += 1
        return mixture(x, sigma)

    x = noise((2, 2, 1, 1), 0) * 3
    SAMPLERS[sampler](denoise, x, exponential_sigmas(7, 0.1, 3.0), noise=noise)
    assert count == calls


@pytest.mark.parametrize("sampler", SAMPLERS)
def test_ending_at_zero_gives_the_last_denoised(sampler, mixture, noise):
    last = {}

    def denoise(x, sigma):
        last["denoised"] = mixture(x, sigma)
        return last["denoised"]

    x = noise((2, 2, 1, 1), 0) * 3
    out = SAMPLERS[sampler](denoise, x, exponential_sigmas(7, 0.1, 3.0), noise=noise)
    if sampler != "plms":  # which extrapolates to the end, as diffusers' does
        assert torch.equal(out, last["denoised"])


def test_ddim_without_fresh_noise_is_euler(mixture, silent):
    sigmas = exponential_sigmas(9, 0.1, 6.0)
    ddim = sample_ddim(mixture, _points(), sigmas, noise=silent, eta=0.0)
    assert torch.equal(ddim, sample_euler(mixture, _points(), sigmas, noise=silent))


@pytest.mark.parametrize(
    ("name", "known"),
    [("DPM++ 2M", "dpmpp_2m"), ("Euler a", "euler_a"), ("Heun", "heun"), ("PLMS", "plms")],
)
def test_other_programs_spellings_are_read(name, known):
    assert sampler_by_name(name) is SAMPLERS[known]


def test_an_unknown_sampler_names_the_near_ones():
    with pytest.raises(
        SafelightError, match=r"Unknown sampler 'dpmpp_2n'. Did you mean 'dpmpp_2m'"
    ):
        sampler_by_name("dpmpp_2n")
