"""`annotate`: from a picture to the hint of a ControlNet, by the kind's name."""

from collections.abc import Callable, Mapping

from PIL import Image

from safelight.conditioners.annotators.canny import Canny
from safelight.conditioners.annotators.lines import LineartStandard, ScribbleXDoG
from safelight.conditioners.annotators.shuffle import Shuffle
from safelight.conditioners.annotators.tile import Tile
from safelight.config import Value, from_dict, near
from safelight.errors import SafelightError
from safelight.pictures import WHITE, flatten

Annotator = Callable[[Image.Image], Image.Image]
"""From a picture to a hint, an RGB picture as large as it."""

Weightless = Canny | LineartStandard | ScribbleXDoG | Shuffle | Tile


def annotate(
    name: str, image: Image.Image, options: Mapping[str, Value] | None = None
) -> Image.Image:
    """The hint of a picture: RGB, as large as it.

    `name` is a kind, such as "canny", or one of its names in AUTOMATIC1111's ControlNet extension
    and in controlnet_aux. `options` are the fields of the kind's dataclass, such as
    `{"low": 50, "high": 100}`. Transparent parts of the picture are laid over white.

    For many pictures build `annotator` once. Raises `SafelightError` as it does.
    """
    return annotator(name, options)(image)


def annotator(name: str, options: Mapping[str, Value] | None = None) -> Annotator:
    """What makes hints of one kind, of pictures in any mode; arguments as of `annotate`.

    Raises `SafelightError` for an unknown kind or option, or a missing package.
    """
    kind = from_dict(_KINDS[kind_of(name)], options or {}, name)

    def of_any(image: Image.Image) -> Image.Image:
        return kind(rgb(image))

    return of_any


def kind_of(name: str) -> str:
    """The kind that a name means; `SafelightError` with the names near to an unknown one."""
    plain = name.strip().lower()
    kind = _ALIASES.get(plain, plain)
    if kind not in _KINDS:
        raise SafelightError(f"No hint is called {name!r}. {near(plain, {*_KINDS, *_ALIASES})}")
    return kind


def rgb(image: Image.Image) -> Image.Image:
    """A picture of any mode as RGB, transparent parts laid over white."""
    if image.has_transparency_data:
        return flatten(image.convert("RGBA"), WHITE)
    return image.convert("RGB")


_KINDS: dict[str, type[Weightless]] = {
    "canny": Canny,
    "lineart": LineartStandard,
    "scribble": ScribbleXDoG,
    "shuffle": Shuffle,
    "tile": Tile,
}
_ALIASES = {
    "lineart_standard": "lineart",
    "scribble_xdog": "scribble",
    "tile_resample": "tile",
}
