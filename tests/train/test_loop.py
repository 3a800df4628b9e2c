import json
import math
import os
import signal
import subprocess
import sys
import time
from pathlib import Path

import pytest
import torch
from PIL import Image
from train_toys import Denoising, assert_same, batch, run

from safelight.checkpoints.files import read_state
from safelight.errors import SafelightError
from safelight.train.checkpoint import checkpoints
from safelight.train.loop import Hooks, LoopConfig, Preview, train
from safelight.train.optim import OptimConfig
from safelight.train.progress import LOG_NAME, reporting


def log(folder: Path) -> list[dict[str, float]]:
    return [json.loads(line) for line in (folder / LOG_NAME).read_text().splitlines()]


def saved(folder: Path, name: str) -> dict[str, torch.Tensor]:
    return read_state(checkpoints(folder / "checkpoints")[-1] / f"{name}.safetensors")


def test_training_lowers_the_loss(tmp_path: Path):
    run(Denoising(), tmp_path, steps=60, log_every=10)
    losses = [line["loss"] for line in log(tmp_path)]
    assert losses[-1] < 0.5 * losses[0]


def test_an_interrupted_training_resumes_to_the_bit(tmp_path: Path):
    whole, parts = Denoising(), Denoising()
    run(whole, tmp_path / "whole", steps=9, ema=0.9)
    run(parts, tmp_path / "parts", steps=4, ema=0.9)
    resumed = Denoising(seed=5)  # its weights are not those of the checkpoint
    run(resumed, tmp_path / "parts", steps=9, ema=0.9, resume=True)
    assert_same(whole.weights(), resumed.weights())
    for name in ("weights", "averages", "optimisers"):
        assert_same(saved(tmp_path / "whole", name), saved(tmp_path / "parts", name))


def test_the_learning_rate_schedule_does_not_restart_on_resume(tmp_path: Path):
    optim = OptimConfig(lr=1e-2, warmup=3, schedule="cosine")
    run(Denoising(), tmp_path / "whole", steps=8, save_every=5, log_every=1, optim=optim)
    stopped = Denoising()
    stopped.stop_at = 4
    outcome = run(stopped, tmp_path / "parts", steps=8, log_every=1, optim=optim)
    assert (outcome.step, outcome.stopped) == (5, signal.SIGTERM)
    run(Denoising(), tmp_path / "parts", steps=8, log_every=1, optim=optim, resume=True)
    rates = [[line["lr"] for line in log(tmp_path / name)] for name in ("whole", "parts")]
    assert rates[0] == rates[1]
    assert rates[0][2] == pytest.approx(1e-2)
    cosine = 0.5 * (1 + math.cos(math.pi * 4 / 5))
    assert rates[0][-1] == pytest.approx(1e-2 * (0.01 + 0.99 * cosine), rel=1e-4)


def test_accumulated_parts_change_the_weights_as_the_whole_batch_does(tmp_path: Path):
    whole, parts = Denoising(), Denoising()
    run(whole, tmp_path / "whole", steps=3)
    run(parts, tmp_path / "parts", steps=3, optim=OptimConfig(lr=1e-2, warmup=2, accumulate=3))
    for name, tensor in whole.weights().items():
        torch.testing.assert_close(parts.weights()[name], tensor, rtol=1e-4, atol=1e-5)
    assert log(tmp_path / "parts")[-1]["loss"] == pytest.approx(
        log(tmp_path / "whole")[-1]["loss"], rel=1e-4
    )


def test_a_loss_that_is_not_a_number_stops_and_leaves_the_last_good_checkpoint(tmp_path: Path):
    good, poisoned = Denoising(), Denoising()
    run(good, tmp_path / "good", steps=4)
    poisoned.poison_at = 5
    with pytest.raises(SafelightError, match=r"no longer a finite number.*step_0000004"):
        run(poisoned, tmp_path / "bad", steps=20, save_every=2, log_every=3)
    assert [path.name for path in checkpoints(tmp_path / "bad" / "checkpoints")] == [
        "step_0000002",
        "step_0000004",
    ]
    assert_same(saved(tmp_path / "good", "weights"), saved(tmp_path / "bad", "weights"))


