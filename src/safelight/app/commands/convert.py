"""`safelight convert`: a single file into a folder, and back."""

import sys
from pathlib import Path
from typing import Annotated

from cyclopts import Parameter


def convert(
    source: str,
    target: Path,
    /,
    *,
    precision: str | None = None,
    lora: Annotated[tuple[str, ...], Parameter(negative=(), show_default=False)] = (),
    force: Annotated[bool, Parameter(negative=(), show_default=False)] = False,
) -> None:
    """Turn a single file into a folder, or a folder into a single file.

    A folder's controls, IP-Adapter and video U-Net go along into a folder.

    Parameters
    ----------
    source
        A folder, a .safetensors or a .ckpt, or a name from safelight models; also a ControlNet or
        a T2I-Adapter.
    target
        What to write: a name ending in .safetensors for one file, else a folder.
    precision
        Of the written weights: float32, bfloat16 or float16; by default that of the source.
    lora
        A LoRA, DoRA, LoHa or LoKr file to merge into the weights, and after a colon its strength,
        as for generate. Give it several times for several.
    force
        Replace what is at the target.
    """
    from safelight.app.adapters import chosen_adapters
    from safelight.app.converting import brought_by, write_with
    from safelight.app.outputs import check_new_folder
    from safelight.checkpoints.adapters import merged
    from safelight.checkpoints.controlnet import is_control, read_control, write_control
    from safelight.checkpoints.folder import INDEX
    from safelight.checkpoints.model import read_model
    from safelight.checkpoints.single_file import write_single_file
    from safelight.errors import SafelightError
    from safelight.pipelines.find import find_model
    from safelight.pipelines.precisions import precision_named, precision_of

    control = is_control(Path(source))
    found = Path(source) if control else find_model(source)
    dtype = precision_named(precision) if precision else None
    single = target.suffix == ".safetensors"
    if target.suffix in (".ckpt", ".pt", ".pth", ".bin"):
        raise SafelightError(f"{target.suffix} files are not written; end it in .safetensors.")
    if target.is_dir() if single else target.is_file():
        raise SafelightError(f"{target} is there as a {'folder' if single else 'file'} already.")
    taken = target.exists() and (single or any(target.iterdir()))
    if taken and not single and not (target / INDEX).is_file():
        raise SafelightError(f"{target} is a folder with something else in it; choose another.")
    if taken and not force:
        raise SafelightError(f"{target} is there already; --force replaces it.")
    check_new_folder(target.parent)
    if control:
        if lora:
            raise SafelightError(f"--lora changes a model; {source} is what steers one.")
        write_control(target, read_control(found), dtype or precision_of(found))
        print(target)
        return
    chosen = chosen_adapters(lora, offline=True)
    adapters = {Path(file): strength for file, strength in chosen.items()}
    model = read_model(found)
    if dtype is None:
        unet = model.files.get("unet") or (found,)
        dtype = precision_of(unet[0])
    brought = brought_by(found)
    if single and brought.names:
        print(
            f"safelight: a single file has no place for controls and the like "
            f"({', '.join(brought.names)}); convert the folder of each by itself.",
            file=sys.stderr,
        )
    with merged(model, adapters):
        if single:
            write_single_file(target, model, dtype=dtype)
        else:
            own = precision_named(precision) if precision else None
            if not write_with(target, model, brought, dtype, own):
                print(
                    f"safelight: the layers along the frames of {source} stay behind: they belong "
                    "to its own weights, which these are no more.",
                    file=sys.stderr,
                )
    print(target)
