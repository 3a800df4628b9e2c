"""Masks as AUTOMATIC1111's img2img has them: inverted, filled, and "only masked"."""

from dataclasses import dataclass

from PIL import Image, ImageFilter, ImageOps

from safelight.app.server.refusals import NotHereError
from safelight.app.server.webui_bodies import Img2Img
from safelight.errors import SafelightError
from safelight.pipelines.choices import MaskFill
from safelight.pipelines.control_settings import ControlResize
from safelight.pipelines.hint_pictures import fitted

_FILLS = ((256, 1), (64, 1), (16, 2), (4, 4), (2, 2), (0, 1))  # radius and repeats, as there
_WHITE_FROM = 128
FILLS: tuple[MaskFill, ...] = ("original", "original", "noise", "nothing")
"""What `inpainting_fill` means for the latents; 0 fills the pixels before."""

_RESIZES: tuple[ControlResize, ...] = ("stretch", "crop", "fill")

Box = tuple[int, int, int, int]


@dataclass(frozen=True)
class Prepared:
    """What is given to the model, and how its picture comes back into the whole one."""

    image: Image.Image
    mask: Image.Image | None
    whole: Image.Image | None = None  # where only a part of it, `box`, was made anew
    box: Box = (0, 0, 0, 0)
    whole_mask: Image.Image | None = None

    def restored(self, made: Image.Image) -> Image.Image:
        """The picture that was made, put back into the whole one."""
        if self.whole is None or self.whole_mask is None:
            return made
        left, top, right, bottom = self.box
        part = made.resize((right - left, bottom - top), Image.Resampling.LANCZOS)
        under = self.whole.copy()
        under.paste(part, (left, top))
        return Image.composite(under, self.whole, self.whole_mask)


def prepared(
    body: Img2Img, image: Image.Image, mask: Image.Image | None, most_pixels: int
) -> Prepared:
    """An image and its mask as a body wants them, at its width and height.

    Raises `NotHereError` for resizes that are of latents, `SafelightError` for a mask
    that is black, and more than `most_pixels`.
    """
    size = (body.width or image.width, body.height or image.height)
    if size[0] * size[1] > most_pixels:
        raise SafelightError(
            f"A picture of {size[0]} x {size[1]} pixels is larger than this server makes "
            f"({most_pixels} pixels); ask for a smaller one."
        )
    if body.resize_mode == 3:
        raise NotHereError("resize_mode 3 is of latents and not here; take 0, 1 or 2.")
    resize = _RESIZES[body.resize_mode]
    if mask is None:
        return Prepared(fitted(image, size, resize), None)
    mask = mask.convert("L").resize(image.size, Image.Resampling.LANCZOS)
    mask = mask.point([255 if level >= _WHITE_FROM else 0 for level in range(256)])
    if body.inpainting_mask_invert:
        mask = ImageOps.invert(mask)
    bounds = mask.getbbox()
    if bounds is None:
        raise SafelightError("The mask leaves nothing to be made anew; paint white what should be.")
    shown = filled(image, mask) if body.inpainting_fill == 0 else image
    if not body.inpaint_full_res:
        anew = fitted(mask.convert("RGB"), size, resize).convert("L")
        return Prepared(fitted(shown, size, resize), anew)
    box = region(bounds, image.size, size, body.inpaint_full_res_padding)
    return Prepared(
        shown.crop(box).resize(size, Image.Resampling.LANCZOS),
        mask.crop(box).resize(size, Image.Resampling.NEAREST),
        image,
        box,
        mask,
    )


def region(bounds: Box, whole: tuple[int, int], made: tuple[int, int], padding: int) -> Box:
    """The part around a mask that is made anew: padded, then widened to the proportions of what is
    made as far as the picture reaches.
    """
    left, top = (max(0, bounds[i] - padding) for i in (0, 1))
    right, bottom = (min(whole[i], bounds[i + 2] + padding) for i in (0, 1))
    width, height = right - left, bottom - top
    if width * made[1] < height * made[0]:
        left, right = _widened(left, right, round(height * made[0] / made[1]), whole[0])
    else:
        top, bottom = _widened(top, bottom, round(width * made[1] / made[0]), whole[1])
    return left, top, right, bottom


def filled(image: Image.Image, mask: Image.Image) -> Image.Image:
    """The image with the masked part filled by the colours around it."""
    outside = Image.new("RGBa", image.size)
    outside.paste(image.convert("RGBA").convert("RGBa"), mask=ImageOps.invert(mask))
    under = Image.new("RGBA", image.size)
    for radius, repeats in _FILLS:
        blurred = outside.filter(ImageFilter.GaussianBlur(radius)).convert("RGBA")
        for _ in range(repeats):
            under.alpha_composite(blurred)
    return under.convert("RGB")


def _widened(low: int, high: int, wanted: int, most: int) -> tuple[int, int]:
    wanted = min(max(wanted, high - low), most)
    low = min(max(0, low - (wanted - (high - low)) // 2), most - wanted)
    return low, low + wanted
