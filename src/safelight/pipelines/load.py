"""From a name or a folder to a pipeline."""

import logging
import re
from collections.abc import Mapping
from dataclasses import dataclass, replace
from pathlib import Path

import torch

from safelight.checkpoints.model import read_model
from safelight.checkpoints.swap import with_autoencoder
from safelight.engine.choosing import choose_engine
from safelight.engine.names import Engine, Storage
from safelight.errors import SafelightError
from safelight.nn.precision import multiplies_bfloat16
from safelight.pipelines.find import DEFAULT, lasting_name
from safelight.pipelines.hub import find_or_fetch, find_part
from safelight.pipelines.image import ImagePipeline
from safelight.pipelines.storing import reading_precision, store_networks

_REFINE_AT = 0.8
_log = logging.getLogger(__name__)


def load(
    path_or_name: str | Path = DEFAULT,
    *,
    dtype: torch.dtype = torch.float32,
    device: str = "auto",
    adapters: Mapping[str | Path, float] | None = None,
    embeddings: Mapping[str | Path, str | None] | None = None,
    refiner: str | Path | None = None,
    refine_at: float | None = None,
    guide: str | Path | None = None,
    vae: str | Path | None = None,
    engine: Engine = "auto",
    storage: Storage | None = None,
    offload: bool = False,
    offline: bool = False,
) -> ImagePipeline:
    """Loads a model that makes pictures from prompts, and from pictures where its kind takes them.

    Args:
        path_or_name: a folder in diffusers' layout, a single file (`.safetensors` or `.ckpt`) in
            that of CompVis and Stability, or a name: `default` is the bundled model; the
            folders below those in SAFELIGHT_MODELS and the repositories `owner/name` of the Hugging
            Face hub have names too, these also with `@revision`, and single files in them,
            `owner/name/file.safetensors`, as for adapters, embeddings and `vae`. A repository that
            its cache holds is taken as it is; another is fetched.
        dtype: of the weights and the networks; the arithmetic of the schedule stays in float32.
        device: "cpu", "cuda", "mps", or "auto": cuda where there is one, else the CPU.
        adapters: files of LoRA and its kin, each with its strength, as by `ImagePipeline.adapt`.
        embeddings: files of textual inversion, each with its word in the prompt or None for the
            file's own, as by `ImagePipeline.embed`.
        refiner: a second model that does the last steps, as by `ImagePipeline.refine_by`.
        refine_at: the part of the noise schedule that is done before it; 0.8 by default.
        guide: a weaker model that guidance leads away from, as by `ImagePipeline.guide_by`.
        vae: another autoencoder for the model's own: a folder or a file, as `with_autoencoder`
            reads them.
        engine: what computes the U-Net and the autoencoder: "torch"; "prepared", torch with
            convolutions packed, up to rounding; "openvino" or "compile" (`torch.compile`), which
            make ready what is not, in seconds to minutes, up to rounding; or "auto", OpenVINO where
            networks were made ready by it before and gain time in a picture, else "prepared" for
            ten steps and more of a model that is not large, else torch. `ImagePipeline.engine` says
            which it was. But for "torch", weights must not be written into after the first picture.
        storage: in how many bytes the U-Net and the towers hold their weights, where they
            compute in `dtype`: "float16", "bfloat16", or "int8", whole numbers with a scale for
            each output, which makes slightly other pictures. None: as they compute. The engine is
            then torch.
        offload: keep the networks in the CPU's memory, and on the device the U-Net alone while it
            works, and the others alone while they do; ControlNets and image adapters stay on the
            device. The engine is then torch. On the CPU it changes nothing.
        offline: nothing is fetched, for controls neither; nor is it where HF_HUB_OFFLINE is in
            the environment.

    Raises:
        SafelightError: there is no such model, its files are not what they should be, it is not of
            a kind that makes pictures from a prompt, the autoencoder is not one for it, the
            device is not there, or the engine computes no stored weights, or none that wait.
    """
    device = choose_device(device)
    how = _How(dtype, device, engine, storage, offload and torch.device(device).type != "cpu")
    warn_of_emulation(how.device, dtype)
    pipeline = _read(path_or_name, vae, how, offline)
    if guide is not None:
        pipeline.guide_by(_read(guide, None, replace(how, engine="torch"), offline))
    for file, strength in (adapters or {}).items():
        pipeline.adapt(find_part(file, offline=offline), strength)
    for file, token in (embeddings or {}).items():
        pipeline.embed(find_part(file, offline=offline), token)
    if refiner is None and refine_at is not None:
        raise SafelightError("refine_at says where the refiner begins; give a refiner too.")
    if refiner is not None:
        second = _read(refiner, vae, how, offline)
        pipeline.refine_by(second, _REFINE_AT if refine_at is None else refine_at)
    return pipeline


