"""A control's picture at the size of what is made."""

import numpy as np
import torch
from jaxtyping import Float
from PIL import Image
from torch import Tensor

from safelight.pipelines.control_settings import ControlResize

Size = tuple[int, int]
"""Width and height in pixels."""


def fitted(picture: Image.Image, size: Size, how: ControlResize) -> Image.Image:
    """An RGB picture at a size; by Lanczos, as diffusers resizes hints, but for "nearest".

    "crop" keeps the middle of what is too long; "fill" puts the picture into the middle of a plane
    of the median colour of its edge, as AUTOMATIC1111's ControlNet extension does.
    """
    if picture.size == size:
        return picture
    if how == "nearest":
        return picture.resize(size, Image.Resampling.NEAREST)
    if how == "stretch":
        return picture.resize(size, Image.Resampling.LANCZOS)
    scales = [wanted / side for wanted, side in zip(size, picture.size, strict=True)]
    scale = max(scales) if how == "crop" else min(scales)
    width, height = (max(round(side * scale), 1) for side in picture.size)
    whole = picture.resize((width, height), Image.Resampling.LANCZOS)
    left, top = (size[0] - width) // 2, (size[1] - height) // 2
    plane = Image.new(picture.mode, size, _edge_colour(picture))
    plane.paste(whole, (left, top))
    return plane


def hint_tensor(hint: Image.Image, channels: int) -> Float[Tensor, "1 k h w"]:
    """A hint in [0, 1], of three channels or of one."""
    levels = np.asarray(hint.convert("L" if channels == 1 else "RGB"), dtype=np.float32) / 255
    return torch.from_numpy(levels.reshape(*levels.shape[:2], channels)).permute(2, 0, 1)[None]


def _edge_colour(picture: Image.Image) -> tuple[int, ...]:
    """The median colour of the outermost pixels."""
    levels = np.asarray(picture.convert("RGB"))
    edge = np.concatenate([levels[0], levels[-1], levels[:, 0], levels[:, -1]])
    return tuple(int(level) for level in np.median(edge, axis=0))
