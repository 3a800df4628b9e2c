"""Encodes pictures once into latents on disk."""

import hashlib
import time
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path

import numpy as np
import torch
from jaxtyping import Float
from torch import Tensor

from safelight.data.batches import prefetch
from safelight.data.buckets import View, cut
from safelight.data.config import DataConfig
from safelight.data.file_hashes import FileHashes
from safelight.data.folders import PictureFolder, Skipped
from safelight.data.groups import grouped
from safelight.data.latent_store import LatentStore, entry_name
from safelight.data.latents import LatentCache
from safelight.errors import SafelightError
from safelight.pictures import (
    WHITE,
    Colour,
    Levels,
    Size,
    UnreadablePictureError,
    decode,
    stack_pixels,
)

Encode = Callable[[Tensor], tuple[Tensor, Tensor]]
"""An autoencoder's encoder: pixels (b, 3, h, w) in [-1, 1] to the unscaled latents' mean
and standard deviation, each (b, c, h/f, w/f)."""


def cache_latents(
    root: Path,
    pictures: PictureFolder,
    config: DataConfig,
    encode: Encode,
    encoder_hash: str,
    batch_size: int = 16,
    on_progress: Callable[[int, int], None] | None = None,
) -> LatentCache:
    """Encodes every picture that `root` does not hold yet, and gives the latents of all.

    Each picture is cut at its centre and encoded as it is, mirrored too if `config.flip`, and if it
    is transparent over every one of `config.backgrounds`. Entries are found by `encoder_hash` (of
    the autoencoder's weights), the file's hash, and how it is cut; so what has changed is encoded
    anew, and an interrupted run goes on where it was. `on_progress(done, all)` counts pictures.

    Pictures that cannot be decoded are in `pictures.skipped` of the result, not in its items.

    Raises `SafelightError` if no picture can be decoded, or latents are beyond float16.
    """
    key = hashlib.sha256(f"{_FORMAT} {encoder_hash}".encode()).hexdigest()[:24]
    store = LatentStore(root / key)
    hashes, unreadable = _hash_files(root / "files.json", pictures)
    missing = _missing(pictures, config, store, hashes)
    total = len(pictures.items)
    done = total - sum(len(sources) for sources in missing.values())
    for bucket, sources in missing.items():
        chunks = [sources[i : i + batch_size] for i in range(0, len(sources), batch_size)]

        def load(number: int, chunks: _Chunks = chunks, bucket: Size = bucket) -> _Loaded:
            return _load(chunks[number], bucket, config)

        with _Shard(store) as shard:
            for loaded in prefetch(load, depth=2, stop=len(chunks)):
                unreadable |= loaded.unreadable
                for i in range(0, len(loaded.names), batch_size):
                    rows = slice(i, i + batch_size)
                    mean, std = encode(stack_pixels(loaded.rows[rows]))
                    shard.add(loaded.names[rows], torch.stack([mean, std], 1))
                done += loaded.count
                if on_progress is not None:
                    on_progress(done, total)
    return LatentCache(_readable(pictures, hashes, unreadable), config, store, hashes)


_FORMAT = "moments-1"  # changes when what is stored changes
_SHARD_BYTES = 64 << 20
_SHARD_SECONDS = 60.0  # so that an interruption costs no more work than this

_Chunks = Sequence[Sequence[tuple[Path, str]]]  # paths with their digests


@dataclass
class _Loaded:
    """Views of a few pictures, ready to encode; and by digest, why others cannot be decoded."""

    count: int
    names: list[str] = field(default_factory=list[str])
    rows: list[Levels] = field(default_factory=list[Levels])
    unreadable: dict[str, str] = field(default_factory=dict[str, str])


