"""Files and folders that appear whole or not at all."""

import os
import re
import shutil
from collections.abc import Generator
from contextlib import contextmanager, suppress
from pathlib import Path


@contextmanager
def replacing_file(path: Path) -> Generator[Path]:
    """Gives a temporary path beside `path` that takes its place on success, else vanishes."""
    path.parent.mkdir(parents=True, exist_ok=True)
    temporary = _temporary(path)
    try:
        yield temporary
        _flush(temporary)
        temporary.replace(path)
    finally:
        temporary.unlink(missing_ok=True)


def try_beside(path: Path) -> None:
    """Raises `OSError` where `replacing_file` could not begin; leaves nothing behind."""
    temporary = _temporary(path)
    temporary.touch()
    temporary.unlink(missing_ok=True)


@contextmanager
def replacing_folder(path: Path) -> Generator[Path]:
    """Gives an empty temporary folder beside `path` that takes its place on success, else vanishes.

    A folder that was there before is moved aside, and deleted once the new one is on the disk.
    What killed processes left beside it is put in order first (`restore_folders`).
    """
    path.parent.mkdir(parents=True, exist_ok=True)
    restore_folders(path.parent)
    temporary = _temporary(path)
    former = path.with_name(f".{path.name}.{os.getpid()}.old")
    _restore(former, path)
    shutil.rmtree(temporary, ignore_errors=True)
    temporary.mkdir()
    try:
        yield temporary
        for written in (*temporary.rglob("*"), temporary):
            _flush(written)
        if path.exists():
            path.rename(former)
        temporary.rename(path)
        _flush(path.parent)
    except BaseException:
        if former.exists() and not path.exists():
            former.rename(path)
        raise
    finally:
        shutil.rmtree(temporary, ignore_errors=True)
        shutil.rmtree(former, ignore_errors=True)


def restore_folders(parent: Path) -> None:
    """Puts back the folders in `parent` that a killed process had moved aside but not replaced yet,
    and deletes what else it left of `replacing_folder`.
    """
    for left in parent.glob(".*.*.*"):
        match = _LEFT.fullmatch(left.name)
        if match is None or not left.is_dir() or _is_alive(int(match["pid"])):
            continue
        if match["kind"] == "old":
            _restore(left, parent / match["name"])
        else:
            shutil.rmtree(left, ignore_errors=True)


def write_text(path: Path, text: str) -> None:
    """Writes a UTF-8 text file atomically."""
    with replacing_file(path) as temporary:
        temporary.write_text(text, encoding="utf-8")


_LEFT = re.compile(r"\.(?P<name>.+)\.(?P<pid>\d+)\.(?P<kind>tmp|old)")


def _temporary(path: Path) -> Path:
    return path.with_name(f".{path.name}.{os.getpid()}.tmp")


def _restore(former: Path, path: Path) -> None:
    with suppress(OSError):  # another process may be putting it back too
        if former.exists() and not path.exists():
            former.rename(path)
    shutil.rmtree(former, ignore_errors=True)


def _is_alive(pid: int) -> bool:
    try:
        os.kill(pid, 0)
    except ProcessLookupError:
        return False
    except (PermissionError, OverflowError):
        return True
    return True


def _flush(path: Path) -> None:
    handle = os.open(path, os.O_RDONLY)
    try:
        os.fsync(handle)
    finally:
        os.close(handle)
