"""Clips encoded once, their motion, and batches that are functions of the step."""

from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
import torch
from PIL import Image, ImageDraw
from torch import Tensor
from torch.nn.functional import avg_pool2d

from clip_writing import write_sounding
from safelight.data.clip_encoding import cache_clips
from safelight.data.clip_latents import ClipBatches, ClipCache
from safelight.data.clips import ClipsConfig, gather_clips
from safelight.data.config import DataConfig, FolderConfig
from safelight.data.encoding import cache_latents
from safelight.data.folders import gather
from safelight.data.latents import LatentBatches
from safelight.data.motion import HEIGHT, bucket_of, flow, flow_ready, motion_between, speed_of
from safelight.errors import SafelightError

pytest.importorskip("cv2")
SIZE = 32


def disc(x: float, mode: str = "RGB") -> Image.Image:
    """A black disc at x on white, or on nothing, of 16 x 16 parts."""
    ground = (255, 255, 255, 255 if mode == "RGB" else 0)
    image = Image.new("RGBA", (4 * SIZE, 4 * SIZE), ground)
    box = (4 * x - 24, 40, 4 * x + 24, 88)
    ImageDraw.Draw(image).ellipse(box, fill=(20, 20, 20, 255))
    return image.resize((SIZE, SIZE), Image.Resampling.BOX).convert(mode)


def write(path: Path, step: float, count: int = 16, mode: str = "RGB") -> None:
    frames = [disc(8 + step * k, mode) for k in range(count)]
    frames[0].save(path, save_all=True, append_images=frames[1:], duration=50, lossless=True)


@pytest.fixture
def root(tmp_path: Path) -> Path:
    folder = tmp_path / "clips"
    folder.mkdir()
    write(folder / "slow ball.webp", 0.25)
    write(folder / "fast ball.webp", 1.0)
    write(folder / "clear ball.webp", 0.5, mode="RGBA")
    return folder


class Encoder:
    """Averages 4 x 4 pixels, and counts what it sees."""

    def __init__(self, fail_after: int | None = None):
        self.seen, self._fail_after = 0, fail_after

    def __call__(self, pixels: Tensor) -> tuple[Tensor, Tensor]:
        if self._fail_after is not None and self.seen >= self._fail_after:
            raise KeyboardInterrupt
        self.seen += len(pixels)
        mean = avg_pool2d(pixels, 4)
        return mean, torch.full_like(mean, 0.01)


def cached(folder: Path, data: DataConfig, encoder: Encoder, config: ClipsConfig) -> ClipCache:
    return cache_clips(folder, gather_clips(data, config), data, config, encoder, "weights")


def config_for(root: Path) -> DataConfig:
    return DataConfig((FolderConfig(root),), size=16)


def test_flow_points_where_things_move():
    first, second = (flow_ready(np.asarray(disc(x))) for x in (12.0, 13.0))
    moved = flow(first, second)
    inside = first < 100
    right, down = moved[inside].mean(axis=0)  # less than the whole way, as its inside is plain
    assert 0.5 * HEIGHT / SIZE < right < 1.2 * HEIGHT / SIZE
    assert abs(down) < 0.3
    share = float(inside.mean())
    assert motion_between([np.asarray(disc(x)) for x in (12.0, 12.0)]) == pytest.approx([0])
    (length,) = motion_between([np.asarray(disc(x)) for x in (12.0, 13.0)])
    assert 0.7 < length / (share / SIZE) < 1.8


def test_buckets_rise_and_come_back():
    speeds = [0.0, 0.01, 0.05, 0.3, 2.0]
    buckets = [bucket_of(speed) for speed in speeds]
    assert buckets == sorted(set(buckets))
    assert buckets[0] == 0
    assert buckets[-1] < 255
    assert [speed_of(float(b)) for b in buckets[:4]] == pytest.approx(speeds[:4], rel=0.02)


