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
import platform
import resource
import statistics
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable
from pathlib import Path
from typing import IO

import numpy as np

PROMPT, SCALE = "a red ball", 4.0
WAYS = {  # the engine and the quality of each
    "torch": ("torch", "exact"),
    "openvino": ("openvino", "exact"),
    "compile": ("compile", "exact"),
    "torch, fast": ("torch", "fast"),
    "torch, fastest": ("torch", "fastest"),
    "openvino, fast": ("openvino", "fast"),
    "openvino, fastest": ("openvino", "fastest"),
}
PEER, EXACT = "diffusers", "torch"
_MIB = 2**20
Make = Callable[[int], np.ndarray]


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


def work(way: str, model: str, steps: int, folder: Path) -> None:
    """Makes a picture of each seed that is read, and tells what it took."""
    make = theirs(model, steps) if way == PEER else ours(model, steps, *WAYS[way])
    for line in sys.stdin:
        seed, clock, processor = int(line), time.perf_counter(), time.process_time()
        levels = make(seed)
        told = {
            "wall": time.perf_counter() - clock,
            "processor": time.process_time() - processor,
            "peak": resource.getrusage(resource.RUSAGE_SELF).ru_maxrss * 1024,
        }
        np.save(folder / "picture.npy", levels)
        print(json.dumps(told), flush=True)


class Worker:
    """A way in a process of its own."""

    def __init__(self, way: str, given: argparse.Namespace, folder: Path):
        self.way, self.folder = way, folder / way.replace(", ", "-")
        self.folder.mkdir()
        command = [sys.executable, __file__, "--model", given.model, "--steps", str(given.steps)]
        command += ["--work", way, "--folder", str(self.folder)]
        self.process = subprocess.Popen(
            command, stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True, env=_threads(given)
        )
        self.times: dict[str, list[float]] = {"wall": [], "processor": [], "peak": []}
        self.psnr: list[float] = []

    def make(self, seed: int, *, timed: bool = True) -> np.ndarray:
        """A picture of a seed."""
        to, back = self.process.stdin, self.process.stdout
        if to is None or back is None:
            raise ValueError("The process has no pipes.")
        print(seed, file=to, flush=True)
        for name, value in json.loads(_line(back, self.way)).items():
            if timed or name == "peak":
                self.times[name].append(value)
        return np.load(self.folder / "picture.npy").astype(np.float64)

    def end(self) -> None:
        """Ends the process."""
        self.process.communicate()


def _line(back: IO[str], way: str) -> str:
    line = back.readline()
    if not line:
        raise SystemExit(f"{way} ended before its time; see above.")
    return line


def _threads(given: argparse.Namespace) -> dict[str, str]:
    return os.environ | {"OMP_NUM_THREADS": str(given.threads)}


def started(command: list[str], given: argparse.Namespace) -> float:
    """Seconds of a whole process."""
    begun = time.perf_counter()
    subprocess.run(command, check=True, capture_output=True, env=_threads(given))
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
        f"safelight generate, {given.steps} steps": [*command, "--engine", "torch"],
        "the same, fastest": [*command, "--engine", "torch", "--quality", "fastest"],
        "a script of diffusers": [sys.executable, "-c", script],
        "import torch alone": [sys.executable, "-c", "import torch"],
    }
    times: dict[str, list[float]] = {name: [] for name in ways}
    for _ in range(given.starts):
        for name, whole in ways.items():
            times[name].append(started(whole, given))
    return times


def psnr(picture: np.ndarray, exact: np.ndarray) -> float:
    """In decibels; at most 99."""
    return float(min(99.0, 10 * np.log10(255**2 / max(((picture - exact) ** 2).mean(), 1e-9))))


def stolen() -> float:
    """Seconds of the processors that other machines had, since the start; 0 where none tells."""
    told = Path("/proc/stat")
    if not told.is_file():
        return 0.0
    return int(told.read_text("utf-8").split()[8]) / os.sysconf("SC_CLK_TCK")


def processor() -> str:
    """The processor's name, which Linux tells in a file alone."""
    told = Path("/proc/cpuinfo")
    lines = told.read_text("utf-8").splitlines() if told.is_file() else []
    names = [line.partition(":")[2].strip() for line in lines if line.startswith("model name")]
    return names[0] if names else platform.processor()


def compared(given: argparse.Namespace, folder: Path) -> list[Worker]:
    """All ways, one picture each in turn."""
    workers = [Worker(way, given, folder) for way in given.ways]
    for worker in workers:
        worker.make(0, timed=False)
    for seed in range(1, given.rounds + 1):
        made = {worker.way: worker.make(seed) for worker in workers}
        for worker in workers:
            if EXACT in made:
                worker.psnr.append(psnr(made[worker.way], made[EXACT]))
    for worker in workers:
        worker.end()
    return workers


def show(workers: list[Worker]) -> None:
    """Prints the table."""
    print("| by | median | quartiles | processor | times diffusers | PSNR | most memory |")
    print("|---|---:|---:|---:|---:|---:|---:|")
    peers = [worker for worker in workers if worker.way == PEER]
    for worker in workers:
        wall = worker.times["wall"]
        middle, low, high = (float(np.quantile(wall, q)) for q in (0.5, 0.25, 0.75))
        ratio = f"{statistics.median(peers[0].times['wall']) / middle:.2f}" if peers else "-"
        likeness = f"{statistics.median(worker.psnr):.1f} dB" if worker.psnr else "-"
        print(
            f"| {worker.way} | {middle:.2f} s | {low:.2f} to {high:.2f} s "
            f"| {statistics.median(worker.times['processor']):.2f} s | {ratio} | {likeness} "
            f"| {max(worker.times['peak']) / _MIB:.0f} MiB |",
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
        work(given.work, given.model, given.steps, given.folder)
        return
    from safelight.pipelines.find import find_model

    given.model = str(find_model(given.model))
    load, before = os.getloadavg()[0], stolen()
    with tempfile.TemporaryDirectory() as name:
        folder = Path(name)
        workers = compared(given, folder) if given.rounds else []
        if workers:
            show(workers)
        whole = starts(given, folder)
    for what, times in whole.items():
        if times:
            print(f"- {what}: {statistics.median(times):.2f} s ({min(times):.2f} at best)")
    busy = f"load {load:.1f} before and {os.getloadavg()[0]:.1f} after"
    print(f"- {processor()}, {given.threads} threads; {busy}, {stolen() - before:.0f} s stolen")
    if given.output is not None:
        measured = {worker.way: {**worker.times, "psnr": worker.psnr} for worker in workers}
        told = {"machine": processor(), "threads": given.threads, "busy": busy}
        given.output.write_text(
            json.dumps(told | {"measured": measured, "starts": whole}, indent=1)
        )


if __name__ == "__main__":
    main()
