import json
import os
from collections.abc import Callable
from pathlib import Path

import pytest
from PIL import Image

from safelight.data.config import DataConfig, FolderConfig
from safelight.data.folders import gather, scan
from safelight.errors import SafelightError


def picture(path: Path, size: tuple[int, int] = (8, 8)) -> Path:
    path.parent.mkdir(parents=True, exist_ok=True)
    Image.new("RGB", size, "teal").save(path)
    return path


def captions(root: Path) -> dict[str, tuple[str, ...]]:
    return {item.path.relative_to(root).as_posix(): item.captions for item in scan(root).items}


def test_nested_folders_and_every_source_of_captions(tmp_path: Path):
    picture(tmp_path / "cats" / "IMG_1.JPG")
    picture(tmp_path / "cats" / "sleepy cat.webp")
    picture(tmp_path / "cats" / "IMG_2.png").with_suffix(".txt").write_text("a cat on a mat")
    picture(tmp_path / "listed" / "deep" / "x.png")
    picture(tmp_path / "listed" / "y.png").with_suffix(".txt").write_text("from the text file")
    rows = [{"file_name": "deep/x.png", "texts": ["one", "two"]}, {"file_name": "y.png"}]
    (tmp_path / "listed" / "metadata.jsonl").write_text("\n".join(map(json.dumps, rows)))
    assert captions(tmp_path) == {
        "cats/IMG_1.JPG": ("cats",),
        "cats/IMG_2.png": ("a cat on a mat",),
        "cats/sleepy cat.webp": ("sleepy cat",),
        "listed/deep/x.png": ("one", "two"),
        "listed/y.png": ("from the text file",),
    }


def test_extras_are_kept_and_the_files_they_name_are_no_pictures(tmp_path: Path):
    for name in ("a.png", "depth/a.png", "masks/a.png", "stray.png"):
        picture(tmp_path / name)
    row = {
        "file_name": "a.png",
        "text": "t",
        "depth": "depth/a.png",
        "more": {"m": ["masks/a.png"]},
    }
    (tmp_path / "metadata.jsonl").write_text(json.dumps(row))
    folder = scan(tmp_path)
    assert [item.path.name for item in folder.items] == ["a.png"]
    assert folder.items[0].extras == {"depth": "depth/a.png", "more": {"m": ["masks/a.png"]}}
    assert [(s.path.name, s.reason) for s in folder.skipped] == [
        ("stray.png", "not listed in the metadata")
    ]


def test_broken_files_are_skipped_with_their_reasons(
    tmp_path: Path, make_pictures: Callable[..., Path]
):
    root = make_pictures(4)
    (root / "text.png").write_text("no picture at all")
    (root / "empty.jpg").touch()
    whole = (root / "thing 000.png").read_bytes()
    (root / "cut.png").write_bytes(whole[: len(whole) // 2])
    (root / "metadata.csv").write_text(
        "file_name,text\n" + "".join(f"{p.name},t\n" for p in root.glob("*.*g")) + "gone.png,t\n"
    )
    (root / "notes.md").write_text("not a picture, and not meant to be one")
    folder = scan(root)
    assert len(folder.items) == 4
    assert [s.path.name for s in folder.skipped] == ["cut.png", "empty.jpg", "gone.png", "text.png"]
    assert folder.summary().startswith("4 pictures, 4 files skipped (")
    assert "1 × the file is empty" in folder.summary()
    assert "no such file" in folder.skipped[2].reason


def test_hidden_files_and_system_folders_are_ignored(tmp_path: Path):
    picture(tmp_path / "a.png")
    for name in (".hidden.png", ".thumbnails/a.png", "__MACOSX/a.png", "@eaDir/a.png"):
        picture(tmp_path / name)
    folder = scan(tmp_path)
    assert [item.path.name for item in folder.items] == ["a.png"]
    assert folder.skipped == ()


def test_the_order_depends_on_names_only(tmp_path: Path, monkeypatch: pytest.MonkeyPatch):
    for name in ("b/1.png", "a/2.png", "c.png", "a/1.png"):
        picture(tmp_path / name)
    expected = [item.path for item in scan(tmp_path).items]
    walk = os.walk

    def backwards(top: Path):
        for folder, subfolders, names in walk(top):
            subfolders.reverse()
            yield folder, subfolders, names[::-1]

    monkeypatch.setattr(os, "walk", backwards)
    assert [item.path for item in scan(tmp_path).items] == expected == sorted(expected)


def test_sizes_are_upright(tmp_path: Path):
    exif = Image.Exif()
    exif[0x0112] = 6
    Image.new("RGB", (30, 20)).save(tmp_path / "a.jpg", exif=exif)
    assert scan(tmp_path).items[0].size == (20, 30)


def test_relative_roots_with_dots_and_strings(tmp_path: Path, monkeypatch: pytest.MonkeyPatch):
    picture(tmp_path / "in" / "0001.png")
    (tmp_path / "in" / "metadata.jsonl").write_text('{"file_name": "0001.png", "text": "t"}')
    monkeypatch.chdir(tmp_path / "in")
    for root in (".", "../in", "./../in/", tmp_path / "in"):
        assert [item.captions for item in scan(root).items] == [("t",)]
    (tmp_path / "in" / "metadata.jsonl").unlink()
    assert scan(".").items[0].captions == ("in",)


def test_progress_is_told(make_pictures: Callable[..., Path]):
    told: list[tuple[int, int]] = []
    scan(make_pictures(3), lambda done, total: told.append((done, total)))
    assert told == [(1, 3), (2, 3), (3, 3)]


def test_what_cannot_be_used_is_told_in_one_line(tmp_path: Path):
    with pytest.raises(SafelightError, match="No folder"):
        scan(tmp_path / "nowhere")
    with pytest.raises(SafelightError, match=r"no file there ends in \.apng"):
        scan(tmp_path)
    (tmp_path / "a.png").touch()
    with pytest.raises(SafelightError, match=r"1 files skipped, the first .*a\.png: the file is"):
        scan(tmp_path)


def test_several_folders_with_repeats(make_pictures: Callable[..., Path]):
    small, large = make_pictures(2, (16, 16), name="a"), make_pictures(3, (24, 40), name="b")
    config = DataConfig((FolderConfig(small, repeats=4), FolderConfig(large)))
    assert [item.repeats for item in gather(config).items] == [4, 4, 1, 1, 1]
    strict = DataConfig((FolderConfig(small), FolderConfig(large)), min_side=24)
    folder = gather(strict)
    assert len(folder.items) == 3
    assert {s.reason for s in folder.skipped} == {"a side is below 24 pixels"}
    with pytest.raises(SafelightError, match="All 5 pictures have a side below min_side = 25"):
        gather(DataConfig(strict.folders, min_side=25))


def test_previews_of_a_training_below_are_no_pictures(tmp_path: Path):
    picture(tmp_path / "cat.png")
    picture(tmp_path / "runs/cats/previews/step_1.png")
    picture(tmp_path / "runs/cats/autoencoder/previews/step_1.png")
    picture(tmp_path / "recipes/dog.png")
    for folder in ("runs/cats", "recipes"):
        (tmp_path / folder / "recipe.toml").write_text("")
    (tmp_path / "runs/cats/log.jsonl").write_text("")
    assert set(captions(tmp_path)) == {"cat.png", "recipes/dog.png"}
    previews = scan(tmp_path / "runs/cats").items  # but they may be asked for
    assert len(previews) == 2
