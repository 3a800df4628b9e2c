"""Pictures made for an evaluation, kept on disk so that one that was stopped goes on."""

import hashlib
import json
from collections.abc import Mapping, Sequence
from pathlib import Path

import torch
from jaxtyping import Float, UInt8
from torch import Tensor

from safelight.checkpoints.files import read_state, write_state
from safelight.config import Value
from safelight.errors import SafelightError
from safelight.eval.evaluation import Generate

_PIXELS, _SUFFIX = "pixels", ".safetensors"


class KeptPictures:
    """Makes pictures by `generate` once, and from then on reads them from a folder.

    What it gives is rounded to the 256 levels of a file, whether made or read. `made_by` is all
    that pictures depend on besides what a call says, such as the weights and the size.
    """

    def __init__(self, generate: Generate, folder: Path, made_by: Mapping[str, Value]):
        self._generate = generate
        self._folder = folder
        self._made_by = made_by
        self._used: set[Path] = set()

    def __call__(
        self, prompts: Sequence[str], seeds: Sequence[int], steps: int, scale: float, sampler: str
    ) -> Float[Tensor, "n 3 h w"]:
        """Pictures in [-1, 1], as `Generate`."""
        asked = {
            **self._made_by,
            "prompts": list(prompts),
            "seeds": list(seeds),
            "sampling": [steps, float(scale), sampler],
        }
        name = hashlib.sha256(json.dumps(asked, sort_keys=True).encode()).hexdigest()[:32]
        path = self._folder / f"{name}{_SUFFIX}"
        self._used.add(path)
        levels = _read(path)
        if levels is None:
            pixels = self._generate(prompts, seeds, steps, scale, sampler)
            levels = pixels.cpu().float().add(1).mul(127.5).round().clamp(0, 255).to(torch.uint8)
            write_state(path, {_PIXELS: levels})
        return levels.float().div(127.5).sub(1)

    def forget_others(self) -> None:
        """Deletes the pictures that were not asked for: of other weights, or other settings."""
        for path in self._folder.glob(f"*{_SUFFIX}"):
            if path not in self._used:
                path.unlink()


def _read(path: Path) -> UInt8[Tensor, "n 3 h w"] | None:
    """The pictures of a file; None where there is none that can be read."""
    if not path.is_file():
        return None
    try:
        return read_state(path)[_PIXELS]
    except (SafelightError, KeyError):
        return None
