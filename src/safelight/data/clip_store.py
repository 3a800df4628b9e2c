"""Latents of clips on disk: shards of clips by name, mapped from the files, never changed."""

import hashlib
import json
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import cast

import torch
from jaxtyping import Float, Float16
from torch import Tensor

from safelight.checkpoints.files import read_metadata, read_state, write_state
from safelight.data.clips import ClipItem
from safelight.data.latent_store import entry_name
from safelight.errors import SafelightError
from safelight.pictures import Colour, Size


@dataclass(frozen=True)
class Encoded:
    """A clip's latents, and how far the picture moves from each frame to the next.

    `moments` are means and standard deviations of unscaled latents; `motion` is in heights of the
    picture (`data.motion`), one less than frames.
    """

    moments: Float16[Tensor, "f 2 c h w"]
    motion: Float[Tensor, " m"]


class ClipStore:
    """Encoded clips by name in a folder of safetensors shards.

    A shard appears whole or not at all. One that cannot be read is as if it were not there, so what
    it held is encoded again.
    """

    def __init__(self, folder: Path):
        self._folder = folder
        self._entries: dict[str, Encoded] = {}
        for path in sorted(folder.glob("*.safetensors")):
            self._map(path)

    def __contains__(self, name: str) -> bool:
        return name in self._entries

    def __getitem__(self, name: str) -> Encoded:
        return self._entries[name]

    def add(self, names: Sequence[str], clips: Sequence[Encoded]) -> None:
        """Writes one shard, and maps it."""
        listed = json.dumps(list(names))
        path = self._folder / f"{hashlib.sha256(listed.encode()).hexdigest()[:24]}.safetensors"
        tensors = {f"{i}.moments": clip.moments for i, clip in enumerate(clips)}
        tensors |= {f"{i}.motion": clip.motion for i, clip in enumerate(clips)}
        write_state(path, tensors, {"names": listed})
        self._map(path)

    def _map(self, path: Path) -> None:
        try:
            state = read_state(path)
            names = cast(list[str], json.loads(read_metadata(path)["names"]))
            clips = [
                Encoded(state[f"{i}.moments"], state[f"{i}.motion"]) for i in range(len(names))
            ]
        except (SafelightError, KeyError, json.JSONDecodeError):
            return
        for name, clip in zip(names, clips, strict=True):
            moments, motion = clip.moments, clip.motion
            well = moments.dtype == torch.float16 and moments.ndim == 5 and motion.ndim == 1
            if well and len(motion) == len(moments) - 1:
                self._entries[name] = clip


def clip_name(
    digest: str, item: ClipItem, bucket: Size, flip: bool, background: Colour | None
) -> str:
    """The name of one view of a clip, by its file's hash and what part of it is shown how fast."""
    part = f"{item.start:.4f}+{item.frames} at {item.fps:.4f}"
    return f"{entry_name(digest, bucket, flip, background)} {part}"
