"""Training of tiny autoencoders by recipe, for that of a tiny model."""

import hashlib
import json
from pathlib import Path

import pytest
import torch
from diffusers import AutoencoderTiny

import safelight
from distilling import write_workshop
from safelight.app.training import run_recipe
from safelight.checkpoints.components import read_autoencoder
from safelight.checkpoints.files import read_state
from safelight.checkpoints.folder import read_folder
from safelight.errors import SafelightError
from safelight.models.tiny import TinyAutoencoder

SMALL = ("model.encoder_width=8", "model.decoder_width=8")


@pytest.fixture(scope="module")
def workshop(tmp_path_factory: pytest.TempPathFactory) -> Path:
    torch.set_num_threads(1)
    folder = write_workshop(tmp_path_factory.mktemp("tiny"))
    levels = len(read_folder(folder / "model").autoencoder.config.block_out_channels)
    (folder / "tiny.toml").write_text(f"""
kind = "tiny"
output = "out"
base = "model"
data = {{folders = [{{path = "pictures"}}], size = 32}}
[model]
encoder_blocks = {[1] * levels}
decoder_blocks = {[1] * levels}
[loss]
gradient = 0.5
[optim]
lr = 1e-2
warmup = 1
[loop]
steps = 4
batch_size = 4
ema = 0
tensorboard = false
preview_every = 2
""")
    return folder


def _trained(workshop: Path, out: Path, *changed: str, resume: bool = False) -> Path:
    where = f"output={json.dumps(str(out))}"
    run_recipe(workshop / "tiny.toml", [*SMALL, *changed, where], resume=resume)
    return out / "model" / "vae"


def _log(out: Path) -> list[dict[str, float]]:
    return [json.loads(line) for line in (out / "log.jsonl").read_text().splitlines()]


@pytest.mark.parametrize(
    "loss",
    [(), ("loss.adversary.weight=0.1", "loss.adversary.start=1", "loss.adversary.channels=8")],
)
def test_a_resumed_training_goes_on_to_the_bit_and_leaves_its_base(workshop, tmp_path, loss):
    weights = workshop / "model/vae/diffusion_pytorch_model.safetensors"
    before = hashlib.sha256(weights.read_bytes()).hexdigest()
    whole = _trained(workshop, tmp_path / "whole", *loss)
    _trained(workshop, tmp_path / "halves", "loop.steps=2", *loss)
    halves = _trained(workshop, tmp_path / "halves", *loss, resume=True)
    states = [read_state(folder / weights.name) for folder in (whole, halves)]
    assert states[0].keys() == states[1].keys()
    assert all(torch.equal(states[0][name], states[1][name]) for name in states[0])
    assert hashlib.sha256(weights.read_bytes()).hexdigest() == before


def test_it_learns_pictures_and_latents(workshop, tmp_path):
    vae = _trained(
        workshop, tmp_path, "loop.steps=150", "loop.preview_every=50", "loop.log_every=1"
    )
    rows = _log(tmp_path)
    latents = [row["latents"] for row in rows if "latents" in row]
    assert latents[-1] < 0.5 * latents[0]
    l1 = [row["l1"] for row in rows if "l1" in row]
    assert l1[-1] < 0.5 * l1[0]
    assert {"psnr", "whole"} <= next(row for row in rows if "psnr" in row).keys()
    tiny, teacher = read_autoencoder(vae), read_folder(workshop / "model").autoencoder
    assert isinstance(tiny, TinyAutoencoder)
    assert tiny.config.latent_channels == teacher.config.latent_channels


def test_diffusers_opens_it_and_the_model_takes_it(workshop, tmp_path):
    vae = _trained(workshop, tmp_path)
    theirs, ours = AutoencoderTiny.from_pretrained(vae), read_autoencoder(vae)
    z = torch.randn(2, 4, 4, 4, generator=torch.Generator().manual_seed(0))
    with torch.no_grad():
        assert torch.allclose(theirs.decode(z).sample, ours.decode(z), atol=1e-5)
        pixels = ours.decode(z).clamp(-1, 1)
        assert torch.allclose(theirs.encode(pixels).latents, ours.encode(pixels), atol=1e-5)
    swapped = safelight.load(workshop / "model", vae=vae, device="cpu")
    (made,) = swapped.generate("a red ball", steps=2)
    (whole,) = safelight.load(workshop / "model", device="cpu").generate("a red ball", steps=2)
    assert made.image.size == whole.image.size
    assert made.image.tobytes() != whole.image.tobytes()


@pytest.mark.parametrize(
    ("changed", "said"),
    [
        ("model.decoder_blocks=[1]", "give [0-9] levels"),
        ("model.encoder_blocks=[]", "names no level"),
        ("model.encoder_width=0", "should be 1 or more"),
        ("loss.latents=-1", "loss.latents should be at least 0"),
    ],
)
def test_a_shape_that_does_not_fit_is_one_line(workshop, tmp_path, changed, said):
    changes = [changed]
    if "decoder_blocks" in changed:
        changes.append("model.encoder_blocks=[1]")
    with pytest.raises(SafelightError, match=said) as caught:
        _trained(workshop, tmp_path, *changes)
    assert "\n" not in str(caught.value)


def test_it_stands_in_for_a_whole_one_only(workshop, tmp_path):
    vae = _trained(workshop, tmp_path / "first", "loop.steps=1")
    with pytest.raises(SafelightError, match="has a tiny autoencoder already"):
        _trained(workshop, tmp_path / "second", f"base={json.dumps(str(vae))}")
