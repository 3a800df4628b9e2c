"""Where models are: the bundled one, folders, and what other programs have already fetched."""

import os
import re
from collections.abc import Iterator
from dataclasses import dataclass, replace
from importlib.resources import files
from pathlib import Path

from safelight.checkpoints.inspection import inspect
from safelight.checkpoints.model import BASE, base_of, is_model
from safelight.config import near, read_json
from safelight.errors import SafelightError

DEFAULT = "default"
CONTROLS = "controls"  # in a model's folder
VIDEO = "video"  # there: the U-Net, or the layers along the frames, by which it makes clips
_INDEX = "model_index.json"
_SUFFIXES = (".safetensors", ".ckpt")  # of the single files that a name may leave out
_HUB_ID = re.compile(r"(\w[\w.-]*/\w[\w.-]*)(?:@(\w[\w./-]*))?", re.ASCII)
_HUB_FILE = re.compile(
    r"(\w[\w.-]*/\w[\w.-]*)(?:@(refs/pr/\d+|\w[\w.-]*))?"
    r"/([^/\\:@][^\\:@]*\.(?:safetensors|ckpt|pt|pth|bin|onnx))",
    re.ASCII,
)


@dataclass(frozen=True)
class HubId:
    """A repository of the Hugging Face hub, its branch, tag or commit, and perhaps a file in it."""

    repository: str  # owner/name
    revision: str = "main"
    file: str = ""  # its path in the repository

    @staticmethod
    def of(name: str) -> "HubId | None":
        """Reads `owner/name` and `owner/name@revision`, and either with `/` and a file of weights
        behind it; None for a name of another form.
        """
        match = _HUB_FILE.fullmatch(name) or _HUB_ID.fullmatch(name)
        if match is None or ".." in name or "--" in match[1]:
            return None
        return HubId(match[1], match[2] or "main", *match.groups()[2:])

    @property
    def folder(self) -> str:
        """The name of its folder in the hub's cache."""
        return f"models--{self.repository.replace('/', '--')}"

    def __str__(self) -> str:
        revision = "" if self.revision == "main" else f"@{self.revision}"
        return f"{self.repository}{revision}{'/' if self.file else ''}{self.file}"


@dataclass(frozen=True)
class KnownModel:
    """A model that `load` and `--model` find by name."""

    name: str
    folder: Path  # or single file
    family: str  # the pipeline class that its model_index.json names, or what its file is
    size: int  # bytes of weights
    controls: tuple[str, ...] = ()  # the kinds of the ControlNets that it brings


def find_model(name: str) -> Path:
    """The diffusers folder, or the single file, that a name or a path means.

    Looks, in this order, for the bundled models (`default` and those on it), for what is at that
    path, in the folders that the environment variable SAFELIGHT_MODELS lists, and for a repository
    `owner/name` or `owner/name@revision`, or a file in one, in the cache of the Hugging Face hub.
    Single files in SAFELIGHT_MODELS are found with or without their suffix. Nothing is fetched.

    Raises `SafelightError` that says where it looked.
    """
    found = found_locally(name)
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
        f"({library}) and in {hub_cache()}. {hint}"
    )


def found_locally(name: str) -> Path | None:
    """As `find_model`, but None where there is no such model."""
    own = _bundled()
    if name in own or name == DEFAULT:
        return own.get(name)
    path = expanded(name)
    if path.exists():
        return _model_folder(path)
    inside = not Path(name).is_absolute() and ".." not in Path(name).parts
    for root in _library() if inside else ():
        if is_model(root / name):
            return root / name
        for file in (root / f"{name}{suffix}" for suffix in ("", *_SUFFIXES)):
            if file.is_file() and file.suffix in _SUFFIXES:
                return file
    return cached_snapshot(name)


def lasting_name(name: str) -> str:
    """The name by which the same model is found from every working folder, and at another time: a
    path made absolute, a repository of the hub with the commit that is cached.
    """
    path = expanded(name)
    if name not in (DEFAULT, *_bundled()) and path.exists():
        return str(path.absolute())
    snapshot, identity = cached_snapshot(name), HubId.of(name)
    if identity is None or snapshot is None or snapshot != found_locally(name):
        return name
    commit = snapshot.relative_to(hub_cache() / identity.folder / "snapshots").parts[0]
    return str(replace(identity, revision=commit))


def known_models() -> list[KnownModel]:
    """Every model that has a name: bundled, in SAFELIGHT_MODELS, or in the Hugging Face cache."""
    folders = [_known(name, folder) for name, folder in _named_folders()]
    return [*folders, *_named_files()]


def _known(name: str, folder: Path) -> KnownModel:
    try:
        base = base_of(folder)
    except SafelightError:
        base = folder
    controls = tuple(own_controls(base)) if base.is_dir() else ()
    family = _family(base) if base == folder else f"a LoRA on {base.name}"
    return KnownModel(name, folder, family, _weight_bytes(folder), controls)


