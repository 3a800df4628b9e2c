"""Distillations by recipe, on a tiny model."""

import hashlib
import json
from dataclasses import replace
from pathlib import Path

import pytest
import torch
from PIL import Image

from distilling import METHODS, distilled, write_workshop
from safelight.app.distillation_parts import Silent, pupil_of, teachable
from safelight.app.recipe import DistillationRecipe, read_recipe
from safelight.checkpoints.adapters import merged
from safelight.checkpoints.files import read_state
from safelight.checkpoints.folder import Folder, read_folder, write_folder
from safelight.checkpoints.lora_file import LORA_FILE
from safelight.checkpoints.schedulers import SchedulerConfig
from safelight.conditioners.numbers import with_guidance
from safelight.errors import SafelightError
from safelight.models.unet import UNet
from safelight.pipelines.load import load
from safelight.types import Conditioning
from tiny_model import SIZE, tiny_folder

X, T = (
    torch.randn(2, 4, 8, 8, generator=torch.Generator().manual_seed(1)),
    torch.tensor([500, 20.0]),
)
CONTEXT = torch.randn(2, 5, 32, generator=torch.Generator().manual_seed(2))


@pytest.fixture(scope="module")
def workshop(tmp_path_factory: pytest.TempPathFactory) -> Path:
    torch.set_num_threads(1)
    return write_workshop(tmp_path_factory.mktemp("distillation"))


def _bytes_in(folder: Path) -> dict[str, str]:
    files = sorted(path for path in folder.rglob("*") if path.is_file())
    return {str(path): hashlib.sha256(path.read_bytes()).hexdigest() for path in files}


def _state(model: Path) -> dict[str, torch.Tensor]:
    if (model / LORA_FILE).is_file():
        return read_state(model / LORA_FILE)
    return dict(read_folder(model).unet.state_dict())


def _output(unet: UNet, scale: float) -> torch.Tensor:
    cond = Conditioning(context=CONTEXT)
    with torch.no_grad():
        told = unet.config.guidance_dim is not None
        return unet(X, T, with_guidance(cond, scale, unet.config) if told else cond)


@pytest.mark.parametrize("method", METHODS)
def test_a_student_begins_as_the_base_and_is_resumed_to_the_bit(workshop, tmp_path, method):
    before = _bytes_in(workshop / "model")
    recipe = read_recipe(workshop / "distil.toml", METHODS[method])
    assert isinstance(recipe, DistillationRecipe)
    model = teachable(workshop / "model")
    base = _output(model.unet, 0)
    pupil = pupil_of(recipe, model)
    for scale in (1.0, 3.5):
        assert torch.equal(_output(pupil.unet, scale), base)

    whole = distilled(workshop, tmp_path / "whole", *METHODS[method])
    half = ("loop.steps=2", *METHODS[method])
    if "progressive" in method:  # whose rounds are parts of the whole training
        half = ("loop.save_every=2", "loop.keep=2", *METHODS[method])
    distilled(workshop, tmp_path / "halves", *half)
    if "progressive" in method:
        _forget(tmp_path / "halves", 4)
    halves = distilled(workshop, tmp_path / "halves", *METHODS[method], resume=True)
    first, second = _state(whole), _state(halves)
    assert first.keys() == second.keys()
    assert all(torch.equal(first[name], second[name]) for name in first)
    assert _bytes_in(workshop / "model") == before
    if not (whole / LORA_FILE).is_file():
        assert not torch.allclose(_output(read_folder(whole).unet, 3.5), base, atol=1e-4)


def _forget(out: Path, step: int) -> None:
    """A training as if it had been killed before it saved that step."""
    folder = out / f"checkpoints/step_{step:07d}"
    for file in folder.iterdir():
        file.unlink()
    folder.rmdir()


@pytest.mark.parametrize(
    ("method", "told"),
    [
        ("lcm", ("LCMScheduler", 4, 2.0, 16)),
        ("lcm, not told", ("LCMScheduler", 4, 1.0, None)),
        ("tcd", ("TCDScheduler", 4, 2.0, 16)),
        ("guidance", ("DDIMScheduler", 3, 2.0, 16)),
        ("progressive", ("DDIMScheduler", 4, 2.0, 16)),
    ],
)
def test_the_result_is_a_model_that_says_how_it_is_used(workshop, tmp_path, method, told):
    changed = ("loop.steps=2", "loop.preview_every=2", *METHODS[method])
    folder = distilled(workshop, tmp_path, *changed)
    scheduler = json.loads((folder / "scheduler/scheduler_config.json").read_text())
    student = read_folder(folder)
    assert (
        scheduler["_class_name"],
        student.defaults.steps,
        student.defaults.scale,
        json.loads((folder / "unet/config.json").read_text())["time_cond_proj_dim"],
    ) == told
    (made,) = load(folder, device="cpu").generate("a red ball")
    assert made.image.size == (SIZE, SIZE)
    assert made.manifest.steps == told[1]
    with Image.open(tmp_path / "previews/step_0000002.png") as preview:
        assert preview.size == (2 * SIZE, 2 * SIZE)  # teacher, student


