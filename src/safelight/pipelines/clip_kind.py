"""What a video model takes, and how it is published to be used; and a request settled by that."""

from dataclasses import dataclass
from typing import TypeVar

from safelight.checkpoints.folder import Folder
from safelight.checkpoints.tables.schedulers import check_class
from safelight.diffusion.samplers import sampler_name
from safelight.errors import SafelightError
from safelight.models.autoencoder import Autoencoder
from safelight.models.motion import MotionUNet
from safelight.models.video import FrameUNet, GivenFrames, Number, VideoUNet, any_known
from safelight.pipelines.clip_request import ClipRequest, ClipSettings
from safelight.pipelines.request import check_multiple

_DECODED = 2**29  # numbers in one activation of a decoder, as for one big picture
_WIDTH_OF_SVD, _HEIGHT_OF_SVD = 1024, 576

T = TypeVar("T")


@dataclass(frozen=True)
class ClipKind:
    """What a video model takes.

    Attributes:
        given: how it is told known frames; "none" for a model of prompts alone.
        numbers: what it is told of a clip.
        prompted: whether it is told a prompt.
        num_frames: of the clips that it knows.
        seen: whether it sees the first frame by an image tower.
    """

    given: GivenFrames
    numbers: tuple[Number, ...]
    prompted: bool
    num_frames: int
    seen: bool

    @property
    def channels_first(self) -> bool:
        """Whether noise is drawn with the channels before the frames, as AnimateDiff does."""
        return self.given == "none"


def clip_kind(folder: Folder, name: str) -> ClipKind:
    """What a model takes; `SafelightError` if it makes no clips."""
    unet, prompted = folder.unet, bool(folder.text_towers)
    if isinstance(unet, VideoUNet):
        temporal = unet.temporal
        seen = folder.vision is not None
        return ClipKind(temporal.given, temporal.numbers, prompted, temporal.num_frames, seen)
    if isinstance(unet, MotionUNet):
        return ClipKind("none", (), prompted, min(16, unet.motion.max_frames), False)
    assert not isinstance(unet, FrameUNet)
    raise SafelightError(
        f"{name} makes pictures, not clips; give a video model, or the motion module of "
        "AnimateDiff that goes with it (--motion-module)."
    )


def settle_clip(request: ClipRequest, folder: Folder, kind: ClipKind, name: str) -> ClipSettings:
    """The settings of a request; `SafelightError` for what this model cannot do."""
    request.check()
    _check_given(request, kind, name)
    defaults, factor = folder.defaults, folder.autoencoder.factor
    svd = kind.given == "repeated"
    width, height = _size(request, folder, svd=svd)
    check_multiple("width", width, factor)
    check_multiple("height", height, factor)
    closed = closes(request, kind)
    frames = _first(request.frames, max(kind.num_frames - closed, 1))
    sampled = frames + closed
    window = min(_first(request.window, kind.num_frames), sampled)
    around = request.loop and not closed
    overlap = _first(request.overlap, window // 4 if sampled > window or around else 0)
    if isinstance(folder.unet, MotionUNet) and window > folder.unet.motion.max_frames:
        raise SafelightError(
            f"The motion module knows {folder.unet.motion.max_frames} frames; ask for a window of "
            f"that many at most, got {window}."
        )
    if overlap >= window:
        raise SafelightError(f"overlap should be less than the window of {window}, got {overlap}.")
    scale = _first(request.scale, defaults.scale, 3.0 if svd else 7.5)
    sampler = request.sampler or defaults.sampler or folder.scheduler.sampler
    check_class(sampler, folder.scheduler.levels)
    return ClipSettings(
        frames=frames,
        fps=_first(request.fps, defaults.fps, 7.0 if svd else 8.0),
        motion=_first(request.motion, defaults.motion, 127.0),
        augmentation=_first(request.augmentation, 0.02 if "augmentation" in kind.numbers else 0.0),
        loop=request.loop,
        steps=_first(request.steps, defaults.steps, 25),
        scale=scale,
        first_scale=_first(request.first_scale, min(1.0, scale) if svd else scale),
        sampler=sampler_name(sampler),
        width=width,
        height=height,
        window=window,
        overlap=overlap,
        decode=min(_first(request.decode, _decoded_at_once(folder, width, height)), sampled),
        low_memory=request.low_memory,
        prompt_syntax=request.prompt_syntax,
        told=kind.numbers,
    )


def closes(request: ClipRequest, kind: ClipKind) -> bool:
    """Whether a loop is closed by its first frame, known once more behind the last."""
    return request.loop and any_known(kind.given) and request.image is not None


def _check_given(request: ClipRequest, kind: ClipKind, name: str) -> None:
    if not kind.prompted and (request.prompt or request.negative):
        raise SafelightError(f"{name} makes clips of a picture alone; leave the prompt out.")
    if kind.given == "repeated" and request.image is None:
        raise SafelightError(f"{name} makes clips of a picture; give one.")
    if kind.given == "none" and (request.image is not None or request.last is not None):
        raise SafelightError(f"{name} makes clips of a prompt alone; leave the picture out.")
    if not any_known(kind.given) and request.last is not None:
        raise SafelightError(f"{name} is told the first frame alone; leave the last one out.")
    for number in ("motion", "augmentation"):
        if getattr(request, number) is not None and number not in kind.numbers:
            raise SafelightError(f"{name} is not told of {number}; leave --{number} out.")


def _size(request: ClipRequest, folder: Folder, *, svd: bool) -> tuple[int, int]:
    """The size asked for, else the model's own."""
    defaults, side = folder.defaults, folder.unet.config.sample_size
    own = None if side is None else side * folder.autoencoder.factor
    published = (_WIDTH_OF_SVD, _HEIGHT_OF_SVD) if svd else (own, own)
    width = _first(request.width, defaults.width, published[0], 512)
    height = _first(request.height, defaults.height, published[1], 512)
    return width, height


def _decoded_at_once(folder: Folder, width: int, height: int) -> int:
    autoencoder = folder.autoencoder
    channels = 64
    if isinstance(autoencoder, Autoencoder):
        channels = max(autoencoder.config.block_out_channels[:2])
    return max(1, _DECODED // (channels * width * height))


def _first(*choices: T | None) -> T:
    return next(choice for choice in choices if choice is not None)
