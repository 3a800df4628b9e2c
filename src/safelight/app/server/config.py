"""How a server is to serve: where it listens, what it lets in, what it keeps."""

import os
import sys
from dataclasses import dataclass, field
from pathlib import Path

from safelight.engine.names import Engine, Storage
from safelight.errors import SafelightError


@dataclass(frozen=True)
class Limits:
    """What one client may ask for, and what all may ask for at once."""

    body: int = 64 * 2**20  # bytes of a request
    given_pixels: int = 2**24  # of a picture that is sent, before it is decoded
    pixels: int = 2**22  # of a picture that is made, after its second pass
    count: int = 16  # pictures of a job
    cells: int = 64  # of a job that is a grid
    steps: int = 200  # of a picture's sampler
    prompt: int = 10_000  # characters
    frames: int = 256  # of a clip
    queue: int = 256  # jobs that wait
    seconds: float = 600.0  # that a job may run

    def check(self) -> None:
        """Raises `SafelightError` for limits that let nothing in."""
        for name in (
            "body",
            "given_pixels",
            "pixels",
            "count",
            "cells",
            "steps",
            "prompt",
            "frames",
            "queue",
        ):
            if getattr(self, name) < 1:
                raise SafelightError(f"The limit {name} should be 1 or more.")
        if not self.seconds > 0:
            raise SafelightError(f"A job should have some seconds, got {self.seconds}.")


def check_asked(*asked: tuple[str, int, int]) -> None:
    """Raises `SafelightError` for the first of name, number and limit that asks for more."""
    for name, number, most in asked:
        if number > most:
            raise SafelightError(f"{name} is {number}, and {most} is the most on this server.")


@dataclass(frozen=True)
class Keeping:
    """How long what was made is kept."""

    seconds: float = 7 * 24 * 3600.0  # after a job's end
    bytes: int = 2 * 2**30  # of all pictures; the oldest go first


@dataclass(frozen=True)
class Working:
    """What the process that owns the models is told.

    Attributes:
        database: the file of jobs.
        device, precision: as of `safelight.load`.
        kept: how many models stay in memory; the one used longest ago goes.
        batch: how many pictures of equal settings may share each call of the network.
        pixels: of a picture, and of all in a batch.
        frames: of a clip.
        seconds: that a job may run.
        preview_vae: the autoencoder of previews; None for `quick_previewer`.
        watermark, safety: as of `Finish`.
        annotators: where the weights lie of each kind of hint that a network estimates.
        engine: as of `safelight.load`; what "auto" takes is made ready as a model is loaded.
        storage: as of `safelight.load`; of models of pictures and of clips.
        first: the model that is loaded before there is a job: where it lies, or its name.
    """

    database: Path
    device: str = "auto"
    precision: str = "float32"
    kept: int = 2
    batch: int = 4
    pixels: int = Limits.pixels
    frames: int = Limits.frames
    seconds: float = Limits.seconds
    preview_vae: str | None = None
    first: str = "default"
    watermark: bool = False
    safety: bool = False
    annotators: dict[str, Path] = field(default_factory=dict[str, Path])
    engine: Engine = "auto"
    storage: Storage | None = None


@dataclass(frozen=True)
class Serving:
    """A server's configuration.

    Attributes:
        host, port: where it listens; port 0 is any that is free.
        models: names or places of models besides those that have names here; the first is the one
            that a request means that names none.
        state: the folder that jobs and their pictures are kept in.
        token: what a client must bring; None lets everybody in who can reach the address.
        open_to_all: whether everybody who reaches an address that others reach may come in.
        origins: of other sites' pages that may use the server, such as "https://example.org".
        watermark, safety: as of `Finish`; with `safety` there are no clips and no streams, which
            are not looked at.
        annotators: as of `Working`.
        runs: the folder whose trainings may be looked at.
        engine, storage: as of `Working`.
        grace: seconds that a running job has to end when the server is asked to.
    """

    host: str = "127.0.0.1"
    port: int = 7860
    models: tuple[str, ...] = ("default",)
    state: Path = field(default_factory=lambda: state_folder())
    token: str | None = None
    open_to_all: bool = False
    origins: tuple[str, ...] = ()
    limits: Limits = field(default_factory=Limits)
    keeping: Keeping = field(default_factory=Keeping)
    device: str = "auto"
    precision: str = "float32"
    kept: int = 2
    batch: int = 4
    preview_vae: str | None = None
    watermark: bool = False
    safety: bool = False
    annotators: dict[str, Path] = field(default_factory=dict[str, Path])
    runs: Path | None = None
    grace: float = 20.0
    engine: Engine = "auto"
    storage: Storage | None = None

    @property
    def database(self) -> Path:
        """The file of jobs."""
        return self.state / "jobs.sqlite"

    @property
    def is_local(self) -> bool:
        """Whether nobody but this machine reaches the address."""
        return self.host in ("127.0.0.1", "localhost", "::1")

    def working(self, first: str) -> Working:
        """What the worker is told, `first` being the model to begin with."""
        return Working(
            database=self.database,
            device=self.device,
            precision=self.precision,
            kept=self.kept,
            batch=self.batch,
            pixels=self.limits.pixels,
            frames=self.limits.frames,
            seconds=self.limits.seconds,
            preview_vae=self.preview_vae,
            first=first,
            watermark=self.watermark,
            safety=self.safety,
            annotators=self.annotators,
            engine=self.engine,
            storage=self.storage,
        )


def check_unwatched(serving: Serving) -> None:
    """Raises `SafelightError` for what the check of pictures cannot look at, where there is one."""
    if serving.safety:
        raise SafelightError(
            "This server checks its pictures, and makes no clips and streams, which it cannot "
            "check; ask for pictures."
        )


def state_folder() -> Path:
    """Where this user's programs keep their state: by XDG_STATE_HOME, or as the system has it."""
    if sys.platform == "win32":
        base = os.environ.get("LOCALAPPDATA") or str(Path.home() / "AppData" / "Local")
    else:
        base = os.environ.get("XDG_STATE_HOME") or str(Path.home() / ".local" / "state")
    return Path(base) / "safelight" / "serve"
