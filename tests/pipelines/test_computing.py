"""What computes single pictures: that engines agree, which is taken, and what is told of it."""

from dataclasses import replace

import numpy as np
import pytest
import torch
from PIL import Image

from safelight.app.remaking import remake
from safelight.checkpoints.controlnet import write_controlnet
from safelight.checkpoints.files import write_state
from safelight.engine import choosing, compiled
from safelight.engine.store import own_store
from safelight.engine.verdict import Verdict, machine, read_verdict, write_verdict
from safelight.errors import SafelightError
from safelight.models.controlnet import ControlNet, ControlNetConfig
from safelight.pipelines import computing
from safelight.pipelines.attention import attention
from safelight.pipelines.control_settings import Control
from safelight.pipelines.guidance_settings import Guidance, Projection
from safelight.pipelines.load import load
from safelight.pipelines.preparing import prepare
from safelight.pipelines.request import Request
from tiny_model import SIZE

PROMPT = "a red cube"
LAYER = "lora_unet_down_blocks_0_attentions_0_transformer_blocks_0_attn2_to_k"


@pytest.fixture(autouse=True)
def installed(computed_by_torch, monkeypatch):
    monkeypatch.setattr(choosing, "has_openvino", lambda: True)


@pytest.fixture(scope="module")
def by_torch(model_folder):
    return load(model_folder, device="cpu", engine="torch")


@pytest.fixture(scope="module")
def by_openvino(model_folder):
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(choosing, "has_openvino", lambda: True)
        return load(model_folder, device="cpu", engine="openvino")


@pytest.fixture(scope="module")
def control(by_torch, tmp_path_factory):
    torch.manual_seed(5)
    shape = ControlNetConfig(by_torch.folder.unet.config, hint_block_channels=(16, 16, 16))
    network = ControlNet(shape)
    for parameter in network.parameters():
        if not parameter.any():
            torch.nn.init.normal_(parameter, std=0.1)
    place = tmp_path_factory.mktemp("control") / "canny"
    write_controlnet(place, network)
    return Control("canny", noisy(1), network=place, hint=True)


def noisy(seed: int) -> Image.Image:
    levels = np.random.default_rng(seed).integers(0, 256, (SIZE, SIZE, 3), dtype=np.uint8)
    return Image.fromarray(levels)


def apart(picture, other) -> int:
    first, second = (np.asarray(one.image).astype(int) for one in (picture, other))
    return int(np.abs(first - second).max())


def agree(by_torch, by_openvino, **options) -> None:
    options = {"prompt": PROMPT, "steps": 3} | options
    [ours], [theirs] = (one.generate(**options) for one in (by_openvino, by_torch))
    assert (ours.manifest.engine, theirs.manifest.engine) == ("openvino", "torch")
    assert apart(ours, theirs) <= 1


MASK = Image.fromarray(np.kron(np.eye(2), np.ones((16, 16))).astype(np.uint8) * 255)


USUAL = [
    {},
    {"scale": 1.0},
    {"image": noisy(0), "strength": 0.7},
    {"image": noisy(0), "mask": MASK},
    {"guidance": Guidance(interval=(0.0, 5.0), rescale=0.5)},
    {"quality": "fast"},
]
MORE = [  # other calls of the same network
    {"prompt": "a red cube AND a blue ball"},
    {"guidance": Guidance(apg=Projection(eta=0.5, momentum=-0.5))},
    {"guidance": Guidance(perp_neg=0.5), "negative": "a blue ball"},
]


@pytest.mark.usefixtures("networks_are_kept")
@pytest.mark.parametrize(
    "options", [*USUAL, *(pytest.param(options, marks=pytest.mark.slow) for options in MORE)]
)
def test_pictures_of_openvino_are_those_of_torch(by_torch, by_openvino, options):
    agree(by_torch, by_openvino, **options)


@pytest.mark.usefixtures("networks_are_kept")
def test_so_are_those_by_a_control(by_torch, by_openvino, control):
    plain, [steered] = (
        by_torch.generate(PROMPT, steps=3),
        by_torch.generate(PROMPT, steps=3, controls=[control]),
    )
    assert apart(plain[0], steered) > 1
    agree(by_torch, by_openvino, controls=[control])


