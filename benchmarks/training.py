"""A step of training latent diffusion, against the plain loop of diffusers' train_text_to_image.

`python benchmarks/training.py [--threads 1] [--rounds 3] [--steps 4] [--batch 8] [--ways ...]`.
One U-Net of 23.6 M weights on latents of 4 x 16 x 16 and 77 tokens of 256, with the same weights,
latents, times, noise and tokens for all, in float32 unless a way says otherwise:

- diffusers: its `UNet2DConditionModel` in the example's loop (noise predicted, mean squared error,
  gradients clipped to 1, `torch.optim.AdamW` as it is made there);
- safelight, the same optimiser: `train.loop` with `LatentTask`, as recipes run it, averages of the
  weights included, which the example leaves out;
- safelight: with its own AdamW (fused, no decay of vectors); with Muon, as the default model's
  recipe; compiled (`optim.compile`); and in bfloat16, where the processor multiplies it.

Each round of each way is a process of its own, ways in turn. Prints a table in Markdown: times of a
step (wall clock and processor, medians over all rounds), the most memory of the process, and how
far the losses of the steps are from those of diffusers.
"""

import argparse
import json
import os
import resource
import statistics
import subprocess
import sys
import tempfile
import time
from collections.abc import Iterator, Mapping
from dataclasses import dataclass, field
from pathlib import Path

import numpy as np
import torch
import torch.nn.functional as F
from torch import Tensor, nn

from safelight import rng
from safelight.checkpoints.components import write_unet
from safelight.checkpoints.schedulers import SchedulerConfig
from safelight.diffusion.denoiser import Denoiser
from safelight.models.unet import UNet, UNetConfig
from safelight.nn.precision import multiplies_bfloat16
from safelight.train import loop
from safelight.train.latent_task import LatentTask, ObjectiveConfig, latent_objective
from safelight.train.loop import LoopConfig
from safelight.train.optim import OptimConfig, autocast_dtype
from safelight.train.task import Draws, Loss, Phase
from safelight.types import Batch, Conditioning

SHAPE = UNetConfig(
    sample_size=16,
    block_out_channels=(128, 256, 256),
    layers_per_block=(1, 1, 1),
    attention=(True, True, False),
    transformer_layers=(1, 1, 1),
    attention_heads=(4, 8, 8),
    only_cross_attention=(False, False, False),
    cross_attention_dim=256,
)
SCHEDULER = SchedulerConfig(beta_schedule="scaled_linear", beta_start=0.00085, beta_end=0.012)
TOKENS, LR, SEED = 77, 1e-4, 0
WARM_UP = 1  # steps before those that are timed
PEER = "diffusers"
OPTIMS = {
    "safelight, the same optimiser": OptimConfig(lr=LR, warmup=0, precision="float32"),
    "safelight": OptimConfig(lr=LR, warmup=0, precision="float32"),
    "safelight, Muon": OptimConfig(lr=LR, warmup=0, precision="float32", optimizer="muon"),
    "safelight, compiled": OptimConfig(lr=LR, warmup=0, precision="float32", compile=True),
    "safelight, bfloat16": OptimConfig(lr=LR, warmup=0, precision="bfloat16"),
}
SAME = "safelight, the same optimiser"
_MIB = 2**20


class Done(Exception):  # noqa: N818  # no error: it ends a loop that would save what it learned
    """Enough steps are done."""


@dataclass
class Measured:
    """What one process says: of each timed step the seconds, and of each step the loss."""

    wall: list[float] = field(default_factory=list)
    processor: list[float] = field(default_factory=list)
    losses: list[float] = field(default_factory=list)
    peak: int = 0  # bytes


def network() -> UNet:
    """The same weights in every process, the last convolution not zero, so that losses differ."""
    torch.manual_seed(SEED)
    return UNet(SHAPE)


def latents_at(step: int, batch: int) -> Tensor:
    """Of a step, (batch, 4, 16, 16)."""
    return torch.randn((batch, 4, 16, 16), generator=rng.generator_for(SEED, step, 0))


def tokens(batch: int) -> Tensor:
    """What a text tower would say, (batch, 77, 256)."""
    return torch.randn((batch, TOKENS, 256), generator=rng.generator_for(SEED, 1))


class Clock:
    """Yields the numbers of steps, and times what is done between one and the next."""

    def __init__(self, measured: Measured, steps: int):
        self.measured, self.steps = measured, steps

    def __iter__(self) -> Iterator[int]:
        for step in range(WARM_UP + self.steps):
            wall, processor = time.perf_counter(), time.process_time()
            yield step
            if step >= WARM_UP:
                self.measured.wall.append(time.perf_counter() - wall)
                self.measured.processor.append(time.process_time() - processor)


def by_diffusers(measured: Measured, steps: int, batch: int, folder: Path) -> None:
    """The example's loop, with the draws of ours."""
    from diffusers import DDPMScheduler, UNet2DConditionModel

    write_unet(folder, network())
    unet = UNet2DConditionModel.from_pretrained(folder)
    unet.train()
    scheduler = DDPMScheduler(
        beta_schedule="scaled_linear", beta_start=0.00085, beta_end=0.012, num_train_timesteps=1000
    )
    optimizer = torch.optim.AdamW(unet.parameters(), lr=LR, weight_decay=1e-2, eps=1e-8)
    encoder_hidden_states = tokens(batch)
    for step in Clock(measured, steps):
        draws = Draws(SEED, step, batch, 0, batch, torch.device("cpu"))
        latents = latents_at(step, batch)
        noise = draws.normal(latents.shape, 1)
        timesteps = torch.randint(0, 1000, (batch,), generator=draws.generator(0))
        noisy_latents = scheduler.add_noise(latents, noise, timesteps)
        model_pred = unet(noisy_latents, timesteps, encoder_hidden_states, return_dict=False)[0]
        loss = F.mse_loss(model_pred.float(), noise.float(), reduction="mean")
        loss.backward()
        nn.utils.clip_grad_norm_(unet.parameters(), 1.0)
        optimizer.step()
        optimizer.zero_grad()
        measured.losses.append(loss.item())


