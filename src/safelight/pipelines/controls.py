"""The controls of a request with their networks and pictures, read and seen to fit the model."""

from collections.abc import Callable
from dataclasses import dataclass, replace
from functools import cache
from pathlib import Path
from typing import cast, get_args

from PIL import Image

from safelight.checkpoints.components import Reading, weights_files
from safelight.checkpoints.controlnet import read_control
from safelight.checkpoints.files import sha256_of_files
from safelight.checkpoints.folder import SINGLE, Folder
from safelight.config import near
from safelight.errors import SafelightError
from safelight.models.controlnet import SteeringNetwork
from safelight.pipelines.annotate import Annotator
from safelight.pipelines.annotators import Annotators
from safelight.pipelines.control_fit import check_fit
from safelight.pipelines.control_settings import Control, ControlMode
from safelight.pipelines.find import lasting_name, own_controls
from safelight.pipelines.given import GivenPicture, give
from safelight.pipelines.hint_pictures import Size, fitted
from safelight.pipelines.hub import find_control
from safelight.pipelines.manifest import UsedControl, UsedPicture, pixel_digest


@dataclass(frozen=True)
class ReadControl:
    """A control with its network and its pictures.

    Attributes:
        control: as it was asked for.
        mode: how it shares the lead with the prompt, the model's own where none was asked for.
        network: what steers.
        place: where the network lies; empty for one that the model brings.
        sha256: of the network's files.
        picture: what the hint is made of, or the hint.
        mask: where it works.
        hint_at: the hint of a width and height, made from the picture once.
        make: what makes hints; None where the picture is the hint.
    """

    control: Control
    mode: ControlMode
    network: SteeringNetwork
    place: str
    sha256: str
    picture: GivenPicture
    mask: GivenPicture | None
    hint_at: Callable[[Size], Image.Image]
    make: Annotator | None = None

    def of(self, picture: Image.Image, *, hint: bool = False) -> "ReadControl":
        """The same control by another picture, in RGB, or by a `hint`; its hash is left out."""
        hints = _hints(self.control, picture, None if hint else self.make)
        return replace(self, picture=GivenPicture(picture, None, ""), hint_at=cache(hints))

    def used(self, size: Size) -> UsedControl:
        """What a manifest says of it, for a picture of a width and height."""
        control, mask = self.control, self.mask
        return UsedControl(
            kind=control.kind,
            network=self.place,
            sha256=self.sha256,
            picture=UsedPicture(self.picture.file, self.picture.sha256),
            made=pixel_digest(self.hint_at(size)),
            hint=control.hint,
            annotator=lasting_name(str(control.annotator)) if control.annotator else "",
            weight=control.weight,
            start=control.start,
            end=control.end,
            mode=self.mode,
            weights=control.weights,
            mask=None if mask is None else UsedPicture(mask.file, mask.sha256),
            resize=control.resize,
        )


class Controls:
    """What reads controls for one model; a network is read once, for all pictures.

    Attributes:
        annotators: what makes their hints; several models may share them.
    """

    def __init__(self, folder: Folder, name: str, reading: Reading, *, offline: bool = False):
        self.folder = folder
        self.offline = offline
        self.name = name
        self.reading = reading
        self._networks: dict[Path, tuple[SteeringNetwork, str]] = {}
        self.annotators = Annotators(str(reading.device), offline=offline)

    def read(self, control: Control) -> ReadControl:
        """A control with all that it needs.

        Raises `SafelightError`: a value or a file of it cannot be, there is no such network or
        annotator, or the network is not for this model.
        """
        control.check()
        mode = control.mode or self._mode()
        path, place = self._find(control)
        if path not in self._networks:
            files = [*weights_files(path), path / "config.json"] if path.is_dir() else [path]
            network = read_control(path, self.folder.unet, self.reading)
            self._networks[path] = network, sha256_of_files(files)
        network, sha256 = self._networks[path]
        check_fit(control, network, self.folder, self.name)
        picture, mask = give("image", control.picture), give("mask", control.mask)
        assert picture is not None
        make = None if control.hint else self._annotator(control)
        hint_at = cache(_hints(control, picture.picture, make))
        return ReadControl(control, mode, network, place, sha256, picture, mask, hint_at, make)

    def _mode(self) -> ControlMode:
        """How controls of the model are best used."""
        said, known = self.folder.defaults.control_mode or "balanced", get_args(ControlMode)
        if said not in known:
            raise SafelightError(
                f"{self.name} asks for controls of mode {said!r}; expected one of "
                f"{', '.join(known)}."
            )
        return cast(ControlMode, said)

    def _annotator(self, control: Control) -> Annotator:
        """What makes the control's hint."""
        try:
            return self.annotators.of(control.kind, control.annotator)
        except SafelightError as error:
            raise SafelightError(
                f"{error} Or give the hint itself as the picture, and say that it is one (--hint)."
            ) from error

    def _find(self, control: Control) -> tuple[Path, str]:
        """Where the network lies, and the same in words that last."""
        own = self._own
        if control.network is None and control.kind in own:
            return own[control.kind], ""
        named = control.kind if control.network is None else control.network
        path = find_control(named, offline=self.offline)
        if path.exists():
            return path, str(path.absolute())
        if control.network is not None:
            raise SafelightError(f"There is no network of control {control.kind} at {path}.")
        brings = f"it has {', '.join(own)}. {near(control.kind, own)}" if own else "it has none."
        raise SafelightError(
            f"{self.name} has no control {control.kind!r}: {brings} Another's is given by its "
            f"folder, --control-net {control.kind}=FOLDER."
        )

    @property
    def _own(self) -> dict[str, Path]:
        """The folders of the controls that the model brings, by their kinds."""
        files = self.folder.files
        if SINGLE in files or not files.get("unet"):
            return {}
        return own_controls(files["unet"][0].parent.parent)


def _hints(
    control: Control, picture: Image.Image, make: Annotator | None
) -> Callable[[Size], Image.Image]:
    """Makes the hint of each size from the picture anew, so that it is as sharp as the size lets it
    be.
    """

    def hint_at(size: Size) -> Image.Image:
        whole = fitted(picture, size, control.resize)
        return whole if make is None else fitted(make(whole), size, "nearest")

    return hint_at
