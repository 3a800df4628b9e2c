"""Clips from pictures and prompts."""

from collections.abc import Callable, Generator, Sequence
from contextlib import AbstractContextManager, contextmanager
from dataclasses import dataclass, replace
from functools import cached_property
from pathlib import Path

import torch
from jaxtyping import Float
from PIL import Image
from torch import Tensor, nn

from safelight.checkpoints.folder import Folder
from safelight.conditioners.text import TextConditioner
from safelight.engine.names import Storage
from safelight.errors import SafelightError
from safelight.models.video import any_known
from safelight.pipelines.choices import PromptSyntax
from safelight.pipelines.clip_conditions import sides_of, told_frames
from safelight.pipelines.clip_files import write_clip
from safelight.pipelines.clip_kind import clip_kind, closes, settle_clip
from safelight.pipelines.clip_manifest import ClipManifest, UsedMotion, frames_digest
from safelight.pipelines.clip_request import ClipRequest, ClipSettings
from safelight.pipelines.clip_sampling import Steps, sampled_clip
from safelight.pipelines.coding import check_finite, finished
from safelight.pipelines.generated import to_image
from safelight.pipelines.given import GivenPicture, give
from safelight.pipelines.manifest import UsedAdapter, UsedPicture
from safelight.pipelines.offloading import at_work
from safelight.pipelines.provenance import configuration_hashes, library_versions, machine_of
from safelight.pipelines.saying import sayings
from safelight.rng import SeededNoise, of_clip

OnFrames = Callable[[int, int], None]
"""Called with how many frames are done and how many there are in all: each counts once for each
step of the sampler and once more when it is decoded.
"""


@dataclass(frozen=True)
class GeneratedClip:
    """A clip and what made it."""

    frames: tuple[Image.Image, ...]
    fps: float  # frames a second
    manifest: ClipManifest

    def save(self, path: str | Path) -> None:
        """Writes the clip with its manifest: `.mp4`, `.webp` (exactly) or `.gif`, or a folder of
        frames; errors as `write_clip`.
        """
        write_clip(Path(path), self.frames, self.fps, self.manifest)


