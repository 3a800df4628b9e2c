"""Adapters put into a model's networks and taken out again, and words taught to its prompts."""

import math
from collections.abc import Sequence
from pathlib import Path

from safelight.checkpoints.adapters import adapter_files, networks, read_adapter
from safelight.checkpoints.files import sha256_of_files
from safelight.checkpoints.folder import Folder
from safelight.checkpoints.inversions import read_inversion
from safelight.conditioners.inversion import Inversion
from safelight.errors import SafelightError
from safelight.nn.lora import eject, inject
from safelight.pipelines.manifest import UsedAdapter, UsedEmbedding

_KEY = "adapter-"  # a module's name should not begin with a digit


def put_in(
    folder: Folder, there: Sequence[UsedAdapter], path: Path, strength: float
) -> UsedAdapter:
    """Puts a file into a model beside those that are `there`, and says what it is.

    Raises `SafelightError`: the file is broken, made for another model, or in already.
    """
    if not math.isfinite(strength):
        raise SafelightError(f"An adapter's strength should be a finite number: {strength}.")
    adapter = read_adapter(path, folder)
    used = UsedAdapter(str(path.absolute()), sha256_of_files(adapter_files(path)), strength)
    if any(used.sha256 == other.sha256 for other in there):
        raise SafelightError(f"{path} is in the model already; eject it first.")
    for network, module in networks(folder).items():
        inject(module, _KEY + used.sha256, adapter.deltas.get(network, {}), strength)
    return used


def learn(
    folder: Folder, known: Sequence[Inversion], path: Path, token: str | None
) -> tuple[Inversion, UsedEmbedding]:
    """The word of a file of textual inversion beside those that are `known`, and what it is.

    Raises `SafelightError`: the file is broken, made for other text towers, or the word is known.
    """
    inversion = read_inversion(path, folder, token)
    if any(other.token.lower() == inversion.token.lower() for other in known):
        raise SafelightError(f"The word {inversion.token!r} is known already; give another.")
    used = UsedEmbedding(str(path.absolute()), sha256_of_files([path]), inversion.token)
    return inversion, used


def take_out(folder: Folder, adapters: Sequence[UsedAdapter]) -> None:
    """Takes adapters out; without any, the networks are what they were, to the bit."""
    for used in adapters:
        for module in networks(folder).values():
            eject(module, _KEY + used.sha256)
