"""What happened while a picture was made, as JSON with small pictures in it."""

import base64
import io
from dataclasses import replace

from jaxtyping import Float
from PIL import Image
from pydantic import BaseModel, Field
from torch import Tensor

from safelight.pipelines.attention_maps import AttentionMaps
from safelight.pipelines.inside import Inside

_MOST_SIDE = 320  # pixels of a decoded step
_QUALITY = 92


class StepView(BaseModel):
    """A step; pictures are data: URLs."""

    step: int = Field(description="its place among all steps of the picture")
    sigma: float = Field(description="the noise level that it began at")
    latent: str = Field(description="x behind it, as colours")
    denoised: str = Field(description="x0 as the network expects it, guided, as colours")
    picture: str = Field(description="the same, decoded")


class HeatView(BaseModel):
    """A map of attention, in grey: its largest value is white."""

    map: str
    peak: float = Field(description="the value that is white")
    mean: float


class WordView(BaseModel):
    """A word of the prompt and where it looked."""

    text: str
    tokens: int
    whole: HeatView = Field(description="the mean over all layers and steps")
    steps: list[HeatView] = Field(description="of each of the steps that are kept")
    layers: list[HeatView] = Field(description="of each size of layers, the mean over the steps")


class LayerView(BaseModel):
    """Layers of one size, in places."""

    height: int
    width: int


class InsideView(BaseModel):
    """What happened while a picture was made."""

    width: int
    height: int
    steps: list[StepView]
    words: list[WordView]
    layers: list[LayerView]


def view_of_inside(seen: Inside) -> InsideView:
    """What clients see of it."""
    maps = replace(seen.maps, size=seen.maps.layers[0])  # no finer than the network looked
    height, width = seen.maps.size
    return InsideView(
        width=width,
        height=height,
        steps=[
            StepView(
                step=one.step,
                sigma=one.sigma,
                latent=_url(one.latent, "PNG"),
                denoised=_url(one.denoised, "PNG"),
                picture=_url(_small(one.picture), "WEBP"),
            )
            for one in seen.steps
        ],
        words=_words(maps, [one.step for one in seen.steps]),
        layers=[LayerView(height=size[0], width=size[1]) for size in maps.layers],
    )


def _words(maps: AttentionMaps, steps: list[int]) -> list[WordView]:
    whole = maps.each()
    by_step = [maps.each(step=step) for step in steps]
    by_layer = [maps.each(layer=layer) for layer in maps.layers]
    return [
        WordView(
            text=word.text,
            tokens=len(word.places),
            whole=_heat(whole[i]),
            steps=[_heat(each[i]) for each in by_step],
            layers=[_heat(each[i]) for each in by_layer],
        )
        for i, word in enumerate(maps.words)
    ]


def _heat(one: Float[Tensor, "h w"]) -> HeatView:
    peak = one.max().item()
    levels = (one / max(peak, 1e-12) * 255).round().byte().numpy()
    return HeatView(map=_url(Image.fromarray(levels), "PNG"), peak=peak, mean=one.mean().item())


def _small(image: Image.Image) -> Image.Image:
    image.thumbnail((_MOST_SIDE, _MOST_SIDE), Image.Resampling.LANCZOS)
    return image


def _url(image: Image.Image, kind: str) -> str:
    stream = io.BytesIO()
    image.save(stream, kind, quality=_QUALITY)
    text = base64.b64encode(stream.getvalue()).decode()
    return f"data:image/{kind.lower()};base64,{text}"