def test_a_folder_in_use_needs_resume(tmp_path: Path):
    run(Denoising(), tmp_path, steps=2)
    with pytest.raises(SafelightError, match="--resume"):
        run(Denoising(), tmp_path, steps=4)


def test_a_checkpoint_of_another_network_is_refused(tmp_path: Path):
    run(Denoising(), tmp_path, steps=2)
    other = Denoising()
    other.network.append(torch.nn.Conv2d(3, 3, 1))
    with pytest.raises(SafelightError, match=r"another network.*network\.3\.bias"):
        run(other, tmp_path, steps=4, resume=True)


def test_only_the_newest_checkpoints_are_kept(tmp_path: Path):
    run(Denoising(), tmp_path, steps=5, save_every=1, keep=2)
    names = [path.name for path in checkpoints(tmp_path / "checkpoints")]
    assert names == ["step_0000004", "step_0000005"]


def test_what_was_logged_after_the_checkpoint_is_cut_off_on_resume(tmp_path: Path):
    run(Denoising(), tmp_path, steps=4, log_every=1)
    with (tmp_path / LOG_NAME).open("a") as file:
        file.write('{"step": 5, "loss": 1.0}\n{"step": 6, "lo')
    run(Denoising(), tmp_path, steps=6, log_every=1, resume=True)
    assert [line["step"] for line in log(tmp_path)] == [1, 2, 3, 4, 5, 6]


def test_hooks_see_the_averaged_weights_and_the_training_goes_on_with_its_own(tmp_path: Path):
    task, plain = Denoising(), Denoising()
    seen: list[dict[str, torch.Tensor]] = []

    def preview(step: int) -> Preview:
        seen.append(task.weights())
        return Preview(torch.zeros(3, 4, 4), {"psnr": 20.0})

    train(
        task,
        lambda start: map(batch, range(start, 100)),
        LoopConfig(steps=4, batch_size=8, ema=0.5, preview_every=2, tensorboard=False),
        OptimConfig(lr=1e-2, warmup=0),
        tmp_path / "seen",
        device=torch.device("cpu"),
        hooks=Hooks(preview, lambda step: seen.append(task.weights())),
    )
    averages = saved(tmp_path / "seen", "averages")
    assert_same({f"main.network.{name}": tensor for name, tensor in seen[-1].items()}, averages)
    run(plain, tmp_path / "plain", steps=4, optim=OptimConfig(lr=1e-2, warmup=0))
    assert_same(plain.weights(), task.weights())
    assert (tmp_path / "seen/previews/step_0000002.png").is_file()
    assert {"step": 2, "psnr": 20.0} in log(tmp_path / "seen")


def test_sigterm_saves_and_the_resumed_training_is_the_uninterrupted_one(tmp_path: Path):
    folder = tmp_path / "parts"
    script = Path(__file__).parent / "train_toys.py"
    process = subprocess.Popen(
        [sys.executable, script, folder],
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
        env=os.environ | {"OMP_NUM_THREADS": "1"},
    )
    while not (folder / LOG_NAME).is_file() or len(log(folder)) < 3:
        assert process.poll() is None, process.communicate()[1]
        time.sleep(0.05)
    process.send_signal(signal.SIGTERM)
    told, errors = process.communicate(timeout=30)
    assert process.returncode == 128 + signal.SIGTERM, errors
    assert errors == ""
    assert "--resume continues" in told

    steps = int(checkpoints(folder / "checkpoints")[-1].name.removeprefix("step_")) + 2
    run(Denoising(), folder, steps=steps, resume=True)
    run(Denoising(), tmp_path / "whole", steps=steps)
    for name in ("weights", "averages", "optimisers"):
        assert_same(saved(tmp_path / "whole", name), saved(folder, name))


def test_tensorboard_is_written_where_it_is_installed(tmp_path: Path):
    pytest.importorskip("tensorboard")
    run(Denoising(), tmp_path, steps=2, tensorboard=True)
    assert list((tmp_path / "tensorboard").glob("events.*"))