@pytest.mark.usefixtures("networks_are_kept")
def test_so_are_those_by_an_adapter_and_those_after_it(by_torch, by_openvino, tmp_path):
    torch.manual_seed(2)
    state = {f"{LAYER}.lora_down.weight": torch.randn(2, 32)}
    state[f"{LAYER}.lora_up.weight"] = torch.randn(32, 2)
    write_state(tmp_path / "style.safetensors", state)
    [plain] = by_torch.generate(PROMPT, steps=3)
    for pipeline in (by_torch, by_openvino):
        pipeline.adapt(tmp_path / "style.safetensors", 0.8)
    try:
        assert apart(by_torch.generate(PROMPT, steps=3)[0], plain) > 1
        agree(by_torch, by_openvino)
    finally:
        for pipeline in (by_torch, by_openvino):
            pipeline.eject()
    agree(by_torch, by_openvino)


@pytest.mark.parametrize("options", [*USUAL, *MORE, {"width": 2 * SIZE, "count": 2}])
def test_prepared_networks_make_the_pictures_of_torch(model_folder, by_torch, options):
    by_prepared = load(model_folder, device="cpu", engine="prepared")
    options = {"prompt": PROMPT, "steps": 4} | options
    for ours, theirs in zip(
        by_prepared.generate(**options), by_torch.generate(**options), strict=True
    ):
        assert (ours.manifest.engine, theirs.manifest.engine) == ("prepared", "torch")
        assert apart(ours, theirs) <= 1


def test_auto_prepares_for_many_steps_by_a_model_that_is_not_large(
    model_folder, by_torch, control, monkeypatch, tmp_path
):
    auto = load(model_folder, device="cpu")
    assert auto.generate(PROMPT, steps=9)[0].manifest.engine == "torch"
    [many] = auto.generate(PROMPT, steps=10)
    assert many.manifest.engine == "prepared"
    assert apart(many, by_torch.generate(PROMPT, steps=10)[0]) <= 1
    again = remake(many.manifest)
    assert (again.same, apart(again.picture, many)) == (True, 0)
    [steered] = auto.generate(PROMPT, steps=10, controls=[control])
    assert apart(steered, by_torch.generate(PROMPT, steps=10, controls=[control])[0]) <= 1
    torch.manual_seed(2)
    state = {f"{LAYER}.lora_down.weight": torch.randn(2, 32)}
    state[f"{LAYER}.lora_up.weight"] = torch.randn(32, 2)
    write_state(tmp_path / "style.safetensors", state)
    auto.adapt(tmp_path / "style.safetensors", 0.8)
    by_torch.adapt(tmp_path / "style.safetensors", 0.8)
    [adapted], [plainly] = (one.generate(PROMPT, steps=10) for one in (auto, by_torch))
    auto.eject()
    by_torch.eject()
    assert adapted.manifest.engine == "prepared"
    assert apart(adapted, many) > 1
    assert apart(adapted, plainly) <= 1
    assert apart(auto.generate(PROMPT, steps=10)[0], many) == 0
    kept = own_store().place("another network", ((2, 4, 8, 8),))
    kept.mkdir(parents=True)
    write_verdict(kept, Verdict(machine(), torch.get_num_threads(), 2.0, 1.0, 0.0))
    for steps, engine in ((10, "prepared"), (9, "torch"), (10, "prepared")):
        [beside] = auto.generate(PROMPT, steps=steps)  # of which OpenVINO has nothing
        assert beside.manifest.engine == engine
        assert apart(beside, by_torch.generate(PROMPT, steps=steps)[0]) <= 1
    second = load(model_folder, device="cpu", refiner=model_folder, refine_at=0.5)
    [refined] = second.generate(PROMPT, steps=10)
    assert refined.manifest.engine == "torch"  # as rerun takes one engine for both
    monkeypatch.setattr(computing, "_LARGE", 1000)
    assert auto.generate(PROMPT, steps=10)[0].manifest.engine == "torch"
    half = load(model_folder, device="cpu", dtype=torch.bfloat16)
    assert half.generate(PROMPT, steps=10)[0].manifest.engine == "torch"


def test_what_openvino_cannot_do_is_done_by_torch_and_told_once(by_openvino, by_torch, caplog):
    picture, _ = attention(by_openvino, Request(PROMPT, steps=2))
    perturbed = {"guidance": Guidance(pag_scale=2.0)}
    for _ in range(2):
        [ours] = by_openvino.generate(PROMPT, steps=2, **perturbed)
    [theirs] = by_torch.generate(PROMPT, steps=2, **perturbed)
    assert (picture.manifest.engine, ours.manifest.engine, apart(ours, theirs)) == (
        "torch",
        "torch",
        0,
    )
    told = [record.getMessage() for record in caplog.records]
    assert [line.split(":")[0] for line in told] == ["torch computes the networks"] * 2
    assert "attention is recorded" in told[0]
    assert "perturbed attention" in told[1]


