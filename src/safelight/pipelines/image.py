"""Pictures from prompts."""

import math
from collections.abc import Generator, Iterator, Mapping, Sequence
from contextlib import contextmanager, nullcontext
from dataclasses import dataclass, replace
from functools import cached_property
from pathlib import Path

import torch
from jaxtyping import Float
from PIL import Image
from torch import Tensor

from safelight.checkpoints.adapters import adapter_files, fused_networks, networks, read_adapter
from safelight.checkpoints.files import sha256_of_files
from safelight.checkpoints.folder import Folder
from safelight.checkpoints.inversions import read_inversion
from safelight.checkpoints.swap import with_autoencoder
from safelight.errors import SafelightError
from safelight.models.any_autoencoder import AnyAutoencoder, most_probable, weight_dtype
from safelight.models.classes import ClassReader
from safelight.nn.lora import eject, inject
from safelight.pipelines.generated import GeneratedImage, to_image
from safelight.pipelines.given import NOTHING, Given, give
from safelight.pipelines.kind import kind_of
from safelight.pipelines.manifest import (
    Manifest,
    UsedAdapter,
    UsedEmbedding,
    UsedPicture,
    UsedRefiner,
    pixel_digest,
)
from safelight.pipelines.prompt_tags import find_adapter, without_tags
from safelight.pipelines.provenance import configuration_hashes, library_versions, machine_of
from safelight.pipelines.request import Request, Settings
from safelight.pipelines.sampling import (
    Batch,
    Model,
    one_line_when_out_of_memory,
    sample_in_two,
    sample_latents,
    text_conditioner,
    upcast,
)
from safelight.pipelines.settling import settle
from safelight.types import OnStep

_KEY = "adapter-"  # a module's name should not begin with a digit