def test_a_checkpoint_on_another_basis_is_refused_in_one_line(tmp_path: Path):
    basis = {"autoencoder": "a" * 64, "unet": {"attention_heads": [2, 4], "channels": [8]}}
    run(Denoising(), tmp_path, steps=2, basis=basis)
    run(Denoising(), tmp_path, steps=3, basis=basis, resume=True)
    other = {"autoencoder": "b" * 64, "unet": {"attention_heads": (4, 2), "channels": (8,)}}
    with pytest.raises(SafelightError) as error:
        run(Denoising(), tmp_path, steps=4, basis=other, resume=True)
    told = str(error.value)
    assert "autoencoder was aaaaaaaaaaaa, is bbbbbbbbbbbb" in told
    assert "unet.attention_heads was [2, 4], is [4, 2]" in told
    assert "channels" not in told
    assert "another output folder" in told
    assert "\n" not in told


def test_a_checkpoint_from_before_there_were_bases_is_gone_on_from(tmp_path: Path):
    run(Denoising(), tmp_path, steps=2)
    facts = checkpoints(tmp_path / "checkpoints")[-1] / "state.json"
    plain = json.loads(facts.read_text())
    del plain["basis"]
    facts.write_text(json.dumps(plain))
    assert run(Denoising(), tmp_path, steps=3, basis={"unet": "x"}, resume=True).step == 3


@pytest.mark.parametrize("broken", ["weights.safetensors", "state.json"])
def test_a_broken_checkpoint_is_told_of_and_the_one_before_continued(
    tmp_path: Path, broken: str, capsys: pytest.CaptureFixture[str]
):
    run(Denoising(), tmp_path / "whole", steps=5)
    run(Denoising(), tmp_path / "parts", steps=4, save_every=2)
    path = checkpoints(tmp_path / "parts/checkpoints")[-1] / broken
    path.write_bytes(path.read_bytes()[:20])
    capsys.readouterr()
    run(Denoising(), tmp_path / "parts", steps=3, keep=1, resume=True)
    assert "Going on from step 2 instead." in capsys.readouterr().out
    names = [path.name for path in checkpoints(tmp_path / "parts/checkpoints")]
    assert names == ["step_0000003"]  # not the broken one, newer as it is
    run(Denoising(), tmp_path / "parts", steps=5, resume=True)
    for name in ("weights", "averages", "optimisers"):
        assert_same(saved(tmp_path / "whole", name), saved(tmp_path / "parts", name))


def test_if_no_checkpoint_can_be_read_the_error_is_that_of_the_newest(tmp_path: Path):
    run(Denoising(), tmp_path, steps=2, save_every=1)
    for path in checkpoints(tmp_path / "checkpoints"):
        (path / "averages.safetensors").unlink()
    with pytest.raises(SafelightError, match=r"step_0000002"):
        run(Denoising(), tmp_path, steps=4, resume=True)


def test_a_preview_is_written_whole_or_not_at_all(tmp_path: Path, monkeypatch: pytest.MonkeyPatch):
    def half(picture: Image.Image, path: Path, *_: object) -> None:
        Path(path).write_bytes(b"half")
        raise OSError("No space left on device")

    monkeypatch.setattr(Image.Image, "save", half)
    with (
        reporting(tmp_path, 2, 0, tensorboard=False) as report,
        pytest.raises(OSError, match="No space"),
    ):
        report.picture(1, torch.zeros(3, 4, 4))
    assert list((tmp_path / "previews").iterdir()) == []


@pytest.mark.parametrize(
    ("values", "told"),
    [
        ({"steps": 0}, r"loop\.steps should be at least 1, got 0"),
        ({"save_every": -1}, r"loop\.save_every should be at least 0, got -1"),
        ({"preview_every": -1}, r"loop\.preview_every"),
        ({"ema": 1.0}, r"loop\.ema"),
    ],
)
def test_loop_values_out_of_range_are_named(values: dict[str, float], told: str):
    with pytest.raises(SafelightError, match=told):
        LoopConfig(**values)
