"""Models in memory: an evicted one is gone, with all that it took."""

import gc
import weakref
from dataclasses import replace
from pathlib import Path

import pytest

from safelight.app.server.catalogue import Catalogue, UnknownModelError
from safelight.app.server.config import Working
from safelight.app.server.models import Models, give_back_memory, memory_used
from safelight.checkpoints.folder import write_folder
from safelight.errors import SafelightError
from safelight.models.unet import UNet
from tiny_model import tiny_folder


@pytest.fixture(scope="module")
def wide(tmp_path_factory) -> list[str]:
    """Three models of some 30 MB."""
    folder = tmp_path_factory.mktemp("wide")
    tiny = tiny_folder()
    config = replace(tiny.unet.config, block_out_channels=(128, 256))
    paths = [folder / str(i) for i in range(3)]
    for path in paths:
        write_folder(path, replace(tiny, unet=UNet(config).eval()))
    return [str(path) for path in paths]


def test_eviction_frees_the_memory(wide):
    told: list[tuple[str, str]] = []
    working = Working(Path("unused"), device="cpu", kept=1)
    models = Models(working, lambda what, place: told.append((what, place)))

    def touched(place: str) -> int:
        """Bytes in memory once every weight has been read."""
        unet = models.at(place).pipeline.folder.unet
        sum(float(weight.detach().sum()) for weight in unet.parameters())
        return memory_used()

    give_back_memory()
    before = memory_used()
    first = touched(wide[0])
    took = first - before
    assert took > 10 * 2**20
    gone = weakref.ref(models.at(wide[0]).pipeline)
    after = [touched(place) for place in (*wide[1:], *wide)]
    assert max(after) - before < 1.5 * took
    gc.collect()
    assert gone() is None
    assert told[:3] == [("loaded", wide[0]), ("evicted", wide[0]), ("loaded", wide[1])]
    assert models.places == [wide[2]]


def test_the_one_used_longest_ago_goes(wide):
    models = Models(Working(Path("unused"), device="cpu", kept=2), lambda what, place: None)
    for place in (wide[0], wide[1], wide[0], wide[2]):
        models.at(place)
    assert models.places == [wide[0], wide[2]]


def test_weights_are_stored_in_fewer_bytes(models):
    working = Working(Path("unused"), device="cpu", storage="int8")
    kept = Models(working, lambda what, place: None)
    pipeline = kept.at(str(models / "tiny")).pipeline
    [picture] = pipeline.generate("a red cube", steps=1)
    assert (pipeline.engine, picture.manifest.storage) == ("torch", "int8")
    assert kept.of_clips_at(str(models / "moving")).storage == "int8"


def test_a_model_that_cannot_be_read_is_one_line(tmp_path):
    models = Models(Working(Path("unused"), device="cpu"), lambda what, place: None)
    with pytest.raises(SafelightError):
        models.at(str(tmp_path / "no-such"))
    assert models.places == []


def test_names_lead_to_known_models_alone(models, monkeypatch, tmp_path):
    monkeypatch.setenv("SAFELIGHT_MODELS", str(models))
    monkeypatch.chdir(models)
    catalogue = Catalogue([str(models / "tiny")], offline=True)
    assert catalogue.default == "tiny"
    assert catalogue.find(None) == catalogue.find("tiny")
    assert catalogue.find("other").place == str(models / "other")
    assert catalogue.find("default").place == "default"
    names = ("./tiny", "tiny/", "tiny/..", "../x", str(models / "tiny"), "TINY", "owner/name", "\0")
    for name in names:
        with pytest.raises(UnknownModelError):
            catalogue.find(name)
