"""What a recipe of distillation refuses, what it keeps on being, and what guides its teacher."""

from dataclasses import replace
from pathlib import Path

import pytest
import torch
from PIL import Image
from torch import Tensor

from distilling import METHODS, distilled, write_workshop
from safelight.app.control_parts import null_of
from safelight.app.distillation_parts import student_scheduler
from safelight.app.recipe_distillation import check_base
from safelight.app.training_basis import distillation_basis
from safelight.checkpoints.files import read_state
from safelight.checkpoints.folder import Folder, read_folder, write_folder
from safelight.checkpoints.lora_file import LoraConfig
from safelight.checkpoints.schedulers import SchedulerConfig
from safelight.errors import SafelightError
from safelight.models.clip import ClipText
from safelight.models.unet import UNet, UNetConfig
from safelight.pipelines.load import load
from safelight.train.distillation import DistillationConfig
from safelight.types import Conditioning
from tiny_model import SIZE, tiny_folder

ADVERSARIAL = 'distillation.method="adversarial"'


@pytest.fixture(scope="module")
def workshop(tmp_path_factory: pytest.TempPathFactory) -> Path:
    torch.set_num_threads(1)
    return write_workshop(tmp_path_factory.mktemp("checks"))


def _told_numbers(numbers: int, *, zeros: bool) -> Folder:
    """A model of SDXL's kind: of sizes, or of a score, with zeros or the empty prompt as null."""
    folder = tiny_folder()
    (tower,) = folder.text_towers
    assert isinstance(tower, ClipText)
    unet = replace(folder.unet.config, added_time_dim=4, added_dim=8 + 4 * numbers)
    return replace(
        folder,
        unet=UNet(unet).eval(),
        text_towers=(ClipText(replace(tower.config, projection_dim=8)).eval(),),
        settings={**folder.settings, "force_zeros_for_empty_prompt": zeros},
    )


@pytest.mark.parametrize("numbers", [6, 5])
@pytest.mark.parametrize("zeros", [True, False])
def test_the_null_is_what_pictures_are_guided_away_from(monkeypatch, tmp_path, numbers, zeros):
    folder = _told_numbers(numbers, zeros=zeros)
    write_folder(tmp_path / "model", folder)
    seen: list[Conditioning] = []
    forward = UNet.forward

    def noting(self: UNet, x: Tensor, t: Tensor, cond: Conditioning) -> Tensor:
        seen.append(cond)
        return forward(self, x, t, cond)

    monkeypatch.setattr(UNet, "forward", noting)
    image = Image.new("RGB", (SIZE, SIZE)) if numbers == 5 else None  # a refiner goes on from one
    load(tmp_path / "model", device="cpu").generate("a red ball", image=image, steps=4, scale=4.0)
    with torch.no_grad():
        null = null_of(read_folder(tmp_path / "model"), SIZE)
    assert null.context is not None
    assert null.vector is not None
    assert bool((null.context == 0).all()) == zeros
    context, vector = (
        torch.cat([part for cond in seen for part in parts(cond)])
        for parts in (lambda c: [c.context], lambda c: [c.vector])
    )
    rows = [
        torch.allclose(context[i], null.context[0], atol=1e-6)
        and torch.allclose(vector[i], null.vector[0], atol=1e-6)
        for i in range(len(context))
    ]
    assert sorted(rows)[:: len(rows) - 1] == [False, True]  # the prompt, and the null


def test_a_lora_and_a_halving_are_gone_on_with_as_they_were():
    model = tiny_folder()
    lora = [
        distillation_basis(model, DistillationConfig(), LoraConfig(4, alpha), 8)["lora"]
        for alpha in (None, 4.0, 8.0)
    ]
    assert lora[0] == lora[1] != lora[2]
    halvings = [
        distillation_basis(
            model, DistillationConfig("progressive", few, teacher_steps=many), None, 8
        )
        for many, few in ((16, 4), (4, 1))
    ]
    assert halvings[0]["round_steps"] == halvings[1]["round_steps"]
    assert halvings[0]["halved"] != halvings[1]["halved"]


