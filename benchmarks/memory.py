"""The most memory that one picture of Stable Diffusion takes: `python benchmarks/memory.py`.

    python benchmarks/memory.py --model sd15 --size 512 --ways diffusers "safelight, stored as int8"
    python benchmarks/memory.py --model sdxl --size 1024 --file float16

Writes the published architecture with random weights in the precision of `--file`, and makes one
picture of `--steps` guided steps by each way, each in a process of its own. Prints, in Markdown,
the most memory that the process held, the most of it that was its own (which the system cannot take
back: without what is mapped from files), and the processor's time of loading and of the picture.
The weights are random, so that the picture shows nothing. What is measured is Linux's; elsewhere
the most of its own is left out.
"""

import argparse
import json
import os
import resource
import subprocess
import sys
import tempfile
import threading
import time
from pathlib import Path

import numpy as np
from turns import processor, with_threads

GIB = 2**30
PROMPT = "a red ball"
WAYS = {  # by whom, the precision, and how weights are stored
    "diffusers": ("diffusers", "float32", None),
    "diffusers, bfloat16": ("diffusers", "bfloat16", None),
    "safelight": ("safelight", "float32", None),
    "safelight, bfloat16": ("safelight", "bfloat16", None),
    "safelight, stored as float16": ("safelight", "float32", "float16"),
    "safelight, stored as int8": ("safelight", "float32", "int8"),
}
_USUAL = [way for way in WAYS if not way.endswith(", bfloat16")]


class Watch:
    """The most memory of the process's own, looked at fifty times a second."""

    def __init__(self):
        self.most = 0.0
        threading.Thread(target=self._look, daemon=True).start()

    def _look(self) -> None:
        told = Path("/proc/self/status")
        while told.is_file():
            lines = told.read_text("utf-8").splitlines()
            own = [line.split()[1] for line in lines if line.startswith("RssAnon:")]
            self.most = max(self.most, *(int(kib) / 2**20 for kib in own), 0.0)
            time.sleep(0.02)


def ours(model: str, size: int, steps: int, precision: str, storage: str | None) -> list[float]:
    """A picture by safelight; the processor's seconds of loading and of making it."""
    import safelight
    from safelight.pipelines.precisions import precision_named

    begun = time.process_time()
    dtype = precision_named(precision)
    pipeline = safelight.load(model, device="cpu", engine="torch", dtype=dtype, storage=storage)
    loaded = time.process_time()
    [made] = pipeline.generate(PROMPT, steps=steps, width=size, height=size)
    assert np.asarray(made.image).std() > 0
    return [loaded - begun, time.process_time() - loaded]


def theirs(model: str, size: int, steps: int, precision: str) -> list[float]:
    """The same by diffusers, as it is without options."""
    import diffusers
    import torch

    begun = time.process_time()
    dtype = getattr(torch, precision)
    pipeline = diffusers.DiffusionPipeline.from_pretrained(model, torch_dtype=dtype)
    pipeline.set_progress_bar_config(disable=True)
    loaded = time.process_time()
    pipeline(PROMPT, num_inference_steps=steps, height=size, width=size)
    return [loaded - begun, time.process_time() - loaded]


def work(way: str, model: str, size: int, steps: int) -> None:
    """Makes the picture, and tells what it took."""
    by, precision, storage = WAYS[way]
    watch = Watch()
    if by == "diffusers":
        times = theirs(model, size, steps, precision)
    else:
        times = ours(model, size, steps, precision, storage)
    most = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss * 1024 / GIB
    print(json.dumps({"most": most, "own": watch.most, "times": times}))


def main() -> None:
    """Prints what is measured."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--model", choices=["sd15", "sdxl"], default="sd15")
    parser.add_argument("--file", choices=["float32", "float16", "bfloat16"], default="float16")
    parser.add_argument("--size", type=int, default=512)
    parser.add_argument("--steps", type=int, default=1)
    parser.add_argument("--threads", type=int, default=os.cpu_count() or 1)
    parser.add_argument("--ways", nargs="+", choices=list(WAYS), default=_USUAL)
    parser.add_argument("--folder", type=Path, help="where the weights are, or go")
    parser.add_argument("--work", help=argparse.SUPPRESS)
    given = parser.parse_args()
    if given.work is not None:
        work(given.work, str(given.folder), given.size, given.steps)
        return
    with tempfile.TemporaryDirectory() as name:
        folder = given.folder or Path(name) / "model"
        if not (folder / "model_index.json").is_file():
            script = str(Path(__file__).with_name("published.py"))
            written = [sys.executable, script, given.model, str(folder), given.file]
            subprocess.run(written, check=True)  # whose memory is given back
        print(f"{given.model}, {given.size} x {given.size} pixels, weights in {given.file} on disk")
        print("| by | most memory | of its own | loading | picture |")
        print("|---|---:|---:|---:|---:|")
        for way in given.ways:
            command = [sys.executable, __file__, "--work", way, "--folder", str(folder)]
            command += ["--size", str(given.size), "--steps", str(given.steps)]
            told = subprocess.run(
                command, check=True, stdout=subprocess.PIPE, env=with_threads(given.threads)
            )
            row = json.loads(told.stdout.splitlines()[-1])
            load, make = row["times"]
            own = f"{row['own']:.2f} GiB" if row["own"] else "-"
            most = f"{row['most']:.2f} GiB"
            print(f"| {way} | {most} | {own} | {load:.1f} s | {make:.0f} s |", flush=True)
    print(f"- {processor()}, {given.threads} threads")


if __name__ == "__main__":
    main()
