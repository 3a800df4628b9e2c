"""A model's folder: what is written is read back, what does not fit is one line."""

import json
import shutil
import subprocess
import sys
from dataclasses import replace

import pytest
import torch

from safelight.checkpoints.components import Writing, read_autoencoder, write_autoencoder
from safelight.checkpoints.files import read_state, sha256_of_files, write_state
from safelight.checkpoints.folder import Defaults, read_folder, write_folder
from safelight.checkpoints.shift import without_shift
from safelight.errors import SafelightError
from safelight.models.autoencoder import Autoencoder
from safelight.models.clip import ClipText
from safelight.models.unet import UNet
from safelight.models.vq import VQAutoencoder, VQConfig


@pytest.fixture(scope="module")
def written(model, tmp_path_factory):
    path = tmp_path_factory.mktemp("folder") / "model"
    write_folder(path, model)
    return path


@pytest.fixture
def folder(written, tmp_path):
    shutil.copytree(written, tmp_path / "model")
    return tmp_path / "model"


def _same_weights(first, second, dtype=torch.float32):
    for a, b in (
        (first.unet, second.unet),
        (first.autoencoder, second.autoencoder),
        (first.text_towers[0], second.text_towers[0]),
    ):
        assert a.config == b.config
        theirs = b.state_dict()
        for name, tensor in a.state_dict().items():
            assert torch.equal(tensor.to(dtype), theirs[name].to(dtype)), name


def _refused(path, *said):
    with pytest.raises(SafelightError) as caught:
        read_folder(path)
    message = str(caught.value)
    assert "\n" not in message
    for words in said:
        assert words in message


def _change(path, **changes):
    values = json.loads(path.read_text())
    path.write_text(json.dumps(values | changes))


def test_a_model_that_a_killed_process_moved_aside_is_found(model, folder):
    gone = subprocess.Popen([sys.executable, "-c", ""])
    gone.wait()
    folder.rename(folder.with_name(f".model.{gone.pid}.old"))
    _same_weights(model, read_folder(folder))
    assert folder.is_dir()


def test_a_model_comes_back_as_it_was(model, written):
    again = read_folder(written)
    _same_weights(model, again)
    assert again.scheduler == model.scheduler
    assert again.defaults == model.defaults
    assert again.pipeline_class == "StableDiffusionPipeline"
    prompts = ["a red ball", "", "something else entirely"]
    assert torch.equal(model.tokenizers[0].encode(prompts), again.tokenizers[0].encode(prompts))
    assert not again.unet.training


@pytest.mark.parametrize(("dtype", "variant"), [(torch.float16, "fp16"), (torch.bfloat16, None)])
def test_half_precision_variants_and_shards_come_back(model, tmp_path, dtype, variant):
    path = tmp_path / "model"
    write_folder(path, model, dtype=dtype, variant=variant, max_shard_bytes=50_000)
    assert list(path.glob("unet/*-of-*.safetensors"))
    again = read_folder(path, variant=variant)
    _same_weights(model, again, dtype)
    assert next(again.unet.parameters()).dtype == torch.float32
    assert next(read_folder(path, dtype=dtype).unet.parameters()).dtype == dtype


def test_the_hashes_are_those_of_the_files(written):
    hashes = read_folder(written).hashes
    assert hashes.keys() == {"unet", "vae", "text_encoder"}
    unet = written / "unet/diffusion_pytorch_model.safetensors"
    assert hashes["unet"] == sha256_of_files([unet])


def test_writing_twice_gives_the_same_bytes(model, written, tmp_path):
    write_folder(tmp_path / "again", read_folder(written))
    for path in sorted(written.rglob("*.safetensors")):
        again = tmp_path / "again" / path.relative_to(written)
        assert path.read_bytes() == again.read_bytes()


