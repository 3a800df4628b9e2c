"""AUTOMATIC1111's requests, and what they mean here."""

import math
import secrets
from collections.abc import Mapping

from pydantic import BaseModel, ConfigDict, Field, JsonValue

from safelight.app.server.asked import Asked, AskedHires, Format
from safelight.app.server.refusals import NotHereError
from safelight.errors import SafelightError
from safelight.pipelines.choices import RngName, Upscaler
from safelight.pipelines.webui_names import UPSCALERS

_AUTOMATIC = ("automatic", "use same scheduler", "")
_NO_VAE = ("Automatic", "None", "", None)
_MOST_BLUR = 256
_HIRES_STRENGTH = 0.75


class Webui(BaseModel):
    """A request of the web UI; fields that it does not know are passed over there, and here."""

    model_config = ConfigDict(extra="ignore", allow_inf_nan=False)


class Options(Webui):
    """Settings of the web UI that mean something here."""

    model_config = ConfigDict(extra="forbid", allow_inf_nan=False)

    sd_model_checkpoint: str | None = None
    sd_vae: str | None = None
    CLIP_stop_at_last_layers: int | None = Field(default=None, ge=1, le=12)
    randn_source: str | None = Field(default=None, pattern="^(CPU|GPU|NV)$")
    samples_format: str | None = Field(default=None, pattern="^(png|webp|jpg|jpeg)$")
    show_progress_every_n_steps: int | None = Field(default=None, ge=-1, le=1000)


class Making(Webui):
    """What txt2img and img2img share; what is left out is the model's own choice."""

    prompt: str = ""
    negative_prompt: str = ""
    styles: list[str] | None = None
    seed: int = Field(default=-1, ge=-1, le=2**63 - 1)
    subseed: int = Field(default=-1, ge=-1, le=2**63 - 1)
    subseed_strength: float = 0.0
    seed_resize_from_h: int = -1
    seed_resize_from_w: int = -1
    sampler_name: str | None = None
    sampler_index: str | None = None
    scheduler: str | None = None
    batch_size: int = Field(default=1, ge=1, le=1000)
    n_iter: int = Field(default=1, ge=1, le=1000)
    steps: int | None = Field(default=None, ge=1, le=2**31)
    cfg_scale: float | None = Field(default=None, ge=0)
    width: int | None = Field(default=None, ge=1, le=2**31)
    height: int | None = Field(default=None, ge=1, le=2**31)
    denoising_strength: float | None = Field(default=None, ge=0, le=1)
    restore_faces: bool | None = None
    tiling: bool | None = None
    s_churn: float | None = None
    s_tmin: float | None = None
    override_settings: dict[str, JsonValue] | None = None
    refiner_checkpoint: str | None = None
    script_name: str | None = None
    send_images: bool = True
    save_images: bool = False
    infotext: str | None = None
    alwayson_scripts: dict[str, JsonValue] = Field(default_factory=dict)


class Txt2Img(Making):
    """Pictures of a prompt."""

    enable_hr: bool = False
    hr_scale: float = Field(default=2.0, ge=0)
    hr_upscaler: str | None = None
    hr_second_pass_steps: int = Field(default=0, ge=0, le=2**31)
    hr_resize_x: int = Field(default=0, ge=0, le=2**31)
    hr_resize_y: int = Field(default=0, ge=0, le=2**31)
    hr_checkpoint_name: str | None = None
    hr_sampler_name: str | None = None
    hr_scheduler: str | None = None
    hr_prompt: str = ""
    hr_negative_prompt: str = ""


class Img2Img(Making):
    """Pictures begun from another."""

    init_images: list[str] = Field(default_factory=list)
    resize_mode: int = Field(default=0, ge=0, le=3)
    image_cfg_scale: float | None = Field(default=None, ge=0)
    mask: str | None = None
    mask_blur: int | None = Field(default=None, ge=0)
    inpainting_fill: int = Field(default=0, ge=0, le=3)
    inpaint_full_res: bool = True
    inpaint_full_res_padding: int = Field(default=0, ge=0, le=4096)
    inpainting_mask_invert: int = Field(default=0, ge=0, le=1)
    initial_noise_multiplier: float | None = None
    include_init_images: bool = False


