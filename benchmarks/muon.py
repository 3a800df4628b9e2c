"""How long Muon's update takes on the default U-Net: `python benchmarks/muon.py`.

Both sides get the same gradients for the same matrices and step in turn, so that what else the
machine does meets both. The peer is Jordan et al.'s iteration as published: five iterations of one
polynomial, matrix by matrix, scaled by the Frobenius norm, in float32. What each makes of singular
values that fall from 1 to 0.01 is printed too, since the shorter iteration does less to the least.
"""

import statistics
import time
import tomllib
from collections.abc import Callable, Sequence
from pathlib import Path

import torch
from torch import Tensor

from safelight.config import from_dict
from safelight.models.unet import UNet, UNetConfig
from safelight.train.muon import orthogonalised

RECIPE = Path(__file__).parents[1] / "recipes" / "default" / "unet.toml"
ROUNDS = 15


def published(matrix: Tensor, iterations: int = 5) -> Tensor:
    """Jordan et al. 2024's Newton-Schulz iteration of a matrix."""
    a, b, c = 3.4445, -4.7750, 2.0315
    wide = matrix.shape[0] <= matrix.shape[1]
    x = matrix if wide else matrix.mT
    x = x / (x.norm() + 1e-7)
    for _ in range(iterations):
        gram = x @ x.mT
        x = a * x + (b * gram + c * gram @ gram) @ x
    return x if wide else x.mT


def theirs(matrices: Sequence[Tensor]) -> None:
    """The published way, one matrix after the other."""
    for matrix in matrices:
        published(matrix)


def ours(matrices: Sequence[Tensor]) -> None:
    """As `train.muon` does it: matrices of one shape together."""
    alike: dict[torch.Size, list[Tensor]] = {}
    for matrix in matrices:
        alike.setdefault(matrix.shape, []).append(matrix)
    for group in alike.values():
        orthogonalised(torch.stack(group))


def seconds(step: Callable[[Sequence[Tensor]], None], matrices: Sequence[Tensor]) -> float:
    """The time of one call."""
    start = time.perf_counter()
    step(matrices)
    return time.perf_counter() - start


def main() -> None:
    """Prints medians, their ratio, and the least singular values."""
    torch.manual_seed(0)
    with RECIPE.open("rb") as file:
        unet = UNet(from_dict(UNetConfig, tomllib.load(file)["unet"]))
    kernels = [p.detach().flatten(1) for p in unet.parameters() if p.ndim > 1]
    matrices = [torch.randn_like(kernel) for kernel in kernels]
    times: dict[str, list[float]] = {"theirs": [], "ours": []}
    with torch.no_grad():
        theirs(matrices)
        ours(matrices)
        for _ in range(ROUNDS):
            times["theirs"].append(seconds(theirs, matrices))
            times["ours"].append(seconds(ours, matrices))
        u, _, v = torch.linalg.svd(torch.randn(192, 1728), full_matrices=False)
        falling = (u * torch.logspace(0, -2, 192)) @ v
        least = {
            "theirs": torch.linalg.svdvals(published(falling)).min().item(),
            "ours": torch.linalg.svdvals(orthogonalised(falling[None])).min().item(),
        }
    medians = {name: statistics.median(taken) for name, taken in times.items()}
    print(f"torch {torch.__version__}, {torch.get_num_threads()} threads, {len(matrices)} matrices")
    for name, median in medians.items():
        print(f"{name}: {1e3 * median:.0f} ms, least singular value {least[name]:.2f}")
    print(f"ratio: {medians['theirs'] / medians['ours']:.2f}")


if __name__ == "__main__":
    main()
