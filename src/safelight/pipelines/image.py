"""Pictures from prompts."""

import math
import platform
from collections.abc import Generator, Iterator, Sequence
from contextlib import ExitStack, contextmanager
from functools import cached_property
from pathlib import Path
from typing import TypeVar

import torch
from jaxtyping import Float
from torch import Tensor

from safelight.checkpoints.adapters import networks, read_adapter
from safelight.checkpoints.files import sha256_of_files
from safelight.checkpoints.folder import Folder
from safelight.checkpoints.swap import with_autoencoder
from safelight.conditioners.numbers import with_numbers
from safelight.conditioners.text import TextConditioner
from safelight.diffusion.denoiser import Denoiser
from safelight.diffusion.guidance import cfg
from safelight.diffusion.samplers import sampler_name
from safelight.errors import SafelightError
from safelight.models.any_autoencoder import AnyAutoencoder
from safelight.models.classes import ClassReader
from safelight.nn.lora import eject, fused, inject
from safelight.pipelines.generated import GeneratedImage, to_image
from safelight.pipelines.manifest import Manifest, UsedAdapter, pixel_digest
from safelight.pipelines.provenance import configuration_hashes, library_versions
from safelight.pipelines.request import Request, Settings, check_multiple
from safelight.rng import SeededNoise
from safelight.types import Conditioning, OnStep

T = TypeVar("T")

_KEY = "adapter-"  # a module's name should not begin with a digit


