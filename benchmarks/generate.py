"""One guided picture of the default model: seconds, memory and likeness, by each engine and quality
and by diffusers on the same folder.

`python benchmarks/generate.py [--model default] [--steps 20] [--rounds 7] [--starts 3]
[--threads 2] [--ways diffusers torch openvino ...] [--output generate.json]`. Each way lives in a
process of its own, which loads the model, makes a picture that is not timed (and makes ready what
its engine computes), and then one whenever it is told to, in turn with the others. All take the
same prompt, seeds, steps and sampler (Euler). Prints a table in Markdown: the median and the
quartiles of wall time, the median of processor time, times diffusers, the PSNR to "torch", and the
most memory that the process ever held. `--starts` times whole processes, imports counted. What else
the machine did is told by its load and the time that was stolen from it. `--output` keeps all times
as JSON.
"""

import argparse
import json
import os
import statistics
import subprocess
import sys
import tempfile
import time
from pathlib import Path

import numpy as np
from turns import (
    MIB,
    Make,
    Worker,
    answer,
    folder_name,
    processor,
    quartiles,
    stolen,
    timed,
    with_threads,
)

PROMPT, SCALE = "a red ball", 4.0
WAYS = {  # the engine and the quality of each
    "torch": ("torch", "exact"),
    "prepared": ("prepared", "exact"),
    "openvino": ("openvino", "exact"),
    "compile": ("compile", "exact"),
    "torch, fast": ("torch", "fast"),
    "torch, fastest": ("torch", "fastest"),
    "prepared, fast": ("prepared", "fast"),
    "prepared, fastest": ("prepared", "fastest"),
    "openvino, fast": ("openvino", "fast"),
    "openvino, fastest": ("openvino", "fastest"),
}
PEER, EXACT = "diffusers", "torch"
Likeness = dict[str, list[float]]  # of each way the PSNR of its pictures


def ours(model: str, steps: int, engine: str, quality: str) -> Make:
    """A picture of a seed by safelight, (h, w, 3) in 0 to 255."""
    import safelight

    pipeline = safelight.load(model, device="cpu", engine=engine)

    def make(seed: int) -> np.ndarray:
        options = {"steps": steps, "scale": SCALE, "sampler": "euler", "quality": quality}
        [picture] = pipeline.generate(PROMPT, seed=seed, **options)
        assert picture.manifest.engine == engine
        return np.asarray(picture.image)

    return make


def theirs(model: str, steps: int) -> Make:
    """The same by diffusers."""
    import diffusers
    import torch

    diffusers.utils.logging.disable_progress_bar()
    pipeline = diffusers.StableDiffusionPipeline.from_pretrained(model, torch_dtype=torch.float32)
    config = pipeline.scheduler.config
    pipeline.scheduler = diffusers.EulerDiscreteScheduler.from_config(config)
    pipeline.set_progress_bar_config(disable=True)

    def make(seed: int) -> np.ndarray:
        generator = torch.Generator().manual_seed(seed)
        options = {"num_inference_steps": steps, "guidance_scale": SCALE, "output_type": "np"}
        made = pipeline(PROMPT, generator=generator, height=64, width=64, **options)
        return (made.images[0] * 255).round().astype(np.uint8)

    return make


def worker_of(way: str, given: argparse.Namespace, folder: Path) -> Worker:
    """A way in a process of its own."""
    place = folder / folder_name(way)
    command = [sys.executable, __file__, "--model", given.model, "--steps", str(given.steps)]
    command += ["--work", way, "--folder", str(place)]
    return Worker(way, command, place, with_threads(given.threads))


def started(command: list[str], given: argparse.Namespace, bytecode: Path) -> float:
    """Seconds of a whole process, whose modules are kept compiled, as those of an installed package
    are.
    """
    env = with_threads(given.threads) | {"PYTHONPYCACHEPREFIX": str(bytecode)}
    env.pop("PYTHONDONTWRITEBYTECODE", None)
    begun = time.perf_counter()
    subprocess.run(command, check=True, capture_output=True, env=env)
    return time.perf_counter() - begun