class ImagePipeline:
    """A model that makes pictures from prompts; `safelight.load` gives one.

    Attributes:
        name: what it was loaded as.
        folder: its networks, text side, scheduler and defaults.
        adapters: what `adapt` has put in.
        embeddings: the words that `embed` has taught.
        kind: what it takes beside the prompt.
        refiner: what `refine_by` has set.
    """

    def __init__(self, folder: Folder, name: str, *, dtype: torch.dtype, device: str):
        self.name = name
        self.folder = upcast(folder, dtype)
        self.adapters: tuple[UsedAdapter, ...] = ()
        self.embeddings: tuple[UsedEmbedding, ...] = ()
        self.refiner: Refiner | None = None
        self.kind = kind_of(folder, name)
        self._text = text_conditioner(folder, self.kind)
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
        """Puts a LoRA, DoRA, LoHa or LoKr file into the model, on top of those that are there.

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
        used = UsedAdapter(str(path.absolute()), sha256_of_files(adapter_files(path)), strength)
        if any(used.sha256 == other.sha256 for other in self.adapters):
            raise SafelightError(f"{path} is in the model already; eject it first.")
        for network, module in networks(self.folder).items():
            inject(module, _KEY + used.sha256, adapter.deltas.get(network, {}), strength)
        self.adapters = (*self.adapters, used)

    def embed(self, file: str | Path, token: str | None = None) -> str:
        """Teaches the prompt a word by a file of textual inversion, and gives the word.

        Args:
            file: in the layout of AUTOMATIC1111, diffusers, or SDXL's trainers.
            token: how the word is written in a prompt; by default as the file says, else its stem.

        Raises:
            SafelightError: the file is broken, made for other text towers, or the word is known.
        """
        path = Path(file)
        inversion = read_inversion(path, self.folder, token)
        if any(other.token.lower() == inversion.token.lower() for other in self._text.inversions):
            raise SafelightError(f"The word {inversion.token!r} is known already; give another.")
        self._text = replace(self._text, inversions=(*self._text.inversions, inversion))
        used = UsedEmbedding(str(path.absolute()), sha256_of_files([path]), inversion.token)
        self.embeddings = (*self.embeddings, used)
        return inversion.token

    def eject(self) -> None:
        """Takes every adapter out; the model is then what it was, to the bit."""
        for module in networks(self.folder).values():
            eject(module)
        self.adapters = ()

    def refine_by(self, refiner: "ImagePipeline", at: float) -> None:
        """Lets a second model do the last part of the steps, as SDXL's refiner does.

        Args:
            refiner: with the same latents.
            at: the part of the noise schedule that is done before it, between 0 and 1.

        Raises:
            SafelightError: the two do not go together, or `at` is out of its range.
        """
        channels = self.folder.unet.config.out_channels
        theirs = refiner.folder.unet.config
        if not 0 < at < 1:
            raise SafelightError(f"refine_at should lie between 0 and 1, got {at}.")
        if theirs.out_channels != channels or theirs.in_channels != channels:
            raise SafelightError(
                f"{refiner.name} takes {theirs.in_channels} latent channels, {self.name} makes "
                f"{channels}; a refiner goes on from the same latents."
            )
        self.refiner = Refiner(refiner, at)

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
        image: str | Path | Image.Image | None = None,
        mask: str | Path | Image.Image | None = None,
        depth: str | Path | Image.Image | None = None,
        strength: float | None = None,
        image_scale: float | None = None,
        noise_level: int | None = None,
        on_step: OnStep | None = None,
    ) -> list[GeneratedImage]:
        """Makes `count` pictures of a prompt.

        What is None is the model's own choice. Picture i starts from the noise of `seed + i`, drawn
        as diffusers does with `torch.Generator().manual_seed(seed + i)`. Pictures are made one at a
        time, because a batch changes the last digits: each is the same bits as if it were made
        alone.

        Args:
            prompt: what the picture should show; `<lora:name:0.8>` in it puts an adapter in for
                these pictures, from the folders that SAFELIGHT_LORAS lists.
            negative: what it should not show.
            steps: of the sampler, from 1 up.
            scale: of classifier-free guidance; 1 and below are none, as in diffusers. A latent
                consistency model is told it instead.
            sampler: a name from `safelight.diffusion.samplers.SAMPLERS`.
            seed: -2**63 to 2**64 - 1.
            width: pixels, a multiple of the autoencoder's factor.
            height: pixels, likewise.
            count: how many, from 1 up.
            image: a picture to begin from, to inpaint, to edit or to enlarge, as the model does;
                its size is that of the picture made where none is asked for, cut to a multiple
                of the autoencoder's factor.
            mask: white where the image is made anew, for an inpainting model.
            depth: a map, brighter where nearer, for a depth model.
            strength: how much of the image is made anew, above 0 and up to 1.
            image_scale: of the guidance by the image, for a model that edits by instruction.
            noise_level: of the image that an upscaler sees, a time of its noise schedule.
            on_step: called after each step of each picture.

        Raises:
            SafelightError: one of these is out of its range, or memory does not suffice.
        """
        given = Given(give("image", image), give("mask", mask), give("depth", depth))
        request = Request(
            prompt,
            negative,
            steps,
            scale,
            sampler,
            seed,
            width,
            height,
            count,
            given,
            strength,
            image_scale,
            noise_level,
        )
        return list(self.each(request, on_step))

    def each(self, request: Request, on_step: OnStep | None = None) -> Iterator[GeneratedImage]:
        """The pictures of a request, each as soon as it is made; errors as `generate`."""
        settings = self.settle(request)
        prompt, files = self._named(request.prompt)
        return self._each(replace(request, prompt=prompt), files, settings, on_step)

    def settle(self, request: Request) -> Settings:
        """The request's settings with the model's defaults in the gaps; errors as `generate`."""
        self._named(request.prompt)  # names that are wrong are told before anything is made
        return settle(request, self.folder, self.kind, self.name, refined=self.refiner is not None)

    def sample(
        self,
        prompts: Sequence[str],
        seeds: Sequence[int],
        settings: Settings,
        *,
        negative: str = "",
        given: Given = NOTHING,
        on_step: OnStep | None = None,
    ) -> Float[Tensor, "b 3 h w"]:
        """Makes one picture a prompt in one batch: faster where many are wanted.

        Row i has the prompt `prompts[i]` and the noise of `seeds[i]`; it is what `generate` makes
        up to rounding, which depends on the batch (about 1e-5 on the CPU). Gives pixels in [-1, 1]
        in float32 on the pipeline's device.
        """
        batch = Batch(prompts, seeds, negative, settings, given)
        model, second = self._model, self.refiner
        with one_line_when_out_of_memory(settings), self._with_adapters(), torch.inference_mode():
            if second is None:
                z = sample_latents(model, batch, on_step)
            else:
                z = sample_in_two(model, second.pipeline._model, second.at, batch, on_step)
            autoencoder = self.folder.autoencoder
            z = autoencoder.unscale(z).to(weight_dtype(autoencoder))
            pixels = autoencoder.decode(z).float()
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
            z = most_probable(autoencoder, pixels.to(self._device, weight_dtype(autoencoder)))
            return autoencoder.decode(z).float().clamp(-1, 1).cpu()

    def autoencoder_at(self, path: Path) -> AnyAutoencoder:
        """Another autoencoder for this model's latents, such as a tiny one for previews; errors as
        `with_autoencoder`.
        """
        folder = with_autoencoder(self.folder, path, dtype=self._dtype, device=self._device)
        return upcast(folder, self._dtype).autoencoder

    def unread(self, prompt: str) -> str:
        """The end of a prompt that is too long for the text tower to read; empty if it is not.

        Raises `SafelightError` for a prompt that a model of classes does not know.
        """
        prompt, _ = without_tags(prompt)
        tokenizer = self._text.tokenizers[0]
        if isinstance(tokenizer, ClassReader):
            tokenizer.encode([prompt])  # which raises for a prompt that is no class
            return ""
        encoding = tokenizer.tokenizer.encode(prompt)
        if len(encoding.ids) <= tokenizer.length:
            return ""
        start, _ = encoding.offsets[tokenizer.length - 1]
        return prompt[start:].strip()

    def _named(self, prompt: str) -> tuple[str, dict[Path, float]]:
        """The prompt without the adapters that it names, and their files with their strengths."""
        text, strengths = without_tags(prompt)
        return text, {find_adapter(name): strength for name, strength in strengths.items()}

    def _each(
        self,
        request: Request,
        files: Mapping[Path, float],
        settings: Settings,
        on_step: OnStep | None,
    ) -> Iterator[GeneratedImage]:
        """The pictures of a request, with adapters for these pictures only."""
        before = self.adapters
        try:
            for file, strength in files.items():
                self.adapt(file, strength)
            for place in range(request.count):
                yield self._make(request, place, settings, on_step)
        finally:
            for used in self.adapters[len(before) :]:
                for module in networks(self.folder).values():
                    eject(module, _KEY + used.sha256)
            self.adapters = before

    @contextmanager
    def _with_adapters(self) -> Generator[None]:
        """The networks with their adapters added to their weights, as fast as without any."""
        with torch.no_grad(), fused_networks(self.folder) if self.adapters else nullcontext():
            yield

    @property
    def _model(self) -> Model:
        return Model(self.folder, self.kind, self._text, self._dtype, self._device)

    def _make(
        self, request: Request, place: int, settings: Settings, on_step: OnStep | None
    ) -> GeneratedImage:
        seed = request.seed + place
        pixels = self.sample(
            [request.prompt],
            [seed],
            settings,
            negative=request.negative,
            given=request.given,
            on_step=on_step,
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
            machine=machine_of(self._device),
            threads=torch.get_num_threads(),
            pixels=pixel_digest(image),
            place=place,
            count=request.count,
            versions=library_versions(),
            configuration=dict(self.configuration),
            adapters=self.adapters,
            embeddings=self.embeddings,
            given={
                part: UsedPicture(picture.file, picture.sha256)
                for part, picture in request.given.parts.items()
            },
            strength=settings.strength,
            image_scale=settings.image_scale,
            noise_level=settings.noise_level,
            refiner=None if self.refiner is None else self.refiner.used,
            vae=str(self.folder.swapped or ""),
        )
        return GeneratedImage(image, manifest)


@dataclass(frozen=True)
class Refiner:
    """A second model, and the part of the noise schedule that is done before it."""

    pipeline: ImagePipeline
    at: float

    @property
    def used(self) -> UsedRefiner:
        """What a manifest says of it."""
        pipeline = self.pipeline
        return UsedRefiner(
            pipeline.name, self.at, dict(pipeline.weights), dict(pipeline.configuration)
        )