def test_a_progressive_student_has_the_steps_of_its_round(workshop, tmp_path):
    changed = ('distillation.method="progressive"', "distillation.teacher_steps=16")
    saved = ("loop.save_every=2", "loop.preview_every=0")
    distilled(workshop, tmp_path / "a", *changed, *saved, "loop.steps=4")
    of_rounds = {}
    for step in (2, 4):
        _, weights = step, tmp_path / f"a/checkpoints/step_{step:07d}/weights.safetensors"
        state = read_state(weights)
        of_rounds[step] = {
            part: torch.cat([v.flatten() for k, v in state.items() if k.startswith(part)])
            for part in ("main.unet", "former.unet")
        }
    # the second round is taught by what the first has left, which then stays as it is
    assert torch.equal(of_rounds[4]["former.unet"], of_rounds[2]["main.unet"])
    assert not torch.equal(of_rounds[2]["former.unet"], of_rounds[2]["main.unet"])


def test_targets_are_by_an_average_that_is_kept(workshop, tmp_path):
    distilled(
        workshop, tmp_path, "distillation.target_decay=0.75", "loop.save_every=1", "loop.keep=9"
    )

    def saved(step: int, part: str) -> torch.Tensor:
        state = read_state(tmp_path / f"checkpoints/step_{step:07d}/weights.safetensors")
        return state[f"{part}.unet.conv_in.weight"]

    start = read_folder(workshop / "model").unet.state_dict()["conv_in.weight"]
    assert torch.equal(saved(1, "target"), start)
    wanted = 0.75 * start + 0.25 * saved(1, "main")
    assert torch.allclose(saved(2, "target"), wanted, atol=1e-7)
    wanted = 0.75 * wanted + 0.25 * saved(2, "main")
    assert torch.allclose(saved(3, "target"), wanted, atol=1e-7)


@pytest.mark.parametrize("method", ["lcm", "lora"])
def test_parts_of_a_batch_and_recomputation_change_nothing(workshop, tmp_path, method):
    logs = []
    for name, changed in {
        "plain": (),
        "saving": ("optim.accumulate=2", "optim.recompute=true"),
    }.items():
        few = ("loop.steps=2", "loop.log_every=1", *changed)
        distilled(workshop, tmp_path / name, *METHODS[method], *few)
        rows = [
            json.loads(line) for line in (tmp_path / name / "log.jsonl").read_text().splitlines()
        ]
        logs.append([(row["loss"], row["grad_norm"]) for row in rows])
    plain, saving = logs
    assert saving[0] == pytest.approx(plain[0], rel=1e-4)
    assert saving[1] == pytest.approx(plain[1], rel=0.02)  # Adam's signs of gradients near 0


def test_a_lora_teaches_itself_without_what_it_has_learned(workshop, tmp_path):
    recipe = read_recipe(workshop / "distil.toml", METHODS["lora"])
    assert isinstance(recipe, DistillationRecipe)
    model = teachable(workshop / "model")
    cond = Conditioning(context=CONTEXT)
    base = _output(model.unet, 0)
    pupil = pupil_of(recipe, model)
    assert pupil.deltas is not None
    with torch.no_grad():
        for delta in pupil.deltas.values():
            delta.up.normal_()
        assert not torch.allclose(pupil.unet(X, T, cond), base)
        assert torch.equal(Silent(pupil.unet)(X, T, cond), base)
        assert not torch.allclose(pupil.unet(X, T, cond), base)


def test_a_lora_of_one_model_changes_its_sibling(workshop, tmp_path):
    lora = distilled(workshop, tmp_path / "out", *METHODS["lora"]) / LORA_FILE
    sibling = tiny_folder()
    with torch.no_grad():
        for parameter in sibling.unet.parameters():
            parameter.add_(0.01 * torch.randn_like(parameter))
    plain = _output(sibling.unet, 0)
    with merged(sibling, {lora: 1.0}):
        assert not torch.allclose(_output(sibling.unet, 0), plain, atol=1e-4)
    write_folder(tmp_path / "sibling", sibling)
    pipeline = load(tmp_path / "sibling", device="cpu")
    pipeline.adapt(lora)
    (made,) = pipeline.generate("a red ball", sampler="lcm", steps=2, scale=1.0)
    assert made.image.size == (SIZE, SIZE)


def test_both_layouts_of_a_lora_say_the_same(workshop, tmp_path):
    outputs = []
    for layout in ("diffusers", "kohya"):
        changed = f'lora={{rank=4, alpha=8, layout="{layout}"}}'
        lora = distilled(workshop, tmp_path / layout, changed) / LORA_FILE
        model = read_folder(workshop / "model")
        with merged(model, {lora: 1.0}):
            outputs.append(_output(model.unet, 0))
        keys = read_state(lora)
        assert any(key.endswith(".alpha") for key in keys) == (layout == "kohya")
    assert torch.allclose(*outputs, atol=1e-6)
    assert not torch.allclose(outputs[0], _output(read_folder(workshop / "model").unet, 0))