def test_clips_are_encoded_once_with_their_motion(root: Path, tmp_path: Path):
    encoder, config = Encoder(), ClipsConfig(strides=(1,))
    data = replace(config_for(root), flip=True, backgrounds=("white", "red"))
    cache = cached(tmp_path / "cache", data, encoder, config)
    assert encoder.seen == 16 * 2 * (1 + 1 + 2)  # flips; and the clear one's two grounds
    again = cached(tmp_path / "cache", data, encoder, config)
    assert encoder.seen == 128
    names = [item.path.stem for item in cache.clips.items]
    speed: dict[str, float] = {}
    for index, name in enumerate(names):
        straight = cache.encoded(index, (16, 16), False, 0)
        mirrored = again.encoded(index, (16, 16), True, 0)
        assert torch.allclose(straight.moments.flip(-1).float(), mirrored.moments.float(), atol=0.1)
        assert straight.motion.shape == (15,)
        speed[name] = float(straight.motion.mean())
    assert speed["slow ball"] < speed["clear ball"] < speed["fast ball"]
    white, red = (cache.encoded(names.index("clear ball"), (16, 16), False, i) for i in (0, 1))
    assert red.moments[0, 0, :, 0, 0].tolist() == pytest.approx([1, -1, -1])
    assert white.moments[0, 0, :, 0, 0].tolist() == pytest.approx([1, 1, 1])

    write(root / "slow ball.webp", 0.5)
    cached(tmp_path / "cache", data, encoder, config)
    assert encoder.seen == 128 + 32


def test_an_interrupted_encoding_goes_on(root: Path, tmp_path: Path):
    data, config = config_for(root), ClipsConfig()
    with pytest.raises(KeyboardInterrupt):
        cached(tmp_path / "cache", data, Encoder(fail_after=32), config)
    encoder = Encoder()
    cache = cached(tmp_path / "cache", data, encoder, config)
    assert encoder.seen == 16
    assert len(cache.clips.items) == 3


def test_a_clip_that_cannot_be_decoded_is_left_out(root: Path, tmp_path: Path):
    data, config = config_for(root), ClipsConfig()
    found = gather_clips(data, config)
    (root / "fast ball.webp").write_bytes(b"gone")
    cache = cache_clips(tmp_path / "cache", found, data, config, Encoder(), "weights")
    assert [item.path.stem for item in cache.clips.items] == ["clear ball", "slow ball"]
    assert [skipped.path.stem for skipped in cache.clips.skipped] == ["fast ball"]


def test_a_file_that_ends_before_its_header_says_loses_its_end_alone(tmp_path: Path):
    folder = tmp_path / "clips"
    folder.mkdir()
    write_sounding(folder / "a.mkv", [disc(8 + k / 2) for k in range(17)], 2.4)
    data, config = config_for(folder), ClipsConfig(frames=4, strides=(1, 2), seconds=1.2)
    encoder = Encoder()
    assert [item.frames for item in gather_clips(data, config).items] == [12, 12]
    cache = cached(tmp_path / "cache", data, encoder, config)
    assert [item.frames for item in cache.clips.items] == [12, 5]
    assert cache.strides(cache.clips.items[1]) == [1]
    batches = ClipBatches(cache, 2)
    assert all(batches.batch(step).clips is not None for step in range(8))
    cached(tmp_path / "cache", data, encoder, config)
    assert encoder.seen == 17
    longer = replace(config, seconds=1.5)  # of the second piece two frames are left
    cache = cached(tmp_path / "longer", data, Encoder(), longer)
    assert [item.frames for item in cache.clips.items] == [15]
    assert "from second 1.5 on it has fewer than 4" in cache.clips.skipped[0].reason


def test_opencv_is_asked_for_before_anything_is_encoded(
    root: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
):
    monkeypatch.setattr("importlib.util.find_spec", lambda *_: None)
    encoder = Encoder()
    with pytest.raises(SafelightError, match="OpenCV, which is not installed"):
        cached(tmp_path / "cache", config_for(root), encoder, ClipsConfig())
    assert encoder.seen == 0


def test_copies_that_cannot_be_decoded_are_left_out_both(root: Path, tmp_path: Path):
    data, config = config_for(root), ClipsConfig()
    (root / "copy.webp").write_bytes((root / "fast ball.webp").read_bytes())
    found = gather_clips(data, config)
    for name in ("fast ball", "copy"):
        (root / f"{name}.webp").write_bytes(b"gone")
    cache = cache_clips(tmp_path / "cache", found, data, config, Encoder(), "weights")
    assert [item.path.stem for item in cache.clips.items] == ["clear ball", "slow ball"]
    assert [skipped.path.stem for skipped in cache.clips.skipped] == ["copy", "fast ball"]


