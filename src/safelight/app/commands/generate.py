"""`safelight generate`: prompts to picture files."""

from pathlib import Path
from typing import Annotated, Literal

from cyclopts import Parameter

from safelight.app.condition_options import ConditionOptions
from safelight.app.control_options import ControlOptions
from safelight.app.guidance_options import GuidanceOptions, chosen_scale
from safelight.app.planning import Planned, at_once
from safelight.engine.names import Engine, Storage
from safelight.errors import SafelightError
from safelight.pipelines.choices import MaskFill, Quality, RngName, Upscaler

PLAIN = GuidanceOptions()
FREE = ControlOptions()
PROMPT_ALONE = ConditionOptions()
Precision = Literal["float32", "bfloat16", "float16"]


def planned(
    prompt: str | None = None,
    /,
    *,
    output: Annotated[str | None, Parameter(name=("--output", "-o"))] = None,
    negative: Annotated[str, Parameter(show_default=False)] = "",
    steps: int | None = None,
    scale: str | None = None,
    sampler: str | None = None,
    schedule: str | None = None,
    sigmas: str | None = None,
    seed: int = 0,
    width: int | None = None,
    height: int | None = None,
    count: int = 1,
    prompts: Path | None = None,
    model: str = "default",
    lora: Annotated[tuple[str, ...], Parameter(negative=(), show_default=False)] = (),
    embedding: Annotated[tuple[str, ...], Parameter(negative=(), show_default=False)] = (),
    vae: str | None = None,
    preview: Path | None = None,
    preview_vae: str | None = None,
    image: Path | None = None,
    mask: Path | None = None,
    depth: Path | None = None,
    strength: float | None = None,
    image_scale: float | None = None,
    noise_level: int | None = None,
    mask_blur: int | None = None,
    mask_fill: MaskFill = "original",
    outpaint: str | None = None,
    hires: float | None = None,
    hires_strength: float | None = None,
    hires_steps: int | None = None,
    hires_upscaler: Upscaler | None = None,
    tiled_decode: bool | None = None,
    tiled_diffusion: Annotated[bool, Parameter(negative=())] = False,
    tile_size: int | None = None,
    tile_overlap: int | None = None,
    tile_fade: Annotated[bool, Parameter(negative=())] = False,
    plain_prompt: Annotated[bool, Parameter(negative=())] = False,
    clip_skip: int | None = None,
    rng: RngName = "cpu",
    subseed: int = 0,
    subseed_strength: float | None = None,
    refiner: str | None = None,
    refine_at: float | None = None,
    guiding: Annotated[
        GuidanceOptions, Parameter(name="*", group="Guidance", show_default=False)
    ] = PLAIN,
    controlling: Annotated[
        ControlOptions, Parameter(name="*", group="Control", show_default=False)
    ] = FREE,
    conditioning: Annotated[
        ConditionOptions, Parameter(name="*", group="Condition", show_default=False)
    ] = PROMPT_ALONE,
    device: str = "auto",
    precision: Precision = "float32",
    storage: Storage | None = None,
    offload: Annotated[bool, Parameter(negative=())] = False,
    engine: Engine = "auto",
    quality: Quality = "exact",
    token_merging: float = 0.0,
    offline: Annotated[bool, Parameter(negative=())] = False,
    infotext: Annotated[bool, Parameter(negative=())] = False,
    watermark: Annotated[bool, Parameter(negative=())] = False,
    safety: Annotated[bool, Parameter(negative=())] = False,
) -> Planned:
    """Make pictures from a prompt.

    Parameters
    ----------
    prompt
        What the picture should show. With an image it may be
        left out.
    output
        A picture file (.png, .webp, .jpg) or a folder that
        exists. Several pictures are numbered in the order asked
        for: apple.png becomes apple-0.png, apple-1.png and so
        on. In a folder, and without this option in the current
        one, names are made of the prompt and the seed. A file
        that was there is replaced.
    negative
        What the picture should not show.
    steps
        Steps of the sampler. More take longer and are finer.
        [default: the model's]
    scale
        How strictly the prompt is followed (classifier-free
        guidance; 1 and below are none). 7,7,5,3 are for equal
        parts of the steps, 7:1 falls on a line. [default: the
        model's]
    sampler
        The sampler, such as euler, dpmpp_2m or "DPM++ 2M
        Karras". [default: the model's]
    schedule
        The noise levels it stops at: karras, exponential,
        normal, sgm_uniform, simple, beta, ays, or the model's
        times as leading, trailing or linspace. [default: the
        model's]
    sigmas
        The noise levels themselves, falling, with commas:
        14.6,7.1,2.8,0.9,0.
    seed
        Chooses the noise, as in diffusers. Picture i of several
        uses seed + i.
    width
        Pixels. [default: the model's]
    height
        Pixels. [default: the model's]
    count
        How many pictures of each prompt.
    prompts
        A text file with one prompt a line instead of PROMPT;
        empty lines and lines that begin with # are passed over.
    model
        A folder in diffusers' layout, a single file, a name
        from safelight models, or owner/name of the Hugging Face
        hub (owner/name@revision), fetched where it is not there;
        also owner/name/file.safetensors, as for --lora,
        --embedding and --vae.
    lora
        A LoRA, DoRA, LoHa or LoKr file, and after a colon its
        strength: style.safetensors:0.8. Give it several times
        for several.
    embedding
        A file of textual inversion, and after a colon its word
        in the prompt: style.pt:my-style. [default word: the
        file's own, else its name]
    vae
        Another autoencoder for the model's own: a folder in
        diffusers' layout, or a file of an autoencoder alone.
    preview
        A picture file that shows the picture to come, written
        anew after each step.
    preview_vae
        The autoencoder of the preview, as --vae, such as a tiny
        one (TAESD). [default: the model's if it is small, else
        colours]
    image
        A picture to begin from; or to inpaint, edit or enlarge,
        where the model does that. The new one has its size.
        CompVis' super-resolution enlarges it without a prompt.
    mask
        A picture that is white where the image is made anew; the
        rest of it stays as it is, to the bit.
    depth
        A depth map, brighter where nearer, for a depth model.
    strength
        How much of the image is made anew, above 0 and up to 1.
        [default: the model's]
    image_scale
        How strictly an editing model keeps to the image.
        [default: 1.5]
    noise_level
        Of the image that an upscaler sees, or of the vector
        that unCLIP sees: more lets it invent more. [default: 20
        for an upscaler, 0 for unCLIP]
    mask_blur
        Pixels over which what is made anew fades in from the
        mask's edge. [default: a 128th of the shorter side]
    mask_fill
        What is begun from under the mask: the image's own
        latents, the seed's noise, or nothing. A fill is hardly
        seen at a strength near 1, so strength is then 0.8 where
        nobody says.
    outpaint
        Pixels to be made around the image: 64 on every side, or
        left=64,right=32.
    hires
        A second pass over the picture, so many times larger.
    hires_strength
        How much the second pass makes anew. [default: 0.7]
    hires_steps
        Of the second pass. [default: those of the first]
    hires_upscaler
        What is enlarged before it. [default: latent]
    tiled_decode
        Whether the autoencoder works in tiles, which takes less
        memory. [default: where the picture is big]
    tiled_diffusion
        Let the U-Net work in windows that overlap, for pictures
        larger than it was trained for.
    tile_size
        Of these windows, in pixels. [default: as it was
        trained]
    tile_overlap
        Of these windows, in pixels. [default: half their size]
    tile_fade
        Let each count for less towards its edges, which hides
        them.
    plain_prompt
        Take prompts as they stand: brackets mean nothing, and
        what is too long for the model is cut.
    clip_skip
        The layer of the text towers that is read: 2 is the last
        but one. [default: 1, the one that the model was trained
        with]
    rng
        Where noise comes from: cpu as in diffusers, or
        a1111-gpu as of a seed of AUTOMATIC1111's on a GPU.
    subseed
        A second seed, for variations of a picture.
    subseed_strength
        How far the noise goes from the seed's to that of the
        subseed, 0 to 1. Picture i then uses subseed + i.
        [default: 0]
    refiner
        A second model that does the last steps, such as SDXL's
        refiner: a folder, a file or a name.
    refine_at
        The part of the noise schedule done before the refiner.
        [default: 0.8]
    device
        cpu, cuda, or auto: cuda where there is one.
    precision
        Of the weights and the networks.
    storage
        Hold the weights of the U-Net and the text towers in
        fewer bytes than they compute with. int8 makes slightly
        other pictures.
    offload
        Keep the networks in the CPU's memory, and those that
        work alone on the device; for GPUs with little memory.
    engine
        What computes the networks: torch; prepared, which is
        torch with convolutions packed; openvino or compile,
        which make them ready at the first use; or auto: openvino
        where they are ready and that gains time, else prepared
        for ten steps and more of models that are not large,
        else torch.
    quality
        fast and fastest give up some likeness to the exact
        picture for speed.
    token_merging
        The part of the tokens, up to 0.75, that are merged where
        the finest layers attend to themselves (ToMe), which is
        sooner done in large pictures.
    offline
        Fetch nothing, as with HF_HUB_OFFLINE=1.
    watermark
        Put a mark into the pixels that is not seen.
    safety
        Look at the picture for nudity; an unsafe one is black.
    infotext
        Write the parameters for AUTOMATIC1111's web UI too.
    """
    from safelight.app.hires import chosen_hires
    from safelight.app.job import Job, Loading
    from safelight.app.margins import margins_of
    from safelight.app.prompts import gather_prompts
    from safelight.pipelines.request import Request

    if subseed and subseed_strength is None:
        raise SafelightError(
            "--subseed does nothing by itself; say how far to go to it: --subseed-strength 0.1."
        )
    one_scale, scales = chosen_scale(scale)
    controls, conditions = controlling.controls(), conditioning.conditions()
    requests = [
        Request(
            text,
            negative,
            steps,
            one_scale,
            sampler,
            seed,
            width,
            height,
            count,
            strength=strength,
            image_scale=image_scale,
            noise_level=noise_level,
            mask_blur=mask_blur,
            mask_fill=mask_fill,
            outpaint=margins_of(outpaint),
            hires=chosen_hires(hires, hires_strength, hires_steps, hires_upscaler),
            tiled_decode=tiled_decode,
            schedule=schedule,
            sigmas=None if sigmas is None else _numbers(sigmas),
            tiled_diffusion=tiled_diffusion,
            tile_size=tile_size,
            tile_overlap=tile_overlap,
            tile_fade=tile_fade,
            prompt_syntax="plain" if plain_prompt else "a1111",
            clip_skip=clip_skip,
            rng=rng,
            subseed=subseed,
            subseed_strength=subseed_strength or 0.0,
            guidance=guiding.guidance(scales),
            controls=controls,
            conditions=conditions,
            image_prompts=conditioning.image_prompts(),
            image_prompt_scale=conditioning.image_prompt_scale,
            quality=quality,
            token_merging=token_merging,
        )
        for text in gather_prompts(prompt, prompts, needed=image is None)
    ]
    for request in requests:
        request.check()
    return Job(
        requests=requests,
        loading=Loading(
            model,
            lora,
            embedding,
            vae,
            refiner,
            refine_at,
            guiding.guide,
            conditioning.ip_adapter,
            conditioning.image_encoder,
            device,
            precision,
            offline,
            watermark,
            safety,
            engine,
            storage,
            offload,
        ),
        image=image,
        mask=mask,
        depth=depth,
        output=output,
        preview=preview,
        preview_vae=preview_vae,
        infotext=infotext,
    )


generate = at_once(planned)


def _numbers(text: str) -> tuple[float, ...]:
    try:
        return tuple(float(part) for part in text.split(","))
    except ValueError as error:
        raise SafelightError(
            f"--sigmas should be numbers with commas, such as 14.6,7.1,0; got {text!r}."
        ) from error
