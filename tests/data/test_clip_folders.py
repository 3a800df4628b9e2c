"""Clips found and decoded: videos, animations and folders of frames, at a rate."""

import json
import struct
from collections.abc import Callable, Sequence
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from clip_writing import write_sounding
from safelight.data import clip_files
from safelight.data.clip_files import decode_clip, frame_files, is_clip, read_header
from safelight.data.clips import ClipsConfig, gather_clips, scan_clips
from safelight.data.config import DataConfig, FolderConfig
from safelight.errors import SafelightError

Write = Callable[[Path, Sequence[Image.Image]], None]


def greys(count: int, size: tuple[int, int] = (24, 16)) -> list[Image.Image]:
    """Frame k is 10 k + 5 bright."""
    return [Image.new("RGB", size, (10 * k + 5,) * 3) for k in range(count)]


def levels(frames: Sequence[Image.Image]) -> list[int]:
    return [int(np.asarray(frame.convert("RGB"))[8, 8, 0]) for frame in frames]


def write_webp(path: Path, frames: Sequence[Image.Image], milliseconds: int | list[int] = 100):
    frames[0].save(
        path, save_all=True, append_images=frames[1:], duration=milliseconds, lossless=True
    )


def write_video(path: Path, frames: Sequence[Image.Image], rate: int = 10):
    av = pytest.importorskip("av")
    with av.open(str(path), "w") as video:
        stream = video.add_stream("mpeg4", rate=rate)
        stream.width, stream.height = frames[0].size
        stream.pix_fmt, stream.bit_rate = "yuv420p", 4_000_000
        for frame in frames:
            video.mux(stream.encode(av.VideoFrame.from_image(frame)))
        video.mux(stream.encode())


def write_frames(path: Path, frames: Sequence[Image.Image]):
    path.mkdir()
    for number, frame in enumerate(frames):
        frame.save(path / f"shot {number}.png")


@pytest.mark.parametrize(
    ("name", "write", "near"),
    [("a.webp", write_webp, 0), ("a.gif", write_webp, 0), ("a.mp4", write_video, 4)],
)
def test_frames_are_those_shown_at_a_rate(tmp_path: Path, name: str, write: Write, near: int):
    path = tmp_path / name
    write(path, greys(12))
    header = read_header(path)
    assert is_clip(path)
    assert (header.size, header.frames) == ((24, 16), 12)
    assert header.fps == pytest.approx(10)
    for fps, expected in ((10.0, range(12)), (5.0, range(0, 12, 2))):
        found = levels(decode_clip(path, fps))
        assert np.abs(np.array(found) - [10 * k + 5 for k in expected]).max() <= near
    part = levels(decode_clip(path, 10.0, start=0.4, seconds=0.3))
    assert np.abs(np.array(part) - [45, 55, 65]).max() <= near
    assert decode_clip(path, 10.0, (12, 8))[0].size == (12, 8)


def test_a_frame_that_is_shown_longer_comes_more_than_once(tmp_path: Path):
    write_webp(tmp_path / "a.webp", greys(4), [100, 300, 100, 100])
    header = read_header(tmp_path / "a.webp")
    assert (header.frames, header.fps) == (6, pytest.approx(10))
    assert levels(decode_clip(tmp_path / "a.webp", 10.0)) == [5, 15, 15, 15, 25, 35]


def test_folders_of_numbered_frames_are_clips_and_albums_are_not(tmp_path: Path):
    write_frames(tmp_path / "waving", greys(12))
    assert [path.stem for path in frame_files(tmp_path / "waving")][9:] == [
        "shot 9",
        "shot 10",
        "shot 11",
    ]
    assert levels(decode_clip(tmp_path / "waving", 8.0, start=0.5, seconds=0.25)) == [45, 55]
    album = tmp_path / "album"
    album.mkdir()
    for name in ("cat.png", "dog 1.png"):
        greys(1)[0].save(album / name)
    assert not is_clip(album)
    camera = tmp_path / "camera"
    camera.mkdir()
    for number, size in enumerate(((24, 16), (16, 24), (24, 16))):
        Image.new("RGB", size).save(camera / f"IMG_{number:04}.jpg")
    assert not is_clip(camera)
    write_webp(tmp_path / "ball.webp", greys(9))
    found = scan_clips(tmp_path, ClipsConfig(folder_fps=12.0))
    assert [(item.path.name, item.frames, item.fps) for item in found.items] == [
        ("ball.webp", 9, 10),
        ("waving", 12, 12),
    ]
    assert [item.captions for item in found.items] == [("ball",), ("waving",)]