def bundled() -> Path:
    """The folder of the default model, which comes with the package."""
    return Path(str(files("safelight"))) / "weights" / DEFAULT


def _bundled() -> dict[str, Path]:
    """The folders of the models that come with the package, by name: the default model, and beside
    it those that stand on it, such as `default-lcm`.
    """
    beside = sorted(bundled().parent.glob(f"{DEFAULT}-*"))
    folders = {DEFAULT: bundled(), **{folder.name: folder for folder in beside}}
    return {name: folder for name, folder in folders.items() if is_model(folder)}


def bundled_autoencoders() -> dict[str, Path]:
    """The folders of the autoencoders that come with the package, by name: `default-tiny`, which
    stands in for the default model's own.
    """
    configs = sorted(bundled().parent.glob(f"{DEFAULT}-*/config.json"))
    return {config.parent.name: config.parent for config in configs}


def bundled_parts() -> list[KnownModel]:
    """What else comes with the package by name: autoencoders, and what makes clips."""
    parts = {name: ("for --vae", folder) for name, folder in bundled_autoencoders().items()}
    if (bundled() / VIDEO).is_dir():
        parts[f"{DEFAULT}-{VIDEO}"] = ("for safelight animate", bundled() / VIDEO)
    return [
        KnownModel(name, folder, family, _weight_bytes(folder))
        for name, (family, folder) in parts.items()
    ]


def autoencoder_title(folder: Path) -> str:
    """The name of a bundled autoencoder that lies there, by which it is found wherever the package
    is installed; else the path.
    """
    names = (name for name, own in bundled_autoencoders().items() if own == folder)
    return next(names, str(folder))


def own_controls(folder: Path) -> dict[str, Path]:
    """The ControlNets that a model's folder brings, `controls/KIND`, by their kinds."""
    configs = sorted(folder.glob(f"{CONTROLS}/*/config.json"))
    return {config.parent.name: config.parent for config in configs}


def _model_folder(path: Path) -> Path:
    if path.is_file():
        return path
    if not is_model(path):
        inside = sorted(index.parent for index in path.glob(f"*/{_INDEX}"))
        hint = f" Did you mean {inside[0]}?" if inside else ""
        raise SafelightError(f"{path} is not a model folder: it has no {_INDEX}.{hint}")
    return path


def _named_folders() -> Iterator[tuple[str, Path]]:
    yield from _bundled().items()
    for root in _library():
        marks = [mark for name in (_INDEX, BASE) for mark in root.glob(f"*/{name}")]
        marks += [mark for name in (_INDEX, BASE) for mark in root.glob(f"*/*/{name}")]
        for folder in sorted({mark.parent for mark in marks}):
            yield folder.relative_to(root).as_posix(), folder
    for entry in sorted(hub_cache().glob("models--*--*")):
        name = entry.name.removeprefix("models--").replace("--", "/", 1)
        snapshot = cached_snapshot(name)
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
        return found_locally(name) == file
    except SafelightError:
        return False


def _library() -> list[Path]:
    listed = os.environ.get("SAFELIGHT_MODELS", "")
    return [expanded(part) for part in listed.split(os.pathsep) if part]


def hub_cache() -> Path:
    """The folder in which the Hugging Face hub's programs keep what they fetched."""
    home = os.environ.get("HF_HOME") or expanded("~/.cache/huggingface")
    return Path(os.environ.get("HF_HUB_CACHE") or Path(home) / "hub")


def expanded(path: str) -> Path:
    """The path with its `~` replaced, where that is someone's home."""
    try:
        return Path(path).expanduser()
    except RuntimeError:
        return Path(path)


def cached_snapshot(name: str, mark: str = _INDEX) -> Path | None:
    """The folder of the cached repository `owner/name`, of its main revision or the one named, or
    its file that is named; None where there is none, and for a folder without the file `mark`.
    """
    identity = HubId.of(name)
    if identity is None:
        return None
    repository = hub_cache() / identity.folder
    reference = repository / "refs" / identity.revision
    commit = (
        reference.read_text(encoding="utf-8").strip() if reference.is_file() else identity.revision
    )
    folder = repository / "snapshots" / commit
    if identity.file:
        return folder / identity.file if (folder / identity.file).is_file() else None
    return folder if (folder / mark).is_file() else None


def _family(folder: Path) -> str:
    try:
        name = read_json(folder / _INDEX).get("_class_name")
    except SafelightError:
        return "unreadable"
    return name if isinstance(name, str) else "unknown"


def _weight_bytes(folder: Path) -> int:
    files = (path for path in folder.rglob("*.safetensors") if path.is_file())  # no broken links
    return sum(path.stat().st_size for path in files)
