"""What a client asks for, as JSON: the body of `POST /v1/jobs`, and what a job keeps of it."""

from collections.abc import Callable, Generator, Mapping
from contextlib import contextmanager
from typing import Annotated, Literal

from PIL import Image
from pydantic import BaseModel, ConfigDict, Field, JsonValue, ValidationError

from safelight.config import from_dict
from safelight.errors import SafelightError
from safelight.pipelines.choices import MaskFill, PromptSyntax, Quality, RngName, Upscaler
from safelight.pipelines.condition_settings import Condition, ImagePrompt
from safelight.pipelines.control_settings import Control, ControlMode, ControlResize
from safelight.pipelines.given import Given, give
from safelight.pipelines.guidance_settings import Guidance
from safelight.pipelines.request import Hires, Margins, Request
from safelight.types import Box

Upload = Annotated[
    str,
    Field(
        min_length=1,
        description="A PNG, JPEG or WebP file in base64, also as a data: URL.",
        json_schema_extra={"contentEncoding": "base64"},
    ),
]
Number = Annotated[int, Field(ge=1, le=2**31)]
Seed = Annotated[int, Field(ge=-(2**63), le=2**64 - 1)]
Format = Literal["png", "webp", "jpeg"]


class Strict(BaseModel):
    """A body whose unknown keys are errors, and whose numbers are finite."""

    model_config = ConfigDict(extra="forbid", frozen=True, allow_inf_nan=False)


class AskedControl(Strict):
    """A picture that steers what is made, by a ControlNet that the model brings."""

    kind: str = Field(description="of the model's own controls, such as canny")
    picture: Upload
    hint: bool = Field(default=False, description="the picture is the hint itself")
    weight: float = 1.0
    start: float = 0.0
    end: float = 1.0
    mode: ControlMode | None = None
    mask: Upload | None = None
    resize: ControlResize = "stretch"


class AskedBox(Strict):
    """Where a thing is to be, its edges (left, top, right, bottom) as parts of the picture."""

    label: str
    edges: tuple[float, float, float, float]


class AskedCondition(Strict):
    """What the model has learned to be told: a picture, a class's name, or boxes."""

    kind: str
    picture: Upload | None = None
    name: str | None = Field(default=None, pattern=r"^[\w ,'()-]+$", max_length=200)
    boxes: tuple[AskedBox, ...] = ()
    scale: float | None = None


class AskedImagePrompt(Strict):
    """A picture that speaks beside the prompt, by the image adapter that the model brings."""

    picture: Upload
    weight: float = 1.0


class AskedHires(Strict):
    """A second, larger pass."""

    scale: float = 2.0
    strength: float = 0.7
    steps: Number | None = None
    upscaler: Upscaler = "latent"


class AskedMargins(Strict):
    """Pixels to be made around the image."""

    left: int = Field(default=0, ge=0, le=4096)
    top: int = Field(default=0, ge=0, le=4096)
    right: int = Field(default=0, ge=0, le=4096)
    bottom: int = Field(default=0, ge=0, le=4096)


class Asked(Strict):
    """Pictures to be made. What is left out, or null, is the model's own choice; all is as the
    options of `safelight generate`.
    """

    prompt: str = ""
    negative: str = ""
    model: str | None = Field(default=None, description="a name from /v1/models")
    steps: Number | None = None
    scale: float | None = Field(default=None, ge=0)
    sampler: str | None = None
    schedule: str | None = None
    sigmas: tuple[float, ...] | None = Field(default=None, max_length=1001)
    seed: Seed | None = Field(
        default=None, description="by chance where it is left out, and then told"
    )
    width: Number | None = None
    height: Number | None = None
    count: Number = 1
    image: Upload | None = None
    mask: Upload | None = None
    depth: Upload | None = None
    strength: float | None = None
    image_scale: float | None = None
    noise_level: int | None = None
    mask_blur: int | None = None
    mask_fill: MaskFill = "original"
    outpaint: AskedMargins | None = None
    hires: AskedHires | None = None
    tiled_decode: bool | None = None
    tiled_diffusion: bool = False
    tile_size: Number | None = None
    tile_overlap: int | None = Field(default=None, ge=0)
    tile_fade: bool = False
    plain_prompt: bool = False
    clip_skip: int | None = None
    rng: RngName = "cpu"
    quality: Quality = "exact"
    token_merging: float = 0.0
    subseed: Seed = 0
    subseed_strength: float = 0.0
    guidance: dict[str, JsonValue] = Field(
        default_factory=dict,
        description="fields of safelight.pipelines.guidance_settings.Guidance",
    )
    controls: tuple[AskedControl, ...] = Field(default=(), max_length=8)
    conditions: tuple[AskedCondition, ...] = Field(default=(), max_length=8)
    image_prompts: tuple[AskedImagePrompt, ...] = Field(default=(), max_length=8)
    image_prompt_scale: float | None = None
    x: str | None = Field(
        default=None,
        max_length=20_000,
        description="columns of a grid, as of safelight grid: scale=1,2,4,7 or steps=5-20(+5)",
    )
    y: str | None = Field(default=None, max_length=20_000, description="its rows, likewise")
    inside: int = Field(
        default=0,
        ge=0,
        le=50,
        description="steps of each picture that are kept to be looked into: the latents, what the"
        " network expects, and where each word looks",
    )
    format: Format = "png"
    infotext: bool = Field(default=False, description="parameters for AUTOMATIC1111's web UI too")
    previews: int = Field(
        default=0, ge=0, le=50, description="pictures on the way, of each picture"
    )
    priority: int = Field(default=0, ge=-100, le=100, description="the highest comes first")
    alone: bool = Field(
        default=False, description="never in a batch with other pictures: the same bits"
    )


