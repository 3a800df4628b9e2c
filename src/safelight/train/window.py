"""What a training tells in one line of its log: means since the line before."""

from pathlib import Path

from torch import Tensor

from safelight.errors import SafelightError
from safelight.train.checkpoint import FOLDER, checkpoints
from safelight.train.task import Loss


class Window:
    """Sums since the last line of the log, kept on the device until the line is written."""

    def __init__(self) -> None:
        self._clear()

    def _clear(self) -> None:
        self.steps = self.images = 0
        self.seconds = 0.0
        self._sums: dict[str, Tensor] = {}
        self._watched: Tensor | None = None

    def add(self, loss: Loss, share: float) -> None:
        """Takes note of one part's loss."""
        for name, value in loss.parts.items():
            self._sum(name, value.detach().float() * share)
        self._watch(loss.total.detach())

    def add_norm(self, phase: str, norm: Tensor) -> None:
        """Takes note of the length of a phase's gradients."""
        self._sum("grad_norm" if phase == "main" else f"grad_norm_{phase}", norm.detach())
        self._watch(norm.detach())

    def check(self, folder: Path, step: int) -> None:
        """Raises `SafelightError` if a loss or gradient was not finite."""
        if self._watched is None or bool(self._watched.isfinite()):
            return
        saved = checkpoints(folder / FOLDER)
        good = f"the last good checkpoint is {saved[-1]}" if saved else "nothing was saved yet"
        raise SafelightError(
            f"The loss is no longer a finite number, seen at step {step:,}; {good}. "
            "Try a lower optim.lr, a longer optim.warmup, or optim.precision = 'float32'."
        )

    def close(self, folder: Path, step: int) -> dict[str, float]:
        """The means and the speed since the last line; a new window begins."""
        self.check(folder, step)
        means = {name: float(value) / self.steps for name, value in self._sums.items()}
        means["images_per_s"] = self.images / max(self.seconds, 1e-9)
        self._clear()
        return means

    def _sum(self, name: str, value: Tensor) -> None:
        self._sums[name] = self._sums[name] + value if name in self._sums else value

    def _watch(self, value: Tensor) -> None:
        value = value.float() * 0  # stays 0 unless infinite or not a number
        self._watched = value if self._watched is None else self._watched + value
