"""DWPose's two networks from their ONNX files: a detector of people and their whole-body pose."""

from collections.abc import Callable
from pathlib import Path

import numpy as np
from PIL import Image

from safelight.checkpoints.onnx import OnnxNetwork, read_onnx
from safelight.conditioners.annotators.opencv import levels_of
from safelight.conditioners.annotators.whole_body import (
    CELLS,
    POINTS,
    Box,
    Crop,
    WholeBody,
    decode_simcc,
    detector_input,
    people_boxes,
)
from safelight.errors import SafelightError
from safelight.pictures import Size

DETECTOR = "yolox_l.onnx"
"""What lies beside the pose network, as it was published."""


def read_dwpose(
    pose: Path, detector: Path | None, device: str = "cpu"
) -> Callable[[Image.Image], list[WholeBody]]:
    """From an RGB picture to everyone in it, the surest first, of `dw-ll_ucoco_384.onnx` or another
    RTMPose of COCO-WholeBody's 133 points. Without a detector the picture is one person's.

    Raises `SafelightError`, one line, for a file that is missing, broken or another network's.
    """
    network = read_onnx(pose, device)
    people = _read_detector(detector, device) if detector is not None else _everything
    size = _input_size(network)

    def find(image: Image.Image) -> list[WholeBody]:
        levels, found = levels_of(image), list[WholeBody]()
        for box in people(image):
            crop = Crop.around(box, size)
            outputs = network.run(crop.of(levels))
            if len(outputs) != 2 or any(
                part.shape != (1, POINTS, CELLS * side)
                for part, side in zip(outputs, size, strict=True)
            ):
                shapes = " and ".join(str(part.shape) for part in outputs)
                raise SafelightError(
                    f"{pose} gives {shapes}; expected a pose network of {POINTS} points, such as "
                    "dw-ll_ucoco_384.onnx."
                )
            cells, surety = decode_simcc(outputs[0][0], outputs[1][0])
            found.append((crop.places(cells), surety))
        return found

    return find


def _read_detector(path: Path, device: str) -> Callable[[Image.Image], list[Box]]:
    network = read_onnx(path, device)
    width, height = _input_size(network)
    if width != height:
        raise SafelightError(
            f"{path} takes pictures of {width} x {height}; expected a square, as yolox_l.onnx does."
        )

    def find(image: Image.Image) -> list[Box]:
        x, scale = detector_input(image, width)
        found = network.run(x)[0]
        if found.ndim != 3 or len(found) != 1:
            raise SafelightError(f"{path} gives {found.shape}; expected YOLOX's (1, cells, 85).")
        return people_boxes(found[0], width, scale)

    return find


def _everything(image: Image.Image) -> list[Box]:
    return [np.array((0, 0, image.width, image.height), dtype=np.float64)]


def _input_size(network: OnnxNetwork) -> Size:
    """Width and height of the picture that a network takes."""
    height, width = network.shape[2:] if len(network.shape) == 4 else (None, None)
    if height is None or width is None or network.shape[1] != 3:
        raise SafelightError(
            f"{network.path} takes {network.shape}; expected a picture of a fixed size, (1, 3, "
            "height, width), as DWPose's networks do."
        )
    return width, height
