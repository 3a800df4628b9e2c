"""How near each sampler comes to the end of the road, by calls of the network.

`python benchmarks/samplers.py [--model default] [--calls 8 12 20 40] [--pictures 64]
[--reference 200] [--schedule karras]`. Every sampler makes the same pictures with as many steps as
its calls allow. Those that draw no noise are compared with the pictures of `--reference` steps of
DPM++ 2M from the same noise, which the probability-flow ODE has in common (PSNR); all are compared,
as a set, with such pictures of other seeds (Fréchet distance of EfficientNet's features), beside
which the reference's own distance stands. Prints a table in Markdown.
"""

import argparse
from collections.abc import Sequence

import torch
from torch import Tensor

import safelight
from safelight.checkpoints.features import EFFICIENTNET, load_features
from safelight.diffusion.samplers import SAMPLERS
from safelight.diffusion.sigmas import exponential_sigmas
from safelight.eval.distances import frechet_distance, pooled_features
from safelight.eval.quality import psnr
from safelight.models.features import EfficientNetLite0
from safelight.pipelines.image import ImagePipeline
from safelight.pipelines.request import Request

PROMPTS = (
    "a 3d emoji of a red apple",
    "a 3d emoji of a smiling face",
    "a 3d emoji of a green car",
    "a red cube",
    "a blue ball",
    "a yellow cone and a green cube",
    "a red ball to the left of a blue cube",
    "a small green cylinder",
)
BATCH = 32
REFERENCE = "dpmpp_2m"


def cost(sampler: str, steps: int) -> tuple[int, bool]:
    """Calls of the network in so many steps, and whether noise was drawn."""
    calls, drawn = 0, False

    def denoise(x: Tensor, sigma: Tensor) -> Tensor:
        nonlocal calls
        calls += 1
        return x / (1 + sigma.reshape(-1, 1, 1, 1))

    def noise(shape: Sequence[int], index: int) -> Tensor:
        nonlocal drawn
        drawn = True
        return torch.zeros(tuple(shape))

    sigmas = exponential_sigmas(steps, 0.03, 14.6)
    SAMPLERS[sampler](denoise, torch.ones(1, 1, 1, 1), sigmas, noise=noise)
    return calls, drawn


def most_steps(sampler: str, calls: int) -> int:
    """The most steps that take no more than so many calls."""
    return max(steps for steps in range(1, calls + 1) if cost(sampler, steps)[0] <= calls)


def make(pipeline: ImagePipeline, request: Request, count: int, first: int) -> Tensor:
    """Pictures (count, 3, h, w) in [-1, 1] of the seeds from `first`, the prompts in turn."""
    settings = pipeline.settle(request)
    rows: list[Tensor] = []
    for start in range(0, count, BATCH):
        places = range(start, min(start + BATCH, count))
        prompts = [PROMPTS[place % len(PROMPTS)] for place in places]
        rows.append(pipeline.sample(prompts, [first + place for place in places], settings))
    return torch.cat(rows)


def main() -> None:
    """Prints the table."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--model", default="default")
    parser.add_argument("--calls", type=int, nargs="+", default=[8, 12, 20, 40])
    parser.add_argument("--pictures", type=int, default=64)
    parser.add_argument("--reference", type=int, default=200)
    parser.add_argument("--schedule")
    parser.add_argument("--samplers", nargs="+", default=list(SAMPLERS))
    given = parser.parse_args()
    pipeline = safelight.load(given.model, engine="torch")
    network = load_features(EFFICIENTNET)
    assert isinstance(network, EfficientNetLite0)

    def features(pixels: Tensor) -> Tensor:
        return pooled_features(torch.no_grad()(network.pooled), pixels)

    best = Request("", steps=given.reference, sampler=REFERENCE, schedule=given.schedule)
    same, others = (make(pipeline, best, given.pictures, first) for first in (0, given.pictures))
    wanted = features(others)
    floor = frechet_distance(features(same), wanted)
    print(f"The reference's own distance to other seeds: {floor:.1f}.\n")
    print("| sampler | " + " | ".join(f"{calls} calls" for calls in given.calls) + " |")
    print("|---|" + "---:|" * len(given.calls))
    for sampler in given.samplers:
        cells: list[str] = []
        for calls in given.calls:
            steps = most_steps(sampler, calls)
            request = Request("", steps=steps, sampler=sampler, schedule=given.schedule)
            pixels = make(pipeline, request, given.pictures, 0)
            distance = frechet_distance(features(pixels), wanted)
            drawn = cost(sampler, steps)[1]
            near = "" if drawn else f"{psnr(pixels, same).mean().item():.1f} dB, "
            cells.append(f"{near}{distance:.1f}")
        print(f"| `{sampler}` | " + " | ".join(cells) + " |", flush=True)


if __name__ == "__main__":
    main()
