"""One call of Stable Diffusion 1.5's U-Net, by safelight and by others on the same random weights.

`python benchmarks/unet.py [--size 512] [--batch 1] [--precision float32] [--threads 2] [--rounds 5]
[--ways diffusers safelight ...] [--together 3] [--output unet.json] [--plot unet.png]`. Each way
lives in a process of its own, which is called in turn with the others, with other noise and another
time in each round; the first call is not timed. Diffusers is there all the while, and of the others
`--together` at a time, as memory allows. What is not installed is left out.

Prints a table in Markdown: the median and the quartiles of wall time, the median of processor time,
times diffusers (whose calls of the same rounds count) by either, the largest difference from its
outputs as a part of the largest of these, the most memory that the process ever held, and the
seconds until it was ready, its first call counted. A way that exports does so in a process before,
whose seconds come first and whose memory is not counted. Fails if outputs differ by more than
rounding does. `--output` keeps all times as JSON; `--read` prints and draws of it the same again.

    python benchmarks/unet.py --narrow 10 --size 64 --rounds 1  # a quick trial of channels / 10
"""

import argparse
import json
import os
import statistics
import subprocess
import sys
import tempfile
import time
from dataclasses import asdict, dataclass, field
from importlib.metadata import packages_distributions, version
from pathlib import Path

import numpy as np
from turns import (
    MIB,
    Ended,
    Worker,
    answer,
    folder_name,
    processor,
    quartiles,
    stolen,
    with_threads,
)
from unet_ways import PEER, WAYS, Task, write_weights

from safelight.checkpoints.atomic import replacing_file
from safelight.pipelines.precisions import precision_named

LIMITS = {"float32": 1e-3, "bfloat16": 5e-2}  # of differences from diffusers
NARROW = (1, 2, 5, 10)  # which leave channels that 32 groups divide


@dataclass
class Measured:
    """What is known of a way, each a list of an entry a round."""

    ready: list[float]  # seconds until its first call is done, of each process that was started
    wall: list[float] = field(default_factory=list)
    processor: list[float] = field(default_factory=list)
    peak: list[float] = field(default_factory=list)  # bytes
    peer_wall: list[float] = field(default_factory=list)  # diffusers', in the same rounds
    peer_processor: list[float] = field(default_factory=list)
    differences: list[float] = field(default_factory=list)  # from diffusers' outputs


@dataclass
class Report:
    """A run: what was computed, on what, and what each way took."""

    task: str
    precision: str
    machine: str
    ways: dict[str, Measured]
    failed: list[str]  # ways that ended before their first call


Running = dict[str, tuple[Worker, Measured]]


def worker_of(way: str, given: argparse.Namespace, folder: Path) -> Worker:
    """A way in a process of its own, which keeps nothing beyond the run."""
    place = folder / folder_name(way)
    command = [sys.executable, __file__, "--work", way, "--folder", str(folder)]
    for name in ("size", "batch", "precision"):
        command += [f"--{name}", str(getattr(given, name))]
    caches = {"SAFELIGHT_CACHE": str(place), "TORCHINDUCTOR_CACHE_DIR": str(place / "inductor")}
    quiet = {"CI": "true"}  # else `openvino.convert_model` reports its use to its makers
    return Worker(way, command, place, with_threads(given.threads) | caches | quiet)


def ready(way: str, given: argparse.Namespace, folder: Path) -> tuple[Worker, Measured]:
    """A worker after its first call."""
    seconds: list[float] = []
    while True:
        begun = time.perf_counter()
        worker = worker_of(way, given, folder)
        worker.make(0, timed=False)
        seconds.append(time.perf_counter() - begun)
        print(f"{way}: ready after {seconds[-1]:.0f} s", file=sys.stderr, flush=True)
        if len(seconds) > WAYS[way].exports:
            return worker, Measured(seconds)
        worker.end()


