"""What a video model is told of a clip, on both sides of guidance."""

from collections.abc import Mapping
from dataclasses import dataclass, replace

import torch
from jaxtyping import Float
from PIL import Image
from torch import Tensor

from safelight.checkpoints.folder import Folder
from safelight.checkpoints.vision import Vision
from safelight.conditioners.image import smoothly_prepared
from safelight.conditioners.numbers import with_numbers
from safelight.conditioners.text import TextConditioner
from safelight.errors import SafelightError
from safelight.models.video import Number
from safelight.pictures import to_pixels
from safelight.pipelines.clip_kind import ClipKind
from safelight.pipelines.clip_request import ClipRequest, ClipSettings
from safelight.pipelines.coding import encoded_surely
from safelight.pipelines.given import GivenPicture, resized
from safelight.pipelines.saying import Saying, encoded_texts
from safelight.types import Conditioning, Noise

Sides = tuple[Conditioning, Conditioning]
"""What is asked for, and what guidance leads away from."""


@dataclass(frozen=True)
class Told:
    """What a model is told beside its prompt: the channels beside x, with and without the known
    frames, and the picture's vector as a context of one token.
    """

    concat: Float[Tensor, "f c h w"] | None = None
    blank: Float[Tensor, "f c h w"] | None = None
    seen: Float[Tensor, "1 1 d"] | None = None


def told_frames(
    folder: Folder,
    kind: ClipKind,
    request: ClipRequest,
    settings: ClipSettings,
    noise: Noise,
    device: str,
    dtype: torch.dtype,
) -> Told:
    """The known frames of a clip as its model is told of them.

    `noise` is that of `settings.augmentation`, for a model that is told one picture, noised, beside
    every frame (arXiv 2311.15127, section 4.3, and appendix D).
    """
    known: dict[int, Image.Image] = {}
    size = (settings.width, settings.height)
    for place, given in _places(request, settings).items():
        known[place] = fitted(given.picture, size)
    if kind.given == "none":
        return Told()
    factor, channels = folder.autoencoder.factor, folder.unet.config.out_channels
    shape = (settings.frames, channels, settings.height // factor, settings.width // factor)
    if kind.given == "repeated":
        pixels = to_pixels(known[0])[None].to(device)
        pixels = pixels + settings.augmentation * noise(tuple(pixels.shape), 0).to(device)
        concat = encoded_surely(folder.autoencoder, pixels).float().expand(*shape)
        seen = None if folder.vision is None else _seen(folder.vision, request, device, dtype)
        return Told(concat, torch.zeros_like(concat), seen)
    concat = torch.zeros(shape[0], channels + 1, *shape[2:], device=device)
    for place, picture in known.items():
        z = encoded_surely(folder.autoencoder, to_pixels(picture)[None].to(device))
        concat[place, :channels] = folder.autoencoder.scale(z)[0].float()
        concat[place, channels] = 1
    return Told(concat, torch.zeros_like(concat))


def sides_of(
    folder: Folder,
    text: TextConditioner,
    kind: ClipKind,
    settings: ClipSettings,
    saying: Saying,
    told: Told,
    device: str,
) -> Sides:
    """Both sides of guidance: with prompt and known frames, and with the negative prompt alone.

    Raises `SafelightError` for several prompts at once.
    """
    if told.seen is not None:
        pair = Conditioning(told.seen), Conditioning(torch.zeros_like(told.seen))
    else:
        if len(saying.parts) > 1:
            raise SafelightError("Prompts that AND joins are for pictures; write one for a clip.")
        [[pair]] = encoded_texts(text, [saying], settings.prompt_syntax)
    values = numbers_of(settings)
    cond, uncond = (
        replace(side, concat=concat, num_frames=settings.frames)
        for side, concat in zip(pair, (told.concat, told.blank), strict=True)
    )
    if not kind.numbers:
        return cond, uncond
    row = torch.tensor([[values[number] for number in kind.numbers]], device=device)
    unet = folder.unet.config
    return with_numbers(cond, row, unet), with_numbers(uncond, row, unet)


def numbers_of(settings: ClipSettings) -> Mapping[Number, float]:
    """What a model is told of a clip: one frame a second less than it has, as Stable Video
    Diffusion was trained, the bucket of its motion, and the noise on its picture.
    """
    return {
        "fps": settings.fps - 1,
        "motion": settings.motion,
        "augmentation": settings.augmentation,
    }


def fitted(picture: Image.Image, size: tuple[int, int]) -> Image.Image:
    """The greatest part in a picture's middle of the proportions of a size, brought to it."""
    width, height = picture.size
    if width * size[1] != height * size[0]:
        wide = max(1, min(width, round(height * size[0] / size[1])))
        high = max(1, min(height, round(width * size[1] / size[0])))
        left, top = (width - wide) // 2, (height - high) // 2
        picture = picture.crop((left, top, left + wide, top + high))
    return resized(picture, size)


def _places(request: ClipRequest, settings: ClipSettings) -> dict[int, GivenPicture]:
    """The known frames by their places."""
    places = {0: request.image, settings.frames - 1: request.last}
    return {place: given for place, given in places.items() if given is not None}


def _seen(vision: Vision, request: ClipRequest, device: str, dtype: torch.dtype) -> Tensor:
    assert request.image is not None  # which `settle_clip` sees to
    pixels = smoothly_prepared(request.image.picture, vision.preparation)
    return vision.tower(pixels.to(device, dtype)).float()[:, None]
