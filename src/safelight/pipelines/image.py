"""Pictures from prompts."""

from collections.abc import Generator, Iterator, Sequence
from contextlib import contextmanager, nullcontext
from dataclasses import replace
from functools import cached_property
from pathlib import Path

import torch
from jaxtyping import Float
from PIL import Image
from torch import Tensor

from safelight.checkpoints.adapters import fused_networks
from safelight.checkpoints.components import Reading
from safelight.checkpoints.folder import Folder
from safelight.checkpoints.swap import with_autoencoder
from safelight.engine.names import Chosen, Engine, Storage
from safelight.models.any_autoencoder import AnyAutoencoder
from safelight.pipelines import making
from safelight.pipelines.adapting import learn, put_in, take_out
from safelight.pipelines.asking import settled
from safelight.pipelines.beginning import NOT_LED, Batch, Led, Model
from safelight.pipelines.choices import MaskFill, PromptSyntax, Quality, RngName
from safelight.pipelines.coding import there_and_back
from safelight.pipelines.companions import Guide, Refiner, check_guide, check_refiner
from safelight.pipelines.computing import Computing
from safelight.pipelines.condition_settings import Condition, ImagePrompt
from safelight.pipelines.conditions import read_condition
from safelight.pipelines.control_settings import Control
from safelight.pipelines.controls import Controls
from safelight.pipelines.finishing import AS_IT_IS
from safelight.pipelines.generated import GeneratedImage
from safelight.pipelines.given import NOTHING, Given, give
from safelight.pipelines.guidance_settings import PLAIN, Guidance
from safelight.pipelines.image_prompts import Seeing, own_seeing, read_seeing
from safelight.pipelines.kind import kind_of
from safelight.pipelines.manifest import UsedAdapter, UsedEmbedding
from safelight.pipelines.prompt_tags import with_files, without_tags
from safelight.pipelines.provenance import configuration_hashes
from safelight.pipelines.request import Hires, Margins, Request, Settings
from safelight.pipelines.sampling import (
    text_conditioner,
    upcast,
)
from safelight.pipelines.watching import Watch
from safelight.types import OnStep


