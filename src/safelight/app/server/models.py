"""The models in memory: the one used longest ago goes first, with all that it took."""

import ctypes
import gc
import os
import sys
from collections import OrderedDict
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Literal

import torch

from safelight.app.server.config import Working
from safelight.pipelines.annotators import Annotators
from safelight.pipelines.finishing import Finish
from safelight.pipelines.hub import find_part
from safelight.pipelines.image import ImagePipeline
from safelight.pipelines.load import choose_device, load
from safelight.pipelines.load_video import load_video
from safelight.pipelines.precisions import precision_named
from safelight.pipelines.preparing import prepare
from safelight.pipelines.previews import ColourPreviewer, Previewer, quick_previewer
from safelight.pipelines.video import VideoPipeline

What = Literal["pictures", "clips"]


@dataclass(frozen=True)
class Loaded:
    """A model in memory, and what makes previews of its latents."""

    pipeline: ImagePipeline
    previewer: Previewer | ColourPreviewer


class Models:
    """Loads models by their places and keeps `working.kept` of them.

    `tell(what, place)` hears what is "loaded" and what is "evicted".

    Attributes:
        annotators: what makes hints; they are shared by all models, and stay.
    """

    def __init__(self, working: Working, tell: Callable[[str, str], None]):
        self.working = working
        self.tell = tell
        self.annotators = Annotators(choose_device(working.device), offline=True)
        self._kept: OrderedDict[tuple[What, str], Loaded | VideoPipeline] = OrderedDict()

    @property
    def places(self) -> list[str]:
        """The models in memory, the one used last at the end."""
        return [place for _, place in self._kept]

    def at(self, place: str) -> Loaded:
        """The model at a place; errors as `safelight.load`.

        Room is made before it is read, so that no more than `kept` are ever there.
        """
        found = self._kept.get(("pictures", place))
        if not isinstance(found, Loaded):
            self._make_room()
            found = self._read(place)
        self._keep("pictures", place, found)
        return found

    def of_clips_at(self, place: str) -> VideoPipeline:
        """The video model at a place, likewise; errors as `safelight.load_video`."""
        found = self._kept.get(("clips", place))
        if not isinstance(found, VideoPipeline):
            self._make_room()
            dtype = precision_named(self.working.precision)
            found = load_video(
                place,
                dtype=dtype,
                device=self.working.device,
                storage=self.working.storage,
                offline=True,
            )
        self._keep("clips", place, found)
        return found

    def _make_room(self) -> None:
        while len(self._kept) >= max(1, self.working.kept):
            self._evict()

    def _keep(self, what: What, place: str, model: Loaded | VideoPipeline) -> None:
        new = (what, place) not in self._kept
        self._kept[what, place] = model
        self._kept.move_to_end((what, place))
        if new:
            self.tell("loaded", place)

    def _read(self, place: str) -> Loaded:
        working = self.working
        dtype = precision_named(working.precision)
        pipeline = load(
            place,
            dtype=dtype,
            device=working.device,
            engine=working.engine,
            storage=working.storage,
            offline=True,
        )
        prepare(pipeline)  # before it may check pictures
        pipeline.controls.annotators = self.annotators
        pipeline.finish = Finish(working.watermark, working.safety)
        if working.preview_vae is None:
            return Loaded(pipeline, quick_previewer(pipeline.folder.autoencoder))
        other = pipeline.autoencoder_at(find_part(working.preview_vae))
        return Loaded(pipeline, Previewer(other))

    def _evict(self) -> None:
        (_, place), _ = self._kept.popitem(last=False)
        give_back_memory()
        self.tell("evicted", place)


def give_back_memory() -> None:
    """Frees what nothing refers to any more, and gives it back to the device and the system."""
    gc.collect()
    if torch.cuda.is_available():
        torch.cuda.empty_cache()
    if sys.platform == "linux":  # whose allocator keeps freed memory to itself
        trim = getattr(ctypes.CDLL(None), "malloc_trim", None)
        if trim is not None:
            trim(0)


def memory_used() -> int:
    """Bytes of this process in memory; 0 on systems without /proc, which do not say."""
    try:
        pages = int(Path("/proc/self/statm").read_text().split()[1])
    except (OSError, ValueError, IndexError):
        return 0
    return pages * os.sysconf("SC_PAGE_SIZE")
