"""`safelight show`: what made a picture."""

from pathlib import Path


def show(file: Path, /) -> None:
    """Print what made a picture, as JSON.

    Parameters
    ----------
    file
        A picture that safelight made.
    """
    from safelight.pipelines.picture_files import read_manifest

    print(read_manifest(file).to_json())
