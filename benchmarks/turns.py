"""Ways that take turns: each lives in a process of its own, which answers when it is called, so
that all are measured under what else the machine does meanwhile.
"""

import json
import os
import platform
import resource
import subprocess
import sys
import time
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path

import numpy as np

MIB = 2**20
Make = Callable[[int], np.ndarray]
"""What a way makes of a seed."""


@dataclass(frozen=True)
class Made:
    """What a way made, and the seconds that it took by the clock and of the processor."""

    what: np.ndarray
    wall: float
    processor: float


def timed(make: Make) -> Callable[[int], Made]:
    """The same with its times."""

    def made(seed: int) -> Made:
        clock, used = time.perf_counter(), time.process_time()
        what = make(seed)
        return Made(what, time.perf_counter() - clock, time.process_time() - used)

    return made


def answer(make: Callable[[int], Made], folder: Path) -> None:
    """Makes something of each seed that is read, and tells what it took; what a `Worker` runs."""
    for line in sys.stdin:
        made = make(int(line))
        told = {
            "wall": made.wall,
            "processor": made.processor,
            "peak": resource.getrusage(resource.RUSAGE_SELF).ru_maxrss * 1024,
        }
        np.save(folder / "made.npy", made.what)
        print(json.dumps(told), flush=True)


class Ended(SystemExit):
    """A process ended before its time; one line for the user."""


class Worker:
    """A way in a process of its own, by a command that runs `answer` with the same folder."""

    def __init__(self, way: str, command: list[str], folder: Path, environment: dict[str, str]):
        self.way, self.folder = way, folder
        folder.mkdir(parents=True, exist_ok=True)
        self.process = subprocess.Popen(
            command, stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True, env=environment
        )
        self.times: dict[str, list[float]] = {"wall": [], "processor": [], "peak": []}

    def make(self, seed: int, *, timed: bool = True) -> np.ndarray:
        """What the way makes of a seed."""
        to, back = self.process.stdin, self.process.stdout
        if to is None or back is None:
            raise ValueError("The process has no pipes.")
        print(seed, file=to, flush=True)
        line = back.readline()
        if not line:
            raise Ended(f"{self.way} ended before its time; see above.")
        for name, value in json.loads(line).items():
            if timed or name == "peak":
                self.times[name].append(value)
        return np.load(self.folder / "made.npy").astype(np.float64)

    def end(self) -> None:
        """Ends the process."""
        self.process.communicate()


def folder_name(way: str) -> str:
    """A name for the folder of a way."""
    return way.replace(", ", "-").replace(" ", "-")


def with_threads(threads: int) -> dict[str, str]:
    """This process's environment for one with so many threads."""
    return os.environ | {"OMP_NUM_THREADS": str(threads)}


def quartiles(times: list[float]) -> tuple[float, float, float]:
    """The median, and the quartiles below and above it."""
    middle, low, high = (float(np.quantile(times, q)) for q in (0.5, 0.25, 0.75))
    return middle, low, high


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
