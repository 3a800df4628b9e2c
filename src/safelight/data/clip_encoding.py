"""Encodes clips once into latents on disk, and measures their motion."""

import hashlib
from collections.abc import Callable, Mapping, Sequence
from dataclasses import replace
from pathlib import Path

import numpy as np
import torch
from torch import Tensor

from safelight.data.batches import prefetch
from safelight.data.buckets import View, cut
from safelight.data.clip_files import decode_clip, frame_files
from safelight.data.clip_latents import ClipCache
from safelight.data.clip_store import ClipStore, Encoded, clip_name
from safelight.data.clips import ClipFolder, ClipItem, ClipsConfig
from safelight.data.config import DataConfig
from safelight.data.encoding import Encode
from safelight.data.file_hashes import FileHashes
from safelight.data.folders import Skipped
from safelight.data.groups import grouped
from safelight.data.motion import motion_between, need_opencv
from safelight.errors import SafelightError
from safelight.pictures import (
    WHITE,
    Colour,
    Levels,
    Size,
    UnreadablePictureError,
    stack_pixels,
)

_FORMAT = "clips-1"  # changes when what is stored changes
_CLIPS_AT_ONCE = 32  # in a shard, so that an interruption costs no more work than these
_Task = tuple[ClipItem, Size, str]  # a clip, its shape, and its file's digest
_Piece = tuple[str, float, float]  # a file's digest, where a piece of it begins, and its rate


def cache_clips(
    root: Path,
    clips: ClipFolder,
    data: DataConfig,
    config: ClipsConfig,
    encode: Encode,
    encoder_hash: str,
    batch_size: int = 16,
    on_progress: Callable[[int, int], None] | None = None,
) -> ClipCache:
    """Encodes every frame of the clips that `root` does not hold yet, and gives the latents of all.

    Each clip is cut at its centre and encoded as it is, mirrored too if `data.flip`, and if it is
    transparent over every one of `data.backgrounds`. Entries are found by `encoder_hash` (of the
    autoencoder's weights), the files' hash, and how it is cut; so what has changed is encoded anew,
    and an interrupted run goes on where it was. `on_progress(done, all)` counts clips.

    Clips that cannot be decoded are in `clips.skipped` of the result, not in its items.

    Raises `SafelightError` if no clip can be decoded, latents are beyond float16, or OpenCV, which
    measures motion, is not installed.
    """
    key = hashlib.sha256(f"{_FORMAT} {encoder_hash}".encode()).hexdigest()[:24]
    store = ClipStore(root / key)
    digests, unreadable = _digests(root / "files.json", clips)
    missing = _missing(clips, data, store, digests, unreadable)
    if missing:
        need_opencv()  # before any clip is encoded
    total = len(clips.items)
    done = total - len(missing)
    names: list[str] = []
    encoded: list[Encoded] = []

    def load(number: int) -> dict[str, list[Levels]] | str:
        return _views_of(missing[number], data, config.span)

    try:
        for number, views in enumerate(prefetch(load, depth=2, stop=len(missing))):
            if isinstance(views, str):
                item, _, digest = missing[number]
                unreadable[_piece(item, digest)] = views
                continue
            motion = torch.from_numpy(motion_between(next(iter(views.values()))))
            for name, frames in views.items():
                encoded.append(Encoded(_encoded(frames, encode, batch_size), motion))
                names.append(name)
            done += 1
            if on_progress is not None:
                on_progress(done, total)
            if len(names) >= _CLIPS_AT_ONCE:
                store.add(names, encoded)
                names, encoded = [], []
    finally:  # after an error too: what is encoded is good
        if names:
            store.add(names, encoded)
    return ClipCache(_readable(clips, digests, unreadable), data, config, store, digests)


def _piece(item: ClipItem, digest: str) -> _Piece:
    """What of a file cannot be decoded, if it cannot: the same in every copy of the file."""
    return digest, item.start, item.fps


