"""`safelight generate`: prompts to picture files."""

from dataclasses import replace
from pathlib import Path
from typing import Annotated, Literal

from cyclopts import Parameter

from safelight.errors import SafelightError

Precision = Literal["float32", "bfloat16", "float16"]


def generate(
    prompt: str | None = None,
    /,
    *,
    output: Annotated[str | None, Parameter(name=("--output", "-o"))] = None,
    negative: Annotated[str, Parameter(show_default=False)] = "",
    steps: int | None = None,
    scale: float | None = None,
    sampler: str | None = None,
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
    refiner: str | None = None,
    refine_at: float | None = None,
    device: str = "auto",
    precision: Precision = "float32",
    offline: Annotated[bool, Parameter(negative=())] = False,
) -> None:
    """Make pictures from a prompt.

    Parameters
    ----------
    prompt
        What the picture should show.
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
        guidance; 1 and below are none). [default: the model's]
    sampler
        The sampler, such as euler, ddim or dpmpp_2m. [default:
        the model's]
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
        hub (owner/name@revision), fetched where it is not there.
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
        The autoencoder of the preview, as --vae; a tiny one
        (TAESD) is fastest. [default: the model's]
    image
        A picture to begin from; or to inpaint, edit or enlarge,
        where the model does that. The new one has its size.
    mask
        A picture that is white where the image is made anew,
        for an inpainting model.
    depth
        A depth map, brighter where nearer, for a depth model.
    strength
        How much of the image is made anew, above 0 and up to 1.
        [default: the model's]
    image_scale
        How strictly an editing model keeps to the image.
        [default: 1.5]
    noise_level
        Of the image that an upscaler sees: more lets it invent
        more. [default: 20]
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
    offline
        Fetch nothing, as with HF_HUB_OFFLINE=1.
    """
    from safelight.app.outputs import check_preview, plan_outputs
    from safelight.app.prompts import gather_prompts
    from safelight.pipelines.request import Request

    requests = [
        Request(
            text,
            negative,
            steps,
            scale,
            sampler,
            seed,
            width,
            height,
            count,
            strength=strength,
            image_scale=image_scale,
            noise_level=noise_level,
        )
        for text in gather_prompts(prompt, prompts)
    ]
    for request in requests:
        request.check()
    paths = plan_outputs(output, requests)
    if preview is not None:
        check_preview(preview, paths)
    elif preview_vae is not None:
        raise SafelightError("--preview-vae is the autoencoder of --preview FILE; give that too.")

    # Torch takes a second to import: only now, when the mistakes that need no model are told.
    from safelight.app.adapters import chosen_adapters, chosen_embeddings
    from safelight.app.making import make_pictures, previewed
    from safelight.pipelines.given import Given, give
    from safelight.pipelines.load import load, precision_named

    adapters = chosen_adapters(lora)
    given = Given(give("image", image), give("mask", mask), give("depth", depth))
    requests = [replace(request, given=given) for request in requests]
    pipeline = load(
        model,
        dtype=precision_named(precision),
        device=device,
        adapters=adapters,
        embeddings=chosen_embeddings(embedding),
        vae=vae,
        refiner=refiner,
        refine_at=refine_at,
        offline=offline,
    )
    shown = None if preview is None else previewed(pipeline, preview, preview_vae)
    make_pictures(pipeline, requests, paths, shown)