def test_metadata_names_clips_folders_and_rates(tmp_path: Path):
    write_frames(tmp_path / "0001", greys(10))
    write_webp(tmp_path / "b.webp", greys(10))
    write_webp(tmp_path / "unsaid.webp", greys(10))
    greys(1)[0].save(tmp_path / "still.png")
    rows = [
        {"file_name": "0001", "text": "a walk", "fps": 6},
        {"file_name": "b.webp", "texts": ["one", "other"]},
        {"file_name": "still.png", "text": "no clip"},
    ]
    (tmp_path / "metadata.jsonl").write_text("".join(json.dumps(row) + "\n" for row in rows))
    found = scan_clips(tmp_path, ClipsConfig())
    assert [(item.captions, item.fps) for item in found.items] == [
        (("a walk",), 6.0),
        (("one", "other"), 10.0),
    ]
    reasons = {skipped.path.name: skipped.reason for skipped in found.skipped}
    assert reasons == {"still.png": "it is no clip", "unsaid.webp": "not listed in the metadata"}
    assert found.summary().startswith("2 clips of 20 frames, 2 files skipped")


def test_long_ones_are_cut_into_pieces_and_short_ones_left_out(tmp_path: Path):
    write_webp(tmp_path / "long.webp", greys(25))
    write_webp(tmp_path / "short.webp", greys(7))
    found = scan_clips(tmp_path, ClipsConfig(seconds=1.0))
    assert [(item.start, item.frames) for item in found.items] == [(0.0, 10), (1.0, 10)]
    assert [skipped.reason for skipped in found.skipped] == ["fewer than 8 frames"]
    slower = scan_clips(tmp_path, ClipsConfig(fps=5.0, frames=4, strides=(1, 3)))
    assert [(item.path.stem, item.frames, item.fps) for item in slower.items] == [
        ("long", 12, 5),
        ("short", 4, 5),
    ]


