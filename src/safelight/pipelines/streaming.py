"""`stream`: a model opened for pictures one after the other."""

from collections.abc import Sequence
from pathlib import Path

import torch

from safelight.engine.names import Engine
from safelight.errors import SafelightError
from safelight.nn.precision import multiplies_bfloat16
from safelight.pipelines.control_settings import Control
from safelight.pipelines.find import DEFAULT
from safelight.pipelines.image import ImagePipeline
from safelight.pipelines.load import choose_device, load
from safelight.pipelines.stream import Stream
from safelight.pipelines.stream_pictures import Picture
from safelight.pipelines.stream_settings import (
    Inputs,
    StreamGuidance,
    StreamSettings,
    unseen_control,
)


def stream(
    model: ImagePipeline | str | Path = DEFAULT,
    *,
    prompt: str = "",
    negative: str = "",
    picture: Picture | None = None,
    seed: int = 0,
    steps: int = 4,
    scale: float | None = None,
    sampler: str | None = None,
    width: int | None = None,
    height: int | None = None,
    strength: float | None = None,
    guidance: StreamGuidance = "none",
    delta: float = 1.0,
    controls: Sequence[Control | str] = (),
    batched: bool = False,
    similarity: float | None = None,
    plain_prompt: bool = False,
    engine: Engine = "auto",
    dtype: torch.dtype | None = None,
    device: str = "auto",
) -> Stream:
    """Opens a model for pictures one after the other, of what changes meanwhile.

    Everything is kept warm: the prompt is read once, the constants of the steps are computed, the
    networks made ready (`models.prepared`) or compiled (`engine`). Where a value is None it is the
    model's own choice.

    Args:
        model: as `load` takes it; or what that has given, with its adapters and its precision.
        prompt, negative, picture, seed: what it begins with; see `Stream.update`.
        steps: of the sampler. Of a picture begun from, `int(steps * strength)` are taken.
        scale: of guidance; a latent consistency model is told it instead.
        sampler: euler, ddim, euler_a, ddpm, lcm or tcd; by default the model's own if it is one of
            them, else euler.
        width, height: pixels, multiples of the autoencoder's factor.
        strength: how much of `picture` is made anew, above 0 and up to 1; None begins from noise
            alone.
        guidance: "none"; "full", classifier-free guidance as in single pictures; or residual
            guidance, which calls the network once a step ("self") and once more in the first
            ("onetime"), see `diffusion.residual`.
        delta: of residual guidance, 0 to 1: how much of what it leads away from counts.
        controls: kinds of ControlNets whose pictures are given later, or `Control`s with more said.
        batched: whether frames at all steps share each call of the network (Kodaira et al. 2023,
            arXiv 2312.12491, section 3.1): more pictures a second, each of them `steps - 1`
            pictures later.
        similarity: from which up a picture may be passed over for being like the last; see
            `Similarity`.
        plain_prompt: whether brackets mean nothing in prompts.
        engine: "torch"; "compile" (`torch.compile`) or, on the CPU alone, "openvino", which compile
            the networks before the stream is open; or "auto": openvino where it is installed and
            computes them, else torch. `Stream.engine` says which it is.
        dtype: of the weights; by default bfloat16 where the hardware multiplies it, else float32.
        device: as `load`. What is loaded already has both, and others are refused.

    Raises:
        SafelightError: one of these cannot be, or the model makes no streams.
    """
    if isinstance(model, ImagePipeline):
        _check_same(model, dtype, device)
    else:
        device = choose_device(device)
        model = load(model, dtype=dtype or fastest(device), device=device)
    wanted = StreamSettings(
        steps=steps,
        scale=scale,
        sampler=sampler,
        width=width,
        height=height,
        strength=strength,
        guidance=guidance,
        delta=delta,
        controls=tuple(unseen_control(one) if isinstance(one, str) else one for one in controls),
        batched=batched,
        similarity=similarity,
        plain_prompt=plain_prompt,
        engine=engine,
    )
    opened = Stream(model, wanted, Inputs(prompt, negative, seed))
    if picture is not None:
        opened.update(picture=picture)
    return opened


def _check_same(pipeline: ImagePipeline, dtype: torch.dtype | None, device: str) -> None:
    """Raises `SafelightError` for another precision or device than a model was loaded with, and
    for weights that are stored or wait elsewhere.
    """
    if dtype not in (None, pipeline.dtype) or (
        device != "auto" and choose_device(device) != pipeline.device
    ):
        raise SafelightError(
            f"The model is loaded as {pipeline.dtype} on {pipeline.device}; leave dtype and device "
            "out, or give its name for it to be loaded anew."
        )
    if pipeline.offload:
        raise SafelightError(
            "The model's networks wait in the CPU's memory, from which streams do not fetch them; "
            "load it without offload."
        )
    if pipeline.storage is not None:
        raise SafelightError(
            f"The model holds its weights in {pipeline.storage}, which streams do not take; "
            "load it without storage."
        )


def fastest(device: str) -> torch.dtype:
    """The precision that streams take on a device where none is asked for: bfloat16 where the
    hardware multiplies it, else float32.
    """
    return torch.bfloat16 if multiplies_bfloat16(torch.device(device)) else torch.float32