def _digests(remembered: Path, clips: ClipFolder) -> tuple[dict[Path, str], dict[_Piece, str]]:
    """The hash of each clip's file, or of all its frames'; and why some cannot be read."""
    known = FileHashes(remembered)
    digests: dict[Path, str] = {}
    reasons: dict[Path, str] = {}
    for item in clips.items:
        path = item.path
        if path in digests:
            continue
        try:
            files = frame_files(path) if path.is_dir() else [path]
            hashes = [known.sha256(file) for file in files]
            several = hashlib.sha256(" ".join(hashes).encode()).hexdigest()
            digests[path] = several if path.is_dir() else hashes[0]
        except OSError as error:
            digests[path] = str(path)
            reasons[path] = (error.strerror or "it cannot be read").lower()
    known.save()
    return digests, {
        _piece(item, digests[item.path]): reasons[item.path]
        for item in clips.items
        if item.path in reasons
    }


def _missing(
    clips: ClipFolder,
    data: DataConfig,
    store: ClipStore,
    digests: Mapping[Path, str],
    unreadable: Mapping[_Piece, str],
) -> list[_Task]:
    """What is to be encoded; of clips with the same bytes, one."""
    missing: dict[str, _Task] = {}
    for group in grouped(clips, data):
        for index in dict.fromkeys(group.items):
            item = clips.items[index]
            task = (item, group.bucket, digests[item.path])
            views = [_views(task, data, grounds) for grounds in _grounds(data)]
            complete = (all(name in store for name, _, _ in some) for some in views)
            if _piece(item, task[2]) not in unreadable and not any(complete):
                missing[views[0][0][0]] = task
    return list(missing.values())


def _grounds(data: DataConfig) -> tuple[tuple[Colour | None, ...], ...]:
    return ((None,), data.colours)


def _views(
    task: _Task, data: DataConfig, grounds: Sequence[Colour | None]
) -> list[tuple[str, bool, Colour | None]]:
    """The names of all views of a clip, each with its mirroring and its ground."""
    item, bucket, digest = task
    flips = (False, True) if data.flip else (False,)
    return [
        (clip_name(digest, item, bucket, flip, ground), flip, ground)
        for ground in grounds
        for flip in flips
    ]


def _views_of(task: _Task, data: DataConfig, fewest: int) -> dict[str, list[Levels]] | str:
    """The frames of every view of a clip by its name, or why it cannot be decoded.

    A file may end before its header says, as where its sound is longer: of such a piece what is
    there is taken, if it has `fewest` frames.
    """
    item, bucket, _ = task
    try:
        frames = decode_clip(
            item.path, item.fps, bucket, start=item.start, seconds=item.frames / item.fps
        )
    except UnreadablePictureError as error:
        return error.reason
    if len(frames) < fewest:
        return f"from second {item.start:g} on it has fewer than {fewest} frames"
    levels = [np.array(frame) for frame in frames[: item.frames]]
    transparent = any(rows.shape[2] == 4 and rows[..., 3].min() < 255 for rows in levels)
    return {
        name: [cut(rows, bucket, View(flip=flip), ground or WHITE) for rows in levels]
        for name, flip, ground in _views(task, data, _grounds(data)[transparent])
    }


def _encoded(frames: Sequence[Levels], encode: Encode, batch_size: int) -> Tensor:
    parts: list[Tensor] = []
    for first in range(0, len(frames), batch_size):
        mean, std = encode(stack_pixels(frames[first : first + batch_size]))
        parts.append(torch.stack([mean, std], 1).detach().to("cpu", torch.float16))
    moments = torch.cat(parts)  # (f, 2, c, h, w)
    if not moments.isfinite().all():
        raise SafelightError(
            "The autoencoder gives latents beyond float16; it is broken, or trained without a "
            "penalty on its latents."
        )
    return moments


def _readable(
    clips: ClipFolder, digests: Mapping[Path, str], unreadable: Mapping[_Piece, str]
) -> ClipFolder:
    reasons = [unreadable.get(_piece(item, digests[item.path])) for item in clips.items]
    pairs = list(zip(clips.items, reasons, strict=True))
    items = tuple(item for item, reason in pairs if reason is None)
    skipped = tuple(Skipped(item.path, reason) for item, reason in pairs if reason is not None)
    if not items:
        raise SafelightError(f"No clip can be read; {skipped[0].path}: {skipped[0].reason}.")
    return replace(clips, items=items, skipped=(*clips.skipped, *skipped))
