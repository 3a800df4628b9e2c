"""The model of an infotext among those that have a name here."""

import hashlib
import re
from pathlib import Path

from safelight.checkpoints.files import sha256_of_files
from safelight.errors import SafelightError
from safelight.pipelines.find import KnownModel, known_models
from safelight.pipelines.infotext import Infotext

_OLD_DIGITS = 8
_OLD_START, _OLD_LENGTH = 0x100000, 0x10000  # the bytes that the web UI hashed until 2023

_TITLE = re.compile(r"(.+?)(?: \[([0-9a-fA-F]+)\])?")


def model_of(infotext: Infotext) -> tuple[str, tuple[str, ...]]:
    """The name of the known model that an infotext names, else of the one whose file has its hash;
    and a line where a model of the name has another hash.

    Raises `SafelightError` if there is none.
    """
    name, digest = (infotext.parameters.get(key, "") for key in ("Model", "Model hash"))
    return named_model(name, digest)


def refiner_of(infotext: Infotext) -> tuple[str | None, tuple[str, ...]]:
    """The refiner that an infotext names, "name [hash]", None for none and one that is not known
    here; and a line where it is another or not known.
    """
    said = infotext.parameters.get("Refiner", "")
    match = _TITLE.fullmatch(said)
    if match is None or said == "None":
        return None, ()
    try:
        return named_model(match[1], match[2] or "")
    except SafelightError:
        return None, (f"The refiner {said!r} is not known here; the steps are all the base's.",)


def named_model(name: str, digest: str) -> tuple[str, tuple[str, ...]]:
    """The known model of a name, else of a hash, each perhaps empty; errors as `model_of`."""
    known = known_models()
    named = [model for model in known if name and name in (model.name, _stem(model.folder))]
    same = next((model for model in [*named, *known] if _has(model, digest)), None)
    if same is not None:
        return str(same.folder), ()
    if not named:
        told = " ".join(part for part in (name, digest and f"({digest})") if part) or "no model"
        raise SafelightError(
            f"The infotext names {told}, and no model here has that name or hash; give one by "
            "--model, or list its folder in SAFELIGHT_MODELS."
        )
    other = f"The model {name!r} here is not the file of hash {digest}: it may differ."
    return str(named[0].folder), (other,) if digest else ()


def _has(model: KnownModel, digest: str) -> bool:
    if not digest or not model.folder.is_file():
        return False
    if len(digest) == _OLD_DIGITS:
        return _old_hash(model.folder) == digest.lower()
    return sha256_of_files([model.folder]).startswith(digest.lower())


def _old_hash(file: Path) -> str:
    with file.open("rb") as stream:
        stream.seek(_OLD_START)
        return hashlib.sha256(stream.read(_OLD_LENGTH)).hexdigest()[:_OLD_DIGITS]


def _stem(path: Path) -> str:
    return path.stem if path.is_file() else path.name