def test_a_write_replaces_the_folder_whole_or_not_at_all(model, folder, monkeypatch):
    (folder / "stale.txt").write_text("stale")
    write_folder(folder, model)
    assert not (folder / "stale.txt").exists()
    before = sorted(folder.rglob("*"))

    def fail(*_):
        raise OSError("disk full")

    monkeypatch.setattr("safelight.checkpoints.folder.write_scheduler", fail)
    with pytest.raises(OSError, match="disk full"):
        write_folder(folder, model)
    assert sorted(folder.rglob("*")) == before
    assert [path.name for path in folder.parent.iterdir()] == ["model"]


def test_a_folder_without_our_own_file_has_no_defaults(folder):
    (folder / "safelight.json").unlink()
    assert read_folder(folder).defaults == Defaults()


def test_components_that_are_not_used_are_passed_over(folder):
    _change(
        folder / "model_index.json",
        safety_checker=["stable_diffusion", "StableDiffusionSafetyChecker"],
        watermark=None,
        force_zeros_for_empty_prompt=True,
    )
    assert read_folder(folder).settings["force_zeros_for_empty_prompt"] is True


def test_a_shift_moves_into_the_weights(model):
    torch.manual_seed(0)
    shifted = Autoencoder(replace(model.autoencoder.config, shift_factor=0.4)).eval()
    plain = without_shift(shifted)
    pixels, z = torch.rand(1, 3, 16, 16) * 2 - 1, torch.randn(1, 4, 8, 8)
    assert plain.config.shift_factor == 0
    with torch.no_grad():
        wanted = shifted.scale(shifted.encode(pixels).mean)
        torch.testing.assert_close(plain.scale(plain.encode(pixels).mean), wanted)
        torch.testing.assert_close(plain.encode(pixels).logvar, shifted.encode(pixels).logvar)
        wanted = shifted.decode(shifted.unscale(z))
        torch.testing.assert_close(plain.decode(plain.unscale(z)), wanted)
    assert without_shift(model.autoencoder) is model.autoencoder


def test_an_autoencoder_alone_comes_back_from_its_own_folder_and_from_a_models(written, tmp_path):
    vq = VQAutoencoder(VQConfig(block_out_channels=(32,), attention=(False,), codebook_size=8))
    write_autoencoder(tmp_path, vq, Writing(dtype=torch.bfloat16))
    again = read_autoencoder(tmp_path)
    assert again.config == vq.config
    assert isinstance(read_autoencoder(written), Autoencoder)


def test_what_is_not_a_model_is_said(folder, tmp_path):
    _refused(tmp_path / "nowhere", "not there", "expected a model's folder")
    _refused(folder / "unet", "a UNet2DConditionModel component", "model_index.json")
    (folder / "model_index.json").write_text("{")
    _refused(folder, "model_index.json is not valid JSON")
    (folder / "model_index.json").write_text("{}")
    _refused(folder, "names no pipeline class")


def test_another_family_is_named_with_what_it_has_and_lacks(folder):
    flux = {"_class_name": "FluxPipeline", "transformer": ["diffusers", "FluxTransformer2DModel"]}
    (folder / "model_index.json").write_text(json.dumps(flux | {"vae": ["a", "b"]}))
    _refused(folder, "a FluxPipeline folder", "lacks scheduler, unet", "unknown transformer")


@pytest.mark.parametrize(
    ("gone", "said"),
    [
        ("unet/config.json", "unet/config.json"),
        ("unet/diffusion_pytorch_model.safetensors", "it holds config.json"),
        ("text_encoder/model.safetensors", "has no model.safetensors"),
        ("tokenizer/tokenizer_config.json", "tokenizer_config.json"),
        ("scheduler/scheduler_config.json", "scheduler_config.json"),
    ],
)
def test_a_missing_file_is_named(folder, gone, said):
    (folder / gone).unlink()
    _refused(folder, said)


