"""Folders that a killed process left half-replaced are put in order by the next one."""

import os
import subprocess
import sys
from pathlib import Path

import pytest

from safelight.checkpoints.atomic import replacing_folder, restore_folders


def write(path: Path, text: str) -> None:
    with replacing_folder(path) as temporary:
        (temporary / "a").write_text(text)


def names(folder: Path) -> list[str]:
    return sorted(path.name for path in folder.iterdir())


def dead_pid() -> int:
    process = subprocess.Popen([sys.executable, "-c", ""])
    process.wait()
    return process.pid


KILLED_BETWEEN_ITS_RENAMES = """
import os, signal, sys
from pathlib import Path
from safelight.checkpoints.atomic import replacing_folder

rename = Path.rename
def once(self, target):
    rename(self, target)
    os.kill(os.getpid(), signal.SIGKILL)
Path.rename = once
with replacing_folder(Path(sys.argv[1])) as temporary:
    (temporary / "a").write_text("new")
"""


def test_a_folder_moved_aside_by_a_killed_process_is_put_back(tmp_path: Path):
    path = tmp_path / "model"
    write(path, "good")
    killed = subprocess.run([sys.executable, "-c", KILLED_BETWEEN_ITS_RENAMES, path], check=False)
    assert killed.returncode < 0
    assert not path.exists()
    restore_folders(tmp_path)
    assert (path / "a").read_text() == "good"
    assert names(tmp_path) == ["model"]


@pytest.mark.parametrize("own", [False, True], ids=["another pid", "this pid again"])
def test_the_next_write_clears_what_is_left(tmp_path: Path, own: bool):
    pid = os.getpid() if own else dead_pid()
    for kind in ("tmp", "old"):
        (tmp_path / f".model.{pid}.{kind}").mkdir()
        (tmp_path / f".model.{pid}.{kind}" / "a").write_text(kind)
    with pytest.raises(KeyboardInterrupt), replacing_folder(tmp_path / "model"):
        raise KeyboardInterrupt
    assert names(tmp_path) == ["model"]
    assert (tmp_path / "model/a").read_text() == "old"  # the good one, put back


def test_a_checkpoint_of_another_name_is_cleared_too(tmp_path: Path):
    (tmp_path / f".step_0000900.{dead_pid()}.tmp").mkdir()
    write(tmp_path / "step_0000950", "new")
    assert names(tmp_path) == ["step_0000950"]


def test_a_living_process_and_other_files_are_left_alone(tmp_path: Path):
    kept = [f".model.{os.getppid()}.tmp", f".model.{os.getppid()}.old", ".git.1.x", ".a.b"]
    for name in kept:
        (tmp_path / name).mkdir()
    (tmp_path / f".file.{dead_pid()}.tmp").write_text("")
    restore_folders(tmp_path)
    assert len(names(tmp_path)) == 5


def test_all_is_on_the_disk_before_it_takes_its_place(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
):
    flushed: list[str] = []
    fsync = os.fsync

    def noted(handle: int) -> None:
        flushed.append(Path(f"/proc/self/fd/{handle}").readlink().name.split(".")[-1])
        fsync(handle)

    monkeypatch.setattr(os, "fsync", noted)
    write(tmp_path / "model", "new")
    assert flushed == ["a", "tmp", tmp_path.name]
