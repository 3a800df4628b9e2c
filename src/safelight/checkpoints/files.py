"""Safetensors, whole or in shards: read and written. `pickles` beside this reads all others.

Layout and names are those of diffusers and transformers: `{stem}.safetensors`,
`{stem}.fp16.safetensors`, and for shards `{stem}.safetensors.index.json` beside
`{stem}-00001-of-00002.safetensors`.
"""

import hashlib
import json
from collections.abc import Iterable, Mapping, Sequence
from contextlib import AbstractContextManager
from pathlib import Path
from typing import Protocol, cast, runtime_checkable

import torch
from safetensors import SafetensorError, safe_open
from safetensors.torch import save_file  # pyright: ignore[reportUnknownVariableType]
from torch import Tensor

from safelight.checkpoints.atomic import replacing_file, write_text
from safelight.config import read_json
from safelight.errors import SafelightError, first_line

_DTYPES = {
    "F64": torch.float64,
    "F32": torch.float32,
    "F16": torch.float16,
    "BF16": torch.bfloat16,
    "F8_E4M3": torch.float8_e4m3fn,
    "F8_E5M2": torch.float8_e5m2,
    "I64": torch.int64,
    "I32": torch.int32,
    "I16": torch.int16,
    "I8": torch.int8,
    "U8": torch.uint8,
    "BOOL": torch.bool,
}

_BROKEN = (
    *(SafetensorError, OSError, MemoryError, KeyError, AttributeError),
    *(ValueError, TypeError, RuntimeError, OverflowError),
)
"""What the library and torch raise at a broken file."""
_MOST_TENSORS = 100_000  # of one file; the largest models have some thousands

State = dict[str, Tensor]
"""Weights by name."""


def read_state(path: Path, device: torch.device | str = "cpu") -> State:
    """All tensors of one safetensors file, in the precision of the file.

    On the CPU they are mapped from the file, so a tensor costs memory only once it is touched.

    Raises `SafelightError` if the file is missing, truncated, hostile, or not safetensors.
    """
    check_is_file(path)
    try:
        with _open(path, device) as file:
            names = file.keys()
            check_few(len(names), path)
            return {name: file.get_tensor(name) for name in names}
    except _BROKEN as error:
        raise SafelightError(
            f"{path} is not a readable safetensors file ({first_line(error)}). "
            "It may be truncated; copy or download it again."
        ) from error


def read_metadata(path: Path) -> dict[str, str]:
    """The text entries in a safetensors file's header, if any. Errors as `read_state`."""
    check_is_file(path)
    try:
        with _open(path, "cpu") as file:
            return dict(file.metadata() or {})
    except _BROKEN as error:
        raise SafelightError(
            f"{path} is not a readable safetensors file ({first_line(error)}). "
            "It may be truncated; copy or download it again."
        ) from error


def read_shapes(path: Path) -> tuple[State, dict[str, str]]:
    """The tensors of one safetensors file without their values (on the meta device), and its text
    entries: only the header is read. Errors as `read_state`.
    """
    check_is_file(path)
    try:
        with _open(path, "cpu") as file:
            state: State = {}
            names = file.keys()
            check_few(len(names), path)
            for name in names:
                part = file.get_slice(name)
                dtype = _DTYPES.get(part.get_dtype())
                if dtype is None:
                    raise SafelightError(
                        f"{path} holds {name!r} in the unknown precision {part.get_dtype()}."
                    )
                state[name] = torch.empty(part.get_shape(), dtype=dtype, device="meta")
            return state, dict(file.metadata() or {})
    except _BROKEN as error:
        raise SafelightError(
            f"{path} is not a readable safetensors file ({first_line(error)}). "
            "It may be truncated; copy or download it again."
        ) from error


def read_weights(
    folder: Path, stem: str, variant: str | None = None, device: torch.device | str = "cpu"
) -> State:
    """All tensors of one component of a diffusers folder, whole or sharded.

    Raises `SafelightError` as `find_weights` and `read_state` do, and if a shard lacks what the
    index promises.
    """
    variant = _only_variant(folder, stem) if variant is None else variant
    state: State = {}
    for path in find_weights(folder, stem, variant):
        for name, tensor in read_state(path, device).items():
            if name in state:
                raise SafelightError(f"{path} repeats the tensor {name!r} of another shard.")
            state[name] = tensor
    for index in (p for p in _candidates(folder, stem, variant) if _is_index(p) and p.is_file()):
        missing = sorted(set(_weight_map(index)) - set(state))
        if missing:
            raise SafelightError(
                f"{index} promises {len(missing)} tensors that its shards lack, "
                f"such as {missing[0]!r}."
            )
    return state


