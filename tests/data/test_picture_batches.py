import threading
import time
from collections import Counter
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
import torch
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from PIL import Image

import safelight.data.batches
from safelight.data.batches import PictureBatches, prefetch
from safelight.data.config import DataConfig, FolderConfig
from safelight.data.folders import PictureFolder, gather
from safelight.errors import SafelightError
from safelight.pictures import load_picture, to_pixels
from safelight.types import Batch

MakePictures = Callable[..., Path]


def config_for(*roots: Path, size: int = 16, **options: object) -> DataConfig:
    folders = tuple(FolderConfig(root) for root in roots)
    return replace(DataConfig(folders, size=size), **options)  # type: ignore[arg-type]


def batches(config: DataConfig, batch_size: int = 4) -> PictureBatches:
    return PictureBatches(gather(config), config, batch_size)


def pixels_of(batch: Batch) -> torch.Tensor:
    assert batch.pixels is not None
    return batch.pixels


def same(one: Batch, other: Batch) -> bool:
    return one.captions == other.captions and torch.equal(pixels_of(one), pixels_of(other))


@settings(max_examples=10, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(
    seed=st.integers(0, 2**63),
    batch_size=st.integers(1, 6),
    steps=st.permutations(range(5)),
    cache_bytes=st.sampled_from([0, 3000, 1 << 30]),
    buckets=st.booleans(),
)
def test_a_batch_depends_on_seed_and_step_alone(
    make_pictures: MakePictures,
    seed: int,
    batch_size: int,
    steps: list[int],
    cache_bytes: int,
    buckets: bool,
):
    config = config_for(
        make_pictures(5, (32, 24), "RGBA", "wide"),
        make_pictures(3, (20, 20), name="square"),
        seed=seed,
        buckets=buckets,
        multiple=4,
        crop="random",
        zoom=1.4,
        flip=True,
        backgrounds=("white", "navy", "#707070"),
        caption_dropout=0.2,
    )
    straight = batches(config, batch_size)
    expected = [straight.batch(step) for step in range(5)]
    jumping = batches(replace(config, cache_bytes=cache_bytes), batch_size)
    for step in steps:
        assert same(jumping.batch(step), expected[step])
    assert same(batches(config, batch_size).batch(4), expected[4])


def test_pixels_and_captions_belong_together(make_pictures: MakePictures):
    root = make_pictures(7, (16, 16))
    folder = gather(config_for(root))
    run = PictureBatches(folder, config_for(root), 5)
    for step in range(4):
        batch = run.batch(step)
        assert pixels_of(batch).shape == (5, 3, 16, 16)
        for row, index in enumerate(batch.extras["item"].tolist()):
            item = folder.items[index]
            assert batch.captions[row] == item.captions[0]
            assert torch.equal(pixels_of(batch)[row], to_pixels(load_picture(item.path)))


def test_every_picture_once_an_epoch_and_repeats_as_often(make_pictures: MakePictures):
    config = DataConfig(
        (
            FolderConfig(make_pictures(4, name="a"), repeats=3),
            FolderConfig(make_pictures(6, name="b")),
        ),
        size=8,
    )
    run = batches(config, 6)
    assert run.steps_per_epoch == 3
    for epoch in range(2):
        seen = Counter(
            i for s in range(3) for i in run.batch(3 * epoch + s).extras["item"].tolist()
        )
        assert seen == {**dict.fromkeys(range(4), 3), **dict.fromkeys(range(4, 10), 1)}


def test_buckets_hold_pictures_of_their_shape(make_pictures: MakePictures):
    config = config_for(
        make_pictures(6, (60, 30), name="wide"),
        make_pictures(6, (30, 60), name="tall"),
        size=32,
        buckets=True,
        multiple=8,
    )
    run = batches(config, 3)
    shapes = Counter(tuple(pixels_of(run.batch(step)).shape[2:]) for step in range(4))
    assert shapes == {(24, 40): 2, (40, 24): 2}


def test_flips_backgrounds_captions_and_cuts_vary_from_epoch_to_epoch(tmp_path: Path):
    rows = np.zeros((16, 32, 4), np.uint8)
    rows[:, :16] = (255, 0, 0, 255)  # the left half is red, the right transparent
    Image.fromarray(rows).save(tmp_path / "a.png")
    (tmp_path / "metadata.jsonl").write_text('{"file_name": "a.png", "texts": ["x", "y", "z"]}')
    config = config_for(
        tmp_path, flip=True, crop="random", backgrounds=("lime", "blue"), caption_dropout=0.25
    )
    batch = batches(config, 400).batch(0)
    captions = Counter(batch.captions)
    assert set(captions) == {"x", "y", "z", ""}
    assert all(70 < captions[caption] < 130 for caption in captions)
    grounds = Counter()
    for picture in (pixels_of(batch) > 0).int():
        grounds["lime"] += int(picture[1].any())
        grounds["blue"] += int(picture[2].any())
        grounds["red to the right"] += int(picture[0, 0, -1] > picture[0, 0, 0])
        grounds["red to the left"] += int(picture[0, 0, -1] < picture[0, 0, 0])
        grounds["wholly red"] += int(picture[0].all())
    assert abs(grounds["lime"] - grounds["blue"]) < 80
    assert abs(grounds["red to the right"] - grounds["red to the left"]) < 80
    assert grounds["red to the left"] > 100
    widths = {int((picture[0, 0] > 0).sum()) for picture in pixels_of(batch)}
    assert len(widths) > 10


def test_zoom_shows_between_the_whole_and_its_part(make_pictures: MakePictures):
    root = make_pictures(1, (64, 64))
    plain = pixels_of(batches(config_for(root, size=32), 1).batch(0))
    zoomed = batches(config_for(root, size=32, zoom=2.0), 64)
    spread = [float((row - plain[0]).abs().mean()) for row in pixels_of(zoomed.batch(0))]
    assert 0 < min(spread) < max(spread) / 2


def test_pictures_are_decoded_once_while_there_is_room(
    make_pictures: MakePictures, monkeypatch: pytest.MonkeyPatch
):
    decoded: Counter[str] = Counter()
    decode = safelight.data.batches.decode

    def counting(path: Path, cover: tuple[int, int]) -> Image.Image:
        decoded[path.name] += 1
        return decode(path, cover)

    monkeypatch.setattr(safelight.data.batches, "decode", counting)
    root = make_pictures(10, (32, 32))
    run = batches(config_for(root), 10)
    for step in range(5):
        run.batch(step)
    assert set(decoded.values()) == {1}
    decoded.clear()
    room_for_four = batches(config_for(root, cache_bytes=4 * 16 * 16 * 3 + 5), 10)
    for step in range(5):
        room_for_four.batch(step)
    assert Counter(decoded.values()) == {1: 4, 5: 6}


def test_an_unreadable_picture_is_replaced_and_told_of(make_pictures: MakePictures):
    root = make_pictures(5)
    config = config_for(root)
    folder = gather(config)
    broken = folder.items[2].path
    broken.write_bytes(broken.read_bytes()[:-300])
    runs = [PictureBatches(folder, config, 4) for _ in range(2)]
    forward = [runs[0].batch(step) for step in range(6)]
    backward = [runs[1].batch(step) for step in reversed(range(6))][::-1]
    assert all(same(a, b) for a, b in zip(forward, backward, strict=True))
    assert 2 not in {i for batch in forward for i in batch.extras["item"].tolist()}
    assert [skipped.path for skipped in runs[0].skipped] == [broken]
    assert "damaged" in runs[0].skipped[0].reason
    for item in folder.items:
        item.path.unlink()
    with pytest.raises(SafelightError, match=r"No picture can be read any more.*no such file"):
        PictureBatches(folder, config, 4).batch(0)


def test_three_pictures_of_mixed_sizes_fill_any_batch(tmp_path: Path):
    for i, size in enumerate([(400, 300), (30, 40), (7, 5)]):
        Image.new("RGB", size, (80 * i, 0, 0)).save(tmp_path / f"{i}.jpg")
    batch = batches(config_for(tmp_path, size=32), 16).batch(0)
    assert pixels_of(batch).shape == (16, 3, 32, 32)
    assert Counter(batch.extras["item"].tolist()).most_common()[-1][1] == 5


def test_an_empty_folder_is_refused():
    with pytest.raises(ValueError, match="have members"):
        PictureBatches(PictureFolder(()), config_for(Path()), 4)


@pytest.mark.parametrize("workers", [1, 3])
def test_prefetch_keeps_the_order(workers: int):
    def slow(step: int) -> int:
        time.sleep(0.003 * (step % 3))
        return step

    ahead = prefetch(slow, start=5, depth=4, workers=workers)
    assert [next(ahead) for _ in range(20)] == list(range(5, 25))
    ahead.close()
    assert list(prefetch(slow, start=2, stop=9, depth=3, workers=workers)) == list(range(2, 9))
    assert list(prefetch(slow, start=2, stop=2)) == []


def test_prefetch_works_ahead_by_its_depth_and_no_further():
    asked: list[int] = []
    ahead = prefetch(lambda step: asked.append(step) or step, depth=3)
    assert next(ahead) == 0
    deadline = time.monotonic() + 5
    while len(asked) < 4 and time.monotonic() < deadline:
        time.sleep(0.001)
    time.sleep(0.02)
    assert asked == [0, 1, 2, 3]
    ahead.close()


def test_prefetch_starts_no_threads_in_its_threads():
    before = torch.get_num_threads()
    assert list(prefetch(lambda _: torch.get_num_threads(), stop=3)) == [1, 1, 1]
    assert torch.get_num_threads() == before


def test_prefetch_raises_where_the_batch_would_have_come():
    def failing(step: int) -> int:
        if step == 2:
            raise SafelightError("step two")
        return step

    ahead = prefetch(failing, depth=4)
    assert [next(ahead), next(ahead)] == [0, 1]
    with pytest.raises(SafelightError, match="step two"):
        next(ahead)


def test_closing_ends_the_threads():
    before = threading.active_count()
    ahead = prefetch(lambda step: step, workers=2)
    next(ahead)
    assert threading.active_count() > before
    ahead.close()
    assert threading.active_count() == before


def test_several_threads_give_the_same_batches(make_pictures: MakePictures):
    config = config_for(make_pictures(9, mode="RGBA"), flip=True, zoom=1.5, crop="random")
    expected = [batches(config).batch(step) for step in range(12)]
    for batch, other in zip(
        prefetch(batches(config).batch, workers=4, stop=12), expected, strict=True
    ):
        assert same(batch, other)