class VideoPipeline:
    """A model that makes clips; `safelight.load_video` gives one.

    Attributes:
        name: what it was loaded as.
        folder: its networks, text side, scheduler and defaults.
        kind: what it takes.
        dtype, device: of its weights, and where they work.
        offload: whether they wait in the CPU's memory while others work.
        storage: in how many bytes the U-Net and the towers hold theirs; None: as `dtype`.
    """

    def __init__(
        self,
        folder: Folder,
        name: str,
        *,
        dtype: torch.dtype,
        device: str,
        offload: bool = False,
        storage: Storage | None = None,
        motion: UsedMotion | None = None,
        adapters: Sequence[UsedAdapter] = (),
    ):
        self.name, self.folder = name, folder
        self.kind = clip_kind(folder, name)
        self.dtype, self.device, self.offload = dtype, device, offload
        self.storage: Storage | None = storage
        self.motion = motion
        self.adapters = tuple(adapters)
        self._text = TextConditioner(folder.tokenizers, folder.text_towers)

    @property
    def weights(self) -> dict[str, str]:
        """Each component's SHA-256, computed at the first use."""
        return self.folder.hashes

    @cached_property
    def configuration(self) -> dict[str, str]:
        """The SHA-256 of each file that clips depend on besides the weights."""
        return configuration_hashes(self.folder)

    def animate(
        self,
        image: str | Path | Image.Image | None = None,
        *,
        last: str | Path | Image.Image | None = None,
        prompt: str = "",
        negative: str = "",
        frames: int | None = None,
        fps: float | None = None,
        motion: float | None = None,
        augmentation: float | None = None,
        loop: bool = False,
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
        low_memory: bool = False,
        prompt_syntax: PromptSyntax = "a1111",
        on_frames: OnFrames | None = None,
    ) -> GeneratedClip:
        """Makes a clip of a picture, a prompt or both, as the model takes them.

        What is None is the model's own choice. Noise is drawn as diffusers does with
        `torch.Generator().manual_seed(seed)`.

        Args:
            image: the first frame; its middle is cut out in the proportions of the clip.
            last: the last frame, for a model that is told both.
            prompt: what the clip should show.
            negative: what it should not show.
            frames: how many, from 1 up; more than the model knows at a time are made in windows
                that overlap.
            fps: frames a second, which a model may be told.
            motion: how much moves, a bucket from 0 up to 255, for a model that is told it.
            augmentation: the spread of the noise on the picture, for one that is told it; more
                lets the clip stray further from it.
            loop: whether the first frame is to follow the last: a model that is told frames is
                told the first there, others go round in windows.
            steps: of the sampler.
            scale: of classifier-free guidance for the last frame; 1 and below are none.
            first_scale: the same for the first; those between lie on a straight line.
            sampler: a name from `safelight.diffusion.samplers.SAMPLERS`.
            seed: -2**63 to 2**64 - 1.
            width, height: pixels, multiples of the autoencoder's factor.
            window: how many frames the model sees at a time; by default as it was trained.
            overlap: of neighbouring windows, in frames; by default a quarter.
            decode: how many frames are decoded at a time; by default as many as one big picture
                takes memory for. A decoder that looks along the frames sees no others.
            low_memory: whether the U-Net takes one side of guidance after the other, and two frames
                at a time in its layers of pictures.
            prompt_syntax: "plain" takes prompts as they stand.
            on_frames: is told how far it is.

        Raises:
            SafelightError: one of these is out of its range or nothing for this model, or memory
                does not suffice.
        """
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
            prompt_syntax=prompt_syntax,
        )
        return self.make(request, on_frames)

    def settle(self, request: ClipRequest) -> ClipSettings:
        """The request's settings with the model's defaults in the gaps; errors as `animate`."""
        return settle_clip(request, self.folder, self.kind, self.name)

    def make(self, request: ClipRequest, on_frames: OnFrames | None = None) -> GeneratedClip:
        """The clip of a request; errors as `animate`."""
        settings = self.settle(request)
        with _one_line_when_out_of_memory(settings), torch.inference_mode():
            frames = self._frames(request, settings, on_frames)
        manifest = ClipManifest(
            prompt=request.prompt,
            negative=request.negative,
            seed=request.seed,
            settings=settings,
            model=self.name,
            weights=dict(self.weights),
            precision=str(self.dtype).removeprefix("torch."),
            device=self.device,
            storage=self.storage,
            machine=machine_of(self.device),
            threads=torch.get_num_threads(),
            pixels=frames_digest(frames),
            image=_used(request.image),
            last=_used(request.last),
            motion_module=self.motion,
            adapters=self.adapters,
            versions=library_versions(),
            configuration=dict(self.configuration),
        )
        return GeneratedClip(tuple(frames), settings.fps, manifest)

    def _frames(
        self, request: ClipRequest, settings: ClipSettings, on_frames: OnFrames | None
    ) -> list[Image.Image]:
        closed = closes(request, self.kind)
        if closed:  # the first frame is known once more behind the last, and left out there
            request = replace(request, last=request.image, loop=False)
            settings = replace(settings, frames=settings.frames + 1, loop=False)
        total = settings.frames * (settings.steps + 1)

        def report(done: int) -> None:
            if on_frames is not None:
                on_frames(done, total)

        z = self._latents(request, settings, report)
        frames: list[Image.Image] = []
        with self._at_work(self.folder.autoencoder):
            for first in range(0, len(z), settings.decode):
                pixels = finished(self.folder.autoencoder, z[first : first + settings.decode])
                frames += [to_image(frame) for frame in pixels]
                report(settings.frames * settings.steps + len(frames))
        return frames[:-1] if closed else frames

    def _latents(
        self, request: ClipRequest, settings: ClipSettings, report: Callable[[int], None]
    ) -> Float[Tensor, "f c h w"]:
        """Scaled latents of the frames."""
        folder, kind = self.folder, self.kind
        noise = SeededNoise([request.seed], self.device, earlier=self._earlier(settings))
        said = sayings([request.prompt], request.negative, settings.steps, settings.prompt_syntax)
        towers = () if folder.vision is None else (folder.vision.tower,)
        with self._at_work(*folder.text_towers, *towers, folder.autoencoder):
            told = told_frames(
                folder,
                kind,
                request,
                settings,
                SeededNoise([request.seed]),
                self.device,
                self.dtype,
            )
            sides = {
                saying: sides_of(folder, self._text, kind, settings, saying, told, self.device)
                for saying in dict.fromkeys(said)
            }
        with self._at_work(folder.unet):
            stay = told if any_known(kind.given) else None
            steps = Steps([sides[saying] for saying in said], settings, self.dtype, stay)
            clip_noise = of_clip(noise, channels_first=kind.channels_first)
            z = sampled_clip(folder, steps, clip_noise, self.device, report)
        check_finite(z, self.name, self.dtype)
        return z

    def _earlier(self, settings: ClipSettings) -> tuple[tuple[int, ...], ...]:
        """The noise that is drawn before x's: that on the picture."""
        if self.kind.given != "repeated":
            return ()
        return ((3, settings.height, settings.width),)

    def _at_work(self, *networks: nn.Module) -> AbstractContextManager[None]:
        """These networks on the device, and back where they wait."""
        return at_work(networks, self.device if self.offload else None)


def _used(given: GivenPicture | None) -> UsedPicture | None:
    return None if given is None else UsedPicture(given.file, given.sha256)


@contextmanager
def _one_line_when_out_of_memory(settings: ClipSettings) -> Generator[None]:
    """Turns a lack of memory into a `SafelightError` with the remedy."""
    try:
        yield
    except RuntimeError as error:
        if isinstance(error, torch.OutOfMemoryError) or "can't allocate memory" in str(error):
            raise SafelightError(
                f"Not enough memory for {settings.window} frames of {settings.width} x "
                f"{settings.height} pixels; ask for --low-memory, for fewer frames at a time "
                "(--window, --decode), for a smaller clip or for --precision bfloat16."
            ) from error
        raise
