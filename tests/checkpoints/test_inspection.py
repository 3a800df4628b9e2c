"""What a file or folder says that it is, without its weights being read."""

import resource

import pytest
import torch

from safelight.checkpoints.files import write_state
from safelight.checkpoints.folder import write_folder
from safelight.checkpoints.inspection import inspect
from safelight.checkpoints.single_file import write_single_file
from safelight.errors import SafelightError
from tiny_model import tiny_folder

PREFIXES = {
    "Stable Diffusion 1.x": (768, ("cond_stage_model.transformer.",)),
    "Stable Diffusion 2.x": (1024, ("cond_stage_model.model.",)),
    "Stable Diffusion XL": (
        2048,
        ("conditioner.embedders.0.transformer.", "conditioner.embedders.1.model."),
    ),
    "the refiner of Stable Diffusion XL": (1280, ("conditioner.embedders.0.model.",)),
}
CROSSING = "model.diffusion_model.input_blocks.1.1.transformer_blocks.0.attn2.to_k.weight"


@pytest.mark.parametrize("name", PREFIXES)
@pytest.mark.parametrize(("channels", "purpose"), [(4, ""), (9, " for inpainting")])
def test_a_whole_model_is_told_by_its_names_and_widths(name, channels, purpose, tmp_path):
    width, towers = PREFIXES[name]
    state = {
        "model.diffusion_model.input_blocks.0.0.weight": torch.zeros(8, channels, 3, 3),
        CROSSING: torch.zeros(2, width),
        "first_stage_model.encoder.conv_in.weight": torch.zeros(4),
        "model_ema.decay": torch.zeros(()),
    } | {f"{prefix}x": torch.zeros(3) for prefix in towers}
    write_state(tmp_path / "some.bin", state, {"title": "A title"})
    found = inspect(tmp_path / "some.bin")
    assert found.kind == f"{name}{purpose}, a whole model"
    assert found.metadata["title"] == "A title"
    assert {"U-Net", "autoencoder", "text tower 1", "moving averages"} <= found.parts.keys()
    assert found.weights == sum(tensor.numel() for tensor in state.values())
    write_state(tmp_path / "own.bin", state | {CROSSING: torch.zeros(2, 5)})
    assert "of its own sizes" in inspect(tmp_path / "own.bin").kind


def test_precisions_and_layouts_are_told(tmp_path):
    folder = tiny_folder()
    write_folder(tmp_path / "model", folder, dtype=torch.bfloat16)
    found = inspect(tmp_path / "model")
    assert found.kind == "a StableDiffusionPipeline folder"
    assert list(found.precisions) == ["bfloat16"]
    assert found.parts.keys() == {"unet", "vae", "text_encoder"}
    assert "autoencoder" in found.parts["vae"]
    write_single_file(tmp_path / "one", folder, dtype=torch.float16)
    single = inspect(tmp_path / "one")
    assert single.layout == "safetensors"
    assert single.precisions == {"float16": found.weights + 1}  # with the mark v_pred
    mixed = {"a": torch.zeros(3, dtype=torch.float8_e4m3fn), "b": torch.zeros(2)}
    write_state(tmp_path / "mixed", mixed)
    assert inspect(tmp_path / "mixed").precisions == {"float8_e4m3fn": 3, "float32": 2}
    torch.save({"state_dict": {"lora_unet_x.lora_down.weight": torch.ones(2)}}, tmp_path / "p.ckpt")
    pickled = inspect(tmp_path / "p.ckpt")
    assert pickled.kind == "a LoRA in kohya's layout"
    assert pickled.layout == "PyTorch's pickle"


@pytest.mark.parametrize(
    "key",
    [
        "embeddings.token_embedding.weight",
        "conv_in.weight",
        CROSSING,
        "lora_unet_attn2_to_k.lora_down.weight",
    ],
)
def test_tensors_of_no_shape_are_no_crash(key, tmp_path):
    for tensor in (torch.zeros(()), torch.zeros(3)):
        others = ("down_blocks.0.resnets.0.time_emb_proj.weight", "attn2.to_k.weight")
        write_state(tmp_path / "odd", {key: tensor} | {other: tensor.clone() for other in others})
        found = inspect(tmp_path / "odd")
        assert found.kind
        assert not found.is_whole_model


def test_what_is_no_model_is_one_line(tmp_path):
    (tmp_path / "text").write_text("no weights")
    for path in (tmp_path, tmp_path / "text", tmp_path / "nowhere"):
        with pytest.raises(SafelightError) as caught:
            inspect(path)
        assert "\n" not in str(caught.value)


def test_a_large_pickle_of_the_old_kind_is_not_read_whole(tmp_path):
    path = tmp_path / "old.ckpt"
    large = torch.zeros(50_000_000)  # 200 MB
    torch.save({"state_dict": {"a": large}}, path, _use_new_zipfile_serialization=False)
    del large
    before = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
    found = inspect(path)
    assert (found.weights, found.precisions) == (50_000_000, {"float32": 50_000_000})
    taken = (resource.getrusage(resource.RUSAGE_SELF).ru_maxrss - before) / 1024
    assert taken < 50
