from dataclasses import replace

import pytest
import torch

import safelight
from safelight.checkpoints.files import write_state
from safelight.engine import choosing, compiled_networks
from safelight.engine.compiled import Compiled
from safelight.engine.compiled_networks import CompiledUNet
from safelight.engine.networks import accelerated, accelerated_autoencoder
from safelight.errors import SafelightError
from safelight.models.unet import UNet
from safelight.pipelines.adapting import put_in
from safelight.pipelines.load import load
from safelight.types import Conditioning


@pytest.fixture(autouse=True)
def started_soon(networks_are_kept):
    """What another test exported is not exported again."""


@pytest.fixture(scope="module")
def pipeline(model_folder):
    return load(model_folder, device="cpu")


@pytest.fixture
def installed(monkeypatch):
    monkeypatch.setattr(choosing, "has_openvino", lambda: True)


def test_a_unet_with_and_without_residuals(pipeline):
    unet = pipeline.folder.unet
    network = accelerated(unet, 8, "openvino")
    assert isinstance(network, CompiledUNet)
    generator = torch.Generator().manual_seed(0)

    def drawn(*shape: int) -> torch.Tensor:
        return torch.randn(shape, generator=generator)

    config = unet.config
    x, t = drawn(2, config.in_channels, 8, 8), torch.tensor([10.0, 500.0])
    cond = Conditioning(context=drawn(2, 5, config.cross_attention_dim))
    with torch.no_grad():
        plain = unet(x, t, cond)
        middle = unet.descend(unet.conv_in(x), unet.embed(t, cond), cond)
        added = tuple(0.1 * drawn(*part.shape) for part in (*middle[1], middle[0]))
        steered = Conditioning(context=cond.context, residuals=added)
        plain_steered = unet(x, t, steered)
        for asked, wanted in ((cond, plain), (steered, plain_steered)):
            torch.testing.assert_close(network(x, t, asked), wanted, rtol=1e-3, atol=1e-4)
    assert (plain - plain_steered).abs().max() > 1e-2


@pytest.mark.parametrize("most", [2**20, 0], ids=["small", "large"])
def test_keys_and_values_of_a_context_are_made_once_where_they_are_small(
    pipeline, monkeypatch, most: int
):
    monkeypatch.setattr(compiled_networks, "_MOST_KEPT", most)
    unet, made = pipeline.folder.unet, []
    projected = compiled_networks._KeysAndValues.forward

    def counted(self, context):
        made.append(context)
        return projected(self, context)

    monkeypatch.setattr(compiled_networks._KeysAndValues, "forward", counted)
    network = CompiledUNet(unet, lambda module: module)
    x, t = torch.randn(2, unet.config.in_channels, 8, 8), torch.tensor([10.0, 500.0])
    width = unet.config.cross_attention_dim
    conds = [Conditioning(context=torch.randn(2, 5, width)) for _ in range(2)]
    with torch.no_grad():
        for cond in (*conds, *conds):
            torch.testing.assert_close(network(x, t, cond), unet(x, t, cond))
            whole, deep = network.with_deep(x, network.embed(t, cond), cond)
            torch.testing.assert_close(whole, unet(x, t, cond))
            again = network.from_deep(x, network.embed(t, cond), cond, deep)
            torch.testing.assert_close(again, whole)
    assert made == ([cond.context for cond in conds] if most else [])


@pytest.mark.parametrize(
    "changed",
    [
        {"cross_attention_dim": None},
        {"only_cross_attention": (True, False)},  # whose first attention sees the context, too
        {},
    ],
    ids=["no context", "context twice", "adapter"],
)
def test_other_attention_to_the_context(pipeline, tmp_path, changed):
    torch.manual_seed(0)
    unet = UNet(replace(pipeline.folder.unet.config, **changed)).eval()
    if not changed:
        layer = "lora_unet_down_blocks_0_attentions_0_transformer_blocks_0_attn2_to_k"
        state = {f"{layer}.lora_down.weight": torch.randn(2, 32)}
        state[f"{layer}.lora_up.weight"] = torch.randn(32, 2)
        write_state(tmp_path / "style.safetensors", state)
        put_in(replace(pipeline.folder, unet=unet), (), tmp_path / "style.safetensors", 0.8)
    network = CompiledUNet(unet, lambda module: module)
    x, t = torch.randn(2, unet.config.in_channels, 8, 8), torch.tensor([10.0, 500.0])
    context = None if changed.get("cross_attention_dim", 0) is None else torch.randn(2, 5, 32)
    cond = Conditioning(context=context)
    with torch.no_grad():
        torch.testing.assert_close(network(x, t, cond), unet(x, t, cond))


def test_an_autoencoder(pipeline):
    plain = pipeline.folder.autoencoder
    other = accelerated_autoencoder(plain, "openvino")
    assert isinstance(other.decoder, Compiled)
    assert not isinstance(plain.decoder, Compiled)
    pixels = torch.rand(1, 3, 64, 64) * 2 - 1
    with torch.no_grad():
        z = plain.encode(pixels).mode()
        torch.testing.assert_close(other.encode(pixels).mode(), z, rtol=1e-3, atol=1e-4)
        torch.testing.assert_close(other.decode(z), plain.decode(z), rtol=1e-3, atol=1e-4)


@pytest.mark.parametrize("options", [{}, {"strength": 0.7, "batched": True}])
def test_a_stream_by_openvino_is_that_by_torch(pipeline, installed, options):
    def made(engine: str) -> list:
        with safelight.stream(
            pipeline, prompt="a cube", steps=3, sampler="euler", engine=engine, **options
        ) as stream:
            assert stream.engine == ("torch" if engine == "torch" else "openvino")
            pictures = []
            for seed in range(2):
                picture = torch.full((64, 64, 3), 40 * seed, dtype=torch.uint8).numpy()
                stream.update(seed=seed, picture=picture)
                pictures.append(stream.next().levels.astype(int))
            return pictures

    for ours, theirs in zip(made("auto"), made("torch"), strict=True):
        assert abs(ours - theirs).max() <= 1


def test_what_openvino_does_not_compute_is_left_to_torch_unless_it_is_asked_for(
    pipeline, installed, monkeypatch
):
    def fails(*_: object) -> None:
        raise SafelightError("not this network")

    monkeypatch.setattr(Compiled, "forward", fails)
    with pytest.warns(UserWarning, match="torch computes this stream: not this network"):
        stream = safelight.stream(pipeline, prompt="a cube", steps=1)
    assert stream.engine == "torch"
    assert stream.next().levels.any()
    with pytest.raises(SafelightError, match="not this network"):
        safelight.stream(pipeline, prompt="a cube", steps=1, engine="openvino")


def test_a_stream_in_bfloat16_by_openvino_is_near_that_in_float32(
    model_folder, pipeline, installed, monkeypatch
):
    monkeypatch.setattr(choosing, "multiplies_bfloat16", lambda device: True)
    half = load(model_folder, device="cpu", dtype=torch.bfloat16)

    def made(model, engine: str):
        options = {"steps": 2, "sampler": "euler", "strength": 0.9, "engine": engine}
        picture = torch.full((64, 64, 3), 90, dtype=torch.uint8).numpy()
        with safelight.stream(model, prompt="a cube", picture=picture, **options) as stream:
            assert stream.engine == engine
            return stream.next().levels.astype(int)

    assert abs(made(half, "openvino") - made(pipeline, "torch")).mean() < 2
