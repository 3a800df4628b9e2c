"""Training batches of clips whose latents were encoded once, with stills between them."""

import math
from collections.abc import Mapping
from dataclasses import replace
from pathlib import Path
from typing import NamedTuple

import torch
from jaxtyping import Float
from torch import Tensor

from safelight.data.clip_store import ClipStore, Encoded, clip_name
from safelight.data.clips import ClipFolder, ClipItem, ClipsConfig
from safelight.data.config import DataConfig
from safelight.data.draws import Draws
from safelight.data.groups import grouped
from safelight.data.latents import LatentBatches
from safelight.data.motion import bucket_of
from safelight.data.order import BatchOrder
from safelight.pictures import Size
from safelight.types import Batch


class Window(NamedTuple):
    """A part of a clip: its latents' means and standard deviations, how many frames a second it is
    told to have, its motion bucket, and whether it is a still, one frame over and over.
    """

    mean: Float[Tensor, "f c h w"]
    std: Float[Tensor, "f c h w"]
    fps: int
    motion: int
    still: bool = False


class ClipCache:
    """The latents of every clip of `clips`, as `clip_encoding.cache_clips` leaves them.

    They are mapped from disk: in memory is only what was lately used. Its own `clips` have as many
    frames as were decoded, which may be fewer than their headers said.
    """

    def __init__(
        self,
        clips: ClipFolder,
        data: DataConfig,
        config: ClipsConfig,
        store: ClipStore,
        digests: Mapping[Path, str],
    ):
        self.data = data
        self.config = config
        self.groups = grouped(clips, data)
        self._store = store
        self._digests = digests
        self._named = clips.items  # as their headers have them, after which entries are named
        items = list(clips.items)
        for group in self.groups:
            for index in dict.fromkeys(group.items):
                frames = len(self.encoded(index, group.bucket, False, 0).moments)
                items[index] = replace(items[index], frames=frames)
        self.clips = replace(clips, items=tuple(items))

    def encoded(self, item: int, bucket: Size, flip: bool, background: int) -> Encoded:
        """A whole clip by its index, mirrored or not, over a background by its index."""
        clip = self._named[item]
        digest = self._digests[clip.path]
        opaque = clip_name(digest, clip, bucket, flip, None)
        if opaque in self._store:
            return self._store[opaque]
        return self._store[clip_name(digest, clip, bucket, flip, self.data.colours[background])]

    def window(
        self, item: int, encoded: Encoded, first: int, stride: int, taken: int | None = None
    ) -> Window:
        """The frames of a clip from `first` on, each `stride` after the one before it; or, slowed
        down, `taken` after it, from 0 up, at the rate of the stride.
        """
        taken = stride if taken is None else taken
        places = first + taken * torch.arange(self.config.frames)
        mean, std = encoded.moments[places].float().unbind(1)
        rate = self.clips.items[item].fps
        moved = float(encoded.motion[first : int(places[-1])].mean()) if taken else 0.0
        speed = moved * rate * taken / stride
        return Window(mean, std, max(1, round(rate / stride)), bucket_of(speed), taken == 0)

    def strides(self, clip: ClipItem) -> list[int]:
        """The strides of the configuration at which a clip has frames enough."""
        frames = self.config.frames
        return [s for s in self.config.strides if (frames - 1) * s < clip.frames]


class ClipBatches:
    """Batches of clips with captions; `batch(step)` depends on the seed and the step alone.

    Latents are drawn from their moments, then shifted and scaled: `(z - shift) * scale`. Of the
    steps, `share` are of `stills` instead, evenly spread.
    """

    def __init__(
        self,
        cache: ClipCache,
        batch_size: int,
        shift: float = 0.0,
        scale: float = 1.0,
        stills: LatentBatches | None = None,
        share: float = 0.0,
    ):
        self._cache = cache
        self._shift, self._scale = shift, scale
        self._stills, self._share = stills, share if stills is not None else 0.0
        sizes = [len(group.items) for group in cache.groups]
        self._order = BatchOrder(sizes, batch_size, cache.data.seed)

    def batch(self, step: int) -> Batch:
        """Batch number `step`, counted from 0: captions, and clips of scaled latents, (b, f, c,
        h/f, w/f), with `extras` "fps", "motion" (the bucket) and "item" (the index in
        `cache.clips`), int64 (b,); or captions and the latents of stills alone.
        """
        before = math.floor(step * self._share)
        if self._stills is not None and math.floor((step + 1) * self._share) > before:
            return self._stills.batch(before)
        number, members = self._order.at(step - before)
        group = self._cache.groups[number]
        rows: list[Tensor] = []
        captions: list[str] = []
        told: dict[str, list[int]] = {"item": [], "fps": [], "motion": []}
        for member, epoch in members:
            index = group.items[member]
            draws = Draws(self._cache.data, epoch, group.slots[member])
            encoded = self._cache.encoded(index, group.bucket, draws.flip(), draws.background())
            window = self._window(index, encoded, draws.generator(_WINDOW))
            noise = draws.normal(window.std.shape)
            if window.still:
                noise = noise[:1]
            rows.append(window.mean + window.std * noise)
            captions.append(draws.caption(self._cache.clips.items[index]))
            for name, value in (("item", index), ("fps", window.fps), ("motion", window.motion)):
                told[name].append(value)
        return Batch(
            captions=tuple(captions),
            clips=(torch.stack(rows) - self._shift) * self._scale,
            extras={name: torch.tensor(values) for name, values in told.items()},
        )

    def _window(self, index: int, encoded: Encoded, random: torch.Generator) -> Window:
        """A part of a clip at a random stride from a random frame on."""
        clip = self._cache.clips.items[index]
        strides = self._cache.strides(clip)
        stride = taken = strides[int(torch.randint(len(strides), (), generator=random))]
        slowed = self._cache.config.slowed
        if slowed and float(torch.rand((), generator=random)) < slowed:
            taken = int(torch.randint(stride, (), generator=random))
        room = clip.frames - (self._cache.config.frames - 1) * taken
        first = int(torch.randint(room, (), generator=random))
        return self._cache.window(index, encoded, first, stride, taken)


_WINDOW = 64  # of the numbers that go along with a picture; conditions have those from 0 on
