"""What a video model is told of a clip, on both sides of guidance."""

from dataclasses import dataclass, replace

import torch
from jaxtyping import Bool, Float
from PIL import Image
from torch import Tensor

from safelight.checkpoints.folder import Folder
from safelight.checkpoints.vision import Vision
from safelight.conditioners.clips import with_clip_numbers, with_known_frames, without_numbers
from safelight.conditioners.image import smoothly_prepared
from safelight.conditioners.text import TextConditioner
from safelight.diffusion.inpainting import Kept, kept_frames
from safelight.errors import SafelightError
from safelight.models.video import Number, VideoUNet
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
    """What a model is told beside its prompt: latents of the frames, which of them are known, and
    the picture's vector as a context of one token.
    """

    latents: Float[Tensor, "1 f c h w"] | None = None
    known: Bool[Tensor, "1 f"] | None = None
    seen: Float[Tensor, "1 1 d"] | None = None

    def kept(self, noise: Float[Tensor, "f c h w"]) -> Kept | None:
        """What of the frames stays as it is, beside noise; None for a model that is told none."""
        if self.latents is None or self.known is None:
            return None
        return kept_frames(self.latents, self.known, noise)


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
    if kind.given == "none":
        return Told()
    size, vae = (settings.width, settings.height), folder.autoencoder
    rows, columns = (side // vae.factor for side in reversed(size))
    shape = (1, settings.frames, folder.unet.config.out_channels, rows, columns)
    latents = torch.zeros(shape, device=device)
    known = torch.zeros(shape[:2], dtype=torch.bool, device=device)
    for place, given in _places(request, settings).items():
        pixels = to_pixels(fitted(given.picture, size))[None].to(device)
        if kind.given == "repeated":
            pixels = pixels + settings.augmentation * noise(tuple(pixels.shape), 0).to(device)
        z = encoded_surely(vae, pixels)
        latents[0, place] = (z if kind.given == "repeated" else vae.scale(z))[0].float()
        known[0, place] = True
    seen = None if folder.vision is None else _seen(folder.vision, request, device, dtype)
    return Told(latents, known, seen)


def sides_of(
    folder: Folder,
    text: TextConditioner,
    kind: ClipKind,
    settings: ClipSettings,
    saying: Saying,
    told: Told,
    device: str,
) -> Sides:
    """Both sides of guidance: with prompt, known frames and numbers; and with the negative prompt
    alone, or with the numbers too for a model that does not know clips without.

    Raises `SafelightError` for several prompts at once.
    """
    if told.seen is not None:
        cond, uncond = Conditioning(told.seen), Conditioning(torch.zeros_like(told.seen))
    else:
        if len(saying.parts) > 1:
            raise SafelightError("Prompts that AND joins are for pictures; write one for a clip.")
        [[(cond, uncond)]] = encoded_texts(text, [saying], settings.prompt_syntax)
    unet = folder.unet
    if not isinstance(unet, VideoUNet):
        frames = settings.frames
        return replace(cond, num_frames=frames), replace(uncond, num_frames=frames)
    numbers: dict[Number, Tensor] = {
        "fps": torch.tensor([settings.fps], device=device),
        "motion": torch.tensor([settings.motion], device=device),
        "augmentation": torch.tensor([settings.augmentation], device=device),
    }

    def side(said: Conditioning, known: Tensor | None) -> Conditioning:
        if told.latents is not None and known is not None:
            said = with_known_frames(said, told.latents, known, unet.temporal)
        said = with_clip_numbers(said, numbers, unet.temporal, unet.config)
        return replace(said, num_frames=settings.frames)

    none = None if told.known is None else torch.zeros_like(told.known)
    beside = side(uncond, none)
    return side(cond, told.known), without_numbers(beside) if unet.temporal.null_numbers else beside


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
