"""`safelight show`: what made a picture."""

from pathlib import Path


def show(file: Path, /) -> None:
    """Print what made a picture or a clip.

    Parameters
    ----------
    file
        A picture or a clip that safelight made, or a picture of
        AUTOMATIC1111's web UI or one of its kin.
    """
    from safelight.pipelines.clip_files import read_clip_manifest
    from safelight.pipelines.grid_manifest import GridManifest
    from safelight.pipelines.picture_files import read_manifest, read_texts

    clip = read_clip_manifest(file)
    if clip is not None:
        print(clip.to_json())
        return
    texts = read_texts(file)
    grid = GridManifest.from_json(texts.manifest or "", str(file))
    if grid is not None:
        print(grid.to_json())
    elif texts.manifest is None and texts.infotext is not None:
        print(texts.infotext)
    else:
        print(read_manifest(file).to_json())
