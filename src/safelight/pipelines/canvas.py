"""The canvas of inpainting and outpainting: what is made anew, and what stays as it was."""

from dataclasses import replace

import numpy as np
from PIL import Image, ImageFilter

from safelight.errors import SafelightError
from safelight.pipelines.beside import mask_tensor
from safelight.pipelines.given import Given, GivenPicture, give, resized
from safelight.pipelines.request import Margins


def extended(given: Given, margins: Margins | None) -> Given:
    """A picture with margins that are to be made, its edge continued into them, and their mask; a
    mask that is there already is kept. Without margins it is as it was.

    Raises `SafelightError` if there is no picture.
    """
    if margins is None:
        return given
    if given.image is None:
        raise SafelightError("outpaint needs an image to extend.")
    image = _continued(given.image.picture, margins)
    mask = Image.new("L", image.size, 255)
    inside = Image.new("L", given.image.picture.size, 0)
    if given.mask is not None:
        inside = resized(given.mask.picture, inside.size)
    mask.paste(inside, (margins.left, margins.top))
    return replace(given, image=give("image", image), mask=give("mask", mask))


def pasted(made: Image.Image, image: GivenPicture, mask: GivenPicture, blur: int) -> Image.Image:
    """The new picture where the mask is, the given one to the bit elsewhere.

    `blur` is the width in pixels over which the new one fades in from the mask's edge inwards.
    """
    before = resized(image.picture, made.size)
    anew = mask_tensor(mask, *made.size)[0, 0].numpy()  # ones and zeros
    inside = Image.fromarray((255 * anew).astype(np.uint8))
    weights = np.asarray(inside, dtype=np.float32)
    for _ in range(blur):
        inside = inside.filter(ImageFilter.MinFilter(3))  # one pixel further from the edge
        weights = weights + np.asarray(inside, dtype=np.float32)
    fade = Image.fromarray(np.round(weights / (blur + 1)).astype(np.uint8))
    return Image.composite(made, before, fade)


def _continued(image: Image.Image, margins: Margins) -> Image.Image:
    pad = ((margins.top, margins.bottom), (margins.left, margins.right), (0, 0))
    return Image.fromarray(np.pad(np.asarray(image), pad, mode="edge"))
