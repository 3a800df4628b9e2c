"""The web UI's ControlNet extension: units in a request, and its own addresses."""

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Annotated, cast

from fastapi import APIRouter, Request
from PIL import Image
from pydantic import Field, JsonValue
from starlette.concurrency import run_in_threadpool

from safelight.app.server.admission import Pictures
from safelight.app.server.asked import AskedControl
from safelight.app.server.catalogue import Entry
from safelight.app.server.config import Limits
from safelight.app.server.hints import hint_of
from safelight.app.server.refusals import NotHereError
from safelight.app.server.replies import service_of
from safelight.app.server.uploads import from_base64, opened
from safelight.app.server.webui_bodies import Webui
from safelight.app.server.webui_pictures import base64_of
from safelight.config import Value, near
from safelight.errors import SafelightError
from safelight.pipelines.annotate import kind_of, makeable, names_of
from safelight.pipelines.control_settings import ControlMode, ControlResize

router = APIRouter(prefix="/controlnet", tags=["AUTOMATIC1111"])

_NONE = ("none", "", None)
_UNITS = 8
_VERSION = 2
_MODES: tuple[tuple[str, ControlMode], ...] = (
    ("Balanced", "balanced"),
    ("My prompt is more important", "prompt"),
    ("ControlNet is more important", "control"),
)
_RESIZES: dict[str, ControlResize] = {
    "just resize": "stretch",
    "scale to fit (inner fit)": "fill",
    "envelope (outer fit)": "crop",
    "crop and resize": "crop",
    "resize and fill": "fill",
}
_BY_NUMBER: tuple[ControlResize, ...] = ("stretch", "crop", "fill")
_SCRIPT = "controlnet"


class Unit(Webui):
    """One unit of the extension."""

    enabled: bool = True
    image: str | dict[str, str | None] | None = None
    input_image: str | dict[str, str | None] | None = None
    mask: str | None = None
    module: str | None = None
    model: str | None = None
    weight: float = 1.0
    resize_mode: str | int = "Crop and Resize"
    guidance_start: float = 0.0
    guidance_end: float = 1.0
    control_mode: str | int = "Balanced"
    threshold_a: float | None = None
    threshold_b: float | None = None


class Detect(Webui):
    """Pictures whose hints are to be made."""

    controlnet_module: str = "none"
    controlnet_images: list[str] = Field(default_factory=list)
    controlnet_threshold_a: float | None = None
    controlnet_threshold_b: float | None = None


def units_in(scripts: Mapping[str, object]) -> list[Unit]:
    """The enabled units of a request's `alwayson_scripts`.

    Raises `NotHereError` for another script that is on.
    """
    units: list[Unit] = []
    for name, script in scripts.items():
        told = cast(dict[str, object], script) if isinstance(script, dict) else {}
        arguments = told.get("args")
        listed = cast(list[object], arguments) if isinstance(arguments, list) else []
        if name.lower() != _SCRIPT:
            if listed and listed[0] is not False:
                raise NotHereError(f"The script {name!r} is not here; there is ControlNet.")
            continue
        for one in listed:
            try:
                unit = Unit.model_validate(one)
            except ValueError as error:
                line = " ".join(str(error).split()).partition(" [type")[0]
                raise SafelightError(f"A unit of ControlNet cannot be: {line}.") from error
            if unit.enabled:
                units.append(unit)
    return units


def controls_of(
    units: list[Unit], model: Entry, begun_from: Image.Image | None, limits: Limits
) -> "Units":
    """The controls of units, with their pictures by name; a unit that has none takes the picture
    that is begun from.
    """
    controls: list[AskedControl] = []
    pictures: Pictures = {}
    unmade: dict[str, Preprocessor] = {}
    for i, unit in enumerate(units):
        text, mask = _texts(unit)
        name = f"control-{i}"
        if text:
            pictures[name] = _read(text, f"control {i}", limits).convert("RGB")
        elif begun_from is not None:
            pictures[name] = begun_from
        else:
            raise SafelightError(f"The unit {i} of ControlNet has no image.")
        if mask:
            pictures[f"control-mask-{i}"] = _read(mask, f"mask of control {i}", limits)
        kind, ready = _kind(unit, model), unit.module in _NONE
        options = _options(unit.module, unit.threshold_a, unit.threshold_b)
        if not ready and (options or kind_of(unit.module or "") != kind):
            unmade[name] = Preprocessor(unit.module or "", options)
            ready = True
        controls.append(
            AskedControl(
                kind=kind,
                picture=name,
                hint=ready,
                weight=unit.weight,
                start=unit.guidance_start,
                end=unit.guidance_end,
                mode=_mode(unit.control_mode),
                mask=f"control-mask-{i}" if mask else None,
                resize=_resize(unit.resize_mode),
            )
        )
    return Units(tuple(controls), pictures, unmade)