def take_turns(running: Running, seed: int) -> None:
    """One call of each way."""
    made = {way: worker.make(seed) for way, (worker, _) in running.items()}
    times = {way: worker.times for way, (worker, _) in running.items()}
    took = [f"{way} {t['wall'][-1]:.2f} ({t['processor'][-1]:.2f})" for way, t in times.items()]
    print(f"round {seed}, seconds (processor): {', '.join(took)}", file=sys.stderr, flush=True)
    for way, (_, measured) in running.items():
        if PEER in running:
            theirs = running[PEER][0].times
            measured.peer_wall.append(theirs["wall"][-1])
            measured.peer_processor.append(theirs["processor"][-1])
            if made[way].size:
                measured.differences.append(difference(made[way], made[PEER]))


def difference(made: np.ndarray, exact: np.ndarray) -> float:
    """The largest, as a part of the largest number of `exact`."""
    return float(np.abs(made - exact).max() / np.abs(exact).max())


def ended(running: Running) -> dict[str, Measured]:
    """What is known of ways, whose processes end."""
    for worker, measured in running.values():
        worker.end()
        measured.wall, measured.processor = worker.times["wall"], worker.times["processor"]
        measured.peak = worker.times["peak"]
    return {way: measured for way, (_, measured) in running.items()}


def compared(given: argparse.Namespace, folder: Path) -> dict[str, Measured]:
    """All ways, one call each in turn, in groups of which each has diffusers in it."""
    peer = {way: ready(way, given, folder) for way in given.ways if way == PEER}
    others = [way for way in given.ways if way != PEER]
    found: dict[str, Measured] = {}
    for start in range(0, max(len(others), 1), given.together):
        names = others[start : start + given.together]
        group: Running = {}
        for way in names:
            try:
                group[way] = ready(way, given, folder)
            except Ended as error:  # for want of memory, say: the others are worth having
                print(error, file=sys.stderr)
        for seed in range(1, given.rounds + 1):
            take_turns(peer | group, seed)
        found |= ended(group)
    return ended(peer) | found


def show(report: Report) -> None:
    """Prints the table."""
    print("| by | median | quartiles | processor | times diffusers | by processor time ", end="")
    print("| difference | most memory | ready |")
    print("|---|---:|---:|---:|---:|---:|---:|---:|---:|")
    for way, measured in report.ways.items():
        middle, low, high = quartiles(measured.wall)
        used = statistics.median(measured.processor)
        ratio = by_processor = away = "-"
        if measured.peer_wall:
            ratio = f"{statistics.median(measured.peer_wall) / middle:.2f}"
            by_processor = f"{statistics.median(measured.peer_processor) / used:.2f}"
        if measured.differences and way != PEER:
            away = f"{np.max(measured.differences):.0e}"
        print(
            f"| {way} | {middle:.2f} s | {low:.2f} to {high:.2f} s | {used:.2f} s | {ratio} "
            f"| {by_processor} | {away} | {max(measured.peak) / MIB:.0f} MiB "
            f"| {', then '.join(f'{seconds:.0f} s' for seconds in measured.ready)} |"
        )
    print(f"- {report.task}\n- {report.machine}", flush=True)


def plot(report: Report, path: Path) -> None:
    """Draws the medians as bars, with the quartiles, as a PNG."""
    from matplotlib.backends.backend_agg import FigureCanvasAgg
    from matplotlib.figure import Figure

    names = list(reversed(report.ways))  # bars are drawn from below
    found = np.array([quartiles(report.ways[way].wall) for way in names]).T
    middles, lows, highs = found
    figure = Figure(figsize=(7, 0.8 + 0.35 * len(names)), layout="constrained")
    FigureCanvasAgg(figure)
    axes = figure.subplots()
    colours = ["tab:orange" if way.startswith("safelight") else "tab:grey" for way in names]
    bars = axes.barh(names, middles, xerr=(middles - lows, highs - middles), color=colours)
    axes.bar_label(bars, [f"{middle:.2f} s" for middle in middles], padding=4)
    axes.set_xlabel(f"seconds a call: {report.task}", loc="right")
    axes.set_xlim(0, 1.15 * highs.max())
    axes.grid(axis="x", alpha=0.3)
    axes.set_axisbelow(True)
    with replacing_file(path) as temporary:
        figure.savefig(temporary, format="png", dpi=110)


