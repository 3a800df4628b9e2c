"""Networks that were made ready, kept on the disk."""

import hashlib
import os
import shutil
from collections.abc import Generator, Iterator
from contextlib import contextmanager, suppress
from dataclasses import fields, is_dataclass
from functools import cache
from importlib.metadata import version
from itertools import chain
from pathlib import Path
from typing import TypeAlias, cast

import torch
from torch import nn

from safelight.checkpoints.atomic import replacing_folder
from safelight.engine.verdict import machine

_PLAIN = (int, float, str, bool, type(None), torch.Size, torch.dtype, torch.device)
_OF_TORCH = frozenset(vars(nn.Module())) | {"training"}  # attributes of every module
Shapes: TypeAlias = tuple[tuple[int, ...], ...]

_SOURCES = ("engine", "models", "nn")  # the layers that say what a network computes


class Store:
    """A folder of networks that were made ready, at most `most` bytes of them: the ones that were
    used longest ago go first.
    """

    def __init__(self, folder: Path, most: int = 8 * 2**30):
        self._folder, self._most = folder, most

    def place(self, identity: str, shapes: Shapes) -> Path:
        """Of what has that `identity`, for inputs of these shapes, whether anything is there or
        not.
        """
        digest = hashlib.sha256(identity.encode()).hexdigest()
        place = self._folder / f"{_prefix(shapes)}{digest}"
        if place.is_dir():
            with suppress(OSError):  # of a cache that may be read alone
                os.utime(place)  # which tells when it was used
        return place

    def kept(self, shapes: Shapes | None = None) -> list[Path]:
        """The places where something is, for inputs of these shapes or of any; of whatever
        identity, since to tell that takes a look at all weights.
        """
        pattern = "[!.]*" if shapes is None else f"{_prefix(shapes)}*"
        return [place for place in self._folder.glob(pattern) if place.is_dir()]

    @contextmanager
    def writing(self, place: Path) -> Generator[Path]:
        """An empty folder that becomes that place."""
        with replacing_folder(place) as folder:
            yield folder
        self._prune()

    def _prune(self) -> None:
        kept = sorted(self.kept(), key=lambda place: place.stat().st_mtime, reverse=True)
        total = 0
        for i, place in enumerate(kept):
            total += sum(file.stat().st_size for file in place.iterdir())
            if i and total > self._most:
                shutil.rmtree(place, ignore_errors=True)


def _prefix(shapes: Shapes) -> str:
    return f"{hashlib.sha256(str(shapes).encode()).hexdigest()[:16]}-"


def own_store() -> Store:
    """The user's: in SAFELIGHT_CACHE if that is set, else in `safelight` of the user's caches."""
    caches = os.environ.get("XDG_CACHE_HOME") or Path.home() / ".cache"
    return Store(Path(os.environ.get("SAFELIGHT_CACHE") or Path(caches) / "safelight") / "engine")


def identity(module: nn.Module) -> str | None:
    """A hash of all that says what a module computes and how: its weights and settings, the source
    of the networks, the libraries, the processor; None if some of that cannot be told.
    """
    digest = hashlib.sha256(_versions().encode())
    for path, part in cast(Iterator[tuple[str, nn.Module]], module.named_modules()):
        told = _told(part)
        if told is None:
            return None
        digest.update(f"{path} {told}\n".encode())
    for name, tensor in chain(module.named_parameters(), module.named_buffers()):
        digest.update(f"{name} {tensor.dtype} {tuple(tensor.shape)}\n".encode())
        digest.update(tensor.detach().cpu().reshape(-1).view(torch.uint8).numpy().data)
    return digest.hexdigest()


def _told(part: nn.Module) -> str | None:
    """A module's class and settings."""
    settings: list[str] = []
    for name, value in sorted(vars(part).items()):
        if name in _OF_TORCH:
            continue
        if not _is_plain(value):
            return None
        settings.append(f"{name}={value!r}")
    if part._forward_hooks or part._forward_pre_hooks:  # pyright: ignore[reportPrivateUsage]
        return None
    return f"{type(part).__module__}.{type(part).__qualname__} {settings}"


def _is_plain(value: object) -> bool:
    """Whether its text says all of a value."""
    if is_dataclass(value) and not isinstance(value, type):
        return all(_is_plain(getattr(value, field.name)) for field in fields(value))
    if isinstance(value, tuple | list):
        return all(map(_is_plain, value))  # pyright: ignore[reportUnknownArgumentType]
    return isinstance(value, _PLAIN)


@cache
def _versions() -> str:
    """The processor, the libraries that compute, and the source of the networks."""
    digest = hashlib.sha256()
    for file in _source_files():
        digest.update(file.read_bytes())
    return f"{machine()} {torch.__version__} {version('openvino')} {digest.hexdigest()}"


def _source_files() -> Iterator[Path]:
    package = Path(__file__).parent.parent
    for layer in _SOURCES:
        yield from sorted((package / layer).glob("*.py"))
