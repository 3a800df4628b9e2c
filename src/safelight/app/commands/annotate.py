"""`safelight annotate`: the hint of a ControlNet from a picture."""

from pathlib import Path
from typing import Annotated

from cyclopts import Parameter


def annotate(
    kind: str,
    picture: Path,
    /,
    *,
    output: Annotated[Path, Parameter(alias="-o")],
    weights: str | None = None,
    set_: Annotated[tuple[str, ...], Parameter(name="--set", negative=(), show_default=False)] = (),
    device: str = "cpu",
) -> None:
    """Make the hint of a ControlNet from a picture.

    Parameters
    ----------
    kind
        canny, depth, lineart, normal, pose, scribble, scribble_hed, segmentation, shuffle,
        softedge or tile, or a name of AUTOMATIC1111's ControlNet extension.
    picture
        The picture that the hint is made from.
    output
        Where the hint goes: a .png, as large as the picture.
    weights
        The network behind depth, normal, pose, scribble_hed, segmentation and softedge:
        a file, a folder, or its name on the Hugging Face hub.
    set_
        An option of the kind, such as low=50. Give it several times for several.
    device
        Where the network runs, such as cuda.
    """
    from safelight.app.outputs import check_file
    from safelight.config import parse_value
    from safelight.errors import SafelightError
    from safelight.pictures import load_picture
    from safelight.pipelines.annotate import annotator
    from safelight.pipelines.picture_files import picture_suffix, write_preview

    picture_suffix(output)
    check_file(output)
    pairs = [option.partition("=") for option in set_]
    for name, equals, _ in pairs:
        if not name or not equals:
            raise SafelightError(f"--set takes name=value, such as low=50, got {name!r}.")
    options = {name: parse_value(text) for name, _, text in pairs}
    make = annotator(kind, options, weights=weights, device=device)
    write_preview(output, make(load_picture(picture)))
    print(output)