def asked_of(body: Making, options: Options) -> Asked:
    """What a body asks for, its pictures aside.

    Raises `NotHereError` for what this server has not.
    """
    check_here(body)
    chosen = with_overrides(options, body.override_settings or {})
    count = body.batch_size * body.n_iter
    subseed = body.subseed if body.subseed >= 0 else secrets.randbelow(2**32)
    schedule = body.scheduler
    every = 10 if chosen.show_progress_every_n_steps is None else chosen.show_progress_every_n_steps
    return Asked(
        prompt=body.prompt,
        negative=body.negative_prompt,
        model=chosen.sd_model_checkpoint,
        steps=body.steps,
        scale=body.cfg_scale,
        sampler=body.sampler_name or body.sampler_index,
        schedule=None if schedule is None or schedule.lower() in _AUTOMATIC else schedule,
        seed=None if body.seed < 0 else body.seed,
        width=body.width,
        height=body.height,
        count=count,
        hires=hires_of(body) if isinstance(body, Txt2Img) else None,
        subseed=subseed if body.subseed_strength > 0 else 0,
        subseed_strength=body.subseed_strength,
        clip_skip=chosen.CLIP_stop_at_last_layers,
        rng=rng_of(chosen),
        format=format_of(chosen),
        infotext=True,
        previews=min(50, (body.steps or 20) // every) if every > 0 else 0,
        alone=True,  # so that skip and progress are of one picture
    )


def hires_of(body: Txt2Img) -> AskedHires | None:
    """The second pass, of which the web UI says how many steps it really takes."""
    if not body.enable_hr:
        return None
    for name in ("hr_checkpoint_name", "hr_sampler_name", "hr_prompt", "hr_negative_prompt"):
        if getattr(body, name) not in (None, "", "Use same checkpoint", "Use same sampler"):
            raise NotHereError(f"{name} is not here: the second pass is as the first.")
    scale, sides = body.hr_scale, (body.hr_resize_x, body.hr_resize_y)
    if any(sides):
        if not body.width or not body.height:
            raise SafelightError("hr_resize_x and hr_resize_y go with width and height.")
        scales = {
            new / old for new, old in zip(sides, (body.width, body.height), strict=True) if new
        }
        if len(scales) > 1:
            raise NotHereError("The second pass keeps the proportions: no other hr_resize.")
        [scale] = scales
    strength = _HIRES_STRENGTH if body.denoising_strength is None else body.denoising_strength
    if strength <= 0:
        raise SafelightError("denoising_strength of the second pass should be above 0.")
    steps = body.hr_second_pass_steps or None
    whole = None if steps is None else math.ceil(steps / strength)
    return AskedHires(scale=scale, strength=strength, steps=whole, upscaler=upscaler_of(body))


def upscaler_of(body: Txt2Img) -> Upscaler:
    """Ours for the web UI's name."""
    for ours, theirs in UPSCALERS.items():
        if body.hr_upscaler in (theirs, None):
            return ours
    raise NotHereError(
        f"The upscaler {body.hr_upscaler!r} is not here; there are {', '.join(UPSCALERS.values())}."
    )


def check_here(body: Making) -> None:
    """Raises `NotHereError` for what a body asks of the web UI that this server has not."""
    for name, what in (
        ("styles", "Styles are"),
        ("restore_faces", "Restoring of faces is"),
        ("tiling", "Tiling of textures is"),
        ("s_churn", "s_churn is"),
        ("refiner_checkpoint", "A refiner by request is"),
        ("script_name", "Scripts are"),
        ("save_images", "Saving on the server is"),
        ("infotext", "infotext as a request is"),
    ):
        if getattr(body, name):
            raise NotHereError(f"{what} not here; leave {name} out.")
    if body.seed_resize_from_h > 0 or body.seed_resize_from_w > 0:
        raise NotHereError("seed_resize_from is not here; leave it out.")


def with_overrides(options: Options, changes: Mapping[str, object]) -> Options:
    """The options with some of them changed.

    Raises `NotHereError` for an option that means nothing here.
    """
    for name in changes:
        if name not in Options.model_fields:
            known = ", ".join(Options.model_fields)
            raise NotHereError(f"The option {name!r} means nothing here; there are {known}.")
    try:
        changed = Options.model_validate({**options.model_dump(exclude_none=True), **changes})
    except ValueError as error:
        line = " ".join(str(error).split()).partition(" [type")[0]
        raise SafelightError(f"The options cannot be: {line}.") from error
    if changed.sd_vae not in _NO_VAE:
        raise NotHereError("Another autoencoder by request is not here; leave sd_vae out.")
    name = changed.sd_model_checkpoint
    if name is not None and name.endswith("]"):  # a title with its hash
        name = name.rpartition(" [")[0]
    return changed.model_copy(update={"sd_model_checkpoint": name or None})


def rng_of(options: Options) -> RngName:
    """Where noise comes from: the CPU, unless the web UI's GPU noise is asked for."""
    return "a1111-gpu" if options.randn_source in ("GPU", "NV") else "cpu"


def format_of(options: Options) -> Format:
    """The kind of file that pictures are sent as."""
    if options.samples_format in ("jpg", "jpeg"):
        return "jpeg"
    return "webp" if options.samples_format == "webp" else "png"


def blur_of(body: Img2Img) -> int:
    """Pixels over which a mask fades in."""
    return min(_MOST_BLUR, 4 if body.mask_blur is None else body.mask_blur)
