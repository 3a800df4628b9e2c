"""Where models are: the bundled one, folders, and what other programs have already fetched."""

import os
from collections.abc import Iterator
from dataclasses import dataclass
from importlib.resources import files
from pathlib import Path

from safelight.checkpoints.inspection import inspect
from safelight.config import near, read_json
from safelight.errors import SafelightError

DEFAULT = "default"
_INDEX = "model_index.json"
_SUFFIXES = (".safetensors", ".ckpt")  # of the single files that a name may leave out


@dataclass(frozen=True)
class KnownModel:
    """A model that `load` and `--model` find by name."""

    name: str
    folder: Path  # or single file
    family: str  # the pipeline class that its model_index.json names, or what its file is
    size: int  # bytes of weights


def find_model(name: str) -> Path:
    """The diffusers folder, or the single file, that a name or a path means.

    Looks, in this order, for the bundled model (`default`), for what is at that path, in the
    folders that the environment variable SAFELIGHT_MODELS lists, and for a repository `owner/name`
    in the cache of the Hugging Face hub. Single files in SAFELIGHT_MODELS are found with or without
    their suffix. Nothing is fetched.

    Raises `SafelightError` that says where it looked.
    """
    found = _found(name)
    if found is not None:
        return found
    if name == DEFAULT:
        raise SafelightError(
            f"This installation has no bundled model (looked in {bundled()}); "
            "install safelight anew, or give --model FOLDER."
        )
    known = [model.name for model in known_models()]
    hint = near(name, known) if known else "No model has a name here."
    library = ", ".join(map(str, _library())) or "not set"
    raise SafelightError(
        f"No model {name!r}. Looked for a folder {expanded(name).absolute()}, in SAFELIGHT_MODELS "
        f"({library}) and in {_hub_cache()}. {hint}"
    )


def _found(name: str) -> Path | None:
    if name == DEFAULT:
        return bundled() if (bundled() / _INDEX).is_file() else None
    path = expanded(name)
    if path.exists():
        return _model_folder(path)
    inside = not Path(name).is_absolute() and ".." not in Path(name).parts
    for root in _library() if inside else ():
        if (root / name / _INDEX).is_file():
            return root / name
        for file in (root / f"{name}{suffix}" for suffix in ("", *_SUFFIXES)):
            if file.is_file() and file.suffix in _SUFFIXES:
                return file
    return _cached_snapshot(name)


def lasting_name(name: str) -> str:
    """The name by which the same model is found from every working folder: a path made absolute."""
    path = expanded(name)
    return name if name == DEFAULT or not path.exists() else str(path.absolute())


def known_models() -> list[KnownModel]:
    """Every model that has a name: bundled, in SAFELIGHT_MODELS, or in the Hugging Face cache."""
    folders = [
        KnownModel(name, folder, _family(folder), _weight_bytes(folder))
        for name, folder in _named_folders()
    ]
    return [*folders, *_named_files()]


def bundled() -> Path:
    """The folder of the model that comes with the package."""
    return Path(str(files("safelight"))) / "weights" / DEFAULT


def _model_folder(path: Path) -> Path:
    if path.is_file():
        return path
    if not (path / _INDEX).is_file():
        inside = sorted(index.parent for index in path.glob(f"*/{_INDEX}"))
        hint = f" Did you mean {inside[0]}?" if inside else ""
        raise SafelightError(f"{path} is not a model folder: it has no {_INDEX}.{hint}")
    return path


def _named_folders() -> Iterator[tuple[str, Path]]:
    if (bundled() / _INDEX).is_file():
        yield DEFAULT, bundled()
    for root in _library():
        for index in sorted([*root.glob(f"*/{_INDEX}"), *root.glob(f"*/*/{_INDEX}")]):
            yield index.parent.relative_to(root).as_posix(), index.parent
    for entry in sorted(_hub_cache().glob("models--*--*")):
        name = entry.name.removeprefix("models--").replace("--", "/", 1)
        snapshot = _cached_snapshot(name)
        if snapshot is not None:
            yield name, snapshot


def _named_files() -> Iterator[KnownModel]:
    """The single files in the library that are whole models, by their names without suffix.

    Where that name means another model, or none, it keeps its suffix.
    """
    for root in _library():
        for file in sorted(path for suffix in _SUFFIXES for path in root.glob(f"*{suffix}")):
            try:
                found = inspect(file)
            except (SafelightError, OSError):
                continue
            if found.is_whole_model:
                name = file.stem if _means(file.stem, file) else file.name
                yield KnownModel(name, file, found.kind, found.size)


def _means(name: str, file: Path) -> bool:
    try:
        return _found(name) == file
    except SafelightError:
        return False


def _library() -> list[Path]:
    listed = os.environ.get("SAFELIGHT_MODELS", "")
    return [expanded(part) for part in listed.split(os.pathsep) if part]


def _hub_cache() -> Path:
    home = os.environ.get("HF_HOME") or expanded("~/.cache/huggingface")
    return Path(os.environ.get("HF_HUB_CACHE") or Path(home) / "hub")


def expanded(path: str) -> Path:
    """The path with its `~` replaced, where that is someone's home."""
    try:
        return Path(path).expanduser()
    except RuntimeError:
        return Path(path)


def _cached_snapshot(name: str) -> Path | None:
    """The folder of the cached main revision of the repository `owner/name`."""
    if name.count("/") != 1 or ".." in name:
        return None
    repository = _hub_cache() / f"models--{name.replace('/', '--')}"
    main = repository / "refs" / "main"
    if not main.is_file():
        return None
    folder = repository / "snapshots" / main.read_text(encoding="utf-8").strip()
    return folder if (folder / _INDEX).is_file() else None


def _family(folder: Path) -> str:
    try:
        name = read_json(folder / _INDEX).get("_class_name")
    except SafelightError:
        return "unreadable"
    return name if isinstance(name, str) else "unknown"


def _weight_bytes(folder: Path) -> int:
    files = (path for path in folder.rglob("*.safetensors") if path.is_file())  # no broken links
    return sum(path.stat().st_size for path in files)