@dataclass(frozen=True)
class _How:
    """In which precision, where, by what and in how many bytes a model's networks are kept."""

    dtype: torch.dtype
    device: str
    engine: Engine
    storage: Storage | None
    offload: bool

    @property
    def home(self) -> str:
        """Where weights are while they wait."""
        return "cpu" if self.offload else self.device

    def check(self) -> None:
        """Raises `SafelightError` for an engine that is not there, or not for such a model."""
        choose_engine(self.engine, self.device, self.dtype)
        check_stored(self.engine, self.storage)
        if self.offload and self.engine not in ("auto", "torch"):
            raise SafelightError(
                f'The engine {self.engine!r} computes with weights where they are; leave "offload" '
                'out, or take engine "torch".'
            )


def _read(
    path_or_name: str | Path, vae: str | Path | None, how: _How, offline: bool
) -> ImagePipeline:
    how.check()  # before anything is read
    found = find_or_fetch(str(path_or_name), offline=offline)
    precision = reading_precision(found, how.storage, how.dtype)
    folder = read_model(found, dtype=precision, device=how.home)
    if how.storage is not None:
        store_networks(folder, how.storage, how.dtype)
    if vae is not None:
        place = find_part(vae, offline=offline)
        folder = with_autoencoder(folder, place, dtype=how.dtype, device=how.home)
    return ImagePipeline(
        folder,
        lasting_name(str(path_or_name)),
        dtype=how.dtype,
        device=how.device,
        offline=offline,
        engine=how.engine if how.storage is None and not how.offload else "torch",
        storage=how.storage,
        offload=how.offload,
    )


def check_stored(engine: Engine, storage: Storage | None) -> None:
    """Raises `SafelightError` for an engine that computes with weights as they are alone."""
    if storage is not None and engine not in ("auto", "torch"):
        raise SafelightError(
            f"The engine {engine!r} computes with weights as they are; leave storage "
            f'{storage!r} out, or take engine "torch".'
        )


def warn_of_emulation(device: str, dtype: torch.dtype) -> None:
    """Logs a warning where a CPU does not multiply a precision, and what to take instead."""
    place = torch.device(device)
    multiplied = dtype == torch.bfloat16 and multiplies_bfloat16(place)
    if place.type == "cpu" and dtype != torch.float32 and not multiplied:
        name = str(dtype).removeprefix("torch.")
        _log.warning(
            "This CPU only emulates %s, far slower than float32, which takes as little memory with "
            "storage %r (--storage %s).",
            *(name, name, name),
        )


def has_device(name: str) -> bool:
    """Whether this machine has a device of that name, such as "cpu", "cuda" or "cuda:1"."""
    match = re.fullmatch(r"([a-z]+)(?::(0|[1-9][0-9]{0,3}))?", name)
    if match is None:
        return False
    kind, index = match.groups(default="0")
    return int(index) < _device_counts().get(kind, 0)


def _device_counts() -> dict[str, int]:
    return {
        "cpu": 1,
        "cuda": torch.cuda.device_count() if torch.cuda.is_available() else 0,
        "mps": int(torch.backends.mps.is_available()),
    }


def choose_device(name: str) -> str:
    """A device by name, or the best one for "auto"; `SafelightError` if it is not there."""
    if name == "auto":
        return "cuda" if torch.cuda.is_available() else "cpu"
    if not has_device(name):
        known = [
            kind if index == 0 else f"{kind}:{index}"
            for kind, count in _device_counts().items()
            for index in range(count)
        ]
        raise SafelightError(f"This machine has no device {name!r}; it has {', '.join(known)}.")
    return name
