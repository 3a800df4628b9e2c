"""Samplers against distributions whose flow is known in closed form."""

import math
from functools import partial

import pytest
import torch

from safelight.diffusion.samplers import SAMPLERS, sampler_by_name, schedule_in
from safelight.diffusion.sigmas import exponential_sigmas
from safelight.diffusion.solvers import sample_ddim, sample_euler
from safelight.diffusion.solvers_consistency import sample_tcd
from safelight.diffusion.solvers_sde import sample_dpmpp_2m_sde
from safelight.errors import SafelightError
from safelight.rng import SeededNoise

from .conftest import mixture_denoise

HIGH, LOW = 6.0, 0.2
DRAWING = (
    *("ddpm", "euler_a", "dpm2_a", "dpmpp_2s_a", "restart", "lcm", "tcd"),
    *("dpmpp_sde", "dpmpp_2m_sde", "dpmpp_3m_sde"),
)
DETERMINISTIC = (
    *("euler", "ddim", "heun", "dpm2", "lms", "plms"),
    *("dpmpp_2s", "dpmpp_2m", "unipc", "deis"),
)


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
        ("dpm2", "log", 2),
        ("dpmpp_2s", "log", 2),
        ("unipc", "log", 2),
        ("deis", "log", 2),
        # their first steps, of lower order, fall where the flow is straight
        ("plms", "sigma", 4),
        ("lms", "sigma", 4),
    ],
)
def test_errors_fall_with_the_order(sampler, even_in, order, mixture, truth, silent):
    counts = (80, 160, 320)
    errors = [_error(sampler, mixture, n, even_in, truth, silent) for n in counts]
    slope = math.log(errors[0] / errors[-1]) / math.log(counts[-1] / counts[0])
    assert slope == pytest.approx(order, abs=0.25)


@pytest.mark.parametrize(
    ("sampler", "order"),
    [
        ("ddpm", 1),
        ("euler_a", 1),
        ("dpm2_a", 2),
        ("dpmpp_2s_a", 2),
        ("dpmpp_sde", 2),
        ("dpmpp_2m_sde", 2),
        ("dpmpp_3m_sde", 2),  # of order 3 but for its first two steps
        ("restart", 2),
    ],
)
def test_the_error_of_the_variance_falls_with_the_order(sampler, order):
    counts = (80, 160, 320)
    errors = [_variance_error(SAMPLERS[sampler], n) for n in counts]
    slope = math.log(errors[0] / errors[-1]) / math.log(counts[-1] / counts[0])
    assert slope == pytest.approx(order, abs=0.25)


def _variance_error(sample, steps, std=0.7):
    """How far x of a Gaussian is from its variance at LOW, exactly: everything is linear in x and
    in the draws, and row i of the batch is driven by draw i alone.
    """

    def denoise(x, sigma):
        return x * (std**2 / (std**2 + sigma.reshape(-1, 1, 1, 1) ** 2))

    def noise(shape, index):
        draw = torch.zeros(tuple(shape), dtype=torch.float64)
        draw[index] = 1
        return draw

    sigmas = exponential_sigmas(steps + 1, LOW, HIGH)[:-1]
    x = noise((2 * steps + 1, 1, 1, 1), 0) * math.sqrt(std**2 + HIGH**2)
    variance = sample(denoise, x, sigmas, noise=noise).square().sum().item()
    return abs(variance - (std**2 + LOW**2))


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
    even_in = "sigma" if sampler in ("lms", "plms") else "log"
    out = SAMPLERS[sampler](denoise, x, _levels(800, even_in), noise=silent)
    shrink = math.sqrt((0.25 + LOW**2) / (0.25 + HIGH**2))
    exact = mean[0, :, None, None] + shrink * (x - mean[0, :, None, None])
    tolerance = 2e-2 if sampler in ("euler", "ddim") else 2e-4
    torch.testing.assert_close(out, exact, rtol=0, atol=tolerance)


@pytest.mark.parametrize(
    "sample",
    [
        partial(sample_ddim, eta=0.5),
        *(SAMPLERS[name] for name in DRAWING if name not in ("lcm", "tcd")),
    ],
)
def test_fresh_noise_keeps_the_distribution(sample, mixture):
    generator = torch.Generator().manual_seed(1)

    def noise(shape, index):
        return torch.randn(tuple(shape), generator=generator, dtype=torch.float64)

    x = noise((6000, 2, 1, 1), 0) * 40
    sigmas = exponential_sigmas(150, 0.01, 40.0)
    out = sample(mixture, x, sigmas, noise=noise)[:, :, 0, 0]
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


@pytest.mark.parametrize("sampler", SAMPLERS)
def test_draws_are_numbered_from_one_and_only_where_needed(sampler, mixture):
    drawn = []

    def noise(shape, index):
        drawn.append(index)
        return torch.zeros(tuple(shape), dtype=torch.float64)

    SAMPLERS[sampler](mixture, _points(2), exponential_sigmas(24, 0.1, 3.0), noise=noise)
    many = {"dpmpp_sde": 46, "restart": 1}.get(sampler, 23)  # the last step, to 0, needs none
    assert drawn == ([] if sampler in DETERMINISTIC else list(range(1, many + 1)))


