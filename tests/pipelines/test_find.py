import json
from pathlib import Path

import pytest
import torch

from safelight.checkpoints.files import write_state
from safelight.checkpoints.single_file import write_single_file
from safelight.errors import SafelightError
from safelight.pipelines import find
from safelight.pipelines.find import find_model, known_models, lasting_name
from safelight.pipelines.hub import find_part
from tiny_model import tiny_folder

ONE = torch.ones(1)


def model_folder(path: Path, family: str = "StableDiffusionPipeline") -> Path:
    (path / "unet").mkdir(parents=True)
    (path / "model_index.json").write_text(json.dumps({"_class_name": family}))
    (path / "unet" / "diffusion_pytorch_model.safetensors").write_bytes(b"0" * 1000)
    return path


@pytest.fixture(autouse=True)
def places(tmp_path, monkeypatch):
    """An empty library, hub cache and package, and a working folder that is none of them."""
    monkeypatch.setenv("SAFELIGHT_MODELS", str(tmp_path / "library"))
    monkeypatch.setenv("HF_HUB_CACHE", str(tmp_path / "hub"))
    monkeypatch.setattr(find, "bundled", lambda: tmp_path / "bundled")
    (tmp_path / "here").mkdir()
    monkeypatch.chdir(tmp_path / "here")
    return tmp_path


def test_a_path_is_the_folder_itself(places):
    folder = model_folder(places / "here" / "mine")
    assert find_model("mine").samefile(folder)
    assert find_model(str(folder)) == folder


def test_default_is_the_bundled_model(places):
    folder = model_folder(places / "bundled")
    assert find_model("default") == folder


def test_a_missing_bundled_model_is_named(places):
    with pytest.raises(SafelightError, match="no bundled model"):
        find_model("default")


def test_a_name_is_found_in_the_library(places):
    folder = model_folder(places / "library" / "people" / "cats")
    assert find_model("people/cats") == folder


def test_a_repository_is_found_in_the_hub_cache_at_its_main_revision(places):
    repository = places / "hub" / "models--owner--name"
    old, new = (model_folder(repository / "snapshots" / name) for name in ("aaa", "bbb"))
    (repository / "refs").mkdir()
    (repository / "refs" / "main").write_text("bbb\n")
    assert find_model("owner/name") == new
    (repository / "refs" / "main").write_text("aaa")
    assert find_model("owner/name") == old


def test_an_unknown_name_says_where_it_looked_and_what_is_near(places):
    model_folder(places / "library" / "cats")
    with pytest.raises(SafelightError) as caught:
        find_model("cts")
    message = str(caught.value)
    for part in ("'cts'", str(places / "library"), str(places / "hub"), "Did you mean 'cats'?"):
        assert part in message
    assert "\n" not in message


@pytest.mark.parametrize("name", ["../../etc", "a/../b", "models--x/..", "/", ""])
def test_a_name_never_leaves_the_places(places, name):
    with pytest.raises(SafelightError):
        find_model(name)


def test_a_single_file_is_found_by_its_path_and_by_its_name(places):
    here = places / "here" / "mine.ckpt"
    here.write_bytes(b"")
    assert find_model("mine.ckpt") == Path("mine.ckpt")
    assert lasting_name("mine.ckpt") == str(here)
    (places / "library").mkdir()
    listed = places / "library" / "cats.safetensors"
    write_single_file(listed, tiny_folder())
    (places / "library" / "notes.txt").write_text("no model")
    (places / "library" / "broken.safetensors").write_text("no model")
    write_state(places / "library" / "lora.safetensors", {"lora_unet_a.lora_down.weight": ONE})
    write_state(places / "outside.safetensors", {"a": ONE})
    assert find_model("cats") == find_model("cats.safetensors") == listed
    found = {model.name: model for model in known_models()}
    assert list(found) == ["cats"]
    assert found["cats"].folder == listed
    assert "a whole model" in found["cats"].family
    for name in ("notes.txt", "notes", "../outside"):
        with pytest.raises(SafelightError):
            find_model(name)


def test_two_files_of_one_stem_are_listed_by_names_that_find_each(places):
    library = places / "library"
    library.mkdir()
    write_single_file(library / "cats.safetensors", tiny_folder())
    for twin in ("cats.ckpt", "here.safetensors", ".ckpt"):
        (library / twin).write_bytes((library / "cats.safetensors").read_bytes())
    (places / "here" / "here").mkdir()  # a folder of that name, no model, in the working folder
    found = {model.name: model.folder for model in known_models()}
    assert {"cats", "cats.ckpt", "here.safetensors"} <= set(found)
    for name in ("cats", "cats.ckpt", "here.safetensors"):
        assert find_model(name) == found[name]


def test_a_folder_around_a_model_points_to_it(places):
    model_folder(places / "here" / "runs" / "mine")
    with pytest.raises(
        SafelightError, match=r"has no model_index\.json\. Did you mean runs/mine\?"
    ):
        find_model("runs")


def test_known_models_lists_each_place(places):
    model_folder(places / "bundled")
    model_folder(places / "library" / "cats", "StableDiffusionXLPipeline")
    broken = model_folder(places / "library" / "broken")
    (broken / "model_index.json").write_text("{")
    found = {model.name: model for model in known_models()}
    assert list(found) == ["default", "broken", "cats"]
    assert found["cats"].family == "StableDiffusionXLPipeline"
    assert found["broken"].family == "unreadable"
    assert found["default"].size == 1000


def test_a_link_to_nowhere_in_a_model_is_passed_over(places):
    folder = model_folder(places / "library" / "cats")
    (folder / "unet" / "gone.safetensors").symlink_to(places / "nowhere")
    assert [model.size for model in known_models()] == [1000]
    with pytest.raises(SafelightError, match=r"No model 'cts'.*Did you mean 'cats'"):
        find_model("cts")


def test_a_home_that_nobody_has_is_an_ordinary_name(places, monkeypatch):
    monkeypatch.setenv("SAFELIGHT_MODELS", "~nobody-of-that-name/models")
    with pytest.raises(SafelightError, match=r"No model '~nobody-of-that-name/x'\. Looked for"):
        find_model("~nobody-of-that-name/x")


def test_a_path_lasts_as_an_absolute_one_and_a_name_as_it_is(places):
    folder = model_folder(places / "here" / "mine")
    model_folder(places / "library" / "cats")
    model_folder(places / "bundled")
    assert lasting_name("mine") == str(folder)
    assert lasting_name(str(folder)) == str(folder)
    assert (lasting_name("cats"), lasting_name("default")) == ("cats", "default")


def test_bundled_autoencoders_have_names_that_hold_wherever_the_package_lies(places):
    folder = places / "default-tiny"
    folder.mkdir()
    (folder / "config.json").write_text("{}")
    assert find.bundled_autoencoders() == {"default-tiny": folder}
    assert find_part("default-tiny") == folder
    assert find.autoencoder_title(folder) == "default-tiny"
    assert find.autoencoder_title(places / "mine") == str(places / "mine")
    assert [(part.name, part.size) for part in find.bundled_parts()] == [("default-tiny", 0)]
    (places / "here" / "default-tiny").mkdir()
    assert find_part("default-tiny") == Path("default-tiny")  # what is there goes first
    (places / "here" / "default-tiny").rmdir()
    with pytest.raises(SafelightError, match="No model 'default-tiny'"):
        find_model("default-tiny")
