"""What a training tells while it runs: progress bar, JSONL log, TensorBoard, preview pictures."""

import json
import sys
import time
from collections.abc import Generator, Mapping
from contextlib import contextmanager
from pathlib import Path
from typing import Protocol, cast, runtime_checkable

import torch
from einops import rearrange
from jaxtyping import Float
from PIL import Image
from rich.console import Console
from rich.progress import BarColumn, Progress, TextColumn, TimeElapsedColumn, TimeRemainingColumn
from torch import Tensor

from safelight.checkpoints.atomic import replacing_file, write_text

LOG_NAME = "log.jsonl"


class Report:
    """One training's log. Made by `reporting`."""

    def __init__(self, folder: Path, steps: int, first: int, *, tensorboard: bool):
        self._folder = folder
        self._steps, self._first = steps, first
        self._log = (folder / LOG_NAME).open("a", encoding="utf-8")
        self._board = _board(folder / "tensorboard", first) if tensorboard else None
        self._console = Console(stderr=True)
        self._bar = _bar(self._console)
        self._task = self._bar.add_task("", total=steps, completed=first, values="")
        self._started = time.monotonic()
        if self._console.is_terminal:
            self._bar.start()

    def values(self, step: int, values: Mapping[str, float]) -> None:
        """Logs numbers after `step` steps."""
        self._log.write(json.dumps({"step": step} | {k: _short(v) for k, v in values.items()}))
        self._log.write("\n")
        self._log.flush()
        if self._board is not None:
            for name, value in values.items():
                self._board.add_scalar(name, value, step)
        told = "  ".join(f"{name} {value:.4g}" for name, value in values.items())
        if not self._console.is_terminal:
            print(f"step {step:,}/{self._steps:,}  {told}  {self._left(step)}", flush=True)
        elif "loss" in values:  # the bar has room for what matters most
            speed = f"{values.get('images_per_s', 0):.3g} images/s"
            self._bar.update(self._task, values=f"loss {values['loss']:.4g}  {speed}")
        else:
            self.say(f"step {step:,}: {told}")

    def advance(self, step: int) -> None:
        """Moves the bar."""
        self._bar.update(self._task, completed=step)

    def picture(self, step: int, picture: Float[Tensor, "3 h w"]) -> None:
        """Keeps a preview, pixels in [-1, 1]."""
        levels = picture.detach().float().cpu().clamp(-1, 1).add(1).mul(127.5).round()
        levels = levels.to(torch.uint8)
        path = self._folder / "previews" / f"step_{step:07d}.png"
        with replacing_file(path) as temporary:
            Image.fromarray(rearrange(levels, "c h w -> h w c").numpy()).save(temporary, "PNG")
        if self._board is not None:
            self._board.add_image("preview", levels, step)

    def say(self, line: str) -> None:
        """Prints one line above the bar."""
        if self._console.is_terminal:
            self._console.print(line, highlight=False, markup=False)
        else:
            print(line, flush=True)

    def close(self) -> None:
        """Ends the bar and closes the files."""
        if self._console.is_terminal:
            self._bar.stop()
        self._log.close()
        if self._board is not None:
            self._board.close()

    def _left(self, step: int) -> str:
        rate = (time.monotonic() - self._started) / max(step - self._first, 1)
        minutes = rate * (self._steps - step) / 60
        return f"{minutes:.0f} min left"


@contextmanager
def reporting(folder: Path, steps: int, first: int, *, tensorboard: bool) -> Generator[Report]:
    """A report of steps `first` to `steps` in `folder`; what an earlier run logged after `first` is
    cut off.
    """
    folder.mkdir(parents=True, exist_ok=True)
    _cut_log(folder / LOG_NAME, first)
    report = Report(folder, steps, first, tensorboard=tensorboard)
    try:
        yield report
    finally:
        report.close()


@runtime_checkable
class _Board(Protocol):
    """What we use of TensorBoard's writer."""

    def add_scalar(self, tag: str, scalar_value: float, global_step: int) -> None: ...
    def add_image(self, tag: str, img_tensor: Tensor, global_step: int) -> None: ...
    def close(self) -> None: ...


def _board(folder: Path, first: int) -> _Board | None:
    """TensorBoard's writer, or None where the package is not installed."""
    try:
        from torch.utils.tensorboard import SummaryWriter
    except ImportError:
        return None
    return cast(_Board, SummaryWriter(str(folder), purge_step=first + 1))


def _bar(console: Console) -> Progress:
    return Progress(
        TextColumn("{task.completed:,.0f}/{task.total:,.0f}"),
        BarColumn(bar_width=16),
        TimeElapsedColumn(),
        TextColumn("left"),
        TimeRemainingColumn(),
        TextColumn("{task.fields[values]}"),
        console=console,
        disable=not sys.stderr.isatty(),
        refresh_per_second=2,
    )


def _cut_log(path: Path, last: int) -> None:
    if not path.is_file():
        return
    lines = path.read_text(encoding="utf-8").splitlines(keepends=True)
    write_text(path, "".join(line for line in lines if _step(line) <= last))


def _step(line: str) -> float:
    try:
        return float(json.loads(line)["step"])
    except (ValueError, KeyError, TypeError):  # a line that a crash left half-written
        return float("inf")


def _short(value: float) -> float:
    return float(f"{value:.6g}")