class Told:
    """A task whose losses are kept."""

    def __init__(self, task: LatentTask, losses: list[float]):
        self._task, self._losses = task, losses

    @property
    def phases(self) -> Mapping[str, Phase]:
        """Those of the task."""
        return self._task.phases

    def losses(self, batch: Batch, draws: Draws) -> Iterator[Loss]:
        """Those of the task."""
        for loss in self._task.losses(batch, draws):
            self._losses.append(loss.total.item())
            yield loss


def by_safelight(measured: Measured, steps: int, batch: int, way: str, folder: Path) -> None:
    """Our loop."""
    optim, device = OPTIMS[way], torch.device("cpu")
    if way == SAME:  # as the example makes it
        loop.OPTIMISERS["adamw"] = lambda parameters, config: torch.optim.AdamW(
            parameters, lr=config.lr, weight_decay=1e-2, eps=1e-8
        )
    unet, context = network(), tokens(batch)
    denoiser = Denoiser(
        *(unet, SCHEDULER.parameterization(), SCHEDULER.schedule()),
        autocast_dtype(optim.precision, device),
    )
    objective = latent_objective(ObjectiveConfig(caption_dropout=0.0), denoiser)
    task = LatentTask({"unet": unet}, denoiser, lambda _: Conditioning(context=context), objective)

    def batches(first: int) -> Iterator[Batch]:
        for step in Clock(measured, steps):
            yield Batch(captions=("",) * batch, latents=latents_at(step, batch))
        raise Done

    config = LoopConfig(
        *(10**6, batch, SEED), log_every=10**6, save_every=0, preview_every=0, tensorboard=False
    )
    try:
        loop.train(Told(task, measured.losses), batches, config, optim, folder, device=device)
    except Done:
        return


def measure(way: str, steps: int, batch: int) -> Measured:
    """One round of one way, in this process."""
    measured = Measured()
    with tempfile.TemporaryDirectory() as folder:
        if way == PEER:
            by_diffusers(measured, steps, batch, Path(folder))
        else:
            by_safelight(measured, steps, batch, way, Path(folder))
    measured.peak = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss * 1024
    return measured


def rounds_of(given: argparse.Namespace) -> dict[str, list[Measured]]:
    """All rounds of all ways, in turn, each in a process of its own."""
    found: dict[str, list[Measured]] = {way: [] for way in given.ways}
    environment = os.environ | {"OMP_NUM_THREADS": str(given.threads)}
    sizes = ["--steps", str(given.steps), "--batch", str(given.batch)]
    for _ in range(given.rounds):
        for way, measured in found.items():
            command = [sys.executable, __file__, "--way", way, *sizes]
            done = subprocess.run(
                command, stdout=subprocess.PIPE, text=True, check=True, env=environment
            )
            measured.append(Measured(**json.loads(done.stdout.splitlines()[-1])))
    return found


def show(found: dict[str, list[Measured]]) -> None:
    """Prints the table."""
    columns = ("by", "a step, median", "quartiles", "processor", "times diffusers", "most memory")
    print(f"| {' | '.join(columns)} | losses |")
    print("|---|---:|---:|---:|---:|---:|---:|")
    peers = found.get(PEER, [])
    for way, rounds in found.items():
        wall = [seconds for one in rounds for seconds in one.wall]
        processor = statistics.median(seconds for one in rounds for seconds in one.processor)
        low, middle, high = (float(np.quantile(wall, q)) for q in (0.25, 0.5, 0.75))
        ratio = loss = "-"
        if peers:
            theirs = statistics.median(seconds for one in peers for seconds in one.processor)
            ratio = f"{theirs / processor:.2f}"
            pairs = zip(rounds[0].losses, peers[0].losses, strict=True)
            loss = (
                ""
                if "Muon" in way
                else f"{max(abs(ours - other) / other for ours, other in pairs):.0e}"
            )
        print(
            f"| {way} | {middle:.2f} s | {low:.2f} to {high:.2f} s | {processor:.2f} s | {ratio} "
            f"| {max(one.peak for one in rounds) / _MIB:.0f} MiB | {loss if way != PEER else ''} |"
        )


def main() -> None:
    """Prints what is measured."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--threads", type=int, default=1)
    parser.add_argument("--rounds", type=int, default=3)
    parser.add_argument("--steps", type=int, default=4, help="timed, after the first")
    parser.add_argument("--batch", type=int, default=8)
    known = [PEER, *OPTIMS]
    usual = [
        way for way in known if "bfloat16" not in way or multiplies_bfloat16(torch.device("cpu"))
    ]
    parser.add_argument("--ways", nargs="+", choices=known, default=usual)
    parser.add_argument("--way", help=argparse.SUPPRESS)
    given = parser.parse_args()
    if given.way is not None:
        print(json.dumps(vars(measure(given.way, given.steps, given.batch))))
        return
    load = os.getloadavg()[0]
    found = rounds_of(given)
    show(found)
    count = sum(parameter.numel() for parameter in network().parameters())
    first = next(iter(found.values()))[0].losses
    print(f"- {count / 1e6:.1f} M weights, {given.batch} latents a step, {given.threads} threads")
    print(f"- losses of {next(iter(found))}: {', '.join(f'{loss:.5f}' for loss in first)}")
    print(f"- load {load:.1f} before and {os.getloadavg()[0]:.1f} after")


if __name__ == "__main__":
    main()
