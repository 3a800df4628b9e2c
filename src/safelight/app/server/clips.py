"""Clips as jobs: what a client asks for, and how it is let in."""

import json
import secrets
from collections.abc import Mapping
from typing import Literal

from PIL import Image
from pydantic import Field

from safelight.app.server.admission import Pictures
from safelight.app.server.asked import Number, Seed, Strict, Upload
from safelight.app.server.catalogue import Catalogue
from safelight.app.server.config import Limits, check_asked
from safelight.app.server.records import NewJob
from safelight.app.server.uploads import from_base64, opened, png
from safelight.diffusion.samplers import sampler_name
from safelight.errors import SafelightError
from safelight.pipelines.clip_request import ClipRequest
from safelight.pipelines.given import give

ClipFormat = Literal["mp4", "webp"]


class AskedClip(Strict):
    """A clip to be made. What is left out, or null, is the model's own choice; all is as the
    options of `safelight animate`.
    """

    prompt: str = ""
    negative: str = ""
    model: str = Field(description="a name from /v1/offer, of a model that makes clips")
    image: Upload | None = Field(default=None, description="the first frame")
    last: Upload | None = Field(default=None, description="the last frame")
    loop: bool = False
    frames: Number | None = None
    fps: float | None = None
    motion: float | None = None
    augmentation: float | None = None
    steps: Number | None = None
    scale: float | None = Field(default=None, ge=0)
    first_scale: float | None = Field(default=None, ge=0)
    sampler: str | None = None
    seed: Seed | None = Field(
        default=None, description="by chance where it is left out, and then told"
    )
    width: Number | None = None
    height: Number | None = None
    window: Number | None = None
    overlap: int | None = Field(default=None, ge=0)
    low_memory: bool = False
    plain_prompt: bool = False
    format: ClipFormat = "webp"
    priority: int = Field(default=0, ge=-100, le=100, description="the highest comes first")
    what: Literal["clip"] = Field(default="clip", description="tells the job from one of pictures")


def is_clip(spec: str) -> bool:
    """Whether a job's spec is an `AskedClip`."""
    return json.loads(spec).get("what") == "clip"


def with_frames(asked: AskedClip, limits: Limits) -> tuple[AskedClip, Pictures]:
    """The same with the names of its pictures in their places, and these.

    Raises `SafelightError` for what is no picture, or too large a one.
    """
    pictures: Pictures = {}
    for name, text in (("image", asked.image), ("last", asked.last)):
        if text is not None:
            pictures[name] = opened(from_base64(text, name), name, limits).convert("RGB")
    return asked.model_copy(update={name: name for name in pictures}), pictures


def admitted_clip(
    asked: AskedClip,
    pictures: Mapping[str, Image.Image],
    catalogue: Catalogue,
    limits: Limits,
    *,
    key: str | None = None,
    digest: str = "",
) -> NewJob:
    """A job to be handed in, with a seed if it had none.

    Raises `SafelightError` for what no model here can make, or more than one client may ask for.
    """
    model = catalogue.find(asked.model)
    if not model.makes_clips:
        raise SafelightError(f"{model.name} makes pictures, not clips; name a video model.")
    check_asked(
        ("frames", asked.frames or 1, limits.frames),
        ("steps", asked.steps or 1, limits.steps),
        ("prompt", len(asked.prompt), limits.prompt),
        ("negative", len(asked.negative), limits.prompt),
        ("width x height", (asked.width or 1) * (asked.height or 1), limits.pixels),
    )
    if asked.sampler is not None:
        sampler_name(asked.sampler)
    if asked.seed is None:
        asked = asked.model_copy(update={"seed": secrets.randbelow(2**32)})
    clip_request_of(asked, pictures).check()
    spec = {**asked.model_dump(exclude_defaults=True), "model": model.name, "what": asked.what}
    return NewJob(
        spec=json.dumps(spec),
        inputs={name: png(picture) for name, picture in pictures.items()},
        model=model.name,
        place=model.place,
        count=1,
        priority=asked.priority,
        key=key,
        digest=digest,
    )


def clip_request_of(asked: AskedClip, pictures: Mapping[str, Image.Image]) -> ClipRequest:
    """The request in the words of pipelines, its pictures being names of `pictures`."""
    return ClipRequest(
        image=give("image", pictures.get(asked.image or "")),
        last=give("image", pictures.get(asked.last or "")),
        prompt=asked.prompt,
        negative=asked.negative,
        frames=asked.frames,
        fps=asked.fps,
        motion=asked.motion,
        augmentation=asked.augmentation,
        loop=asked.loop,
        steps=asked.steps,
        scale=asked.scale,
        first_scale=asked.first_scale,
        sampler=asked.sampler,
        seed=asked.seed or 0,
        width=asked.width,
        height=asked.height,
        window=asked.window,
        overlap=asked.overlap,
        low_memory=asked.low_memory,
        prompt_syntax="plain" if asked.plain_prompt else "a1111",
    )
