"""Depth and segmentation networks, read and run by transformers."""

import importlib
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import torch
import torch.nn.functional as F
from jaxtyping import Float32, Int64
from PIL import Image
from torch import Tensor

from safelight.errors import SafelightError, first_line

_DEPTH = ("dpt", "depth_anything")
_CLASSES = 150  # of ADE20K


def read_depth(
    source: str, device: torch.device | str = "cpu", *, offline: bool = False
) -> Callable[[Image.Image], Float32[np.ndarray, "h w"]]:
    """From an RGB picture to how near each pixel is, by a DPT or a Depth Anything.

    `source` is a folder that transformers wrote, or a repository of the Hugging Face hub, which is
    not fetched where `offline` is set. Where the network estimates metres, it is one over them.

    Raises `SafelightError` without transformers, or for another network.
    """
    network = _read("AutoModelForDepthEstimation", source, device, offline=offline)
    config = network.model.config
    if config.model_type not in _DEPTH:
        raise SafelightError(
            f"{source} is a {config.model_type!r} network; expected one of {', '.join(_DEPTH)}, "
            "such as depth-anything/Depth-Anything-V2-Small-hf."
        )
    metric = getattr(config, "depth_estimation_type", "relative") == "metric"

    def estimate(image: Image.Image) -> Float32[np.ndarray, "h w"]:
        depth = network(image).predicted_depth[:, None].float()  # (1, 1, h', w')
        whole = F.interpolate(depth, image.size[::-1], mode="bicubic")[0, 0]
        return (1 / whole.clamp_min(1e-3) if metric else whole).cpu().numpy()

    return estimate


def read_segmenter(
    source: str, device: torch.device | str = "cpu", *, offline: bool = False
) -> Callable[[Image.Image], Int64[np.ndarray, "h w"]]:
    """From an RGB picture to the class of each pixel, 0 to 149, by a network trained on ADE20K,
    such as UperNet or SegFormer; arguments and errors as of `read_depth`.
    """
    network = _read("AutoModelForSemanticSegmentation", source, device, offline=offline)
    classes = network.model.config.num_labels
    if classes != _CLASSES:
        raise SafelightError(
            f"{source} tells {classes} classes apart; expected the {_CLASSES} of ADE20K, whose "
            "colours ControlNets know."
        )

    def estimate(image: Image.Image) -> Int64[np.ndarray, "h w"]:
        logits: Tensor = network(image).logits.float()  # (1, 150, h', w')
        whole = F.interpolate(logits, image.size[::-1], mode="bilinear")
        return whole[0].argmax(dim=0).cpu().numpy()

    return estimate


@dataclass(frozen=True)
class _Network:
    """A network of transformers and what makes pictures ready for it, neither of which has types
    that hold over its versions.
    """

    model: Any
    processor: Any

    @torch.no_grad()
    def __call__(self, image: Image.Image) -> Any:
        prepared = self.processor(images=image, return_tensors="pt")
        return self.model(prepared["pixel_values"].to(self.model.device))


def _read(kind: str, source: str, device: torch.device | str, *, offline: bool) -> _Network:
    try:
        library: Any = importlib.import_module("transformers")
    except ImportError as error:
        raise SafelightError(
            'This hint is estimated by transformers: pip install "safelight[control]".'
        ) from error
    here = Path(source).expanduser()
    place = str(here) if here.exists() else source
    try:
        processor: Any = library.AutoImageProcessor.from_pretrained(place, local_files_only=offline)
        model: Any = getattr(library, kind).from_pretrained(
            place, use_safetensors=True, local_files_only=offline
        )
    except (OSError, ValueError, ImportError, KeyError) as error:
        raise SafelightError(
            f"Cannot read the network {source} ({first_line(error)}). Give the folder of one that "
            "transformers wrote, with safetensors, or its name on the hub."
        ) from error
    return _Network(model.eval().to(device), processor)