def find_weights(folder: Path, stem: str, variant: str | None = None) -> tuple[Path, ...]:
    """The safetensors files (one, or the shards) that hold a component.

    `variant` None takes the plain files, or the only variant there is.

    Raises `SafelightError` that lists what the folder holds if there are none, if only a variant
    of another name is there, or if a shard is missing.
    """
    variant = _only_variant(folder, stem) if variant is None else variant
    for path in _candidates(folder, stem, variant):
        if path.is_file():
            return _shards_of(path) if _is_index(path) else (path,)
    raise SafelightError(_absence(folder, stem, variant))


def variants(folder: Path, stem: str) -> tuple[str, ...]:
    """The variants of a component that are there, such as `fp16`, besides the plain files."""
    whole = {
        path.name.removeprefix(f"{stem}.").removesuffix(".safetensors")
        for path in folder.glob(f"{stem}.*.safetensors")
        if "-of-" not in path.name
    }
    sharded = {
        path.name.removeprefix(f"{stem}.safetensors.index.").removesuffix(".json")
        for path in folder.glob(f"{stem}.safetensors.index.*.json")
    }
    return tuple(sorted(whole | sharded))


def write_state(
    path: Path, state: Mapping[str, Tensor], metadata: Mapping[str, str] | None = None
) -> None:
    """Writes one safetensors file: either the whole new file is there, or what was before.

    Tied tensors are written once for each name. `metadata` joins `format: pt`, which
    transformers asks for.
    """
    storages: set[tuple[torch.device, int]] = set()
    plain: State = {}
    for name, tensor in state.items():
        tensor = tensor.detach().contiguous()
        key = (tensor.device, tensor.untyped_storage().data_ptr())
        plain[name] = tensor.clone() if key in storages else tensor
        storages.add(key)
    with replacing_file(path) as temporary:
        save_file(plain, temporary, metadata={"format": "pt", **(metadata or {})})


def write_weights(
    folder: Path,
    stem: str,
    state: Mapping[str, Tensor],
    variant: str | None = None,
    max_shard_bytes: int = 10 * 1000**3,
) -> None:
    """Writes one component as diffusers names it, in shards if it exceeds `max_shard_bytes`."""
    stem_of_files = f"{stem}.{variant}" if variant else stem
    shards = _shards(state, max_shard_bytes)
    if len(shards) == 1:
        write_state(folder / f"{stem_of_files}.safetensors", shards[0])
        return
    weight_map: dict[str, str] = {}
    for number, shard in enumerate(shards, start=1):
        name = f"{stem_of_files}-{number:05d}-of-{len(shards):05d}.safetensors"
        write_state(folder / name, shard)
        weight_map |= dict.fromkeys(shard, name)
    total = sum(_size(tensor) for tensor in state.values())
    index = {"metadata": {"total_size": total}, "weight_map": weight_map}
    suffix = f"index.{variant}.json" if variant else "index.json"
    write_text(folder / f"{stem}.safetensors.{suffix}", json.dumps(index, indent=2) + "\n")


def sha256_of_files(paths: Iterable[Path]) -> str:
    """The sha256, in hex, of one file as `sha256sum` gives it; of several, of their digests."""
    digests: list[bytes] = []
    for path in paths:
        with path.open("rb") as file:
            digests.append(hashlib.file_digest(file, "sha256").digest())
    if len(digests) == 1:
        return digests[0].hex()
    return hashlib.sha256(b"".join(digests)).hexdigest()


def sha256_of_state(state: Mapping[str, Tensor]) -> str:
    """The sha256, in hex, of tensors in memory: names, dtypes, shapes and bytes, sorted by name."""
    digest = hashlib.sha256()
    for name in sorted(state):
        tensor = state[name].detach().cpu().contiguous()
        digest.update(f"{name} {tensor.dtype} {tuple(tensor.shape)}\n".encode())
        digest.update(tensor.reshape(-1).view(torch.uint8).numpy().data)
    return digest.hexdigest()


