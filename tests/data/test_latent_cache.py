from collections import Counter
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
import torch
from PIL import Image
from torch import Tensor
from torch.nn.functional import avg_pool2d

from safelight.data.config import DataConfig, FolderConfig
from safelight.data.encoding import cache_latents
from safelight.data.folders import PictureFolder, gather
from safelight.data.latents import LatentBatches, LatentCache, measure_scale
from safelight.errors import SafelightError
from safelight.pictures import load_picture, to_pixels

MakePictures = Callable[..., Path]


class Encoder:
    """Averages 4 x 4 pixels, with a known deviation, and counts what it sees."""

    def __init__(self, deviation: float = 0.0, fail_after: int | None = None):
        self.seen = 0
        self._deviation = deviation
        self._fail_after = fail_after

    def __call__(self, pixels: Tensor) -> tuple[Tensor, Tensor]:
        if self._fail_after is not None and self.seen >= self._fail_after:
            raise KeyboardInterrupt
        self.seen += len(pixels)
        mean = avg_pool2d(pixels, 4)
        return mean, torch.full_like(mean, self._deviation)


def config_for(*roots: Path, **options: object) -> DataConfig:
    config = DataConfig(tuple(FolderConfig(root) for root in roots), size=16)
    return replace(config, **options)  # type: ignore[arg-type]


def cached(
    root: Path, config: DataConfig, encoder: Encoder, weights: str = "weights", batch_size: int = 4
) -> LatentCache:
    return cache_latents(root, gather(config), config, encoder, weights, batch_size)


def test_latents_are_those_of_the_pictures(tmp_path: Path, make_pictures: MakePictures):
    config = config_for(make_pictures(6, (16, 16)), flip=True)
    cache = cached(tmp_path / "cache", config, Encoder())
    for index, item in enumerate(cache.pictures.items):
        expected = avg_pool2d(to_pixels(load_picture(item.path)), 4)
        straight = cache.moments(index, (16, 16), False, 0)
        assert straight.dtype == torch.float16
        assert torch.allclose(straight[0].float(), expected, atol=1e-3)
        mirrored = cache.moments(index, (16, 16), True, 0)
        assert torch.allclose(mirrored[0].float(), expected.flip(-1), atol=1e-3)
        assert not torch.equal(mirrored, straight)


def test_pictures_are_encoded_once(tmp_path: Path, make_pictures: MakePictures):
    root = make_pictures(7, (16, 16))
    config, encoder = config_for(root), Encoder()
    first = cached(tmp_path / "cache", config, encoder)
    assert encoder.seen == 7
    again = cached(tmp_path / "cache", config, encoder)
    assert encoder.seen == 7
    for index in range(7):
        view = (index, (16, 16), False, 0)
        assert torch.equal(again.moments(*view), first.moments(*view))

    Image.new("RGB", (16, 16), "red").save(root / "thing 003.png")
    Image.new("RGB", (16, 16), "blue").save(root / "new.png")
    changed = cached(tmp_path / "cache", config, encoder)
    assert encoder.seen == 9
    red = [i for i, item in enumerate(changed.pictures.items) if item.path.stem == "thing 003"]
    assert changed.moments(red[0], (16, 16), False, 0)[0, :, 0, 0].tolist() == [1, -1, -1]


def test_other_weights_sizes_and_flips_are_encoded_anew(
    tmp_path: Path, make_pictures: MakePictures
):
    config, encoder = config_for(make_pictures(5, (32, 32))), Encoder()
    cached(tmp_path, config, encoder)
    cached(tmp_path, config, encoder, weights="others")
    assert encoder.seen == 10
    cached(tmp_path, replace(config, size=32), encoder)
    assert encoder.seen == 15
    cached(tmp_path, replace(config, flip=True), encoder)
    assert encoder.seen == 25
    for _ in range(2):
        cached(tmp_path, config, encoder)
        cached(tmp_path, replace(config, seed=3, crop="random", zoom=2.0), encoder)
    assert encoder.seen == 25


