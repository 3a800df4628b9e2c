"""Jobs to clips, in the worker."""

from safelight.app.server.clips import AskedClip, clip_request_of
from safelight.app.server.config import Working
from safelight.app.server.making import Hooks, Step
from safelight.app.server.records import Job, Picture
from safelight.app.server.uploads import reopened
from safelight.errors import SafelightError
from safelight.pipelines.clip_files import encode_clip
from safelight.pipelines.video import VideoPipeline

_MEDIA = {"mp4": "video/mp4", "webp": "image/webp"}


def make_clip(
    job: Job, inputs: dict[str, bytes], pipeline: VideoPipeline, working: Working, hooks: Hooks
) -> None:
    """Makes and puts the clip of a job.

    Raises `SafelightError` for what the model cannot do or the server does not make, and what
    `hooks.stop` names.
    """
    asked = AskedClip.model_validate_json(job.spec)
    pictures = {name: reopened(content) for name, content in inputs.items()}
    request = clip_request_of(asked, pictures)
    settings = pipeline.settle(request)
    if settings.width * settings.height > working.pixels or settings.frames > working.frames:
        raise SafelightError(
            f"A clip of {settings.frames} frames of {settings.width} x {settings.height} pixels is "
            f"larger than this server makes ({working.frames} frames of {working.pixels} pixels)."
        )
    steps, told = settings.steps + 1, 0  # the last is the decoding

    def on_frames(done: int, total: int) -> None:
        nonlocal told
        reason = hooks.stop(job.id)
        if reason is not None:
            raise reason()
        step = done * steps // total
        if step > told:
            told = step
            hooks.step(Step(job.id, 0, step, steps, None))

    clip = pipeline.make(request, on_frames)
    manifest = clip.manifest
    content = encode_clip(f"clip.{asked.format}", clip.frames, clip.fps, manifest)
    hooks.put(job.id, 0, Picture(content, _MEDIA[asked.format], manifest.seed, manifest.to_json()))