class ImagePipeline:
    """A model that makes pictures from prompts; `safelight.load` gives one.

    Attributes:
        name: what it was loaded as.
        folder: its networks, text side, scheduler and defaults.
        adapters: what `adapt` has put in.
    """

    def __init__(self, folder: Folder, name: str, *, dtype: torch.dtype, device: str):
        self.name = name
        self.folder = folder
        self.adapters: tuple[UsedAdapter, ...] = ()
        self._text = _text_conditioner(folder, name)
        self._dtype = dtype
        self._device = device

    @property
    def weights(self) -> dict[str, str]:
        """Each component's SHA-256, computed at the first use."""
        return self.folder.hashes

    @cached_property
    def configuration(self) -> dict[str, str]:
        """The SHA-256 of each file that pictures depend on besides the weights."""
        return configuration_hashes(self.folder)

    def adapt(self, file: str | Path, strength: float = 1.0) -> None:
        """Puts a LoRA, LoHa or LoKr file into the model; several add up.

        Args:
            file: in the layout of kohya, diffusers or peft.
            strength: how strongly it works: 1 as it was trained, 0 not at all.

        Raises:
            SafelightError: the file is broken, made for another model, or in already.
        """
        path = Path(file)
        if not math.isfinite(strength):
            raise SafelightError(f"An adapter's strength should be a finite number: {strength}.")
        adapter = read_adapter(path, self.folder)
        used = UsedAdapter(str(path.absolute()), sha256_of_files([path]), strength)
        if any(used.sha256 == other.sha256 for other in self.adapters):
            raise SafelightError(f"{path} is in the model already; eject it first.")
        for network, module in networks(self.folder).items():
            inject(module, _KEY + used.sha256, adapter.deltas.get(network, {}), strength)
        self.adapters = (*self.adapters, used)

    def eject(self) -> None:
        """Takes every adapter out; the model is then what it was, to the bit."""
        for module in networks(self.folder).values():
            eject(module)
        self.adapters = ()

    def generate(
        self,
        prompt: str,
        *,
        negative: str = "",
        steps: int | None = None,
        scale: float | None = None,
        sampler: str | None = None,
        seed: int = 0,
        width: int | None = None,
        height: int | None = None,
        count: int = 1,
        on_step: OnStep | None = None,
    ) -> list[GeneratedImage]:
        """Makes `count` pictures of a prompt.

        What is None is the model's own choice. Picture i starts from the noise of `seed + i`, drawn
        as diffusers does with `torch.Generator().manual_seed(seed + i)`. Pictures are made one at a
        time, because a batch changes the last digits: each is the same bits as if it were made
        alone.

        Args:
            prompt: what the picture should show.
            negative: what it should not show.
            steps: of the sampler, from 1 up.
            scale: of classifier-free guidance, from 0 up; 1 is none.
            sampler: a name from `safelight.diffusion.samplers.SAMPLERS`.
            seed: -2**63 to 2**64 - 1.
            width: pixels, a multiple of the autoencoder's factor.
            height: pixels, likewise.
            count: how many, from 1 up.
            on_step: called after each step of each picture.

        Raises:
            SafelightError: one of these is out of its range, or memory does not suffice.
        """
        request = Request(prompt, negative, steps, scale, sampler, seed, width, height, count)
        return list(self.each(request, on_step))

    def each(self, request: Request, on_step: OnStep | None = None) -> Iterator[GeneratedImage]:
        """The pictures of a request, each as soon as it is made; errors as `generate`."""
        settings = self.settle(request)
        return (self._make(request, place, settings, on_step) for place in range(request.count))

    def settle(self, request: Request) -> Settings:
        """The request's settings with the model's defaults in the gaps; errors as `generate`."""
        request.check()
        defaults, unet = self.folder.defaults, self.folder.unet.config
        factor = self.folder.autoencoder.factor
        trained = (unet.sample_size or 64) * factor
        settings = Settings(
            steps=_first(request.steps, defaults.steps, 50),
            scale=_first(request.scale, defaults.scale, 7.5 if unet.added_dim is None else 5.0),
            sampler=sampler_name(
                request.sampler or defaults.sampler or self.folder.scheduler.sampler
            ),
            width=_first(request.width, defaults.width, trained),
            height=_first(request.height, defaults.height, trained),
        )
        check_multiple("width", settings.width, factor)
        check_multiple("height", settings.height, factor)
        self.folder.scheduler.with_sampler(settings.sampler).sigmas(settings.steps)
        return settings

    def sample(
        self,
        prompts: Sequence[str],
        seeds: Sequence[int],
        settings: Settings,
        *,
        negative: str = "",
        on_step: OnStep | None = None,
    ) -> Float[Tensor, "b 3 h w"]:
        """Makes one picture a prompt in one batch: faster where many are wanted.

        Row i has the prompt `prompts[i]` and the noise of `seeds[i]`; it is what `generate` makes
        up to rounding, which depends on the batch (about 1e-5 on the CPU). Gives pixels in [-1, 1]
        in float32 on the pipeline's device.
        """
        folder = self.folder
        scheduler = folder.scheduler.with_sampler(settings.sampler)
        factor, channels = folder.autoencoder.factor, folder.unet.config.out_channels
        shape = (len(seeds), channels, settings.height // factor, settings.width // factor)
        denoiser = Denoiser(
            folder.unet,
            scheduler.parameterization(),
            scheduler.schedule(),
            None if self._dtype == torch.float32 else self._dtype,
        )
        noise = SeededNoise(seeds, self._device)
        sigmas = scheduler.sigmas(settings.steps)
        with _one_line_when_out_of_memory(settings), self._with_adapters(), torch.inference_mode():
            cond, uncond = self._conditioning(prompts, negative, settings)
            z = scheduler.solver(settings.steps)(
                cfg(denoiser, cond, uncond, settings.scale),
                noise(shape, 0) * scheduler.initial_scale(sigmas),
                sigmas,
                noise=noise,
                on_step=on_step,
            )
            z = z * scheduler.final_scale(sigmas)
            autoencoder = folder.autoencoder
            pixels = autoencoder.decode(autoencoder.unscale(z).to(self._dtype)).float()
        if not pixels.isfinite().all():
            raise SafelightError(
                f"The picture came out as not-a-number: {self.name} needs more precision than "
                f"{self._dtype}; take float32."
            )
        return pixels.clamp(-1, 1)

    def reconstruct(self, pixels: Float[Tensor, "b 3 h w"]) -> Float[Tensor, "b 3 h w"]:
        """Pictures in [-1, 1] through the autoencoder, there and back."""
        autoencoder = self.folder.autoencoder
        with torch.inference_mode():
            encoded = autoencoder.encode(pixels.to(self._device, self._dtype))
            z = encoded if isinstance(encoded, Tensor) else encoded.mode()
            return autoencoder.decode(z).float().clamp(-1, 1).cpu()

    def autoencoder_at(self, path: Path) -> AnyAutoencoder:
        """Another autoencoder for this model's latents, such as a tiny one for previews; errors as
        `with_autoencoder`.
        """
        folder = with_autoencoder(self.folder, path, dtype=self._dtype, device=self._device)
        return folder.autoencoder

    def unread(self, prompt: str) -> str:
        """The end of a prompt that is too long for the text tower to read; empty if it is not.

        Raises `SafelightError` for a prompt that a model of classes does not know.
        """
        tokenizer = self._text.tokenizers[0]
        if isinstance(tokenizer, ClassReader):
            tokenizer.encode([prompt])  # which raises for a prompt that is no class
            return ""
        encoding = tokenizer.tokenizer.encode(prompt)
        if len(encoding.ids) <= tokenizer.length:
            return ""
        start, _ = encoding.offsets[tokenizer.length - 1]
        return prompt[start:].strip()

    @contextmanager
    def _with_adapters(self) -> Generator[None]:
        """The networks with their adapters added to their weights, as fast as without any."""
        with torch.no_grad(), ExitStack() as stack:
            for module in networks(self.folder).values() if self.adapters else ():
                stack.enter_context(fused(module))
            yield

    def _conditioning(
        self, prompts: Sequence[str], negative: str, settings: Settings
    ) -> tuple[Conditioning, Conditioning]:
        """What the prompts ask for, and what guidance steers away from."""
        count, unet = len(prompts), self.folder.unet.config
        cond = self._text(prompts)
        uncond = self._text([negative] * count) if negative else self._text.null(count)
        if unet.added_time_dim is None:
            return cond, uncond
        size = [settings.height, settings.width]  # as of a whole picture of this size
        numbers = torch.tensor([[*size, 0, 0, *size]] * count).float().to(self._device)
        return with_numbers(cond, numbers, unet), with_numbers(uncond, numbers, unet)

    def _make(
        self, request: Request, place: int, settings: Settings, on_step: OnStep | None
    ) -> GeneratedImage:
        seed = request.seed + place
        pixels = self.sample(
            [request.prompt], [seed], settings, negative=request.negative, on_step=on_step
        )
        image = to_image(pixels[0])
        manifest = Manifest(
            prompt=request.prompt,
            negative=request.negative,
            seed=seed,
            steps=settings.steps,
            scale=settings.scale,
            sampler=settings.sampler,
            width=settings.width,
            height=settings.height,
            model=self.name,
            weights=dict(self.weights),
            precision=str(self._dtype).removeprefix("torch."),
            device=self._device,
            machine=_machine(self._device),
            threads=torch.get_num_threads(),
            pixels=pixel_digest(image),
            place=place,
            count=request.count,
            versions=library_versions(),
            configuration=dict(self.configuration),
            adapters=self.adapters,
            vae=str(self.folder.swapped or ""),
        )
        return GeneratedImage(image, manifest)


def _text_conditioner(folder: Folder, name: str) -> TextConditioner:
    """The text side of a model whose U-Net takes text and, as SDXL's base does, sizes."""
    unet, towers = folder.unet.config, folder.text_towers
    sizes = 6 * (unet.added_time_dim or 0)
    xl = len(towers) == 2 and unet.added_dim == (towers[-1].config.projection_dim or 0) + sizes
    takes_more = [
        what
        for what, there in (
            ("channels beside the latent", unet.in_channels != unet.out_channels),
            ("classes", unet.class_dim is not None),
            ("other numbers", unet.added_dim is not None and not xl),
            ("the guidance scale", unet.guidance_dim is not None),
        )
        if there
    ]
    if takes_more:
        raise SafelightError(
            f"{name} is a {folder.pipeline_class}, whose U-Net also takes "
            f"{' and '.join(takes_more)}; pictures are made by models that take text alone, or "
            "text and sizes as SDXL's base does."
        )
    zero_null = folder.settings.get("force_zeros_for_empty_prompt", True) is True
    return TextConditioner(folder.tokenizers, towers, pooled=xl, zero_null=xl and zero_null)


@contextmanager
def _one_line_when_out_of_memory(settings: Settings) -> Generator[None]:
    try:
        yield
    except RuntimeError as error:
        if isinstance(error, torch.OutOfMemoryError) or "can't allocate memory" in str(error):
            raise SafelightError(
                f"Not enough memory for {settings.width} x {settings.height} pixels; ask for a "
                "smaller picture, or for --precision bfloat16."
            ) from error
        raise


def _machine(device: str) -> str:
    """The processor that does the arithmetic, as precisely as its rounding depends on it."""
    if device.startswith("cuda"):
        return torch.cuda.get_device_name(device)
    return f"{platform.machine()} {torch.backends.cpu.get_cpu_capability()}"


def _first(*values: T | None) -> T:
    """The first of the values that is not None; the last must not be."""
    return next(value for value in values if value is not None)
