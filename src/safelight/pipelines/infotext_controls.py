"""Controls in an infotext, as the web UI's ControlNet extension writes and reads them: "ControlNet
0" and so on, each a quoted list of its own, "Module: canny, Model: control_canny, Weight: 0.8".
"""

import shlex
from collections.abc import Iterator, Mapping
from pathlib import Path

from safelight.errors import SafelightError
from safelight.pipelines.annotate import kind_of
from safelight.pipelines.control_settings import Control, ControlMode, ControlResize
from safelight.pipelines.manifest import UsedControl

UNIT = "ControlNet"
"""What the names of parameters begin with that are of controls."""

_NO_MODULE, _NO_MODEL = "none", "None"
_MODULES: Mapping[str, str] = {
    "canny": "canny",
    "depth": "depth_midas",
    "lineart": "lineart_standard",
    "normal": "normal_midas",
    "pose": "openpose",
    "scribble": "scribble_xdog",
    "scribble_hed": "scribble_hed",
    "segmentation": "seg_ufade20k",
    "shuffle": "shuffle",
    "softedge": "softedge_hed",
    "tile": "tile_resample",
}
"""Our kinds to the extension's preprocessors."""

_MODES: Mapping[ControlMode, str] = {
    "balanced": "Balanced",
    "prompt": "My prompt is more important",
    "control": "ControlNet is more important",
}
_GUESS = _MODES["control"]  # which is what the extension made of its own guess mode
_RESIZES: Mapping[ControlResize, str] = {
    "stretch": "Just Resize",
    "crop": "Crop and Resize",
    "fill": "Resize and Fill",
}


def written_controls(controls: tuple[UsedControl, ...]) -> Iterator[tuple[str, str]]:
    """The parameters of a picture's controls.

    What the extension has no field for is left out: masks, weights of single layers, and the
    pictures. Hints are made at the size of what is made, which is its "Pixel Perfect".
    """
    for place, used in enumerate(controls):
        kind = used.kind.lower()
        fields = {
            "Module": _NO_MODULE if used.hint else _MODULES.get(_known(kind) or kind, kind),
            "Model": Path(used.network or used.kind).stem or _NO_MODEL,
            "Weight": used.weight,
            "Resize Mode": _RESIZES.get(used.resize, _RESIZES["stretch"]),
            "Guidance Start": used.start,
            "Guidance End": used.end,
            "Pixel Perfect": not used.hint,
            "Control Mode": _MODES.get(used.mode, _GUESS),
        }
        told = ", ".join(f"{name}: {_plain(str(value))}" for name, value in fields.items())
        yield f"{UNIT} {place}", told


def note_of(name: str, value: str) -> str:
    """What to say of a control that an infotext names, whose picture it has not: how to give it."""
    items = (item.partition(": ") for item in value.split(", "))
    fields = {key.strip(): said.strip() for key, _, said in items}
    module, model = fields.get("Module", ""), fields.get("Model", _NO_MODEL)
    if "Module" not in fields:
        return f"{name}: {value} is not honoured."
    options = " ".join(_options(fields, _known(module.split(" ")[0])))
    return (
        f"{name} ({module}, by {model}) is not honoured, for an infotext does not hold its picture;"
        f" with that, safelight generate takes {options}."
    )


def _options(fields: Mapping[str, str], kind: str | None) -> Iterator[str]:
    """A control in the words of the command line."""
    model = fields.get("Model", _NO_MODEL).partition(" [")[0]
    named, plain = kind or "KIND", Control("", "")
    weight = _number(fields, "Weight", plain.weight)
    yield f"--control {named}=FILE" + ("" if weight == plain.weight else f":{weight:g}")
    if fields["Module"] == _NO_MODULE:
        yield "--hint"
    if model != _NO_MODEL:
        yield f"--control-net {shlex.quote(f'{named}={model}')}"
    for side, default in (("start", plain.start), ("end", plain.end)):
        number = _number(fields, f"Guidance {side.capitalize()}", default)
        if number != default:
            yield f"--control-{side} {number:g}"
    for option, words, default in (
        ("mode", _MODES, plain.mode),
        ("resize", _RESIZES, plain.resize),
    ):
        said = fields.get(f"{'Control' if option == 'mode' else 'Resize'} Mode")
        ours = next((word for word, theirs in words.items() if theirs == said), default)
        if ours != default:
            yield f"--control-{option} {ours}"


def _number(fields: Mapping[str, str], name: str, default: float) -> float:
    try:
        return float(fields.get(name, default))
    except ValueError:
        return default


def _known(name: str) -> str | None:
    """The kind that a name means, ours or the extension's; None for another."""
    theirs = {module: kind for kind, module in _MODULES.items()}
    try:
        return theirs.get(name) or kind_of(name)
    except SafelightError:
        return None


def _plain(value: str) -> str:
    """A value without what parts the fields, which the extension cannot escape."""
    return value.replace(",", "_").replace(":", "_")