def test_a_training_stands_on_its_noise_levels():
    config = DistillationConfig("guidance")
    said = {
        distillation_basis(tiny_folder(scheduler=scheduler), config, None, 8)["noise_levels"]
        for scheduler in (
            SchedulerConfig(),
            SchedulerConfig(beta_end=0.02),
            SchedulerConfig(rescale_betas_zero_snr=True),
            SchedulerConfig("FlowMatchEulerDiscreteScheduler"),
        )
    }
    assert len(said) == 4
    assert None in said


@pytest.mark.parametrize("method", ["lcm", "tcd", "progressive", "adversarial"])
def test_noise_is_not_predicted_where_there_is_nothing_else(method):
    zero_snr = SchedulerConfig(rescale_betas_zero_snr=True)
    config = DistillationConfig(method)
    with pytest.raises(SafelightError, match="predicts the noise learns nothing"):
        student_scheduler(config, zero_snr, 4)
    student_scheduler(config, replace(zero_snr, prediction_type="v_prediction"), 4)
    student_scheduler(config, replace(zero_snr, rescale_betas_zero_snr=False), 4)
    assert student_scheduler(DistillationConfig("guidance"), zero_snr, 4) == zero_snr


def test_a_base_that_is_told_its_scale():
    unet, base = UNetConfig(guidance_dim=16), Path("base")
    with pytest.raises(SafelightError, match=r"base is told its scale .* in one call already"):
        check_base(DistillationConfig("guidance"), base, unet, lora=False)
    for dim in (0, 32):
        with pytest.raises(SafelightError, match=f"by 16 features.*guidance_dim = {dim} out"):
            check_base(DistillationConfig(guidance_dim=dim), base, unet, lora=False)
    for dim in (16, DistillationConfig.guidance_dim):  # its own, or left out
        check_base(DistillationConfig(guidance_dim=dim), base, unet, lora=False)
    check_base(DistillationConfig("guidance", guidance_dim=0), base, UNetConfig(), lora=False)


@pytest.mark.parametrize(
    ("changed", "message"),
    [
        (('distillation.method="guidance"', "distillation.times=10"), r"distillation\.times would"),
        (('distillation.method="guidance"', 'distillation.loss="l2"'), r"distillation\.loss would"),
        ((ADVERSARIAL, "distillation.huber_c=0.1"), r"distillation\.huber_c would"),
        ((ADVERSARIAL, "distillation.target_decay=0.0"), r"distillation\.target_decay would"),
        (("lora={rank=4}", "distillation.target_decay=0.0"), r"distillation\.target_decay would"),
        ((ADVERSARIAL, "distillation.teacher_steps=8"), "adversarial.real = .teacher."),
        (("distillation.teacher_steps=8",), r"distillation\.teacher_steps would"),
        ((ADVERSARIAL, "distillation.guidance_dim=16"), r"distillation\.guidance_dim would"),
        (("lora={rank=4}", "distillation.guidance_dim=16"), r"distillation\.guidance_dim would"),
        ((ADVERSARIAL, 'features="efficientnet-lite0"', "adversarial.std=2.0"), "std would"),
        ((ADVERSARIAL, "adversarial.told_picture=false"), "told_picture would"),
        (("lora={targets=[]}",), "lora.targets names no layer"),
    ],
)
def test_a_key_that_would_change_nothing_is_refused(workshop, tmp_path, changed, message):
    with pytest.raises(SafelightError, match=message):
        distilled(workshop, tmp_path / "out", *changed)
    assert not (tmp_path / "out").exists()


def test_the_new_embedding_learns_at_its_own_rate(workshop, tmp_path):
    """By Adam's first step each weight changes by the rate, whatever its gradient."""
    key = "main.unet.time_embedding.cond_proj.weight"
    changed: list[float] = []
    for times in (1.0, 4.0):
        out = tmp_path / str(times)
        distilled(workshop, out, *METHODS["lcm"], "loop.steps=1", f"optim.fresh_lr={times}")
        state = read_state(out / "checkpoints/step_0000001/weights.safetensors")
        changed.append(state[key].abs().max().item())
    assert changed[1] == pytest.approx(4 * changed[0], rel=1e-3)
    assert changed[0] > 0
