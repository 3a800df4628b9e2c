"""`annotate`: from a picture to the hint of a ControlNet, by the kind's name."""

from collections.abc import Callable, Collection, Mapping
from importlib.util import find_spec
from pathlib import Path

import numpy as np
from PIL import Image

from safelight.conditioners.annotators.canny import Canny
from safelight.conditioners.annotators.lines import LineartStandard, ScribbleXDoG
from safelight.conditioners.annotators.shuffle import Shuffle
from safelight.conditioners.annotators.tile import Tile
from safelight.config import Value, from_dict, near
from safelight.errors import SafelightError
from safelight.pictures import WHITE, Levels, flatten
from safelight.pipelines import estimating
from safelight.pipelines.estimating import WEIGHTS, Annotator
from safelight.pipelines.find import HubId, expanded


def annotate(
    name: str,
    image: Image.Image,
    options: Mapping[str, Value] | None = None,
    *,
    weights: str | Path | None = None,
    device: str = "cpu",
) -> Image.Image:
    """The hint of a picture: RGB, as large as it.

    `name` is a kind, such as "canny", or one of its names in AUTOMATIC1111's ControlNet extension
    and in controlnet_aux. `options` are the fields of the kind's dataclass, such as
    `{"low": 50, "high": 100}`. `weights` is the file or folder of the network that a kind stands
    on, or its name on the Hugging Face hub; `WEIGHTS` says of each kind which. Transparent parts of
    the picture are laid over white.

    For many pictures build `annotator` once. Raises `SafelightError` as it does.
    """
    return annotator(name, options, weights=weights, device=device)(image)


def annotator(
    name: str,
    options: Mapping[str, Value] | None = None,
    *,
    weights: str | Path | None = None,
    device: str = "cpu",
    offline: bool = False,
) -> Annotator:
    """What makes hints of one kind, of pictures in any mode; arguments as of `annotate`. With
    `offline` no weights are fetched.

    Raises `SafelightError` for an unknown kind or option, a missing package, weights that are
    missing, those of another network, or not wanted.
    """
    kind = kind_of(name)
    if kind in _WEIGHTLESS:
        if weights is not None:
            raise SafelightError(f"{kind} is made without a network; leave the weights out.")
        make: Annotator = from_dict(_WEIGHTLESS[kind], options or {}, kind)
    elif weights is None:
        raise SafelightError(f"{kind} is estimated by a network: give as weights {WEIGHTS[kind]}.")
    else:
        _check_there(str(weights), kind)
        make = _ESTIMATED[kind](options or {}, str(weights), device, offline=offline)
    return lambda image: make(_rgb(image))


def on_levels(make: Annotator) -> Callable[[Levels], Levels]:
    """The same from bytes to bytes, (h, w, 3) both."""
    return lambda levels: np.asarray(make(Image.fromarray(levels)))


def kind_of(name: str) -> str:
    """The kind that a name means; `SafelightError` with the names near to an unknown one."""
    plain = name.strip().lower()
    kind = _ALIASES.get(plain, plain)
    if kind not in KINDS:
        raise SafelightError(f"No hint is called {name!r}. {near(plain, {*KINDS, *_ALIASES})}")
    return kind


def makeable(estimated: Collection[str]) -> tuple[str, ...]:
    """The kinds that can be made where of those that a network estimates there are `estimated`:
    without OpenCV only those that do without it too.
    """
    can = {*_WEIGHTLESS, *estimated}
    return tuple(sorted(can if find_spec("cv2") is not None else can - _BY_OPENCV))


def names_of(kind: str) -> tuple[str, ...]:
    """A kind and its other names."""
    return kind, *(name for name, meant in _ALIASES.items() if meant == kind)


def _check_there(weights: str, kind: str) -> None:
    if HubId.of(weights) is None and not expanded(weights).exists():
        raise SafelightError(f"{weights} does not exist; {kind} takes {WEIGHTS[kind]}.")


def _rgb(image: Image.Image) -> Image.Image:
    if image.has_transparency_data:
        return flatten(image.convert("RGBA"), WHITE)
    return image.convert("RGB")


_WEIGHTLESS: dict[str, type[Canny | LineartStandard | ScribbleXDoG | Shuffle | Tile]] = {
    "canny": Canny,
    "lineart": LineartStandard,
    "scribble": ScribbleXDoG,
    "shuffle": Shuffle,
    "tile": Tile,
}
_ESTIMATED = {
    "depth": estimating.depth,
    "normal": estimating.normal,
    "pose": estimating.pose,
    "scribble_hed": estimating.scribble_hed,
    "segmentation": estimating.segmentation,
    "softedge": estimating.softedge,
}
_BY_OPENCV = frozenset({"canny", "lineart", "normal", "pose", "scribble", "scribble_hed"})
KINDS = tuple(sorted({*_WEIGHTLESS, *_ESTIMATED}))
"""The kinds of hints."""

_ALIASES = {
    "content_shuffle": "shuffle",
    "depth_anything": "depth",
    "depth_anything_v2": "depth",
    "depth_midas": "depth",
    "dpt": "depth",
    "dw_openpose": "pose",
    "dw_openpose_full": "pose",
    "dwpose": "pose",
    "hed": "softedge",
    "lineart_standard": "lineart",
    "midas": "depth",
    "normal_map": "normal",
    "normal_midas": "normal",
    "openpose": "pose",
    "openpose_full": "pose",
    "scribble_xdog": "scribble",
    "seg": "segmentation",
    "softedge_hed": "softedge",
    "tile_resample": "tile",
    "upernet": "segmentation",
}
