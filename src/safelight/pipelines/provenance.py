"""What a picture depends on besides the weights and the request: configurations and libraries."""

import functools
import platform
from collections.abc import Mapping
from importlib.metadata import version
from pathlib import Path

import torch

from safelight import __version__
from safelight.checkpoints.conditions import FILE as CONDITIONS
from safelight.checkpoints.files import sha256_of_files
from safelight.checkpoints.folder import DEFAULTS, INDEX, LORA, SINGLE, Folder, autoencoder_name
from safelight.checkpoints.vision import FEATURES, TOWER

_SCHEDULER = "scheduler/scheduler_config.json"


def library_versions() -> dict[str, str]:
    """The versions of what turns a prompt into pixels."""
    return {
        "safelight": __version__,
        "torch": torch.__version__,
        **{name: _installed(name) for name in ("numpy", "tokenizers")},
    }


@functools.cache
def _installed(name: str) -> str:
    """A library's version, for which a file is read: of each picture that takes longer than a step
    of a small network.
    """
    return version(name)


def machine_of(device: str) -> str:
    """The processor that does the arithmetic, as precisely as its rounding depends on it."""
    if device.startswith("cuda"):
        return torch.cuda.get_device_name(device)
    return f"{platform.machine()} {torch.backends.cpu.get_cpu_capability()}"


def configuration_hashes(folder: Folder) -> dict[str, str]:
    """The SHA-256 of each file of a model's folder that pictures depend on besides its weights.

    These are model_index.json, conditions.json and, by their paths in the folder, the
    configurations of the networks, the schedulers' and the tokenizers' files; none for a model made
    in memory or read from a single file. How it is best used (safelight.json) is not among them,
    since a manifest says how it was. Of an autoencoder in the place of the model's own it is its
    configuration.
    """
    own = {
        name: paths
        for name, paths in folder.files.items()
        if name != LORA and not _is_swapped(name, folder)
    }
    hashes = _swapped_configuration(folder)
    if SINGLE not in own:  # in which all else is
        hashes |= hashes_beside(own)
    if folder.upon is not None:
        hashes[_SCHEDULER] = sha256_of_files([folder.upon / _SCHEDULER])  # not the base's
    return hashes


def hashes_beside(weights: Mapping[str, tuple[Path, ...]]) -> dict[str, str]:
    """As `configuration_hashes`, of the folder that holds the components with these weights."""
    hashes: dict[str, str] = {}
    components = {paths[0].parent for paths in weights.values() if paths}
    for root in {component.parent for component in components}:
        places = {*components, *root.glob("*scheduler"), *root.glob("tokenizer*")}
        places |= {root / FEATURES} if TOWER in weights else set()
        files = [path for place in places for path in place.glob("*") if _configures(path)]
        for path in sorted([root / INDEX, root / CONDITIONS, *files]):
            if path.is_file():
                hashes[path.relative_to(root).as_posix()] = sha256_of_files([path])
    return hashes


def _is_swapped(name: str, folder: Folder) -> bool:
    return folder.swapped is not None and name == autoencoder_name(folder.pipeline_class)


def _swapped_configuration(folder: Folder) -> dict[str, str]:
    if folder.swapped is None or folder.swapped.is_file():
        return {}
    name = autoencoder_name(folder.pipeline_class)
    configuration = folder.files[name][0].with_name("config.json")
    if not configuration.is_file():
        return {}
    return {f"{name}/config.json": sha256_of_files([configuration])}


def _configures(path: Path) -> bool:
    """Whether a file is a configuration or a vocabulary, not weights or their index."""
    told = path.suffix in (".json", ".txt") and path.name != DEFAULTS
    return told and ".index." not in path.name