def test_batches_are_functions_of_the_step(root: Path, tmp_path: Path):
    data, config = config_for(root), ClipsConfig(frames=4, strides=(1, 2, 7))
    cache = cached(tmp_path / "cache", data, Encoder(), config)
    batches = ClipBatches(cache, 3, shift=0.5, scale=2.0)
    other = ClipBatches(cache, 3, shift=0.5, scale=2.0)
    rates: set[int] = set()
    for step in range(12):
        batch = batches.batch(step)
        assert batch.clips is not None
        assert batch.clips.shape == (3, 4, 3, 4, 4)
        assert sorted(batch.extras["item"].tolist()) == [0, 1, 2]
        rates |= set(batch.extras["fps"].tolist())
        for row, item in enumerate(batch.extras["item"].tolist()):
            whole = (cache.encoded(item, (16, 16), False, 0).moments[:, 0].float() - 0.5) * 2
            stride = 20 // int(batch.extras["fps"][row])
            near = [
                first
                for first in range(16 - 3 * stride)
                if torch.allclose(whole[first::stride][:4], batch.clips[row], atol=0.2)
            ]
            assert near
    assert rates == {20, 10}  # a stride of 7 does not fit into 16 frames
    again = other.batch(7).clips
    first = batches.batch(7).clips
    assert again is not None
    assert first is not None
    assert torch.equal(again, first)


def test_clips_are_slowed_as_far_as_to_stills(root: Path, tmp_path: Path):
    data, config = config_for(root), ClipsConfig(frames=4, strides=(1, 2), slowed=0.5)
    cache = cached(tmp_path / "cache", data, Encoder(), config)
    batches = ClipBatches(cache, 3, shift=0.5, scale=2.0)
    seen: dict[tuple[int, int], int] = {}
    for step in range(60):
        batch = batches.batch(step)
        assert batch.clips is not None
        for row, item in enumerate(batch.extras["item"].tolist()):
            encoded = cache.encoded(item, (16, 16), False, 0)
            whole = (encoded.moments[:, 0].float() - 0.5) * 2
            stride = 20 // int(batch.extras["fps"][row])
            found: list[tuple[int, int]] = []
            for taken in range(stride + 1):
                for first in range(16 - 3 * taken):
                    places = first + taken * torch.arange(4)
                    if torch.allclose(whole[places], batch.clips[row], atol=0.1):
                        found.append((taken, first))
            motions = {
                bucket_of(
                    float(encoded.motion[first : first + 3 * taken].mean()) * 20 * taken / stride
                    if taken
                    else 0.0
                )
                for taken, first in found
            }
            assert int(batch.extras["motion"][row]) in motions
            if cache.clips.items[item].path.stem == "fast ball":  # no two frames are alike
                ((taken, _),) = found
                seen[stride, taken] = seen.get((stride, taken), 0) + 1
                if not taken:
                    assert torch.equal(batch.clips[row], batch.clips[row][:1].expand(4, -1, -1, -1))
    assert seen.keys() == {(1, 1), (1, 0), (2, 2), (2, 1), (2, 0)}


def test_stills_come_between_clips(root: Path, tmp_path: Path):
    data, config = config_for(root), ClipsConfig(frames=4)
    cache = cached(tmp_path / "cache", data, Encoder(), config)
    pictures = tmp_path / "stills"
    pictures.mkdir()
    disc(4).save(pictures / "still.png")
    still_data = replace(data, folders=(FolderConfig(pictures),))
    stills = cache_latents(tmp_path / "s", gather(still_data), still_data, Encoder(), "weights")
    batches = ClipBatches(cache, 2, stills=LatentBatches(stills, 5), share=0.25)
    kinds = ["clips" if batches.batch(s).clips is not None else "stills" for s in range(12)]
    assert kinds == ["clips", "clips", "clips", "stills"] * 3
    plain = ClipBatches(cache, 2)
    (a, b) = (batches.batch(4).clips, plain.batch(3).clips)
    assert a is not None
    assert b is not None
    assert torch.equal(a, b)
