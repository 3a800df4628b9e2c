"""Latents on disk: shards of moments by name, mapped from the files, never changed once written."""

import hashlib
import json
from collections.abc import Sequence
from pathlib import Path
from typing import cast

import torch
from jaxtyping import Float16
from torch import Tensor

from safelight.checkpoints.files import read_metadata, read_state, write_state
from safelight.errors import SafelightError
from safelight.pictures import Colour, Size

Moments = Float16[Tensor, "2 c h w"]
"""Mean and standard deviation of one picture's latents, unscaled."""


class LatentStore:
    """Moments by name in a folder of safetensors shards.

    A shard appears whole or not at all. One that cannot be read is as if it were not there, so what
    it held is encoded again.
    """

    def __init__(self, folder: Path):
        self._folder = folder
        self._entries: dict[str, Moments] = {}
        for path in sorted(folder.glob("*.safetensors")):
            self._map(path)

    def __contains__(self, name: str) -> bool:
        return name in self._entries

    def __getitem__(self, name: str) -> Moments:
        return self._entries[name]

    def add(self, names: Sequence[str], moments: Float16[Tensor, "n 2 c h w"]) -> None:
        """Writes one shard, and maps it."""
        listed = json.dumps(list(names))
        path = self._folder / f"{hashlib.sha256(listed.encode()).hexdigest()[:24]}.safetensors"
        write_state(path, {"moments": moments}, {"names": listed})
        self._map(path)

    def _map(self, path: Path) -> None:
        try:
            moments = read_state(path)["moments"]
            names = cast(list[str], json.loads(read_metadata(path)["names"]))
        except (SafelightError, KeyError, json.JSONDecodeError):
            return
        if moments.dtype == torch.float16 and moments.ndim == 5 and len(names) == len(moments):
            self._entries.update(zip(names, moments, strict=True))


def entry_name(digest: str, bucket: Size, flip: bool, background: Colour | None) -> str:
    """The name of one view's moments, by the file's hash; an opaque picture has no background."""
    ground = "opaque" if background is None else "#{:02x}{:02x}{:02x}".format(*background)
    side = "mirrored" if flip else "straight"
    return f"{digest[:32]} {bucket[0]}x{bucket[1]} {side} {ground}"