@contextmanager
def in_one_line() -> Generator[None]:
    """Turns what is wrong with an `Asked` that is put together from another API's words into a
    `SafelightError`.
    """
    try:
        yield
    except ValidationError as error:
        first = error.errors(include_url=False)[0]
        where = ".".join(map(str, first["loc"]))
        raise SafelightError(f"{where}: {first['msg']}.") from error


def put_aside(asked: Asked, keep: Callable[[str, str], str]) -> Asked:
    """The same with each picture replaced by what `keep(name, picture)` makes of it."""

    def kept(name: str, picture: str | None) -> str | None:
        return None if picture is None else keep(name, picture)

    return asked.model_copy(
        update={
            **{part: kept(part, getattr(asked, part)) for part in ("image", "mask", "depth")},
            "controls": tuple(
                one.model_copy(
                    update={
                        "picture": keep(f"control-{i}", one.picture),
                        "mask": kept(f"control-mask-{i}", one.mask),
                    }
                )
                for i, one in enumerate(asked.controls)
            ),
            "conditions": tuple(
                one.model_copy(update={"picture": kept(f"condition-{i}", one.picture)})
                for i, one in enumerate(asked.conditions)
            ),
            "image_prompts": tuple(
                one.model_copy(update={"picture": keep(f"image-prompt-{i}", one.picture)})
                for i, one in enumerate(asked.image_prompts)
            ),
        }
    )


def request_of(asked: Asked, pictures: Mapping[str, Image.Image]) -> Request:
    """The request in the words of pipelines, its pictures being names of `pictures`.

    Raises `SafelightError` for what no model could make.
    """

    def picture(name: str | None) -> Image.Image | None:
        return None if name is None else pictures[name]

    syntax: PromptSyntax = "plain" if asked.plain_prompt else "a1111"
    request = Request(
        prompt=asked.prompt,
        negative=asked.negative,
        steps=asked.steps,
        scale=asked.scale,
        sampler=asked.sampler,
        seed=asked.seed or 0,
        width=asked.width,
        height=asked.height,
        count=asked.count,
        given=Given(
            give("image", picture(asked.image)),
            give("mask", picture(asked.mask)),
            give("depth", picture(asked.depth)),
        ),
        strength=asked.strength,
        image_scale=asked.image_scale,
        noise_level=asked.noise_level,
        mask_blur=asked.mask_blur,
        mask_fill=asked.mask_fill,
        outpaint=None if asked.outpaint is None else Margins(**asked.outpaint.model_dump()),
        hires=None if asked.hires is None else Hires(**asked.hires.model_dump()),
        tiled_decode=asked.tiled_decode,
        schedule=asked.schedule,
        sigmas=asked.sigmas,
        tiled_diffusion=asked.tiled_diffusion,
        tile_size=asked.tile_size,
        tile_overlap=asked.tile_overlap,
        tile_fade=asked.tile_fade,
        prompt_syntax=syntax,
        clip_skip=asked.clip_skip,
        rng=asked.rng,
        quality=asked.quality,
        token_merging=asked.token_merging,
        subseed=asked.subseed,
        subseed_strength=asked.subseed_strength,
        guidance=from_dict(Guidance, asked.guidance, "guidance"),
        controls=tuple(
            Control(
                kind=one.kind,
                picture=pictures[one.picture],
                hint=one.hint,
                weight=one.weight,
                start=one.start,
                end=one.end,
                mode=one.mode,
                mask=picture(one.mask),
                resize=one.resize,
            )
            for one in asked.controls
        ),
        conditions=tuple(_condition(one, pictures) for one in asked.conditions),
        image_prompts=tuple(
            ImagePrompt(pictures[one.picture], one.weight) for one in asked.image_prompts
        ),
        image_prompt_scale=asked.image_prompt_scale,
    )
    request.check()
    return request


def _condition(one: AskedCondition, pictures: Mapping[str, Image.Image]) -> Condition:
    if one.picture is not None:
        return Condition(one.kind, pictures[one.picture], one.scale)
    if one.boxes:
        boxes = tuple(Box(box.label, box.edges) for box in one.boxes)
        return Condition(one.kind, boxes, one.scale)
    return Condition(one.kind, one.name or "", one.scale)