def test_only_transparent_pictures_have_a_latent_per_background(
    tmp_path: Path, make_pictures: MakePictures
):
    clear = make_pictures(2, (16, 16), "RGBA", "clear")
    opaque = make_pictures(3, (16, 16), "RGB", "opaque")
    config, encoder = config_for(clear, opaque, backgrounds=("white", "black")), Encoder()
    cache = cached(tmp_path / "cache", config, encoder)
    assert encoder.seen == 2 * 2 + 3
    for index, item in enumerate(cache.pictures.items):
        white, black = (cache.moments(index, (16, 16), False, i) for i in (0, 1))
        assert torch.equal(white, black) == (item.path.parent.name == "opaque")
        expected = avg_pool2d(to_pixels(load_picture(item.path, (0, 0, 0))), 4)
        assert torch.allclose(black[0].float(), expected, atol=1e-2)
    more = replace(config, backgrounds=("black", "red"))
    cached(tmp_path / "cache", more, encoder)
    assert encoder.seen <= 7 + 2 * 2


def test_same_bytes_are_encoded_once(tmp_path: Path, make_pictures: MakePictures):
    root = make_pictures(2, (16, 16))
    (root / "copy.png").write_bytes((root / "thing 000.png").read_bytes())
    encoder = Encoder()
    cache = cached(tmp_path / "cache", config_for(root), encoder)
    assert encoder.seen == 2
    assert len(cache.pictures.items) == 3


def test_an_interrupted_run_goes_on_where_it_was(tmp_path: Path, make_pictures: MakePictures):
    config = config_for(make_pictures(20, (16, 16)))
    with pytest.raises(KeyboardInterrupt):
        cached(tmp_path / "cache", config, Encoder(fail_after=8))
    encoder = Encoder()
    told: list[tuple[int, int]] = []
    pictures = gather(config)
    cache_latents(
        tmp_path / "cache",
        pictures,
        config,
        encoder,
        "weights",
        4,
        lambda done, total: told.append((done, total)),
    )
    assert encoder.seen == 12
    assert told == [(12, 20), (16, 20), (20, 20)]


def test_a_broken_cache_is_made_anew(tmp_path: Path, make_pictures: MakePictures):
    config = config_for(make_pictures(4, (16, 16)))
    cached(tmp_path / "cache", config, Encoder())
    (shard,) = (tmp_path / "cache").glob("*/*.safetensors")
    for content in (shard.read_bytes()[:-20], b"", b"rubbish" * 100):
        shard.write_bytes(content)
        (tmp_path / "cache" / "files.json").write_text('{"cut off')
        encoder = Encoder()
        cache = cached(tmp_path / "cache", config, encoder)
        assert encoder.seen == 4
        assert len(list(cache.sample())) == 4
    assert not list((tmp_path / "cache").rglob("*.tmp"))


def test_unreadable_pictures_are_left_out(tmp_path: Path, make_pictures: MakePictures):
    root = make_pictures(5, (16, 16))
    config = config_for(root)
    folder = gather(config)
    (root / "thing 001.png").write_bytes(folder.items[1].path.read_bytes()[:-300])
    (root / "thing 002.png").unlink()
    cache = cache_latents(tmp_path / "cache", folder, config, Encoder(), "weights")
    assert [item.path.name for item in cache.pictures.items] == [
        "thing 000.png",
        "thing 003.png",
        "thing 004.png",
    ]
    reasons = {skipped.path.name: skipped.reason for skipped in cache.pictures.skipped}
    assert reasons["thing 002.png"] == "no such file or directory"
    assert "damaged" in reasons["thing 001.png"]
    LatentBatches(cache, 8).batch(0)
    broken = PictureFolder(folder.items[1:3])
    with pytest.raises(SafelightError, match=r"No picture can be read; .*thing 001\.png: it is"):
        cache_latents(tmp_path / "cache", broken, config, Encoder(), "weights")


def test_latents_beyond_float16_are_refused(tmp_path: Path, make_pictures: MakePictures):
    config = config_for(make_pictures(2, (16, 16)))
    with pytest.raises(SafelightError, match=r"beyond float16, up to 1e\+06"):
        cached(tmp_path / "cache", config, Encoder(deviation=1e6))


