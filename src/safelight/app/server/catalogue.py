"""The models that clients may name; a name never leads anywhere else."""

import threading
import time
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

from safelight.checkpoints.folder import INDEX
from safelight.checkpoints.inspection import inspect
from safelight.checkpoints.tables.video import OWN_PIPELINE, SVD_PIPELINE
from safelight.config import near, read_json
from safelight.errors import SafelightError
from safelight.pipelines.find import VIDEO, KnownModel, bundled, known_models, own_controls
from safelight.pipelines.hub import find_or_fetch

_FRESH = 10.0  # seconds that a listing of the folders is good for


class UnknownModelError(SafelightError):
    """No model has that name here."""


@dataclass(frozen=True)
class Entry:
    """A model by its name here.

    Attributes:
        place: what `safelight.load` takes: a path, or the name of a model that is bundled.
        family: what it is.
        size: bytes of its weights.
        controls: the kinds of the ControlNets that it brings.
    """

    name: str
    place: str
    family: str
    size: int
    controls: tuple[str, ...]

    @property
    def file(self) -> Path:
        """Its folder or single file."""
        inside = bundled().parent / self.place
        return inside if inside.is_dir() else Path(self.place)

    @property
    def makes_clips(self) -> bool:
        """Whether it is a video model, or a model of pictures that brings a video U-Net."""
        return not self.makes_pictures or (self.file / VIDEO).is_dir()

    @property
    def makes_pictures(self) -> bool:
        """Whether it is no video model."""
        index = self.file / INDEX
        try:
            named = read_json(index).get("_class_name") if index.is_file() else None
        except SafelightError:
            named = None
        return named not in (OWN_PIPELINE, SVD_PIPELINE)


class Catalogue:
    """The models given at the start, the first of which is meant where none is named, and all that
    have names here (`safelight models`).

    Raises `SafelightError` if one that is given is not there.
    """

    def __init__(self, models: Sequence[str], *, offline: bool = False):
        self._lock = threading.Lock()
        self._listed: dict[str, Entry] = {}
        self._until = 0.0
        paths = [find_or_fetch(model, offline=offline).absolute() for model in models]
        self._given = [_given(path) for path in dict.fromkeys(paths)]
        self.default = self._given[0].name

    def entries(self) -> dict[str, Entry]:
        """All models by name, those given first."""
        with self._lock:
            if time.monotonic() >= self._until:
                self._listed = {entry.name: entry for entry in self._given}
                for model in known_models():
                    self._listed.setdefault(model.name, _entry(model))
                self._until = time.monotonic() + _FRESH
            return dict(self._listed)

    def refresh(self) -> None:
        """Looks into the folders again at the next call."""
        with self._lock:
            self._until = 0.0

    def find(self, name: str | None) -> Entry:
        """The model of a name, or the default one; `UnknownModelError` for a name that none has."""
        entries = self.entries()
        found = entries.get(name or self.default)
        if found is None:
            raise UnknownModelError(f"There is no model {name!r} here. {near(name or '', entries)}")
        return found


def _entry(model: KnownModel) -> Entry:
    inside = model.folder.parent == bundled().parent
    place = model.folder.name if inside else str(model.folder.absolute())
    return Entry(model.name, place, model.family, model.size, model.controls)


def _given(path: Path) -> Entry:
    for model in known_models():
        if model.folder.absolute() == path:
            return _entry(model)
    found = inspect(path)
    controls = tuple(own_controls(path)) if path.is_dir() else ()
    name = path.stem if path.is_file() else path.name
    return Entry(name, str(path), found.kind, found.size, controls)
