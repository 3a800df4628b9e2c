"""Samplers that diffusers has no class for, over full runs, against the formulas that k-diffusion
and AUTOMATIC1111 publish, written out here in lambda = -ln(sigma) and float64.
"""

import math
from itertools import pairwise

import pytest
import torch

from safelight.diffusion.samplers import SAMPLERS
from safelight.diffusion.sigmas import exponential_sigmas, karras_sigmas
from safelight.rng import SeededNoise

SHAPE = (2, 2, 3, 3)
SIGMAS = {
    "karras": karras_sigmas(24, 0.03, 14.6),
    "exponential": exponential_sigmas(24, 0.03, 14.6),
    "few": karras_sigmas(5, 0.03, 14.6),
    "above zero": exponential_sigmas(24, 0.03, 14.6)[:-1],
    "many": karras_sigmas(40, 0.03, 14.6),
}


def denoise(x, sigma):
    """A smooth stand-in that mixes neighbours and feels the level."""
    level = sigma.reshape(-1, 1, 1, 1)
    shrunk = x / (1 + level**2)
    return shrunk + 0.3 * torch.tanh(x.roll(1, 3) / (1 + level)) + 0.1 * torch.sin(level.log())


def _at(x, sigma):
    return denoise(x, torch.full((len(x),), sigma, dtype=x.dtype))


def _ancestral(sigma, target, eta=1.0):
    up = min(target, eta * math.sqrt(target**2 * (sigma**2 - target**2) / sigma**2))
    return math.sqrt(target**2 - up**2), up


def _dpmpp_2s_a(x, levels, draw):
    for sigma, target in pairwise(levels):
        x0 = _at(x, sigma)
        down, up = _ancestral(sigma, target)
        if down == 0:
            x = x0
        else:
            t, t_next = -math.log(sigma), -math.log(down)
            h = t_next - t
            s = t + h / 2
            halfway = math.exp(-s) / math.exp(-t) * x - math.expm1(-h / 2) * x0
            x = math.exp(-t_next) / math.exp(-t) * x - math.expm1(-h) * _at(halfway, math.exp(-s))
        if target > 0:
            x = x + up * draw()
    return x


def _dpmpp_sde(x, levels, draw):
    for sigma, target in pairwise(levels):
        x0 = _at(x, sigma)
        if target == 0:
            x = x0
            continue
        t, t_next = -math.log(sigma), -math.log(target)
        s = math.exp(-(t + t_next) / 2)
        # a Brownian path over sigma, at the middle and at the end of the step
        to_middle = math.sqrt(sigma - s) * draw()
        to_end = to_middle + math.sqrt(s - target) * draw()
        down, up = _ancestral(sigma, s)
        t_down = -math.log(down)
        halfway = down / sigma * x - math.expm1(t - t_down) * x0
        halfway = halfway + up * to_middle / math.sqrt(sigma - s)
        down, up = _ancestral(sigma, target)
        t_down = -math.log(down)
        x = down / sigma * x - math.expm1(t - t_down) * _at(halfway, s)
        x = x + up * to_end / math.sqrt(sigma - target)
    return x


def _dpmpp_2m_sde(x, levels, draw, eta=1.0):
    old, h_last = None, None
    for sigma, target in pairwise(levels):
        x0 = _at(x, sigma)
        if target == 0:
            x = x0
            continue
        h = math.log(sigma) - math.log(target)
        x = target / sigma * math.exp(-eta * h) * x - math.expm1(-h - eta * h) * x0
        if old is not None:
            x = x - 0.5 * math.expm1(-h - eta * h) * h / h_last * (x0 - old)
        x = x + draw() * target * math.sqrt(-math.expm1(-2 * eta * h))
        old, h_last = x0, h
    return x


def _dpmpp_3m_sde(x, levels, draw, eta=1.0):
    d1, d2, h1, h2 = None, None, None, None
    for sigma, target in pairwise(levels):
        x0 = _at(x, sigma)
        if target == 0:
            x = x0
            continue
        h = math.log(sigma) - math.log(target)
        h_eta = h * (eta + 1)
        x = math.exp(-h_eta) * x - math.expm1(-h_eta) * x0
        phi_2 = math.expm1(-h_eta) / h_eta + 1
        phi_3 = phi_2 / h_eta - 0.5
        if h2 is not None:
            r0, r1 = h1 / h, h2 / h
            first, second = (x0 - d1) / r0, (d1 - d2) / r1
            slope = first + (first - second) * r0 / (r0 + r1)
            x = x + phi_2 * slope - phi_3 * (first - second) / (r0 + r1)
        elif h1 is not None:
            x = x + phi_2 * (x0 - d1) / (h1 / h)
        x = x + draw() * target * math.sqrt(-math.expm1(-2 * h * eta))
        d1, d2, h1, h2 = x0, d1, h, h1
    return x


def _restart(x, levels, draw):
    steps = len(levels) - 1
    if steps >= 20:
        again, times = (9, 1) if steps < 36 else (steps // 4, 2)
        levels = karras_sigmas(steps - again * times, levels[-2], levels[0]).tolist()
    taken = []
    low = min(range(len(levels)), key=lambda i: abs(levels[i] - 0.1))
    high = min(range(len(levels)), key=lambda i: abs(levels[i] - 2))
    for i in range(len(levels) - 1):
        taken.append((levels[i], levels[i + 1]))
        if steps >= 20 and i + 1 == low and high < low:
            back = karras_sigmas(again + 1, levels[low], levels[high]).tolist()[:-1]
            taken += list(pairwise(back)) * times
    last = levels[0]
    for sigma, target in taken:
        if last < sigma * (1 - 1e-9):  # but for the last digits
            x = x + draw() * math.sqrt(sigma**2 - last**2)
        slope = (x - _at(x, sigma)) / sigma
        ahead = x + slope * (target - sigma)
        if target > 0:
            slope = (slope + (ahead - _at(ahead, target)) / target) / 2
        x, last = x + slope * (target - sigma), target
    return x


FORMULAS = {
    "dpmpp_2s_a": _dpmpp_2s_a,
    "dpmpp_sde": _dpmpp_sde,
    "dpmpp_2m_sde": _dpmpp_2m_sde,
    "dpmpp_3m_sde": _dpmpp_3m_sde,
    "restart": _restart,
}


RUNS = [
    (sampler, laid)
    for sampler in FORMULAS
    for laid in SIGMAS
    if (sampler, laid) != ("restart", "above zero")  # AUTOMATIC1111's always ends at 0
]


@pytest.mark.parametrize(("sampler", "laid"), RUNS)
def test_a_run_is_what_the_formula_gives(sampler, laid):
    sigmas = SIGMAS[laid]
    noise, index = SeededNoise([3, 4], dtype=torch.float64), 0

    def draw():
        nonlocal index
        index += 1
        return noise(SHAPE, index)

    start = noise(SHAPE, 0) * sigmas[0].item()
    wanted = FORMULAS[sampler](start, sigmas.tolist(), draw)
    x = SAMPLERS[sampler](denoise, start.float(), sigmas, noise=SeededNoise([3, 4]))
    assert wanted.abs().max() > 0.3
    assert (x - wanted).abs().max() <= 1e-4 * wanted.abs().max()
