"""Jobs as the store has them."""

from dataclasses import dataclass
from typing import Literal

State = Literal["queued", "running", "done", "failed", "cancelled"]
ENDED: tuple[State, ...] = ("done", "failed", "cancelled")

Fault = Literal["request", "time", "internal"]
"""Why a job failed: by what was asked for, by its time limit, or by a fault of ours."""


@dataclass(frozen=True)
class NewJob:
    """A job as it is handed in.

    Attributes:
        spec: an `Asked` as JSON, whose pictures are names of `inputs`.
        inputs: pictures that were given, as PNG.
        model, place: its name, and where it lies; empty for a hint, which takes none.
        count: how many pictures are asked for.
        merge: equal for jobs whose pictures may share a batch; None for none.
        key: an idempotency key, and `digest` what was asked under it.
    """

    spec: str
    inputs: dict[str, bytes]
    model: str
    place: str
    count: int
    priority: int = 0
    merge: str | None = None
    key: str | None = None
    digest: str = ""


@dataclass(frozen=True)
class Job:
    """A job as it stands; times are seconds since 1970."""

    id: str
    number: int  # in the order of coming
    state: State
    spec: str
    model: str
    place: str
    count: int
    priority: int
    attempts: int
    created: float
    started: float | None
    ended: float | None
    error: str | None
    fault: Fault | None
    made: int  # pictures that are there

    @property
    def is_hint(self) -> bool:
        """Whether it is no picture of a model, but a hint of one."""
        return not self.model

    @property
    def has_ended(self) -> bool:
        """Whether nothing more will happen to it."""
        return self.state in ENDED


@dataclass(frozen=True)
class Picture:
    """A picture that was made: its file's bytes, and what made it as JSON."""

    content: bytes
    media: str  # such as "image/png"
    seed: int
    manifest: str
    inside: str = ""  # what happened while it was made, as JSON; see `inside_view`
