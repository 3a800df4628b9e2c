"""The web UI's settings and lists: what there is, in its words; 501 for what there is not."""

import os
from typing import cast

from fastapi import APIRouter, Request
from pydantic import BaseModel, JsonValue
from starlette.concurrency import run_in_threadpool

from safelight.app.server.refusals import NotHereError
from safelight.app.server.replies import service_of
from safelight.app.server.webui_bodies import Options, with_overrides
from safelight.app.server.webui_pictures import RESAMPLINGS
from safelight.diffusion.schedules import SCHEDULES as OURS
from safelight.pipelines.prompt_tags import known_adapters
from safelight.pipelines.webui_names import SAMPLERS, SCHEDULES

router = APIRouter(prefix="/sdapi/v1", tags=["AUTOMATIC1111"])
rest = APIRouter(prefix="/sdapi/v1", include_in_schema=False)


class Sampler(BaseModel):
    """A sampler by its name there, and its names here."""

    name: str
    aliases: list[str]
    options: dict[str, str] = {}


class Scheduler(BaseModel):
    """Noise levels by their names."""

    name: str
    label: str
    aliases: list[str] | None = None
    default_rho: float | None = -1
    need_inner_model: bool | None = False


class SdModel(BaseModel):
    """A model by its name."""

    title: str
    model_name: str
    hash: str | None = None
    sha256: str | None = None
    filename: str
    config: str | None = None


class Upscaler(BaseModel):
    """An upscaler of extras."""

    name: str
    model_name: str | None = None
    model_path: str | None = None
    model_url: str | None = None
    scale: float | None = 4


class Lora(BaseModel):
    """An adapter by the name that a prompt's tag has for it."""

    name: str
    alias: str
    path: str
    metadata: dict[str, JsonValue] = {}


def options_of(request: Request) -> Options:
    """The options as they are set; they last as long as the server."""
    return cast(Options, getattr(request.app.state, "webui_options", Options()))


@router.get("/options", summary="The settings")
async def get_options(request: Request) -> dict[str, JsonValue]:
    """The settings that mean something here."""
    options, service = options_of(request), service_of(request)
    entry = await run_in_threadpool(service.catalogue.find, options.sd_model_checkpoint)
    set_ones = options.model_dump(exclude_none=True)
    return {
        "sd_vae": "Automatic",
        "CLIP_stop_at_last_layers": 1,
        "randn_source": "CPU",
        "samples_format": "png",
        "show_progress_every_n_steps": 10,
        **set_ones,
        "sd_model_checkpoint": entry.name,
    }


@router.post("/options", summary="Change settings")
async def set_options(request: Request, changes: dict[str, JsonValue]) -> None:
    """Changes settings for all requests that come after."""
    options = with_overrides(options_of(request), changes)
    await run_in_threadpool(service_of(request).catalogue.find, options.sd_model_checkpoint)
    request.app.state.webui_options = options


@router.get("/samplers", summary="List samplers")
def samplers() -> list[Sampler]:
    """The samplers."""
    return [Sampler(name=theirs, aliases=[ours]) for ours, theirs in SAMPLERS.items()]


@router.get("/schedulers", summary="List noise schedules")
def schedulers() -> list[Scheduler]:
    """Noise schedules; automatic is the model's own."""
    listed = [Scheduler(name="automatic", label="Automatic")]
    for name in OURS:
        listed.append(Scheduler(name=name, label=SCHEDULES.get(name, name)))
    return listed


@router.get("/sd-models", summary="List models")
async def sd_models(request: Request) -> list[SdModel]:
    """The models that sd_model_checkpoint may name."""
    entries = await run_in_threadpool(service_of(request).catalogue.entries)
    return [SdModel(title=name, model_name=name, filename=name) for name in entries]


@router.get("/upscalers", summary="List upscalers")
def upscalers() -> list[Upscaler]:
    """The upscalers of extras."""
    return [Upscaler(name=name) for name in ("None", *RESAMPLINGS)]


@router.get("/latent-upscale-modes", summary="List enlargings of latents")
def latent_upscale_modes() -> list[dict[str, str]]:
    """How a second pass may enlarge latents."""
    return [{"name": "Latent"}]


@router.get("/loras", summary="List adapters")
async def loras() -> list[Lora]:
    """The adapters that a prompt may name, of the folders in SAFELIGHT_LORAS."""
    files = await run_in_threadpool(known_adapters)
    return [Lora(name=file.stem, alias=file.stem, path=file.name) for file in files]


@router.get("/embeddings", summary="List textual inversions")
def embeddings() -> dict[str, dict[str, JsonValue]]:
    """Words that models were taught; a server teaches them none."""
    return {"loaded": {}, "skipped": {}}


@router.get("/scripts", summary="List scripts")
def scripts() -> dict[str, list[str]]:
    """What alwayson_scripts may name."""
    return {"txt2img": ["controlnet"], "img2img": ["controlnet"]}


@router.get("/cmd-flags", summary="How the server was started")
def cmd_flags(request: Request) -> dict[str, JsonValue]:
    """The server's address and limits."""
    serving = service_of(request).serving
    return {
        "api": True,
        "listen": not serving.is_local,
        "port": serving.port,
        "device_id": serving.device,
        "api_auth": serving.token is not None,
    }


@router.get("/memory", summary="Memory")
def memory(request: Request) -> dict[str, JsonValue]:
    """Bytes of the machine's memory, and of the worker that owns the models."""
    used = service_of(request).worker_memory
    total, free = _machine_memory()
    return {
        "ram": {"free": free, "used": used, "total": total},
        "cuda": {"error": "not measured here"},
    }


@router.post("/refresh-checkpoints", summary="Look for models again")
async def refresh_checkpoints(request: Request) -> None:
    """Looks into the models' folders again."""
    service_of(request).catalogue.refresh()


@router.post("/refresh-loras", summary="Look for adapters again")
async def refresh_loras() -> None:
    """Nothing is remembered of them, so that nothing is to be done."""


@router.get("/sd-vae", summary="List autoencoders")
@router.get("/hypernetworks", summary="List hypernetworks")
@router.get("/face-restorers", summary="List restorers of faces")
@router.get("/realesrgan-models", summary="List Real-ESRGAN models")
@router.get("/prompt-styles", summary="List styles")
@router.get("/script-info", summary="What scripts take")
def none_of_these() -> list[dict[str, JsonValue]]:
    """There are none here."""
    return []


@rest.api_route("/{path:path}", methods=["GET", "POST"])
def not_here(path: str) -> None:
    """Whatever else the web UI has."""
    raise NotHereError(f"/sdapi/v1/{path} is of the web UI, and this server has nothing for it.")


def _machine_memory() -> tuple[int, int]:
    """Bytes in all, and free; zeros where the system does not say."""
    try:
        page = os.sysconf("SC_PAGE_SIZE")
        total, free = os.sysconf("SC_PHYS_PAGES") * page, os.sysconf("SC_AVPHYS_PAGES") * page
    except (AttributeError, ValueError, OSError):
        return 0, 0
    return total, free
