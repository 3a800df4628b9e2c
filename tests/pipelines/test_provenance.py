"""What a manifest says of a model's configuration, and of the libraries."""

import hashlib

import numpy
import tokenizers
import torch

import safelight
from safelight.checkpoints.folder import read_folder
from safelight.pipelines.provenance import configuration_hashes, library_versions
from tiny_model import tiny_folder, write_tiny_model


def test_libraries_that_turn_a_prompt_into_pixels():
    assert library_versions() == {
        "safelight": safelight.__version__,
        "torch": torch.__version__,
        "numpy": numpy.__version__,
        "tokenizers": tokenizers.__version__,
    }


def test_every_configuration_and_vocabulary_is_told_and_nothing_else(tmp_path):
    model = write_tiny_model(tmp_path / "model")
    (model / "unet" / "diffusion_pytorch_model.safetensors.index.fp16.json").write_text("{}")
    (model / "safety_checker").mkdir()
    (model / "safety_checker" / "config.json").write_text("{}")
    hashes = configuration_hashes(read_folder(model))
    assert {
        "model_index.json",
        "unet/config.json",
        "vae/config.json",
        "text_encoder/config.json",
        "scheduler/scheduler_config.json",
        "tokenizer/vocab.json",
        "tokenizer/merges.txt",
        "tokenizer/tokenizer.json",
    } <= hashes.keys()
    for name, digest in hashes.items():
        assert digest == hashlib.sha256((model / name).read_bytes()).hexdigest()
    aside = ("safetensors", "safety_checker", "safelight.json")
    assert not [name for name in hashes if any(part in name for part in aside)]


def test_one_changed_file_changes_its_own_hash_alone(tmp_path):
    model = write_tiny_model(tmp_path / "model")
    before = configuration_hashes(read_folder(model))
    path = model / "scheduler" / "scheduler_config.json"
    path.write_text(path.read_text().replace("v_prediction", "epsilon"))
    after = configuration_hashes(read_folder(model))
    assert [name for name in before if before[name] != after[name]] == [
        "scheduler/scheduler_config.json"
    ]


def test_a_model_made_in_memory_has_no_files():
    assert configuration_hashes(tiny_folder()) == {}
