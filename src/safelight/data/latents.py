"""Training batches out of latents that were encoded once, and the scale of latents."""

from collections.abc import Iterable, Iterator, Mapping
from pathlib import Path

import torch
from torch import Tensor

from safelight.data.config import DataConfig
from safelight.data.draws import Draws
from safelight.data.folders import PictureFolder
from safelight.data.groups import grouped
from safelight.data.latent_store import LatentStore, Moments, entry_name
from safelight.data.order import BatchOrder
from safelight.data.sources import Cut, Source
from safelight.errors import SafelightError
from safelight.pictures import Size
from safelight.types import Batch


class LatentCache:
    """The moments of every picture of `pictures`, as `encoding.cache_latents` leaves them.

    They are mapped from disk: in memory is only what was lately used. `config` is how the pictures
    were cut.
    """

    def __init__(
        self,
        pictures: PictureFolder,
        config: DataConfig,
        store: LatentStore,
        hashes: Mapping[Path, str],
    ):
        self.pictures = pictures
        self.config = config
        self.groups = grouped(pictures, config)
        self._colours = config.colours
        self._store = store
        self._hashes = hashes

    def moments(self, item: int, bucket: Size, flip: bool, background: int) -> Moments:
        """A picture's moments by its index, mirrored or not, over a background by its index."""
        digest = self._hashes[self.pictures.items[item].path]
        opaque = entry_name(digest, bucket, flip, None)
        if opaque in self._store:
            return self._store[opaque]
        return self._store[entry_name(digest, bucket, flip, self._colours[background])]

    def sample(self, most: int = 4096) -> Iterator[Moments]:
        """The moments of at most `most` pictures, evenly from all, with views by turns."""
        members = [(index, group.bucket) for group in self.groups for index in group.items]
        for turn, (index, bucket) in enumerate(members[:: -(-len(members) // most)]):
            background = turn // 2 % len(self._colours)
            yield self.moments(index, bucket, self.config.flip and turn % 2 == 1, background)


class LatentBatches:
    """Batches of latents with captions; `batch(step)` depends on the seed and the step alone.

    Latents are drawn from their moments, then shifted and scaled: `(z - shift) * scale`. `beside`
    is what else the pictures are conditioned on, by its name in a batch.
    """

    def __init__(
        self,
        cache: LatentCache,
        batch_size: int,
        shift: float = 0.0,
        scale: float = 1.0,
        beside: Mapping[str, Source] | None = None,
    ):
        self._cache = cache
        self._beside = beside or {}
        self._shift = shift
        self._scale = scale
        sizes = [len(group.items) for group in cache.groups]
        self._order = BatchOrder(sizes, batch_size, cache.config.seed)

    @property
    def steps_per_epoch(self) -> float:
        """Batches in which every picture comes once (or `repeats` times)."""
        return self._order.steps_per_epoch

    def batch(self, step: int) -> Batch:
        """Batch number `step`, counted from 0: captions, and scaled latents (b, c, h/f, w/f).

        `extras["item"]` holds each picture's index in `cache.pictures`, int64 (b,).
        """
        number, members = self._order.at(step)
        group = self._cache.groups[number]
        cuts: list[Cut] = []
        drawn: list[Draws] = []
        moments: list[Tensor] = []
        noise: list[Tensor] = []
        captions: list[str] = []
        indices: list[int] = []
        for member, epoch in members:
            index = group.items[member]
            draws = Draws(self._cache.config, epoch, group.slots[member])
            cut = Cut(index, group.bucket, draws.flip(), draws.background())
            one = self._cache.moments(*cut)
            cuts.append(cut)
            drawn.append(draws)
            moments.append(one)
            noise.append(draws.normal(one.shape[1:]))
            captions.append(draws.caption(self._cache.pictures.items[index]))
            indices.append(index)
        mean, std = torch.stack(moments, 1).float()  # (b, c, h/f, w/f) each
        z = mean + std * torch.stack(noise)
        return Batch(
            captions=tuple(captions),
            latents=(z - self._shift) * self._scale,
            extras={"item": torch.tensor(indices)},
            beside={
                name: source(cuts, [draws.generator(place) for draws in drawn])
                for place, (name, source) in enumerate(self._beside.items())
            },
        )


def measure_scale(moments: Iterable[Moments], centred: bool = False) -> tuple[float, float]:
    """The shift and scale that give latents unit variance over all channels and places.

    The scale is one over their standard deviation (Rombach et al. 2022, appendix G). The shift is
    their mean if `centred`, else 0, as pipelines that know no shift need.

    Raises `SafelightError` if the latents do not vary, or there are none.
    """
    count, total, squares = 0, 0.0, 0.0
    for mean, std in (one.double() for one in moments):
        count += mean.numel()
        total += float(mean.sum())
        squares += float(mean.square().sum() + std.square().sum())
    variance = squares / count - (total / count) ** 2 if count else 0.0
    if not variance > 0:
        raise SafelightError(
            "The latents of all pictures are the same; the autoencoder has learned nothing yet."
        )
    return (total / count if centred else 0.0), variance**-0.5