def test_auto_takes_what_is_ready_and_gains_time(model_folder, by_torch, monkeypatch):
    exported = []
    whole = compiled._exported
    monkeypatch.setattr(
        compiled, "_exported", lambda *given: exported.append(given) or whole(*given)
    )
    auto = load(model_folder, device="cpu")
    auto.generate(PROMPT, steps=3)
    assert (auto.engine, exported) == ("torch", [])  # nothing is exported for it

    load(model_folder, device="cpu", engine="openvino").generate(PROMPT, steps=3)
    assert len(exported) == 2  # the U-Net and the decoder
    kept = own_store().kept()
    verdicts = {place: read_verdict(place) for place in kept}
    for place, verdict in verdicts.items():
        assert min(verdict.torch, verdict.openvino, verdict.ready) > 0
        write_verdict(place, replace(verdict, torch=2.0, openvino=1.0, ready=2.5))
    auto = load(model_folder, device="cpu")
    [few] = auto.generate(PROMPT, steps=2)  # which gain 2 seconds of the 2.5 that it takes to begin
    [more] = auto.generate(PROMPT, steps=3)
    [large] = auto.generate(PROMPT, steps=3, width=2 * SIZE)
    assert [one.manifest.engine for one in (few, more, large)] == ["torch", "openvino", "torch"]
    assert apart(more, by_torch.generate(PROMPT, steps=3)[0]) <= 1
    assert len(exported) == 2

    for place, verdict in verdicts.items():
        write_verdict(place, replace(verdict, torch=1.0, openvino=2.0))
    slower = load(model_folder, device="cpu")
    slower.generate(PROMPT, steps=3)
    assert slower.engine == "torch"
    for place, verdict in verdicts.items():
        write_verdict(place, replace(verdict, torch=2.0, openvino=0.0, machine="another"))
    elsewhere = load(model_folder, device="cpu")
    elsewhere.generate(PROMPT, steps=3)
    assert elsewhere.engine == "torch"


def test_what_was_prepared_is_taken_though_a_start_would_not_pay(model_folder, monkeypatch):
    real = compiled.quickest
    times = iter((2.0, 1.0) * 4)  # of torch and of OpenVINO
    monkeypatch.setattr(compiled, "quickest", lambda call: real(call) and next(times))
    auto = load(model_folder, device="cpu")
    prepare(auto)
    [picture] = auto.generate(PROMPT, steps=1)
    assert picture.manifest.engine == "openvino"


@pytest.mark.usefixtures("networks_are_kept")
def test_a_picture_is_made_again_by_its_engine_or_that_is_told(by_openvino, monkeypatch, capsys):
    [picture] = by_openvino.generate(PROMPT, steps=2)
    remade = remake(picture.manifest)
    assert remade.picture.manifest.engine == "openvino"
    assert apart(remade.picture, picture) <= 1
    monkeypatch.setattr(choosing, "has_openvino", lambda: False)
    remade = remake(picture.manifest)
    assert remade.picture.manifest.engine == "torch"
    assert apart(remade.picture, picture) <= 1
    assert "openvino computed the picture, and cannot here" in capsys.readouterr().err
    assert remade.same or "engine openvino -> torch" in remade.verdict


def test_engines_that_are_not_there_are_refused_before_anything_is_read(monkeypatch, tmp_path):
    monkeypatch.setattr(choosing, "has_openvino", lambda: False)
    monkeypatch.setenv("CXX", "no-such-compiler")
    with pytest.raises(SafelightError, match="is not installed"):
        load(tmp_path / "none", engine="openvino", device="cpu")
    with pytest.raises(SafelightError, match=r"needs a C\+\+ compiler"):
        load(tmp_path / "none", engine="compile", device="cpu")


@pytest.mark.slow  # it compiles a whole U-Net; a small module is compiled in tests/engine
def test_torchs_compiler_makes_the_same_pictures(model_folder, by_torch):
    by_compiler = load(model_folder, device="cpu", engine="compile")
    [ours], [theirs] = (one.generate(PROMPT, steps=2) for one in (by_compiler, by_torch))
    assert (ours.manifest.engine, apart(ours, theirs) <= 1) == ("compile", True)
