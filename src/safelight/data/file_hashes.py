"""Hashes of picture files, computed anew only where a file has changed."""

import json
from collections.abc import Sequence
from pathlib import Path

from safelight.checkpoints.atomic import write_text
from safelight.checkpoints.files import sha256_of_files
from safelight.config import Value, read_json
from safelight.errors import SafelightError


class FileHashes:
    """The sha256 of files by path, remembered in a JSON file with each one's size and time.

    A remembered file that is broken is begun anew.
    """

    def __init__(self, remembered: Path):
        self._remembered = remembered
        self._known: dict[str, Value] = {}
        self._changed = False
        if remembered.is_file():
            try:
                self._known = read_json(remembered)
            except SafelightError:
                self._changed = True

    def sha256(self, path: Path) -> str:
        """The file's hash in hex. Raises `OSError` if it cannot be read."""
        stat = path.stat()
        name = str(path.resolve())
        known = self._known.get(name)
        if (
            isinstance(known, Sequence)
            and len(known) == 3
            and isinstance(known[2], str)
            and known[:2] == [stat.st_size, stat.st_mtime_ns]
        ):
            return known[2]
        digest = sha256_of_files([path])
        self._known[name] = [stat.st_size, stat.st_mtime_ns, digest]
        self._changed = True
        return digest

    def save(self) -> None:
        """Writes what is known, if it has changed."""
        if self._changed:
            write_text(self._remembered, json.dumps(self._known, indent=0))
            self._changed = False
