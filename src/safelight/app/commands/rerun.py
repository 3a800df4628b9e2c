"""`safelight rerun`: the same picture from its manifest."""

import sys
from pathlib import Path
from typing import Annotated

from cyclopts import Parameter

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
    """Make a picture again, with the same pixels.

    Parameters
    ----------
    file
        A picture that safelight made.
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
    from safelight.app.outputs import check_folder
    from safelight.pipelines.picture_files import picture_suffix, read_manifest

    manifest = read_manifest(file)
    target = output or file.with_name(f"{file.stem}-rerun{file.suffix}")
    picture_suffix(target)
    check_folder(target.parent)

    from safelight.app.remaking import remake

    remade = remake(manifest, model=model, vae=vae, any_weights=other_weights)
    remade.picture.save(target)
    print(target)
    print(f"safelight: {remade.verdict}", file=sys.stderr)
    return 0 if remade.same else DIFFERENT