class _Shard:
    """Moments that wait to be written together."""

    def __init__(self, store: LatentStore):
        self._store = store
        self._clear()

    def __enter__(self) -> "_Shard":
        return self

    def __exit__(self, *_: object) -> None:
        """Writes what waits, after an error too: what is encoded is good."""
        self._write()

    def add(self, names: Sequence[str], moments: Float[Tensor, "n 2 c h w"]) -> None:
        """Takes moments; writes when there is enough, or enough time has passed."""
        halves = moments.detach().to("cpu", torch.float16)
        if not halves.isfinite().all():
            raise SafelightError(
                f"The autoencoder gives latents beyond float16, up to {moments.abs().max():.3g}; "
                "it is broken, or trained without a penalty on its latents."
            )
        self._names += names
        self._moments.append(halves)
        self._bytes += halves.nbytes
        if self._bytes >= _SHARD_BYTES or time.monotonic() - self._began >= _SHARD_SECONDS:
            self._write()

    def _write(self) -> None:
        if self._names:
            self._store.add(self._names, torch.cat(self._moments))
        self._clear()

    def _clear(self) -> None:
        self._names: list[str] = []
        self._moments: list[Tensor] = []
        self._bytes = 0
        self._began = time.monotonic()


def _hash_files(
    remembered: Path, pictures: PictureFolder
) -> tuple[dict[Path, str], dict[str, str]]:
    """Each file's digest; a file that is gone has its path for one, and a reason."""
    known = FileHashes(remembered)
    hashes: dict[Path, str] = {}
    unreadable: dict[str, str] = {}
    for item in pictures.items:
        try:
            hashes[item.path] = known.sha256(item.path)
        except OSError as error:
            hashes[item.path] = str(item.path)
            unreadable[str(item.path)] = (error.strerror or "it cannot be read").lower()
    known.save()
    return hashes, unreadable


def _missing(
    pictures: PictureFolder, config: DataConfig, store: LatentStore, hashes: Mapping[Path, str]
) -> dict[Size, list[tuple[Path, str]]]:
    """What is to be encoded for each shape; of files with the same bytes, one."""
    missing: dict[Size, list[tuple[Path, str]]] = {}
    for group in grouped(pictures, config):
        sources: dict[str, Path] = {}
        for index in group.items:
            path = pictures.items[index].path
            digest = hashes[path]
            complete = (
                all(name in store for name, _, _ in _views(digest, group.bucket, config, grounds))
                for grounds in ((None,), config.colours)
            )
            if digest != str(path) and not any(complete):
                sources[digest] = path
        if sources:
            missing[group.bucket] = [(path, digest) for digest, path in sources.items()]
    return missing


def _views(
    digest: str, bucket: Size, config: DataConfig, grounds: Sequence[Colour | None]
) -> list[tuple[str, bool, Colour | None]]:
    """The names of all views of a picture, each with its mirroring and its ground."""
    flips = (False, True) if config.flip else (False,)
    return [
        (entry_name(digest, bucket, flip, ground), flip, ground)
        for ground in grounds
        for flip in flips
    ]


def _load(chunk: Sequence[tuple[Path, str]], bucket: Size, config: DataConfig) -> _Loaded:
    loaded = _Loaded(len(chunk))
    for path, digest in chunk:
        try:
            levels = np.array(decode(path, bucket))
        except UnreadablePictureError as error:
            loaded.unreadable[digest] = error.reason
            continue
        grounds = config.colours if levels.shape[2] == 4 else (None,)
        for name, flip, ground in _views(digest, bucket, config, grounds):
            loaded.names.append(name)
            loaded.rows.append(cut(levels, bucket, View(flip=flip), ground or WHITE))
    return loaded


def _readable(
    pictures: PictureFolder, hashes: Mapping[Path, str], unreadable: Mapping[str, str]
) -> PictureFolder:
    items = tuple(item for item in pictures.items if hashes[item.path] not in unreadable)
    skipped = tuple(
        Skipped(item.path, unreadable[hashes[item.path]])
        for item in pictures.items
        if hashes[item.path] in unreadable
    )
    if not items:
        raise SafelightError(f"No picture can be read; {skipped[0].path}: {skipped[0].reason}.")
    return PictureFolder(items, (*pictures.skipped, *skipped))
