"""What a model takes beside the prompt, read off its U-Net."""

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Literal

from safelight.checkpoints.folder import Folder
from safelight.errors import SafelightError
from safelight.models.any_autoencoder import latent_channels
from safelight.models.video import FrameUNet
from safelight.pipelines.given import Given, Part

Beside = Literal["nothing", "mask", "image", "depth", "low resolution"]
"""The channels beside the noised latent: a mask and the picture under it (inpainting), a picture's
latent (editing by instruction), a depth map, a small picture (upscaling).
"""
Sees = Literal["nothing", "alone", "beside the prompt"]
"""Whether a U-Net is told the vector of a picture: in the place of the prompt's context (image
variation), or beside its time (unCLIP).
"""
Numbers = Literal["none", "sizes", "aesthetics"]
"""The numbers beside the pooled text: SDXL's sizes, or its refiner's sizes and aesthetic score."""

_NEEDS: dict[Beside, tuple[Part, ...]] = {
    "nothing": (),
    "mask": ("image", "mask"),
    "image": ("image",),
    "depth": ("image", "depth"),
    "low resolution": ("image",),
}
_STARTS: dict[Beside, float] = {"nothing": 0.8, "mask": 1.0, "depth": 0.8}
_REFINER_STRENGTH = 0.3


@dataclass(frozen=True)
class Kind:
    """What a model takes, and how it is published to be used.

    Attributes:
        beside: the channels beside the latent.
        numbers: what stands beside the pooled text.
        sees: whether its U-Net is told the vector of a picture.
        guided: whether its U-Net is told the guidance scale, and has no unconditional half.
        steps: of the sampler where nobody says.
        scale: of guidance where nobody says.
    """

    beside: Beside = "nothing"
    numbers: Numbers = "none"
    sees: Sees = "nothing"
    guided: bool = False
    steps: int = 50
    scale: float = 7.5

    @property
    def strength(self) -> float | None:
        """How much of a given picture is made anew where nobody says; None for a model that does
        not begin from a picture.
        """
        if self.numbers == "aesthetics":
            return _REFINER_STRENGTH
        if self.sees != "nothing":
            return None
        return _STARTS.get(self.beside)

    def check(self, given: Given, name: str) -> None:
        """Raises `SafelightError` for a picture that the model needs and has not, or cannot use."""
        needs: tuple[Part, ...] = _NEEDS[self.beside] if self.sees == "nothing" else ("image",)
        if self.numbers == "aesthetics" and given.image is None:
            raise SafelightError(
                f"{name} is the refiner of Stable Diffusion XL, which goes on from a picture; give "
                "an image, or take it as the refiner of a base."
            )
        lacking: list[Part] = [part for part in needs if part not in given.parts]
        if lacking:
            prompt = "" if self.sees == "alone" else "a prompt and "
            raise SafelightError(
                f"{name} makes pictures from {prompt}{_listed(needs)}; it lacks {_listed(lacking)}."
            )
        takes = {*needs, "image"}
        if self.beside == "nothing" and self.sees == "nothing" and given.image is not None:
            takes.add("mask")
        if given.image is None and "mask" in given.parts and self.beside == "nothing":
            raise SafelightError("A mask says what of an image is made anew; give the image too.")
        useless = [part for part in given.parts if part not in takes]
        if useless:
            raise SafelightError(
                f"{name} takes no {' and no '.join(useless)}; such pictures are for models with "
                "channels for them."
            )


def kind_of(folder: Folder, name: str) -> Kind:
    """What a model takes; `SafelightError` if pictures cannot be made of that."""
    if isinstance(folder.unet, FrameUNet):
        raise SafelightError(
            f"{name} makes moving pictures: safelight animate, or safelight.load_video in Python."
        )
    unet, towers = folder.unet.config, folder.text_towers
    sees = _sees(folder)
    latents = latent_channels(folder.autoencoder)
    own = folder.beside.of_its_own
    conditioned = own.channels(latents, folder.autoencoder.factor)
    class_dim = unet.class_dim if own.classes is None else None
    by_level = class_dim is not None and unet.class_kind == "embedding"
    known: dict[tuple[int, bool], Beside] = {
        (0, False): "nothing",
        (1, False): "depth",
        (latents, False): "image",
        (latents + 1, False): "mask",
        (3, True): "low resolution",
    }
    beside = known.get((unet.in_channels - latents - conditioned, by_level))
    time_dim = unet.added_time_dim or 0
    pooled = (towers[-1].config.projection_dim or 0) if towers else 0
    widths: dict[int | None, Numbers] = {
        None: "none",
        pooled + 6 * time_dim: "sizes",
        pooled + 5 * time_dim: "aesthetics",
    }
    numbers = widths.get(unet.added_dim)
    told = class_dim is None or by_level or sees == "beside the prompt"
    if beside is None or numbers is None or not told or (sees != "nothing" and beside != "nothing"):
        raise SafelightError(
            f"{name} is a {folder.pipeline_class}, whose U-Net takes {unet.in_channels} channels, "
            f"{unet.class_dim or 'no'} classes and an added vector of {unet.added_dim or 'no'} "
            "numbers; pictures are not made from these."
        )
    guided = unet.guidance_dim is not None
    steps, scale = (
        (20, 10.0) if sees == "beside the prompt" else _published(beside, numbers, guided=guided)
    )
    return Kind(beside, numbers, sees, guided, steps, scale)


def _sees(folder: Folder) -> Sees:
    """`SafelightError` for a U-Net that is told vectors of another width than the tower's."""
    if folder.vision is None:
        return "nothing"
    if folder.vision.noising is None:
        return "alone"
    unet, width = folder.unet.config, folder.vision.tower.config.projection_dim
    if unet.class_kind != "projection" or unet.class_dim != 2 * width:
        raise SafelightError(
            f"The U-Net is told {unet.class_dim or 'no'} numbers of a picture, its image tower and "
            f"the noise level give {2 * width}."
        )
    return "beside the prompt"


def _published(beside: Beside, numbers: Numbers, *, guided: bool) -> tuple[int, float]:
    """The steps and the scale that diffusers' pipelines for such a model take."""
    if guided:
        return 4, 8.5
    if beside == "low resolution":
        return 75, 9.0
    if beside == "image":
        return 100, 5.0 if numbers != "none" else 7.5
    return 50, 5.0 if numbers != "none" and beside == "nothing" else 7.5


def _listed(parts: Sequence[Part]) -> str:
    articles = {"image": "an image", "mask": "a mask", "depth": "a depth map"}
    return " and ".join(articles[part] for part in parts)