class ImagePipeline:
    """A model that makes pictures from prompts; `safelight.load` gives one.

    Attributes:
        name: what it was loaded as.
        folder: its networks, text side, scheduler and defaults.
        adapters: what `adapt` has put in.
        embeddings: the words that `embed` has taught.
        kind: what it takes beside the prompt.
        refiner, guide: what `refine_by` and `guide_by` have set.
        finish: a check of each picture, and its watermark.
        computing: what puts an engine's networks into the place of torch's.
        controls: what reads the controls of requests, and keeps their networks.
        watch: what records the attention to the prompt; see `attention`.
        dtype, device: of its weights, and where they are.
        storage: in how many bytes the U-Net and the text towers hold theirs; None: as `dtype`.
        offload: whether its networks wait in the CPU's memory until they work.
    """

    def __init__(
        self,
        folder: Folder,
        name: str,
        *,
        dtype: torch.dtype,
        device: str,
        offline: bool = False,
        engine: Engine = "torch",
        storage: Storage | None = None,
        offload: bool = False,
    ):
        self.computing = Computing(engine, device, dtype)
        self.name = name
        self.folder = upcast(folder, dtype)
        self.adapters: tuple[UsedAdapter, ...] = ()
        self.embeddings: tuple[UsedEmbedding, ...] = ()
        self.refiner: Refiner | None = None
        self.guide: Guide | None = None
        self.watch: Watch | None = None
        self.finish = AS_IT_IS
        self.kind = kind_of(folder, name)
        self._text = text_conditioner(folder, self.kind)
        self._reading = Reading(dtype, device)
        self.controls = Controls(self.folder, name, self._reading, offline=offline)
        self._seeing: Seeing | None = None
        self.dtype, self.device, self.offload = dtype, device, offload
        self.storage: Storage | None = storage

    @property
    def weights(self) -> dict[str, str]:
        """Each component's SHA-256, computed at the first use."""
        return self.folder.hashes

    @cached_property
    def configuration(self) -> dict[str, str]:
        """The SHA-256 of each file that pictures depend on besides the weights."""
        return configuration_hashes(self.folder)

    @property
    def engine(self) -> Chosen:
        """What computed the U-Net in the newest picture."""
        return self.computing.used

    def adapt(self, file: str | Path, strength: float = 1.0) -> None:
        """Puts a LoRA, DoRA, LoHa or LoKr file into the model, on top of those that are there.

        Args:
            file: in the layout of kohya, diffusers or peft.
            strength: how strongly it works: 1 as it was trained, 0 not at all.

        Raises:
            SafelightError: the file is broken, made for another model, or in already.
        """
        self.adapters = (*self.adapters, put_in(self.folder, self.adapters, Path(file), strength))

    def embed(self, file: str | Path, token: str | None = None) -> str:
        """Teaches the prompt a word by a file of textual inversion, and gives the word.

        Args:
            file: in the layout of AUTOMATIC1111, diffusers, or SDXL's trainers.
            token: how the word is written in a prompt; by default as the file says, else its stem.

        Raises:
            SafelightError: the file is broken, made for other text towers, or the word is known.
        """
        inversion, used = learn(self.folder, self._text.inversions, Path(file), token)
        if self.guide is not None:
            self.guide.pipeline.embed(file, inversion.token)
        self._text = replace(self._text, inversions=(*self._text.inversions, inversion))
        self.embeddings = (*self.embeddings, used)
        return inversion.token

    def eject(self) -> None:
        """Takes every adapter out; the model is then what it was, to the bit."""
        take_out(self.folder, self.adapters)
        self.adapters = ()

    def refine_by(self, refiner: "ImagePipeline", at: float) -> None:
        """Lets a second model do the last part of the steps, as SDXL's refiner does.

        Args:
            refiner: with the same latents.
            at: the part of the noise schedule that is done before it, between 0 and 1.

        Raises:
            SafelightError: the two do not go together, or `at` is out of its range.
        """
        check_refiner(self, refiner, at)
        self.refiner = Refiner(refiner, at)

    def guide_by(self, weaker: "ImagePipeline") -> None:
        """Guides this model away from a weaker one, such as an earlier checkpoint (autoguidance).

        It reads the prompt by its own text towers, with the words that `embed` teaches from now on
        and without adapters. Raises `SafelightError` if it is of another kind.
        """
        check_guide(self, weaker)
        self.guide = Guide(weaker)

    def see_by(
        self, file: str | Path, encoder: str | Path | None = None, *, offline: bool = False
    ) -> None:
        """Takes an IP-Adapter, by which `image_prompts` speak.

        Args:
            file: in the layout of its authors; or of the hub, fetched unless `offline`.
            encoder: a folder with CLIP's image tower; by default `image_encoder` beside the file.

        Raises:
            SafelightError: one of them is missing, broken, or made for another model.
        """
        self._seeing = read_seeing(file, encoder, self.folder, self._reading, offline=offline)

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
        mask_blur: int | None = None,
        mask_fill: MaskFill = "original",
        outpaint: Margins | None = None,
        hires: Hires | None = None,
        tiled_decode: bool | None = None,
        schedule: str | None = None,
        sigmas: Sequence[float] | None = None,
        tiled_diffusion: bool = False,
        tile_size: int | None = None,
        tile_overlap: int | None = None,
        tile_fade: bool = False,
        prompt_syntax: PromptSyntax = "a1111",
        clip_skip: int | None = None,
        rng: RngName = "cpu",
        subseed: int = 0,
        subseed_strength: float = 0.0,
        guidance: Guidance = PLAIN,
        controls: Sequence[Control] = (),
        conditions: Sequence[Condition] = (),
        image_prompts: Sequence[ImagePrompt] = (),
        image_prompt_scale: float | None = None,
        quality: Quality = "exact",
        token_merging: float = 0.0,
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
            sampler: a name from `safelight.diffusion.samplers.SAMPLERS`, or another program's,
                which may end with a schedule: "DPM++ 2M Karras".
            seed: -2**63 to 2**64 - 1.
            width: pixels, a multiple of the autoencoder's factor.
            height: pixels, likewise.
            count: how many, from 1 up.
            image: a picture to begin from, to inpaint, to edit or to enlarge, as the model does;
                its size is that of the picture made where none is asked for, cut to a multiple
                of the autoencoder's factor.
            mask: white where the image is made anew; the rest stays as it is.
            depth: a map, brighter where nearer, for a depth model.
            strength: how much of the image is made anew, above 0 and up to 1.
            image_scale: of the guidance by the image, for a model that edits by instruction.
            noise_level: of the image that an upscaler sees, or of the vector that unCLIP sees; a
                time of that noise schedule.
            mask_blur: pixels over which what is made anew fades in from the mask's edge.
            mask_fill: what is begun from under the mask, in the place of the image's latents.
            outpaint: margins to be made around the image.
            hires: a second, larger pass.
            tiled_decode: whether the autoencoder decodes, and encodes a given image, in tiles that
                overlap, which takes less memory; by default where the picture is big.
            schedule: where the sampler stops: a name from `safelight.diffusion.schedules`.
            sigmas: or the noise levels themselves, falling, the last of them usually 0.
            tiled_diffusion: whether the U-Net works in windows that overlap (MultiDiffusion), for
                pictures larger than it was trained for.
            tile_size: of these windows, in pixels; by default as the U-Net was trained.
            tile_overlap: of these windows, in pixels; half their size by default.
            tile_fade: whether each counts for less towards its edges, which hides them.
            prompt_syntax: "plain" takes prompts as they stand, cut where the model ends.
            clip_skip: the layer of CLIP's towers that is read: 1 the usual one, 2 that before it.
            rng: "cpu", or "a1111-gpu" for the noise of AUTOMATIC1111's GPU seeds.
            subseed, subseed_strength: a second seed, and how far noise goes to its, 0 to 1.
            guidance: how it works beside its one scale.
            controls: pictures that steer what is made, each by a ControlNet.
            conditions: what the model has learned to be told beside the prompt.
            image_prompts: pictures that speak beside it, by an IP-Adapter.
            image_prompt_scale: of the guidance by them alone; by default the prompt's.
            quality: "fast" and "fastest" are sooner made, and others than "exact".
            token_merging: the part of the tokens, up to 0.75, that are merged where the U-Net's
                finest layers attend to themselves (ToMe).
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
            mask_blur=mask_blur,
            mask_fill=mask_fill,
            outpaint=outpaint,
            hires=hires,
            tiled_decode=tiled_decode,
            schedule=schedule,
            sigmas=None if sigmas is None else tuple(map(float, sigmas)),
            tiled_diffusion=tiled_diffusion,
            tile_size=tile_size,
            tile_overlap=tile_overlap,
            tile_fade=tile_fade,
            prompt_syntax=prompt_syntax,
            clip_skip=clip_skip,
            rng=rng,
            subseed=subseed,
            subseed_strength=subseed_strength,
            guidance=guidance,
            controls=tuple(controls),
            conditions=tuple(conditions),
            image_prompts=tuple(image_prompts),
            image_prompt_scale=image_prompt_scale,
            quality=quality,
            token_merging=token_merging,
        )
        return list(self.each(request, on_step))

    def each(self, request: Request, on_step: OnStep | None = None) -> Iterator[GeneratedImage]:
        """The pictures of a request, each as soon as it is made; errors as `generate`."""
        settings = self.settle(request)
        prompt, files = with_files(request.prompt)
        return making.pictures(self, replace(request, prompt=prompt), files, settings, on_step)

    def settle(self, request: Request) -> Settings:
        """The request's settings with the model's defaults in the gaps; errors as `generate`."""
        return settled(self, request)

    def read(self, request: Request) -> Led:
        """What a request names beside its prompt, with networks and pictures, for `sample`; errors
        as `generate`.
        """
        shown = None
        if request.image_prompts:
            if self._seeing is None:
                self._seeing = own_seeing(self.folder, self.name, self._reading)
            shown = self._seeing.read(request.image_prompts, request.image_prompt_scale)
        return Led(
            tuple(self.controls.read(control) for control in request.controls),
            tuple(read_condition(one, self.folder, self.name) for one in request.conditions),
            shown,
        )

    def sample(
        self,
        prompts: Sequence[str],
        seeds: Sequence[int],
        settings: Settings,
        *,
        negative: str = "",
        given: Given = NOTHING,
        led: Led = NOT_LED,
        on_step: OnStep | None = None,
    ) -> Float[Tensor, "b 3 h w"]:
        """Makes one picture a prompt in one batch: faster where many are wanted.

        Row i has the prompt `prompts[i]` and the noise of `seeds[i]`; it is what `generate` makes
        up to rounding, which depends on the batch (about 1e-5 on the CPU). What it is `led` by is
        the same for all rows, or joined of one for each. Gives pixels in [-1, 1]
        in float32 on the pipeline's device.
        """
        return making.pixels(self, Batch(prompts, seeds, negative, settings, given, led), on_step)

    def reconstruct(self, pixels: Float[Tensor, "b 3 h w"]) -> Float[Tensor, "b 3 h w"]:
        """Pictures in [-1, 1] through the autoencoder, there and back."""
        with torch.inference_mode(), self.model.coding():
            return there_and_back(self.folder.autoencoder, pixels.to(self.device)).cpu()

    def autoencoder_at(self, path: Path) -> AnyAutoencoder:
        """Another autoencoder for this model's latents, such as a tiny one for previews; errors as
        `with_autoencoder`.
        """
        folder = with_autoencoder(self.folder, path, dtype=self.dtype, device=self.device)
        return upcast(folder, self.dtype).autoencoder

    def unread(self, prompt: str, syntax: PromptSyntax = "plain") -> str:
        """The end of a plain prompt that is too long for the text tower to read; empty if it is
        not, and for all others, which are read in chunks; errors as `TextConditioner.unread`.
        """
        return self._text.unread(without_tags(prompt)[0]) if syntax == "plain" else ""

    @contextmanager
    def with_adapters(self) -> Generator[None]:
        """The networks with their adapters added to their weights, as fast as without any."""
        with torch.no_grad(), fused_networks(self.folder) if self.adapters else nullcontext():
            yield

    @property
    def model(self) -> Model:
        """What sampling needs of it."""
        guide = None if self.guide is None else self.guide.pipeline.model
        parts = self.folder, self.kind, self._text, self.dtype, self.device
        return Model(*parts, guide, self.watch, offload=self.offload)
