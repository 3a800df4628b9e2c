"""`safelight inspect`: what a file or folder of weights is."""

from pathlib import Path


def inspect(path: Path, /) -> None:
    """Say what a file or folder of weights is.

    Parameters
    ----------
    path
        A .safetensors, .ckpt, .pt, .pth or .bin, or a folder.
    """
    from safelight.checkpoints import inspection

    found = inspection.inspect(path)
    rows = [("what", found.kind), ("layout", found.layout)]
    rows += list(found.parts.items())
    precisions = [f"{count / 1e6:,.2f} M in {name}" for name, count in found.precisions.items()]
    rows.append(("weights", ", ".join(precisions) or "none"))
    rows.append(("on disk", f"{found.size / 1e6:,.1f} MB"))
    rows += [
        (f"header: {_short(name)[:40]}", _short(text)) for name, text in found.metadata.items()
    ]
    width = max(len(name) for name, _ in rows)
    for name, text in rows:
        print(f"{name.ljust(width)}  {text}")


def _short(text: str) -> str:
    line = " ".join(text.split())
    printable = "".join(character if character.isprintable() else "?" for character in line)
    return printable if len(printable) <= 200 else f"{printable[:197]}..."
