"""`safelight rerun`: the same picture from its manifest."""

import sys
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

from cyclopts import Parameter

if TYPE_CHECKING:
    from safelight.pipelines.clip_manifest import ClipManifest

DIFFERENT = 1


def rerun(
    file: Path,
    /,
    *,
    output: Annotated[Path | None, Parameter(name=("--output", "-o"))] = None,
    model: str | None = None,
    vae: str | None = None,
    other_weights: Annotated[bool, Parameter(negative=(), show_default=False)] = False,
) -> int:
    """Make a picture or a clip again.

    Parameters
    ----------
    file
        A picture or a clip that safelight made; or a picture of
        AUTOMATIC1111's web UI or one of its kin, whose
        parameters are then taken.
    output
        Where the new picture goes. [default: beside the file,
        apple.png becomes apple-rerun.png]
    model
        The model's folder or name, where it is not the one that
        the file names.
    vae
        The autoencoder given by --vae, where it is not at the
        path that the file names.
    other_weights
        Go on if the weights are not those that made the
        picture.
    """
    from safelight.app.outputs import check_file
    from safelight.pipelines.clip_files import read_clip_manifest
    from safelight.pipelines.grid_manifest import GridManifest
    from safelight.pipelines.picture_files import picture_suffix, read_manifest, read_texts

    target = output or file.with_name(f"{file.stem}-rerun{file.suffix}")
    clip = read_clip_manifest(file)
    if clip is not None:
        return _rerun_clip(clip, target, model, any_weights=other_weights)
    texts = read_texts(file)
    picture_suffix(target)
    check_file(target)
    if texts.manifest is None and texts.infotext is not None:
        return _rerun_told(texts.infotext, file, target, model, vae)
    grid = GridManifest.from_json(texts.manifest or "", str(file))
    if grid is not None:
        from safelight.app.grid_making import remake_grid

        picture, same, verdict = remake_grid(grid, model=model, vae=vae, any_weights=other_weights)
        picture.save(target)
    else:
        manifest = read_manifest(file)

        from safelight.app.remaking import remake

        remade = remake(manifest, model=model, vae=vae, any_weights=other_weights)
        remade.picture.save(target, infotext=texts.infotext is not None)
        same, verdict = remade.same, remade.verdict
    print(target)
    print(f"safelight: {verdict}", file=sys.stderr)
    return 0 if same else DIFFERENT


def _rerun_clip(
    manifest: "ClipManifest", target: Path, model: str | None, *, any_weights: bool
) -> int:
    """Makes a clip again, and tells whether it is the same."""
    from safelight.app.animating import clip_target, remake_clip

    target = clip_target(target, None, "")
    remade = remake_clip(manifest, model=model, any_weights=any_weights)
    remade.clip.save(target)
    print(target)
    print(f"safelight: {remade.verdict}", file=sys.stderr)
    return 0 if remade.same else DIFFERENT


def _rerun_told(text: str, file: Path, target: Path, model: str | None, vae: str | None) -> int:
    """Makes the picture that another program's infotext describes."""
    from safelight.app.remaking_infotext import compared, remake_told
    from safelight.pipelines.infotext import parse
    from safelight.pipelines.picture_files import open_picture

    picture = remake_told(parse(text), model=model, vae=vae)
    picture.save(target, infotext=True)
    print(target)
    with open_picture(file) as then:
        print(f"safelight: {compared(then, picture.image)}", file=sys.stderr)
    return 0
