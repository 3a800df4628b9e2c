"""How long a network takes by torch and by OpenVINO, measured when it was made ready."""

import json
import platform
import time
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path

import torch

from safelight.config import from_dict, to_dict
from safelight.errors import SafelightError

_FILE = "verdict.json"
_CALLS = 3  # the quickest of so many counts, since other work only ever adds time


@dataclass(frozen=True)
class Verdict:
    """Seconds of a call by each engine, on a machine, with a number of threads.

    Attributes:
        torch, openvino: of a call.
        ready: until the first call can be made, where the network is read from the disk.
    """

    machine: str
    threads: int
    torch: float
    openvino: float
    ready: float

    def gains(self, calls: int) -> bool:
        """Whether so many calls are sooner done by OpenVINO here, its start counted."""
        if self.threads != torch.get_num_threads() or self.machine != machine():
            return False
        return self.ready + calls * self.openvino < calls * self.torch


@dataclass
class Terms:
    """On which terms OpenVINO computes some modules.

    Attributes:
        prepares: whether in each call, what is not ready being made so; else where it is ready or
            kept, and gains time.
        calls: how many are to come, which a start is reckoned against.
        packs: whether torch, where it computes, does so with convolutions packed.
        used: whether OpenVINO computed since this was last set to False.
    """

    prepares: bool
    calls: int = 1
    packs: bool = False
    used: bool = False


def write_verdict(folder: Path, verdict: Verdict) -> None:
    """Keeps it beside the network; raises `OSError`."""
    (folder / _FILE).write_text(json.dumps(to_dict(verdict)), encoding="utf-8")


def read_verdict(folder: Path) -> Verdict | None:
    """The verdict that is kept in a folder; None if that is none, or damaged."""
    try:
        return from_dict(Verdict, json.loads((folder / _FILE).read_text(encoding="utf-8")))
    except (OSError, ValueError, SafelightError):
        return None


def gains(folder: Path, calls: int) -> bool:
    """Whether so many calls of what is kept in a folder were found to gain time."""
    verdict = read_verdict(folder)
    return verdict is not None and verdict.gains(calls)


def quickest(call: Callable[[], object]) -> float:
    """Seconds of a call that was made before."""
    call()
    times: list[float] = []
    for _ in range(_CALLS):
        begun = time.perf_counter()
        call()
        times.append(time.perf_counter() - begun)
    return min(times)


def machine() -> str:
    """The processor's name, which Linux tells in a file alone."""
    try:
        lines = Path("/proc/cpuinfo").read_text(encoding="utf-8").splitlines()
    except OSError:
        lines = []
    names = [line.partition(":")[2].strip() for line in lines if line.startswith("model name")]
    return f"{names[0] if names else platform.processor()} x {len(names) or 1}"
