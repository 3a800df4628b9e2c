import signal
import sys
import time
from collections.abc import Iterator, Mapping
from pathlib import Path

import torch
from torch import Tensor, nn

from safelight import rng
from safelight.train.checkpoint import Basis
from safelight.train.loop import LoopConfig, Outcome, train
from safelight.train.optim import OptimConfig
from safelight.train.task import Draws, Loss, Phase
from safelight.types import Batch


class Denoising:
    """A small network learns to take noise off pictures: a task that draws random numbers."""

    def __init__(self, seed: int = 0):
        torch.manual_seed(seed)
        self.network = nn.Sequential(
            nn.Conv2d(3, 8, 3, padding=1), nn.SiLU(), nn.Conv2d(8, 3, 3, padding=1)
        )
        self.poison_at = self.stop_at = -1
        self.pause = 0.0  # seconds

    @property
    def phases(self) -> Mapping[str, Phase]:
        return {"main": Phase({"network": self.network})}

    def losses(self, batch: Batch, draws: Draws) -> Iterator[Loss]:
        assert batch.pixels is not None
        noised = batch.pixels + 0.1 * draws.normal(batch.pixels.shape, 0)
        loss = (self.network(noised) - batch.pixels).square().mean()
        if draws.step == self.poison_at:
            loss = loss * float("nan")
        time.sleep(self.pause)
        if draws.step == self.stop_at:
            signal.raise_signal(signal.SIGTERM)
        yield Loss("main", loss, {"loss": loss})

    def weights(self) -> dict[str, Tensor]:
        return {name: tensor.clone() for name, tensor in self.network.state_dict().items()}


def batch(step: int, size: int = 8) -> Batch:
    pixels = torch.rand((size, 3, 8, 8), generator=rng.generator_for(1, step)) * 2 - 1
    return Batch(captions=("",) * size, pixels=pixels)


def batches_from(start: int) -> Iterator[Batch]:
    step = start
    while True:
        yield batch(step)
        step += 1


def run(
    task: Denoising,
    folder: Path,
    *,
    resume: bool = False,
    optim: OptimConfig | None = None,
    basis: Basis | None = None,
    **loop: int | float | bool,
) -> Outcome:
    settings = {"steps": 6, "batch_size": 8, "tensorboard": False, "preview_every": 0} | loop
    return train(
        task,
        batches_from,
        LoopConfig(**settings),
        optim or OptimConfig(lr=1e-2, warmup=2, precision="float32"),
        folder,
        device=torch.device("cpu"),
        resume=resume,
        basis=basis,
    )


def assert_same(a: Mapping[str, Tensor], b: Mapping[str, Tensor]) -> None:
    assert a.keys() == b.keys()
    different = [name for name in a if not torch.equal(a[name], b[name])]
    assert different == []


if __name__ == "__main__":  # trains without end until a signal comes
    slow = Denoising()
    slow.pause = 0.05
    outcome = run(slow, Path(sys.argv[1]), steps=1_000_000, save_every=0, log_every=1)
    sys.exit(0 if outcome.stopped is None else 128 + outcome.stopped)
