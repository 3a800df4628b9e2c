"""Annotators that are read once, and where the weights of those lie that a network estimates."""

from pathlib import Path

from safelight.errors import SafelightError
from safelight.pipelines.annotate import WEIGHTS, Annotator, annotator, kind_of
from safelight.pipelines.find import HubId, cached_snapshot, expanded
from safelight.pipelines.hub import CONFIG, find_part


class Annotators:
    """Makes hints by kinds and weights; each network is read at its first use, and kept."""

    def __init__(self, device: str, *, offline: bool = False):
        self.device, self.offline = device, offline
        self._read: dict[tuple[str, str], Annotator] = {}

    def of(self, kind: str, weights: str | Path | None = None) -> Annotator:
        """What makes hints of a kind without options; arguments and errors as of `annotator`."""
        key = (kind, str(weights or ""))
        if key not in self._read:
            self._read[key] = annotator(
                kind, weights=weights, device=self.device, offline=self.offline
            )
        return self._read[key]


def find_weights(name: str, weights: str, *, offline: bool = False) -> tuple[str, Path]:
    """The kind that a name means, and where on this machine the weights of its network lie: at a
    path, or, of the hub, a file, which is fetched unless `offline`, or a repository that is in the
    hub's cache.

    Raises `SafelightError` for a kind without a network, and weights that are not there.
    """
    kind = kind_of(name)
    if kind not in WEIGHTS:
        raise SafelightError(f"{kind} is made without a network; leave its weights out.")
    if expanded(weights).exists():
        return kind, expanded(weights).absolute()
    identity = HubId.of(weights)
    found = None
    if identity is not None:
        found = (
            find_part(weights, offline=offline)
            if identity.file
            else cached_snapshot(weights, CONFIG)
        )
    if found is None:
        fetch = (
            f" `safelight annotate {kind} PICTURE -o HINT --weights {weights}` fetches them."
            if identity is not None
            else ""
        )
        raise SafelightError(
            f"The weights of {kind} are not at {weights}; it takes {WEIGHTS[kind]}.{fetch}"
        )
    return kind, found