@pytest.mark.parametrize(("rate", "kept", "every"), [(30, 15, 2), (60, 20, 3), (24, 24, 1)])
def test_of_a_fast_file_every_so_manieth_frame_is_kept(tmp_path, rate, kept, every):
    write_video(tmp_path / "a.mp4", greys(24), rate)
    (item,) = scan_clips(tmp_path, ClipsConfig(frames=4, strides=(1,))).items
    assert (item.fps, item.frames) == (pytest.approx(kept), 24 // every)
    found = levels(decode_clip(item.path, item.fps, seconds=item.seconds))
    assert np.abs(np.diff(found) - 10 * every).max() <= 3


def test_a_header_that_tells_of_days_is_skipped_before_pieces_are_cut(tmp_path: Path):
    write_sounding(tmp_path / "a.mkv", greys(9), 2.0)
    content = (tmp_path / "a.mkv").read_bytes()
    at = content.index(b"\x44\x89") + 3  # the file's duration, in milliseconds, as a double
    assert content[at - 1] == 0x88
    (tmp_path / "a.mkv").write_bytes(content[:at] + struct.pack(">d", 1e13) + content[at + 8 :])
    write_webp(tmp_path / "b.webp", greys(9))
    found = scan_clips(tmp_path, ClipsConfig())
    assert [item.path.name for item in found.items] == ["b.webp"]
    assert [skipped.reason for skipped in found.skipped] == [
        "it says that it is 1e+10 seconds long; cut it into 12 hours"
    ]


def test_a_frame_is_shown_for_ten_seconds_at_most(tmp_path: Path):
    write_webp(tmp_path / "a.webp", greys(9), [100] * 8 + [(1 << 24) - 1])
    found = scan_clips(tmp_path, ClipsConfig())
    assert sum(item.frames for item in found.items) == 108


def test_pictures_too_large_are_told_as_such(tmp_path: Path, monkeypatch: pytest.MonkeyPatch):
    write_video(tmp_path / "a.mp4", greys(9, (64, 48)))
    monkeypatch.setattr(Image, "MAX_IMAGE_PIXELS", 64 * 48 // 2)
    assert len(decode_clip(tmp_path / "a.mp4", 10.0)) == 9
    write_webp(tmp_path / "b.gif", greys(9, (64, 48)))
    monkeypatch.setattr(Image, "MAX_IMAGE_PIXELS", 64 * 48 // 2 - 1)
    with pytest.raises(SafelightError, match="it has more than 3,070 pixels"):
        decode_clip(tmp_path / "b.gif", 10.0)
    for read in (read_header, lambda path: decode_clip(path, 10.0)):
        with pytest.raises(SafelightError, match="it has more than 3,070 pixels"):
            read(tmp_path / "a.mp4")


def test_an_animation_stands_upright_in_srgb_without_its_default_image(tmp_path: Path):
    exif = Image.Exif()
    exif[0x0112] = 6  # to be turned by 90 degrees clockwise
    frames = greys(9)
    frames[0].save(
        tmp_path / "a.webp", save_all=True, append_images=frames[1:], lossless=True, exif=exif
    )
    assert read_header(tmp_path / "a.webp").size == (16, 24)
    assert decode_clip(tmp_path / "a.webp", 10.0, (8, 8))[0].size == (8, 12)
    frames[8].save(
        tmp_path / "b.png",
        save_all=True,
        append_images=frames[:8],
        default_image=True,
        duration=100,
    )
    assert read_header(tmp_path / "b.png").frames == 8
    assert levels(decode_clip(tmp_path / "b.png", 10.0)) == [10 * k + 5 for k in range(8)]


def test_a_turned_video_stands_upright(tmp_path: Path):
    av = pytest.importorskip("av")
    frame = Image.new("RGB", (48, 32), "black")
    frame.paste("white", (0, 0, 24, 32))  # the left half
    write_video(tmp_path / "a.mp4", [frame] * 9)
    content = bytearray((tmp_path / "a.mp4").read_bytes())
    one, whole = struct.pack(">i", 1 << 16), struct.pack(">i", 1 << 30)
    none, back = bytes(4), struct.pack(">i", -(1 << 16))
    straight = one + 3 * none + one + 3 * none + whole
    at = content.index(straight, content.index(b"tkhd"))
    content[at : at + 36] = none + one + none + back + 4 * none + whole
    (tmp_path / "a.mp4").write_bytes(content)
    assert read_header(tmp_path / "a.mp4").size == (32, 48)
    with av.open(str(tmp_path / "a.mp4")) as video:
        turns = next(iter(video.decode(video=0))).rotation
    for cover, size in ((None, (32, 48)), ((16, 16), (16, 24))):
        picture = decode_clip(tmp_path / "a.mp4", 10.0, cover)[0]
        assert picture.size == size
        top = int(np.asarray(picture)[2, 8, 0])
        assert (top > 200) == (turns == -90)


def test_only_what_is_asked_for_of_an_animation_is_decoded(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
):
    write_webp(tmp_path / "a.gif", greys(20))
    converted: list[int] = []
    plain = clip_files.upright
    monkeypatch.setattr(
        clip_files, "upright", lambda f, cover: converted.append(f.tell()) or plain(f, cover)
    )
    read_header(tmp_path / "a.gif")
    assert converted == []
    assert levels(decode_clip(tmp_path / "a.gif", 10.0, start=0.5, seconds=0.3)) == [55, 65, 75]
    assert converted in ([5, 6, 7], [5, 6, 7, 8])  # by how the times' sums are rounded


@pytest.mark.parametrize(
    ("name", "content", "reason"),
    [("a.mp4", b"no video", "damaged|invalid"), ("a.gif", b"", "No readable clips")],
)
def test_what_cannot_be_read_ends_in_one_line(tmp_path, name, content, reason):
    pytest.importorskip("av")
    (tmp_path / name).write_bytes(content)
    with pytest.raises(SafelightError, match=reason):
        scan_clips(tmp_path, ClipsConfig())


def test_too_small_clips_and_repeats(tmp_path: Path):
    for name, size in (("big", (32, 32)), ("small", (16, 16))):
        (tmp_path / name).mkdir()
        write_webp(tmp_path / name / f"{name}.webp", greys(9, size))
    data = DataConfig((FolderConfig(tmp_path, 3),), size=16, min_side=20)
    (item,) = gather_clips(data, ClipsConfig()).items
    assert (item.path.stem, item.repeats) == ("big", 3)
    with pytest.raises(SafelightError, match="min_side = 40"):
        gather_clips(DataConfig(data.folders, size=16, min_side=40), ClipsConfig())


@pytest.mark.parametrize(
    "wrong", [{"frames": 1}, {"strides": (0,)}, {"fps": 0.0}, {"seconds": 0.0}, {"slowed": 1.5}]
)
def test_values_out_of_range(wrong: dict[str, object]):
    with pytest.raises(SafelightError, match=f"clips.{next(iter(wrong))} should be"):
        ClipsConfig(**wrong)
