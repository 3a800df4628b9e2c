"""safelight: latent diffusion, trained and run in one package."""

from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from safelight.pipelines.load import load
    from safelight.pipelines.load_video import load_video
    from safelight.pipelines.streaming import stream

__all__ = ["__version__", "load", "load_video", "stream"]
__version__ = "0.1.0"


def __getattr__(name: str) -> object:
    """Imports the public functions at their first use, so that `import safelight` is instant."""
    if name == "load":
        from safelight.pipelines.load import load

        return load
    if name == "load_video":
        from safelight.pipelines.load_video import load_video

        return load_video
    if name == "stream":
        from safelight.pipelines.streaming import stream

        return stream
    raise AttributeError(f"module 'safelight' has no attribute {name!r}")