@runtime_checkable
class _Slice(Protocol):
    """A tensor of an opened file, not read yet."""

    def get_shape(self) -> list[int]: ...
    def get_dtype(self) -> str: ...


class _File(Protocol):
    """What an opened safetensors file offers; the library ships no types."""

    def keys(self) -> list[str]: ...
    def get_tensor(self, name: str) -> Tensor: ...
    def get_slice(self, name: str) -> _Slice: ...
    def metadata(self) -> dict[str, str] | None: ...


def _open(path: Path, device: torch.device | str) -> AbstractContextManager[_File]:
    return cast(AbstractContextManager[_File], safe_open(path, framework="pt", device=str(device)))


def _shards_of(index: Path) -> tuple[Path, ...]:
    shards = tuple(index.parent / name for name in sorted(set(_weight_map(index).values())))
    absent = [shard.name for shard in shards if not shard.is_file()]
    if absent:
        raise SafelightError(f"{index} names shards that are not there: {', '.join(absent)}.")
    return shards


def _absence(folder: Path, stem: str, variant: str | None) -> str:
    wanted = f"{stem}.{variant}.safetensors" if variant else f"{stem}.safetensors"
    found = variants(folder, stem)
    if found:
        return f"{folder} has no {wanted}; variants that are there: {', '.join(found)}."
    pickled = [
        p.name for p in sorted(folder.glob("*")) if p.suffix in {".bin", ".ckpt", ".pt", ".pth"}
    ]
    if pickled:
        return (
            f"{folder} has no {wanted}, only pickled weights ({', '.join(pickled)}), "
            "which are not opened; get the safetensors files of this model."
        )
    present = ", ".join(sorted(p.name for p in folder.glob("*"))) or "nothing"
    return f"{folder} has no {wanted}; it holds {present}."


def _only_variant(folder: Path, stem: str) -> str | None:
    """The name of the only variant, if the plain files are not there."""
    plain = any(path.is_file() for path in _candidates(folder, stem, None))
    found = variants(folder, stem)
    return found[0] if not plain and len(found) == 1 else None


def _candidates(folder: Path, stem: str, variant: str | None) -> Sequence[Path]:
    if variant is None:
        return folder / f"{stem}.safetensors", folder / f"{stem}.safetensors.index.json"
    return (
        folder / f"{stem}.{variant}.safetensors",
        folder / f"{stem}.safetensors.index.{variant}.json",
        folder / f"{stem}.{variant}.safetensors.index.json",
    )


def _is_index(path: Path) -> bool:
    return path.suffix == ".json"


def _weight_map(index: Path) -> dict[str, str]:
    weight_map = read_json(index).get("weight_map")
    if not isinstance(weight_map, Mapping) or not weight_map:
        raise SafelightError(f"{index} should hold a table 'weight_map' from tensor to file.")
    checked: dict[str, str] = {}
    for name, file in weight_map.items():
        if (
            not isinstance(file, str)
            or Path(file).name != file
            or not file.endswith(".safetensors")
        ):
            raise SafelightError(
                f"{index} should name safetensors files beside it, not {file!r} (for {name!r})."
            )
        checked[name] = file
    return checked


def _shards(state: Mapping[str, Tensor], max_bytes: int) -> list[State]:
    shards: list[State] = [{}]
    room = max_bytes
    for name, tensor in state.items():
        if shards[-1] and _size(tensor) > room:
            shards.append({})
            room = max_bytes
        shards[-1][name] = tensor
        room -= _size(tensor)
    return shards


def _size(tensor: Tensor) -> int:
    return tensor.numel() * tensor.element_size()


def check_is_file(path: Path) -> None:
    """Raises `SafelightError` unless there is a file at the path that may be read."""
    if not path.is_file():
        what = "a folder, not a file" if path.is_dir() else "not there"
        raise SafelightError(f"Expected a weights file at {path}; it is {what}.")
    try:
        path.open("rb").close()
    except OSError as error:
        raise SafelightError(
            f"Cannot read the weights file {path}: {error.strerror}. See to its permissions, or "
            "copy it elsewhere."
        ) from error


def check_few(count: int, path: Path) -> None:
    """Raises `SafelightError` for more tensors than any model has."""
    if count > _MOST_TENSORS:
        raise SafelightError(f"{path} names {count:,} tensors, more than any model has.")
