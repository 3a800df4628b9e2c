"""Prompts from the command line or from a file."""

from pathlib import Path

from safelight.errors import SafelightError


def gather_prompts(prompt: str | None, file: Path | None, *, needed: bool = True) -> list[str]:
    """The one prompt, or the lines of the file; an empty prompt for neither, unless one is
    `needed`.

    Raises `SafelightError` if both are given, or neither and one is needed.
    """
    if not needed and prompt is None and file is None:
        return [""]
    if (prompt is None) == (file is None):
        given = "neither" if prompt is None else "both"
        raise SafelightError(f"Give either a PROMPT or --prompts FILE; got {given}.")
    return [prompt] if prompt is not None else _read_lines(file or Path())


def _read_lines(file: Path) -> list[str]:
    try:
        text = file.read_text(encoding="utf-8-sig")
    except UnicodeDecodeError as error:
        raise SafelightError(f"{file} is not UTF-8 text (byte {error.start}).") from error
    except OSError as error:
        raise SafelightError(f"Cannot read the prompts {file}: {error.strerror}.") from error
    lines = [line.strip() for line in text.splitlines()]
    prompts = [line for line in lines if line and not line.startswith("#")]
    if not prompts:
        raise SafelightError(f"{file} holds no prompt; write one a line.")
    return prompts