def starts(given: argparse.Namespace, folder: Path) -> dict[str, list[float]]:
    """Seconds of whole processes that make one picture, in turn."""
    options = ["--steps", str(given.steps), "--sampler", "euler", "--scale", str(SCALE)]
    command = [sys.executable, "-m", "safelight.app.cli", "generate", PROMPT, *options]
    command += ["--model", given.model, "--device", "cpu", "-o", str(folder / "start.png")]
    script = (
        "import torch; from diffusers import StableDiffusionPipeline as P; "
        f"p = P.from_pretrained({given.model!r}, torch_dtype=torch.float32); "
        f"p({PROMPT!r}, num_inference_steps={given.steps}, guidance_scale={SCALE}, height=64, "
        f"width=64).images[0].save({str(folder / 'start.png')!r})"
    )
    ways = {
        f"safelight generate, {given.steps} steps": [*command, "--engine", "prepared"],
        "the same, fastest": [*command, "--engine", "prepared", "--quality", "fastest"],
        "a script of diffusers": [sys.executable, "-c", script],
        "import torch alone": [sys.executable, "-c", "import torch"],
    }
    if "openvino" in given.ways:
        ways["the same by OpenVINO, kept"] = [*command, "--engine", "openvino"]
    times: dict[str, list[float]] = {name: [] for name in ways}
    for turn in range(given.starts + 1 if given.starts else 0):
        for name, whole in ways.items():
            seconds = started(whole, given, folder / "bytecode")
            if turn:  # the first compiles the modules, and fills the disk's cache
                times[name].append(seconds)
    return times


def psnr(picture: np.ndarray, exact: np.ndarray) -> float:
    """In decibels; at most 99."""
    return float(min(99.0, 10 * np.log10(255**2 / max(((picture - exact) ** 2).mean(), 1e-9))))


def compared(given: argparse.Namespace, folder: Path) -> tuple[list[Worker], Likeness]:
    """All ways, one picture each in turn, and the PSNR of each picture."""
    workers = [worker_of(way, given, folder) for way in given.ways]
    likeness: Likeness = {worker.way: [] for worker in workers}
    for worker in workers:
        worker.make(0, timed=False)
    for seed in range(1, given.rounds + 1):
        made = {worker.way: worker.make(seed) for worker in workers}
        for way, picture in made.items():
            if EXACT in made:
                likeness[way].append(psnr(picture, made[EXACT]))
    for worker in workers:
        worker.end()
    return workers, likeness


def show(workers: list[Worker], likeness: Likeness) -> None:
    """Prints the table."""
    print("| by | median | quartiles | processor | times diffusers | PSNR | most memory |")
    print("|---|---:|---:|---:|---:|---:|---:|")
    peers = [worker for worker in workers if worker.way == PEER]
    for worker in workers:
        middle, low, high = quartiles(worker.times["wall"])
        ratio = f"{statistics.median(peers[0].times['wall']) / middle:.2f}" if peers else "-"
        psnrs = likeness[worker.way]
        like = f"{statistics.median(psnrs):.1f} dB" if psnrs else "-"
        print(
            f"| {worker.way} | {middle:.2f} s | {low:.2f} to {high:.2f} s "
            f"| {statistics.median(worker.times['processor']):.2f} s | {ratio} | {like} "
            f"| {max(worker.times['peak']) / MIB:.0f} MiB |",
            flush=True,
        )


def main() -> None:
    """Prints what is measured."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--model", default="default")
    parser.add_argument("--steps", type=int, default=20)
    parser.add_argument("--rounds", type=int, default=7)
    parser.add_argument("--starts", type=int, default=3)
    parser.add_argument("--threads", type=int, default=os.cpu_count() or 1)
    parser.add_argument("--ways", nargs="+", choices=[PEER, *WAYS], default=[PEER, *WAYS])
    parser.add_argument("--output", type=Path)
    parser.add_argument("--work", help=argparse.SUPPRESS)
    parser.add_argument("--folder", type=Path, help=argparse.SUPPRESS)
    given = parser.parse_args()
    if given.work is not None:
        by_diffusers = given.work == PEER
        options = (given.model, given.steps)
        make = theirs(*options) if by_diffusers else ours(*options, *WAYS[given.work])
        answer(timed(make), given.folder)
        return
    from safelight.pipelines.find import find_model

    given.model = str(find_model(given.model))
    load, before = os.getloadavg()[0], stolen()
    with tempfile.TemporaryDirectory() as name:
        folder = Path(name)
        workers, likeness = compared(given, folder) if given.rounds else ([], {})
        if workers:
            show(workers, likeness)
        whole = starts(given, folder)
    for what, times in whole.items():
        if times:
            print(f"- {what}: {statistics.median(times):.2f} s ({min(times):.2f} at best)")
    busy = f"load {load:.1f} before and {os.getloadavg()[0]:.1f} after"
    print(f"- {processor()}, {given.threads} threads; {busy}, {stolen() - before:.0f} s stolen")
    if given.output is not None:
        measured = {
            worker.way: {**worker.times, "psnr": likeness[worker.way]} for worker in workers
        }
        told = {"machine": processor(), "threads": given.threads, "busy": busy}
        given.output.write_text(
            json.dumps(told | {"measured": measured, "starts": whole}, indent=1)
        )


if __name__ == "__main__":
    main()