def check(report: Report) -> None:
    """Ends in failure if outputs are not those of diffusers, or missing."""
    limit = LIMITS[report.precision]
    others = {way: np.max(found.differences or [0]) for way, found in report.ways.items()}
    wrong = [f"{way} ({away:.0e})" for way, away in others.items() if not away <= limit]
    if wrong:
        raise SystemExit(f"More than {limit:.0e} from diffusers: {', '.join(wrong)}.")
    if report.failed:
        raise SystemExit(f"Failed: {', '.join(report.failed)}; see above.")


def measured(given: argparse.Namespace) -> Report:
    """Runs all ways."""
    load, before = os.getloadavg()[0], stolen()
    with tempfile.TemporaryDirectory() as name:
        folder = Path(name)
        command = [sys.executable, __file__, "--write", "--folder", name]
        # apart, for a process begins with the most memory of the one that starts it
        subprocess.run([*command, "--narrow", str(given.narrow)], check=True)
        ways = compared(given, folder)
    packages = {"torch", *(package for way in given.ways for package in WAYS[way].needs)}
    sources = packages_distributions()
    versions = ", ".join(f"{name} {version(sources[name][0])}" for name in sorted(packages))
    narrower = f", channels / {given.narrow}" if given.narrow > 1 else ""
    return Report(
        f"{given.batch} x {given.size} x {given.size} pixels, {given.precision}{narrower}",
        given.precision,
        f"{processor()}, {given.threads} threads; load {load:.1f} before and "
        f"{os.getloadavg()[0]:.1f} after, {stolen() - before:.0f} s stolen; {versions}",
        ways,
        [way for way in given.ways if way not in ways],
    )


def chosen(given: argparse.Namespace) -> list[str]:
    """The ways that run here; those that do not are told in one line."""
    published = given.narrow == 1 and given.batch == 1
    bfloat16 = given.precision == "bfloat16"
    missing = {way: WAYS[way].missing(bfloat16=bfloat16, published=published) for way in given.ways}
    left_out = [f"{way} (no {what})" for way, what in missing.items() if what]
    if left_out:
        print(f"Left out: {', '.join(left_out)}.", file=sys.stderr)
    ways = [way for way, what in missing.items() if not what]
    if not ways:
        raise SystemExit("None of these ways runs here.")
    return ways


def read(path: Path) -> Report:
    """What `--output` wrote."""
    told = json.loads(path.read_text("utf-8"))
    ways = {way: Measured(**found) for way, found in told.pop("ways").items()}
    return Report(**told, ways=ways)


def main() -> None:
    """Prints what is measured."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--size", type=int, default=512, help="pixels a side, a multiple of 64")
    parser.add_argument("--batch", type=int, default=1)
    parser.add_argument("--narrow", type=int, choices=NARROW, default=1)
    parser.add_argument("--precision", choices=list(LIMITS), default="float32")
    parser.add_argument("--rounds", type=int, default=5)
    parser.add_argument("--threads", type=int, default=os.cpu_count() or 1)
    parser.add_argument("--ways", nargs="+", choices=list(WAYS), default=list(WAYS))
    parser.add_argument("--together", type=int, default=3)
    parser.add_argument("--output", type=Path)
    parser.add_argument("--plot", type=Path)
    parser.add_argument("--read", type=Path, help="what --output wrote, instead of a run")
    parser.add_argument("--work", help=argparse.SUPPRESS)
    parser.add_argument("--write", action="store_true", help=argparse.SUPPRESS)
    parser.add_argument("--folder", type=Path, help=argparse.SUPPRESS)
    given = parser.parse_args()
    if given.size % 64:
        parser.error("--size is a multiple of 64 pixels.")
    if given.write:
        write_weights(given.folder / "weights", given.narrow)
        return
    if given.work is not None:
        place = given.folder / folder_name(given.work)
        dtype = precision_named(given.precision)
        task = Task(given.folder / "weights", place, given.size // 8, given.batch, dtype)
        answer(WAYS[given.work].ready(task), place)
        return
    if given.read is None:
        given.ways = chosen(given)
        report = measured(given)
    else:
        report = read(given.read)
    show(report)
    if given.output is not None:
        given.output.write_text(json.dumps(asdict(report), indent=1) + "\n")
    if given.plot is not None:
        plot(report, given.plot)
    check(report)


if __name__ == "__main__":
    main()