@pytest.mark.parametrize("sampler", SAMPLERS)
def test_a_step_of_no_length_does_no_harm(sampler, mixture):
    noise = SeededNoise([1, 2], dtype=torch.float64)
    levels = torch.tensor([3.0, 1.0, 0.5, 0.2, 0.2], dtype=torch.float64)
    out = SAMPLERS[sampler](mixture, _points(2), levels, noise=noise)
    assert out.isfinite().all()


def test_trajectory_consistency_without_noise_is_euler(mixture, silent):
    sigmas = exponential_sigmas(9, 0.1, 6.0)
    tcd = sample_tcd(mixture, _points(), sigmas, noise=silent, gamma=0.0)
    assert torch.equal(tcd, sample_euler(mixture, _points(), sigmas, noise=silent))


def test_without_noise_the_sde_is_the_ode(mixture, silent):
    sigmas = exponential_sigmas(20, 0.1, 6.0)
    ode = SAMPLERS["dpmpp_2m"](mixture, _points(), sigmas, noise=silent)
    sde = sample_dpmpp_2m_sde(mixture, _points(), sigmas, noise=silent, eta=0.0)
    torch.testing.assert_close(sde, ode)


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


TWICE = ("heun", "dpm2", "dpm2_a", "dpmpp_2s_a", "dpmpp_sde", "restart")


@pytest.mark.parametrize("sampler", SAMPLERS)
def test_cost_in_network_calls(sampler, mixture, noise):
    count = 0

    def denoise(x, sigma):
        nonlocal count
        count += 1
        return mixture(x, sigma)

    x = noise((2, 2, 1, 1), 0) * 3
    SAMPLERS[sampler](denoise, x, exponential_sigmas(7, 0.1, 3.0), noise=noise)
    assert count == 13 if sampler in TWICE else {"plms": 8}.get(sampler, 7)


@pytest.mark.parametrize("sampler", SAMPLERS)
def test_ending_at_zero_gives_the_last_denoised(sampler, mixture, noise):
    last = {}

    def denoise(x, sigma):
        last["denoised"] = mixture(x, sigma)
        return last["denoised"]

    x = noise((2, 2, 1, 1), 0) * 3
    out = SAMPLERS[sampler](denoise, x, exponential_sigmas(7, 0.1, 3.0), noise=noise)
    if sampler not in ("lms", "plms"):  # which extrapolate to the end, as diffusers' do
        assert torch.equal(out, last["denoised"])


def test_ddim_without_fresh_noise_is_euler(mixture, silent):
    sigmas = exponential_sigmas(9, 0.1, 6.0)
    ddim = sample_ddim(mixture, _points(), sigmas, noise=silent, eta=0.0)
    assert torch.equal(ddim, sample_euler(mixture, _points(), sigmas, noise=silent))


SPELLINGS = {
    "DPM++ 2M": "dpmpp_2m",
    "DPM++ 2M Karras": "dpmpp_2m",
    "DPM++ 2S a": "dpmpp_2s_a",
    "DPM++ SDE Karras": "dpmpp_sde",
    "DPM++ 2M SDE Exponential": "dpmpp_2m_sde",
    "DPM++ 3M SDE": "dpmpp_3m_sde",
    "DPM2 a Karras": "dpm2_a",
    "Euler a": "euler_a",
    "k_dpmpp_2m_ka": "dpmpp_2m",
    "LMS Karras": "lms",
    "PLMS": "plms",
    "Restart": "restart",
    "UniPC": "unipc",
    "euler_ancestral": "euler_a",
    "dpm_2": "dpm2",
    "dpm_2_ancestral": "dpm2_a",
    "dpmpp_2s_ancestral": "dpmpp_2s_a",
    "dpmpp_3m_sde_gpu": "dpmpp_3m_sde",
    "uni_pc": "unipc",
    "uni_pc_bh2": "unipc",
    "DPMSolverMultistepScheduler": "dpmpp_2m",
    "KDPM2AncestralDiscreteScheduler": "dpm2_a",
    "PNDMScheduler": "plms",
}


@pytest.mark.parametrize("name", SPELLINGS)
def test_other_programs_spellings_are_read(name):
    assert sampler_by_name(name) is SAMPLERS[SPELLINGS[name]]


def test_the_schedule_in_a_name_is_read():
    assert schedule_in("DPM++ 2M Karras") == "karras"
    assert schedule_in("DPM++ 2M SDE Exponential") == "exponential"
    assert schedule_in("euler_sgm_uniform") == "sgm_uniform"
    assert schedule_in("DPM++ 2M") is None


def test_an_unknown_sampler_names_the_near_ones():
    with pytest.raises(SafelightError, match=r"Unknown sampler 'hoin'. Did you mean 'heun'\?"):
        sampler_by_name("hoin")
