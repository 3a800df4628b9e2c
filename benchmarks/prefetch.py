"""A training step of the default U-Net while batches are read ahead, by threads with and without
OpenMP threads of their own.

`python benchmarks/prefetch.py [--rounds 3] [--steps 12]`. Both run in turn, each round of each in a
process of its own, since a thread's helpers stay with the process.
"""

import argparse
import statistics
import subprocess
import sys
import time
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import torch

from safelight.app.recipe import read_recipe
from safelight.data import batches
from safelight.models.unet import UNet
from safelight.train.optim import OPTIMISERS, prepare
from safelight.types import Conditioning

RECIPE = Path(__file__).parents[1] / "recipes" / "default" / "unet.toml"
BATCH, TOKENS, WARM_UP = 64, 32, 3
WAYS = ("with", "without")


def step_seconds(way: str, steps: int) -> float:
    """The median time of a step, in seconds."""
    torch.manual_seed(0)
    recipe = read_recipe(RECIPE, ())
    assert recipe.unet is not None
    network = UNet(recipe.unet)
    prepare(network, recipe.optim, torch.device("cpu"))
    optimiser = OPTIMISERS[recipe.optim.optimizer](network.parameters(), recipe.optim)
    x0 = torch.randn(BATCH, recipe.unet.in_channels, 8, 8)
    context = torch.randn(BATCH, TOKENS, recipe.unet.cross_attention_dim or 1)
    if way == "with":  # as it was: threads that take what OpenMP gives them
        batches.ThreadPoolExecutor = _with_helpers
    times: list[float] = []
    for batch in batches.prefetch(lambda step: x0 * (1 + 1e-3 * step), stop=WARM_UP + steps):
        began = time.perf_counter()
        x = batch.contiguous(memory_format=torch.channels_last)
        out = network(x, torch.full((BATCH,), 500.0), Conditioning(context=context))
        (out - x).square().mean().backward()
        optimiser.step()
        optimiser.zero_grad()
        times.append(time.perf_counter() - began)
    return statistics.median(times[WARM_UP:])


def _with_helpers(workers: int, name: str, **_: object) -> ThreadPoolExecutor:
    return ThreadPoolExecutor(workers, name)


def main() -> None:
    """Prints the medians over the rounds and their ratio."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--rounds", type=int, default=3)
    parser.add_argument("--steps", type=int, default=12)
    parser.add_argument("--way", choices=WAYS)
    arguments = parser.parse_args()
    if arguments.way:
        print(step_seconds(arguments.way, arguments.steps))
        return
    rounds: dict[str, list[float]] = {way: [] for way in WAYS}
    for _ in range(arguments.rounds):
        for way in WAYS:
            command = [sys.executable, __file__, "--way", way, "--steps", str(arguments.steps)]
            done = subprocess.run(command, capture_output=True, text=True, check=True)
            rounds[way].append(float(done.stdout))
    for way, seconds in rounds.items():
        shown = ", ".join(f"{1000 * value:.0f}" for value in seconds)
        median = 1000 * statistics.median(seconds)
        print(f"{way} helpers: {median:.0f} ms a step (rounds: {shown})")
    print(f"ratio {statistics.median(rounds['with']) / statistics.median(rounds['without']):.2f}")


if __name__ == "__main__":
    main()