def test_a_text_tower_of_clips_vocabulary_may_bring_no_tokenizer(model, tmp_path):
    small = model.text_towers[0].config
    for act, pad in (("quick_gelu", "<|endoftext|>"), ("gelu", "!")):
        config = replace(small, vocab_size=49408, eos_token_id=49407, hidden_act=act)
        whole = replace(model, text_towers=(ClipText(config),))
        write_folder(tmp_path / act, whole)
        shutil.rmtree(tmp_path / act / "tokenizer")
        tokenizer = read_folder(tmp_path / act).tokenizers[0]
        assert (tokenizer.vocab_size, tokenizer.length, tokenizer.pad) == (49408, 16, pad)
        assert tokenizer.encode(["a cat"])[0, :4].tolist() == [49406, 320, 2368, 49407]


def test_another_tower_needs_its_tokenizer(folder):
    shutil.rmtree(folder / "tokenizer")
    _refused(folder, "tokenizer_config.json", "not there")


def test_a_tokenizer_that_is_not_the_towers_is_one_line(model, tmp_path):
    size = model.tokenizers[0].vocab_size
    for change, said in (
        ({"vocab_size": size - 1}, f"token ids up to {size - 1}, but its text tower's vocab_size"),
        ({"max_position_embeddings": 12}, "model_max_length = 16, but its text tower's max_posi"),
    ):
        tower = ClipText(replace(model.text_towers[0].config, **change))
        write_folder(tmp_path / "model", replace(model, text_towers=(tower,)))
        _refused(tmp_path / "model", said)


def test_a_tokenizer_without_either_generations_files_is_said(folder):
    (folder / "tokenizer/tokenizer.json").unlink()
    (folder / "tokenizer/merges.txt").unlink()
    _refused(folder, "merges.txt")


@pytest.mark.parametrize(
    ("file", "changes", "said"),
    [
        ("unet", {"cross_attention_dim": 20}, "misshapen"),
        ("unet", {"_class_name": "UNet3DConditionModel"}, "expected UNet2DConditionModel"),
        ("unet", {"norm_num_groups": 7}, "cannot be built"),
        ("vae", {"latent_channels": 5}, "misshapen"),
        ("vae", {"norm_num_groups": 7}, "cannot be built"),
        ("vae", {"_class_name": "AsymmetricAutoencoderKL"}, "expected AutoencoderKL or VQModel"),
        ("text_encoder", {"num_hidden_layers": 3}, "missing: text_model.encoder.layers.2"),
        ("text_encoder", {"num_hidden_layers": 1}, "left over: text_model.encoder.layers.1"),
        ("text_encoder", {"num_hidden_layers": 2**31}, "tells of 2,147,483,648 layers"),
        ("unet", {"layers_per_block": 2**63}, "tells of"),
        ("vae", {"layers_per_block": 2**63}, "tells of"),
        ("vae", {"latent_channels": 2**63}, "cannot be built"),
    ],
)
def test_weights_that_do_not_fit_their_configuration_are_one_line(folder, file, changes, said):
    _change(folder / file / "config.json", **changes)
    _refused(folder, said, file)


def test_another_components_weights_are_recognised(folder):
    weights = "diffusion_pytorch_model.safetensors"
    shutil.copy(folder / "vae" / weights, folder / "unet" / weights)
    _refused(folder, "does not hold the UNet", "By its keys it is a KL autoencoder")


def test_weights_of_none_of_the_keys_are_refused(folder):
    path = folder / "text_encoder/model.safetensors"
    write_state(path, {f"wrong.{name}": tensor for name, tensor in read_state(path).items()})
    _refused(folder, "does not hold the ClipText", "left over: text_model.wrong")


def test_parts_that_do_not_fit_each_other_are_one_line(model, tmp_path):
    for change, said in (
        ({"cross_attention_dim": 32}, "a context of width 32, its text towers give 24"),
        ({"out_channels": 8}, "makes 8 latent channels, the autoencoder takes 4"),
    ):
        unet = UNet(replace(model.unet.config, **change))
        write_folder(tmp_path / "model", replace(model, unet=unet))
        _refused(tmp_path / "model", said)
