"""PyTorch's pickled files: zip archives since version 1.6, and streams of pickles before it."""

import struct
import zipfile
from collections.abc import Mapping
from io import SEEK_CUR, BufferedReader, BytesIO
from pathlib import Path
from typing import cast

import numpy as np
import torch
from torch import Tensor

from safelight.checkpoints.pickle_machine import PickleMachine, storage_key
from safelight.errors import SafelightError, first_line

_MAGIC = 0x1950A86A20F9469CFC6C  # begins the files of PyTorch before 1.6
_MAGIC_LENGTH = 64  # bytes that surely hold its pickle
_MOST_PICKLE_BYTES = 256 * 1024**2
_NO_PICKLE = (
    *(ValueError, LookupError, TypeError, ArithmeticError),
    *(AttributeError, RuntimeError, struct.error),
)
"""What bytes that are no pickle, or a broken one, raise."""
_MOST_SHARING = 4  # how many times over tensors may share the file's bytes


def read_pickle(path: Path, *, values: bool = True) -> object:
    """What a `.ckpt`, `.pt`, `.pth` or `.bin` of PyTorch holds: tensors, numbers, text, lists,
    tuples and dictionaries, and `Unknown` for all else.

    Tensors of a file of PyTorch 1.6 or later are mapped from it, and cost memory once touched.
    Without `values` those of an older one have shapes and types alone, on the meta device.

    Raises `SafelightError`, one line, if the file is truncated, hostile, or no such file.
    """
    try:
        with path.open("rb") as file:
            zipped = file.read(4) == b"PK\x03\x04"
        return _read_zip(path) if zipped else _read_legacy(path, values=values)
    except (OSError, MemoryError, *_NO_PICKLE, zipfile.BadZipFile) as error:
        # what a table lacks says nothing to a reader: such an error is its bare key
        reason = "it is broken" if isinstance(error, LookupError) else first_line(error)
        raise SafelightError(
            f"{path} is not a readable PyTorch file ({reason}). It may be truncated, or a page of "
            "text saved in its place; copy or download it again."
        ) from error


def _read_zip(path: Path) -> object:
    mapped = np.memmap(path, dtype=np.uint8, mode="c")
    with zipfile.ZipFile(path) as archive:
        entries = {entry.filename: entry for entry in archive.infolist()}
        pickles = [name for name in entries if name.split("/")[-1] == "data.pkl"]
        if len(pickles) != 1:
            raise ValueError("a zip archive without a data.pkl of its own")
        folder = pickles[0].removesuffix("data.pkl")
        order = entries.get(f"{folder}byteorder")
        if order is not None and _bytes_of(mapped, order).tobytes() != b"little":
            raise ValueError("its numbers are not little-endian")
        pickled = _bytes_of(mapped, entries[pickles[0]])

    def storage(dtype: torch.dtype, key: str, count: int) -> Tensor:
        entry = entries.get(f"{folder}data/{key}")
        if entry is None:
            raise ValueError(f"it lacks the bytes of storage {key[:40]!r}")
        raw = _bytes_of(mapped, entry)
        if count * dtype.itemsize > len(raw):
            raise ValueError(f"storage {key[:40]!r} is cut short")
        if count == 0:
            return torch.empty(0, dtype=dtype)
        return torch.from_numpy(raw[: count * dtype.itemsize]).view(dtype)  # pyright: ignore[reportUnknownMemberType]

    if len(pickled) > _MOST_PICKLE_BYTES:
        raise ValueError("its data.pkl is absurdly long")
    return PickleMachine(storage, _MOST_SHARING * len(mapped)).run(BytesIO(pickled.tobytes()))


def _bytes_of(mapped: "np.ndarray[tuple[int], np.dtype[np.uint8]]", entry: zipfile.ZipInfo):
    """The bytes of a zip archive's entry, which must be stored as they are: a view (n,)."""
    if entry.compress_type != zipfile.ZIP_STORED or entry.flag_bits & 1:
        raise ValueError(f"{entry.filename[:40]!r} in it is compressed or encrypted")
    start = entry.header_offset
    header = mapped[start : start + 30].tobytes()
    if header[:4] != b"PK\x03\x04" or len(header) < 30:
        raise ValueError(f"{entry.filename[:40]!r} in it is not where its table says")
    name, extra = struct.unpack("<HH", header[26:30])
    begin = start + 30 + name + extra
    if begin + entry.file_size > len(mapped):
        raise ValueError(f"{entry.filename[:40]!r} in it is cut short")
    return mapped[begin : begin + entry.file_size]


def _read_legacy(path: Path, *, values: bool) -> object:
    """A file of PyTorch before 1.6: five pickles, then each storage's length and bytes."""
    with path.open("rb") as stream:
        if not _begins_as_old(stream.read(_MAGIC_LENGTH)):
            raise ValueError("neither safetensors nor a PyTorch file")
        stream.seek(0)
        return _read_old(stream, path.stat().st_size, values=values)


def _begins_as_old(start: bytes) -> bool:
    """Whether the first pickle is the magic number; any bytes may be no pickle at all."""
    try:
        return PickleMachine(_no_storage, 0).run(BytesIO(start)) == _MAGIC
    except _NO_PICKLE:
        return False


def _read_old(stream: BytesIO | BufferedReader, size: int, *, values: bool) -> object:
    storages, left = dict[str, Tensor](), size
    device = "cpu" if values else "meta"

    def storage(dtype: torch.dtype, key: str, count: int) -> Tensor:
        nonlocal left
        known = storages.get(key)
        if known is None:
            left -= count * dtype.itemsize
            if left < 0:
                raise ValueError("its storages are larger than the file")
            known = storages[key] = torch.zeros(count, dtype=dtype, device=device)
        return known

    def pickled() -> object:
        return PickleMachine(storage, _MOST_SHARING * size).run(stream)

    pickled()  # the magic number
    pickled()  # the version of the protocol
    machine = pickled()
    if not isinstance(machine, Mapping) or machine.get("little_endian") is not True:  # pyright: ignore[reportUnknownMemberType]
        raise ValueError("its numbers are not little-endian")
    root = pickled()
    for key in cast(list[object], pickled()):
        count = struct.unpack("<q", stream.read(8))[0]
        tensor = storages.get(storage_key(key))
        if tensor is None or count != len(tensor):
            raise ValueError(f"storage {key!r} is not of the length that its tensors say")
        if not values:
            stream.seek(tensor.nbytes, SEEK_CUR)
            continue
        data = stream.read(tensor.nbytes)
        if len(data) < tensor.nbytes:
            raise ValueError("its data is cut short")
        if data:
            tensor.copy_(torch.frombuffer(bytearray(data), dtype=tensor.dtype))
    return root


def _no_storage(dtype: torch.dtype, key: str, count: int) -> Tensor:
    raise ValueError("neither safetensors nor a PyTorch file")
