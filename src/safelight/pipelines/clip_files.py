"""Clips written whole or not at all, with what made them inside, and that read back."""

import io
import json
from collections.abc import Callable, Sequence
from fractions import Fraction
from itertools import pairwise
from pathlib import Path
from types import ModuleType

from PIL import ExifTags, Image

from safelight.checkpoints.atomic import replacing_file, replacing_folder, write_text
from safelight.errors import SafelightError, first_line
from safelight.pipelines.clip_manifest import ClipManifest
from safelight.pipelines.picture_files import read_texts

FOLDER_MANIFEST = "clip.json"  # in a folder of frames
_ASCII = b"ASCII\0\0\0"
_QUALITY = "15"  # of x264: constant rate factor, 0 to 51, lower is finer
_VIDEO = (".mp4", ".mkv", ".mov", ".webm")


def write_clip(
    path: Path, frames: Sequence[Image.Image], fps: float, manifest: ClipManifest
) -> None:
    """Writes the frames of a clip, RGB and of one size, with its manifest inside.

    `.webp` keeps every pixel, `.mp4` and `.gif` do not; a path without suffix becomes a folder of
    `.png` and `clip.json`. An animation of `.webp` or `.gif` starts anew without end, as is usual.
    A file that was there is replaced.

    Raises `SafelightError` for another suffix, for `.mp4` where PyAV is not installed, or if it
    cannot be written.
    """
    kind = clip_suffix(path)
    text = manifest.to_json()
    try:
        if not kind:
            _write_folder(path, frames, text)
            return
        encoded = _ENCODERS[kind](frames, fps, text)
        with replacing_file(path) as part:
            part.write_bytes(encoded)
    except OSError as error:
        raise SafelightError(f"Cannot write {path}: {first_line(error)}.") from error


def encode_clip(
    name: str, frames: Sequence[Image.Image], fps: float, manifest: ClipManifest
) -> bytes:
    """The bytes of the file that `write_clip` would write under such a name; errors as there."""
    kind = clip_suffix(Path(name))
    if not kind:
        raise SafelightError(f"{name!r} is the name of a folder; end it in {', '.join(_ENCODERS)}.")
    return _ENCODERS[kind](frames, fps, manifest.to_json())


def clip_suffix(path: Path) -> str:
    """The lower-case suffix, empty for a folder; `SafelightError` for one that is not written, or
    cannot be here.
    """
    suffix = path.suffix.lower()
    if suffix and suffix not in _ENCODERS:
        raise SafelightError(
            f"Cannot tell the format of {str(path)!r}: end it in {', '.join(_ENCODERS)}, or give a "
            "name without suffix for a folder of frames."
        )
    if suffix == ".mp4":
        _av()
    if (
        not suffix
        and path.is_dir()
        and not (path / FOLDER_MANIFEST).is_file()
        and any(path.iterdir())
    ):
        raise SafelightError(
            f"{path} is a folder with other files; give a name for a new folder of frames."
        )
    return suffix


def read_clip_manifest(path: Path) -> ClipManifest | None:
    """The manifest inside a clip; None for a picture.

    Raises `SafelightError` for a file that is missing, broken, or a clip without a manifest.
    """
    if path.is_dir():
        file = path / FOLDER_MANIFEST
        if not file.is_file():
            raise SafelightError(
                f"{path} is a folder; give the picture file itself, or a clip's folder of frames, "
                f"in which there is a {FOLDER_MANIFEST}."
            )
        text: str | None = file.read_text(encoding="utf-8")
    elif path.suffix.lower() in _VIDEO and path.is_file():
        text = _video_comment(path)
    else:
        return ClipManifest.from_json(read_texts(path).manifest or "", str(path))
    manifest = ClipManifest.from_json(text or "", str(path))
    if manifest is None:
        raise SafelightError(
            f"{path} carries no safelight manifest; it was made by something else, or a program "
            "that saved it again dropped it."
        )
    return manifest


def _webp(frames: Sequence[Image.Image], fps: float, text: str) -> bytes:
    exif = Image.Exif()
    comment = json.dumps(json.loads(text))  # in ASCII
    exif.get_ifd(ExifTags.IFD.Exif)[ExifTags.Base.UserComment] = _ASCII + comment.encode()
    return _animation(frames, fps, "WEBP", lossless=True, exif=exif.tobytes())


def _gif(frames: Sequence[Image.Image], fps: float, text: str) -> bytes:
    return _animation(frames, fps, "GIF", comment=json.dumps(json.loads(text)).encode())


def _animation(
    frames: Sequence[Image.Image], fps: float, form: str, **options: bytes | bool
) -> bytes:
    stream = io.BytesIO()
    ends = [round(1000 * place / fps) for place in range(len(frames) + 1)]  # milliseconds
    durations = [end - start for start, end in pairwise(ends)]
    frames[0].save(
        stream, form, save_all=True, append_images=frames[1:], duration=durations, loop=0, **options
    )
    return stream.getvalue()


def _mp4(frames: Sequence[Image.Image], fps: float, text: str) -> bytes:
    av, stream = _av(), io.BytesIO()
    width, height = (side + side % 2 for side in frames[0].size)  # as its colours need
    with av.open(stream, "w", format="mp4") as container:
        container.metadata["comment"] = text
        track = container.add_stream("libx264", rate=Fraction(fps).limit_denominator(1001))
        track.width, track.height, track.pix_fmt = width, height, "yuv420p"
        track.options = {"crf": _QUALITY}
        for frame in frames:
            even = frame if frame.size == (width, height) else _continued(frame, (width, height))
            container.mux(track.encode(av.VideoFrame.from_image(even)))
        container.mux(track.encode())
    return stream.getvalue()


_ENCODERS: dict[str, Callable[[Sequence[Image.Image], float, str], bytes]] = {
    ".mp4": _mp4,
    ".webp": _webp,
    ".gif": _gif,
}


def _write_folder(path: Path, frames: Sequence[Image.Image], text: str) -> None:
    digits = max(4, len(str(len(frames) - 1)))
    with replacing_folder(path) as whole:
        for place, frame in enumerate(frames):
            frame.save(whole / f"{place:0{digits}}.png")
        write_text(whole / FOLDER_MANIFEST, text + "\n")


def _continued(frame: Image.Image, size: tuple[int, int]) -> Image.Image:
    """A picture continued by its last row and column."""
    larger = frame.resize(size)
    larger.paste(frame, (0, 0))
    return larger


def _video_comment(path: Path) -> str | None:
    av = _av()
    try:
        with av.open(str(path)) as container:
            return dict(container.metadata).get("comment")
    except (OSError, ValueError) as error:
        raise SafelightError(f"{path} is not a whole video: {first_line(error)}.") from error


def _av() -> ModuleType:
    try:
        import av
    except ImportError as error:
        raise SafelightError(
            'Videos are written and read by PyAV: pip install "safelight[video]"; or end the name '
            "in .webp or .gif."
        ) from error
    return av