def test_a_student_is_a_teacher_that_is_told_its_scale(workshop, tmp_path):
    first = distilled(workshop, tmp_path / "first", *METHODS["guidance"])
    base = f'base="{first}"'
    second = distilled(workshop, tmp_path / "second", base, *METHODS["progressive"])
    student = read_folder(second)
    assert student.unet.config.guidance_dim == 16
    assert student.scheduler.sampler == "ddim"


def test_zero_terminal_snr(workshop, tmp_path):
    """As the bundled model has it: the last of the taught times is noise alone."""
    scheduler = SchedulerConfig(
        prediction_type="v_prediction", timestep_spacing="trailing", rescale_betas_zero_snr=True
    )
    write_folder(tmp_path / "model", replace(tiny_folder(), scheduler=scheduler))
    for method in ("lcm", "tcd", "progressive"):
        base = f'base="{tmp_path / "model"}"'
        few = (base, *METHODS[method], "loop.steps=2")
        folder = distilled(workshop, tmp_path / method, *few)
        (made,) = load(folder, device="cpu").generate("a red ball")
        assert made.image.size == (SIZE, SIZE)
        log = [
            json.loads(line)
            for line in (tmp_path / method / "log.jsonl").read_text().split("\n")
            if line
        ]
        assert all(0 < row["loss"] < 10 for row in log if "loss" in row)


def _flow() -> Folder:
    return replace(tiny_folder(), scheduler=SchedulerConfig("FlowMatchEulerDiscreteScheduler"))


def test_guidance_alone_is_distilled_of_any_noise_levels(workshop, tmp_path):
    write_folder(tmp_path / "flow", _flow())
    base = f'base="{tmp_path / "flow"}"'
    folder = distilled(workshop, tmp_path / "out", base, *METHODS["guidance"])
    assert read_folder(folder).scheduler.levels == "flow"
    with pytest.raises(SafelightError, match="table of betas, and these are a flow; only method"):
        distilled(workshop, tmp_path / "lcm", base)


def test_a_checkpoint_is_of_one_method_and_one_teacher(workshop, tmp_path):
    distilled(workshop, tmp_path, "loop.steps=1")
    with pytest.raises(SafelightError, match="method was lcm, is tcd"):
        distilled(workshop, tmp_path, *METHODS["tcd"], resume=True)


def test_rounds_of_another_length_are_not_gone_on_with(workshop, tmp_path):
    distilled(workshop, tmp_path, *METHODS["progressive"], "loop.steps=2")
    with pytest.raises(SafelightError, match="round_steps was 1, is 2"):
        distilled(workshop, tmp_path, *METHODS["progressive"], resume=True)


@pytest.mark.parametrize(
    ("changed", "message"),
    [
        (('distillation.method="lcn"',), "lcm"),
        (("distillation.steps=0",), "steps should be at least 1"),
        (("distillation.scale=[4, 2]",), "lowest and the highest"),
        (("distillation.huber_c=0",), "huber_c should be above 0"),
        (("distillation.target_decay=1",), "target_decay should be in"),
        (("distillation.caption_dropout=2",), "caption_dropout should be in"),
        (("distillation.times=2000",), "more than the 1000 times"),
        (("distillation.steps=60",), "1 to 50 steps, got 60"),
        (('distillation.method="progressive"', "distillation.teacher_steps=12"), "such as 32"),
        ((*METHODS["progressive"], "loop.steps=3"), "divide into the 2 rounds .* such as 2"),
        ((*METHODS["progressive"], "lora={rank=4}"), r"leave \[lora\] out"),
        (("lora={rank=0}",), "lora.rank should be at least 1"),
        (("lora={alpha=0.0}",), "lora.alpha should be above 0"),
        (('lora={targets=["to_qq"]}',), "'to_qq'.*'to_q'"),
        (("data.zoom=2.0",), "kind = 'distill'"),
    ],
)
def test_a_recipe_that_cannot_work_ends_in_one_line(workshop, tmp_path, changed, message):
    with pytest.raises(SafelightError, match=message):
        distilled(workshop, tmp_path / "out", *changed)
    assert not (tmp_path / "out").exists()


def test_a_base_that_takes_more_than_a_prompt_is_refused(workshop, tmp_path):
    folder = tiny_folder()
    unet = UNet(replace(folder.unet.config, in_channels=9)).eval()
    write_folder(tmp_path / "model", replace(folder, unet=unet))
    with pytest.raises(SafelightError, match="takes more than a prompt"):
        distilled(workshop, tmp_path / "out", f'base="{tmp_path / "model"}"')