@dataclass(frozen=True)
class Preprocessor:
    """What makes a hint, and its options."""

    module: str
    options: dict[str, Value]


@dataclass(frozen=True)
class Units:
    """Controls, their pictures by name, and the preprocessors of those pictures that are given to
    their controls as hints and are none yet: of another kind than the control, or with options.
    """

    controls: tuple[AskedControl, ...]
    pictures: Pictures
    unmade: dict[str, Preprocessor]

    async def made(self, request: Request) -> Pictures:
        """The pictures with these hints made; errors as of `hint_of`."""
        hints = {
            name: await hint_of(request, one.module, self.pictures[name], one.options)
            for name, one in self.unmade.items()
        }
        return {**self.pictures, **hints}


@router.get("/version", summary="The extension's version")
def version() -> dict[str, int]:
    """The version of the extension's API that is spoken here."""
    return {"version": _VERSION}


@router.get("/settings", summary="The extension's settings")
def settings() -> dict[str, int]:
    """How many units a request may have."""
    return {"control_net_unit_count": _UNITS}


@router.get("/model_list", summary="List ControlNets")
async def model_list(request: Request) -> dict[str, list[str]]:
    """The controls that the models here bring."""
    entries = await run_in_threadpool(service_of(request).catalogue.entries)
    kinds = dict.fromkeys(kind for entry in entries.values() for kind in entry.controls)
    return {"model_list": list(kinds)}


@router.get("/module_list", summary="List preprocessors")
def module_list(request: Request, alias_names: bool = False) -> dict[str, list[str]]:
    """What makes hints here; with `alias_names` by all of its names."""
    kinds = makeable(service_of(request).serving.annotators)
    names = [name for kind in kinds for name in (names_of(kind) if alias_names else (kind,))]
    return {"module_list": ["none", *names]}


@router.get("/control_types", summary="List kinds of control")
async def control_types(request: Request) -> dict[str, JsonValue]:
    """The kinds of control, each with its preprocessors and networks."""
    kinds = (await model_list(request))["model_list"]
    modules = module_list(request)["module_list"]

    def told(kind: str) -> dict[str, JsonValue]:
        made: list[JsonValue] = ["none", *([kind] if kind in modules else [])]
        return {
            "module_list": made,
            "model_list": ["None", kind],
            "default_option": made[-1],
            "default_model": kind,
        }

    return {"control_types": {kind: told(kind) for kind in kinds}}


@router.post("/detect", summary="Make hints")
async def detect(request: Request, body: Detect) -> dict[Annotated[str, "images, info"], JsonValue]:
    """The hints of pictures."""
    limits, module = service_of(request).serving.limits, body.controlnet_module
    options = _options(module, body.controlnet_threshold_a, body.controlnet_threshold_b)

    def read() -> list[Image.Image]:
        return [
            opened(from_base64(text, "image"), "image", limits) for text in body.controlnet_images
        ]

    def written() -> list[JsonValue]:
        return [base64_of(one) for one in pictures]

    pictures = await run_in_threadpool(read)
    if module not in _NONE:
        pictures = [await hint_of(request, module, one, options) for one in pictures]
    return {"images": await run_in_threadpool(written), "info": "Success"}


def _texts(unit: Unit) -> tuple[str | None, str | None]:
    given = unit.image if unit.image is not None else unit.input_image
    if isinstance(given, dict):
        return given.get("image"), given.get("mask") or unit.mask
    return given, unit.mask


def _read(text: str, what: str, limits: Limits) -> Image.Image:
    return opened(from_base64(text, what), what, limits)


def _kind(unit: Unit, model: Entry) -> str:
    """The model's own control that a unit means, by its model, else by its preprocessor."""
    named = (unit.model or "None").partition(" [")[0]
    if named in model.controls:
        return named
    if named == "None" and unit.module not in _NONE:
        kind = kind_of(unit.module or "")
        if kind in model.controls:
            return kind
    known = near(named, model.controls) if model.controls else "It has none."
    raise SafelightError(f"{model.name} has no control {named!r}. {known}")


def _options(module: str | None, low: float | None, high: float | None) -> dict[str, Value]:
    """The thresholds of canny's edges, where they are given."""
    if module != "canny" or low is None or high is None or low < 1 or high < 1:
        return {}
    return {"low": low, "high": high}


def _mode(told: str | int) -> ControlMode:
    for number, (theirs, ours) in enumerate(_MODES):
        if told in (number, theirs):
            return ours
    raise SafelightError(f"control_mode should be 0, 1 or 2, or its name; got {told!r}.")


def _resize(told: str | int) -> ControlResize:
    if isinstance(told, int) and 0 <= told < len(_BY_NUMBER):
        return _BY_NUMBER[told]
    ours = _RESIZES.get(str(told).lower())
    if ours is None:
        raise SafelightError(f"resize_mode should be one of {', '.join(_RESIZES)}; got {told!r}.")
    return ours
