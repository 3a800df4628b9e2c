"""`safelight models`: what --model finds by name."""


def models() -> None:
    """List the models that --model finds by name, and the autoencoders that --vae does."""
    from safelight.errors import SafelightError
    from safelight.pipelines.find import bundled_parts, known_models

    rows = [
        (
            model.name,
            model.family,
            f"{model.size / 1e6:.1f} MB",
            str(model.folder),
            f"controls: {', '.join(model.controls)}" if model.controls else "",
        )
        for model in known_models()
    ]
    if not rows:
        raise SafelightError(
            "No model has a name here: none is bundled, SAFELIGHT_MODELS lists none, and the "
            "Hugging Face cache holds none. Give a folder to --model."
        )
    rows += [
        (part.name, part.family, f"{part.size / 1e6:.1f} MB", str(part.folder), "")
        for part in bundled_parts()
    ]
    widths = [max(map(len, column)) for column in zip(*rows, strict=True)]
    for row in rows:
        cells = [cell.ljust(width) for cell, width in zip(row, widths, strict=True)]
        print("  ".join(cells).rstrip())
