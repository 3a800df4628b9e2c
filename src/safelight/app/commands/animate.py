"""`safelight animate`: clips of pictures and prompts."""

from pathlib import Path
from typing import Annotated, Literal

from cyclopts import Parameter

from safelight.engine.names import Storage
from safelight.errors import SafelightError

Precision = Literal["float32", "bfloat16", "float16"]


def animate(
    image: Path | None = None,
    /,
    *,
    output: Annotated[Path | None, Parameter(name=("--output", "-o"))] = None,
    prompt: str = "",
    negative: Annotated[str, Parameter(show_default=False)] = "",
    model: str = "default",
    motion_module: str | None = None,
    lora: Annotated[tuple[str, ...], Parameter(negative=(), show_default=False)] = (),
    last: Path | None = None,
    loop: Annotated[bool, Parameter(negative=())] = False,
    frames: int | None = None,
    fps: float | None = None,
    motion: float | None = None,
    augmentation: float | None = None,
    steps: int | None = None,
    scale: float | None = None,
    first_scale: float | None = None,
    sampler: str | None = None,
    seed: int = 0,
    width: int | None = None,
    height: int | None = None,
    window: int | None = None,
    overlap: int | None = None,
    decode: int | None = None,
    low_memory: Annotated[bool, Parameter(negative=())] = False,
    offload: Annotated[bool, Parameter(negative=())] = False,
    plain_prompt: Annotated[bool, Parameter(negative=())] = False,
    device: str = "auto",
    precision: Precision = "float32",
    storage: Storage | None = None,
    offline: Annotated[bool, Parameter(negative=())] = False,
) -> None:
    """Make a clip of a picture, of a prompt, or of both.

    Parameters
    ----------
    image
        The first frame. Its middle is cut out in the
        proportions of the clip.
    output
        A file (.mp4, .webp, .gif), or a name without suffix for
        a folder of frames. [default: named by the picture or
        the prompt, .mp4, or .webp without PyAV]
    prompt
        What the clip should show, for a model that is told it.
    negative
        What it should not show.
    model
        A model of clips, such as Stable Video Diffusion: a
        folder in diffusers' layout, a single file, or a name,
        as for safelight generate. With --motion-module a model
        of pictures. The default is the bundled one.
    motion_module
        A motion module of AnimateDiff: a folder, a file, or a
        name on the Hugging Face hub.
    lora
        A LoRA or its kin for that model of pictures, and after a
        colon its strength.
    last
        The last frame, for a model that is told both.
    loop
        Let the first frame follow the last.
    frames
        How many. More than the model knows at a time are made
        in windows that overlap. [default: the model's]
    fps
        Frames a second. [default: the model's, else 7 for
        Stable Video Diffusion and 8 for others]
    motion
        How much moves, from 0 to 255, for a model that is told
        it. [default: the model's, else 127]
    augmentation
        Noise on the picture that Stable Video Diffusion sees:
        more lets the clip stray further from it. [default:
        0.02]
    steps
        Steps of the sampler. [default: the model's, else 25]
    scale
        How strictly the picture and the prompt are followed in
        the last frame. [default: the model's]
    first_scale
        The same in the first frame; those between lie on a
        line. [default: 1 for Stable Video Diffusion, else
        --scale]
    sampler
        As for safelight generate. [default: the model's]
    seed
        Chooses the noise, as in diffusers.
    width
        Pixels. [default: the model's]
    height
        Pixels. [default: the model's]
    window
        How many frames the model sees at a time. [default: as
        it was trained]
    overlap
        Of these windows, in frames. [default: a quarter]
    decode
        How many frames are decoded at a time. [default: as many
        as one big picture takes memory for]
    low_memory
        Let the U-Net take one side of guidance after the other,
        and few frames at a time.
    offload
        Keep each network in the CPU's memory until it works.
    plain_prompt
        Take prompts as they stand.
    device
        cpu, cuda, or auto: cuda where there is one.
    precision
        Of the weights and the networks.
    storage
        Hold the weights of the U-Net and the towers in fewer
        bytes than they compute with. int8 makes slightly other
        clips.
    offline
        Fetch nothing, as with HF_HUB_OFFLINE=1.
    """
    if image is None and not prompt:
        raise SafelightError("There is nothing to animate; give a picture, or --prompt TEXT.")
    from safelight.app.animating import animated, clip_target

    target = clip_target(output, image, prompt)
    from safelight.pipelines.clip_request import ClipRequest
    from safelight.pipelines.given import give

    request = ClipRequest(
        image=give("image", image),
        last=give("image", last),
        prompt=prompt,
        negative=negative,
        frames=frames,
        fps=fps,
        motion=motion,
        augmentation=augmentation,
        loop=loop,
        steps=steps,
        scale=scale,
        first_scale=first_scale,
        sampler=sampler,
        seed=seed,
        width=width,
        height=height,
        window=window,
        overlap=overlap,
        decode=decode,
        low_memory=low_memory,
        prompt_syntax="plain" if plain_prompt else "a1111",
    )
    request.check()
    clip = animated(
        request,
        model=model,
        motion_module=motion_module,
        lora=lora,
        precision=precision,
        storage=storage,
        device=device,
        offload=offload,
        offline=offline,
    )
    clip.save(target)
    print(target)
