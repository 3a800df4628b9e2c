"""`safelight live`: pictures of what changes meanwhile."""

import sys
from pathlib import Path
from typing import Annotated, Literal

from cyclopts import Parameter

from safelight.engine.names import Engine

Guidance = Literal["none", "full", "self", "onetime"]
Precision = Literal["auto", "float32", "bfloat16", "float16"]


def live(
    prompt: str = "",
    /,
    *,
    watch: Path | None = None,
    camera: int | None = None,
    output: Annotated[Path | None, Parameter(name=("--output", "-o"))] = None,
    port: int = 0,
    negative: Annotated[str, Parameter(show_default=False)] = "",
    steps: int = 4,
    scale: float | None = None,
    guidance: Guidance = "none",
    delta: float = 1.0,
    sampler: str | None = None,
    seed: int = 0,
    width: int | None = None,
    height: int | None = None,
    strength: float | None = None,
    control: Annotated[tuple[str, ...], Parameter(negative=(), show_default=False)] = (),
    hint: Annotated[bool, Parameter(negative=())] = False,
    batched: Annotated[bool, Parameter(negative=())] = False,
    similarity: float | None = None,
    model: str = "default",
    lora: Annotated[tuple[str, ...], Parameter(negative=(), show_default=False)] = (),
    vae: str | None = None,
    device: str = "auto",
    precision: Precision = "auto",
    engine: Engine = "auto",
    offline: Annotated[bool, Parameter(negative=())] = False,
) -> None:
    """Make pictures of a drawing, a file or a camera while these change.

    Parameters
    ----------
    prompt
        What the pictures should show; on the page it changes.
    watch
        A picture file to follow, or a folder of which the
        newest picture is.
    camera
        A camera to follow, by its number: 0 is the first.
    output
        A picture file that the newest picture is written to, in
        the place of the page.
    port
        Of the page on this machine. [default: any that is free]
    negative
        What the pictures should not show; of guidance full and
        onetime.
    steps
        Steps of the sampler. Of a picture begun from, the part
        that --strength leaves.
    scale
        Of guidance. [default: the model's]
    guidance
        none; full, as of single pictures; or residual, with
        fewer calls of the network: self leads away from the picture begun from,
        onetime from the negative prompt.
    delta
        How much of it residual guidance leads away from.
    sampler
        euler, ddim, euler_a, ddpm, lcm or tcd. [default: the
        model's if it is one of them, else euler]
    seed
        Chooses the noise, as in diffusers.
    width
        Pixels. [default: the model's]
    height
        Pixels. [default: the model's]
    strength
        How much of the picture is made anew, above 0 and up to
        1. [default: pictures begin from noise]
    control
        The kind of a ControlNet that the picture steers by, and
        after a colon its weight: canny:0.8. Give it several
        times for several.
    hint
        What is drawn, watched or filmed is the control's hint
        already: white lines on black for canny.
    batched
        Let frames at all steps share each call of the network:
        more pictures a second, each of them later.
    similarity
        Pass over pictures that are as like the last one as
        that, 0 to 1, the more often the more they are.
    model
        A folder in diffusers' layout, a single file, or a name,
        as of safelight generate.
    lora
        An adapter's file, and after a colon its strength. Give
        it several times for several.
    vae
        Another autoencoder for the model's own, such as a tiny
        one (TAESD).
    device
        cpu, cuda, or auto: cuda where there is one.
    precision
        Of the weights and the networks. [default: bfloat16
        where the hardware multiplies it, else float32]
    engine
        What computes the networks: torch; compile, by
        torch.compile; openvino, on the CPU alone; or auto:
        openvino where it is installed and computes them.
    offline
        Fetch nothing, as with HF_HUB_OFFLINE=1.
    """
    from safelight.app.adapters import chosen_adapters
    from safelight.app.live import check_places, run_live
    from safelight.app.live_control import chosen_controls
    from safelight.app.live_sources import opened_camera, watcher
    from safelight.errors import SafelightError
    from safelight.pipelines.load import choose_device, load
    from safelight.pipelines.precisions import precision_named
    from safelight.pipelines.streaming import fastest, stream

    controls = chosen_controls(control, hint=hint)
    check_places(watch, camera, output, shown=bool(controls) or strength is not None)
    if hint and len(controls) != 1:
        raise SafelightError("--hint is of one control; give one --control KIND.")
    if hint and strength is not None:
        raise SafelightError("A hint is no picture to begin from; leave --strength or --hint out.")
    if similarity is not None and (hint or not (controls or strength is not None)):
        raise SafelightError(
            "--similarity compares pictures; give --strength or --control without --hint."
        )
    place = choose_device(device)
    filmed = None if camera is None else opened_camera(camera)
    pipeline = load(
        model,
        dtype=fastest(place) if precision == "auto" else precision_named(precision),
        device=place,
        adapters=chosen_adapters(lora, offline=offline),
        vae=vae,
        offline=offline,
    )
    opened = stream(
        pipeline,
        prompt=prompt,
        negative=negative,
        seed=seed,
        steps=steps,
        scale=scale,
        sampler=sampler,
        width=width,
        height=height,
        strength=strength,
        guidance=guidance,
        delta=delta,
        controls=controls,
        batched=batched,
        similarity=similarity,
        engine=engine,
    )
    print(f"The networks are computed by {opened.engine}.", file=sys.stderr)
    source = None if watch is None else watcher(watch)
    if filmed is not None:
        source = filmed.source(opened.settings.width, opened.settings.height)
    run_live(opened, source, output, port)