def test_batches_depend_on_seed_and_step_alone(tmp_path: Path, make_pictures: MakePictures):
    config = config_for(
        make_pictures(5, (32, 16), "RGBA", "wide"),
        make_pictures(4, (16, 16), name="square"),
        buckets=True,
        multiple=4,
        flip=True,
        backgrounds=("white", "navy"),
        caption_dropout=0.3,
    )
    cache = cached(tmp_path / "cache", config, Encoder(deviation=0.5))
    straight = LatentBatches(cache, 3, shift=0.1, scale=2.0)
    expected = [straight.batch(step) for step in range(12)]
    again = LatentBatches(cached(tmp_path / "cache", config, Encoder()), 3, shift=0.1, scale=2.0)
    for step in reversed(range(12)):
        batch = again.batch(step)
        assert batch.captions == expected[step].captions
        assert batch.latents is not None
        assert expected[step].latents is not None
        assert torch.equal(batch.latents, expected[step].latents)
    shapes = {tuple(batch.latents.shape) for batch in expected if batch.latents is not None}
    assert shapes == {(3, 3, 4, 4), (3, 3, 3, 5)}
    other = LatentBatches(cached(tmp_path / "cache", replace(config, seed=1), Encoder()), 3)
    assert any(other.batch(i).captions != expected[i].captions for i in range(12))


def test_latents_are_drawn_from_their_moments_and_scaled(
    tmp_path: Path, make_pictures: MakePictures
):
    config = config_for(make_pictures(1, (16, 16)))
    cache = cached(tmp_path / "cache", config, Encoder(deviation=0.5))
    latents = LatentBatches(cache, 1000, shift=1.0, scale=3.0).batch(0).latents
    assert latents is not None
    mean, std = cache.moments(0, (16, 16), False, 0).float()
    assert torch.allclose(latents.mean(0), (mean - 1) * 3, atol=0.25)
    assert torch.allclose(latents.std(0), std * 3, atol=0.16)


def test_every_view_is_seen(tmp_path: Path):
    rows = np.zeros((16, 16, 4), np.uint8)
    rows[:, :8] = (255, 0, 0, 255)
    Image.fromarray(rows).save(tmp_path / "a.png")
    config = config_for(tmp_path, flip=True, backgrounds=("lime", "blue"))
    cache = cached(tmp_path / "cache", config, Encoder())
    latents = LatentBatches(cache, 400).batch(0).latents
    assert latents is not None
    views = Counter(tuple(z[:, 0, (0, -1)].sign().int().flatten().tolist()) for z in latents)
    assert len(views) == 4
    assert all(70 < count < 130 for count in views.values())


def test_the_scale_makes_the_variance_one(tmp_path: Path, make_pictures: MakePictures):
    config = config_for(make_pictures(40, (16, 16)), make_pictures(8, (16, 16), "RGBA", "clear"))
    cache = cached(tmp_path / "cache", config, Encoder(deviation=0.2))
    for centred in (False, True):
        shift, scale = measure_scale(cache.sample(), centred)
        latents = LatentBatches(cache, 480, shift, scale).batch(0).latents
        assert latents is not None
        assert float(latents.std()) == pytest.approx(1, abs=0.02)
        assert abs(float(latents.mean())) < 0.03 if centred else shift == 0


def test_the_scale_of_known_moments():
    moments = torch.tensor([[[[2.0, 4.0]]], [[[1.0, 3.0]]]], dtype=torch.float16)
    shift, scale = measure_scale([moments], centred=True)
    assert (shift, scale) == pytest.approx((3.0, (1 + 5) ** -0.5))
    assert measure_scale([moments])[0] == 0


def test_the_scale_of_nothing_is_an_error():
    still = torch.zeros(2, 3, 4, 4, dtype=torch.float16)
    for moments in ([], [still, still]):
        with pytest.raises(SafelightError, match="learned nothing"):
            measure_scale(moments)


def test_a_sample_is_spread_evenly(tmp_path: Path, make_pictures: MakePictures):
    config = config_for(make_pictures(10, (16, 16)))
    cache = cached(tmp_path / "cache", config, Encoder())
    assert len(list(cache.sample(most=4))) == 4
    assert len(list(cache.sample(most=10))) == 10
    means = torch.stack([cache.moments(i, (16, 16), False, 0) for i in (0, 3, 6, 9)])
    assert torch.equal(torch.stack(list(cache.sample(most=4))), means)
