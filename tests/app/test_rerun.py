"""`safelight rerun` and `safelight show`, in process."""

import dataclasses
import json
from pathlib import Path

import pytest
import torch
from PIL import Image

from safelight.app.cli import main
from safelight.pipelines.manifest import Manifest
from safelight.pipelines.picture_files import read_manifest, write_picture
from tiny_model import write_tiny_model


@pytest.fixture(autouse=True)
def here(tmp_path, monkeypatch) -> Path:
    monkeypatch.chdir(tmp_path)
    return tmp_path


@pytest.fixture
def make(model_folder):
    def run(name: str, *options: str, model: Path = model_folder) -> Manifest:
        arguments = ["a red cube", "-o", name, "--seed", "11", "--device", "cpu"]
        assert main(["generate", *arguments, *options, "--model", str(model)]) == 0
        return read_manifest(Path(name))

    return run


def change(name: str, **values: object) -> None:
    """Writes a picture again with another manifest."""
    with Image.open(name) as image:
        image.load()
    write_picture(Path(name), image, dataclasses.replace(read_manifest(Path(name)), **values))


@pytest.mark.parametrize("suffix", [".png", ".webp", ".jpg"])
@pytest.mark.parametrize("sampler", ["euler_a", "dpmpp_2m"])
def test_the_same_pixels(make, capsys, suffix, sampler):
    name = f"x{suffix}"
    then = make(name, "--sampler", sampler, "--negative", "mush", "--steps", "4", "--width", "36")
    capsys.readouterr()
    assert main(["rerun", name]) == 0
    captured = capsys.readouterr()
    assert captured.out == f"x-rerun{suffix}\n"
    assert "the same pixels" in captured.err
    again = read_manifest(Path(f"x-rerun{suffix}"))
    assert again == then
    assert Path(f"x-rerun{suffix}").read_bytes() == Path(name).read_bytes()


@pytest.mark.parametrize(
    "options",
    [("--sampler", "DPM++ 2M SDE Karras"), ("--schedule", "ays"), ("--sigmas", "14.6,2.5,0.4,0")],
)
def test_the_same_noise_levels(make, options):
    then = make("x.png", *options)
    assert (then.schedule, then.sigmas) in [
        ("karras", None),
        ("ays", None),
        (None, (14.6, 2.5, 0.4, 0.0)),
    ]
    assert main(["rerun", "x.png"]) == 0
    assert read_manifest(Path("x-rerun.png")) == then


def test_the_same_merged_tokens(make):
    then = make("x.png", "--token-merging", "0.5")
    assert then.token_merging == 0.5
    assert then.pixels != make("plain.png").pixels
    assert main(["rerun", "x.png"]) == 0
    assert read_manifest(Path("x-rerun.png")) == then


def test_prompts_and_seeds_of_every_kind_come_again(make):
    syntax = ("--negative", "[(mush)|fog]", "--clip-skip", "2", "--steps", "4")
    seeds = ("--rng", "a1111-gpu", "--subseed", "3", "--subseed-strength", "0.25")
    made = make("x.png", *syntax, *seeds)
    assert (made.prompt_syntax, made.clip_skip, made.rng) == ("a1111", 2, "a1111-gpu")
    assert (made.seed, made.subseed, made.subseed_strength) == (11, 3, 0.25)
    assert main(["rerun", "x.png"]) == 0


def test_a_picture_from_before_there_was_a_syntax_comes_again_as_plain_text(make):
    make("x.png", "--negative", "(mush:2) [fog]" * 8, "--plain-prompt")
    new = ("prompt_syntax", "clip_skip", "rng", "subseed", "subseed_strength")
    values = json.loads(read_manifest(Path("x.png")).to_json())
    old = Manifest.from_json(
        json.dumps({name: value for name, value in values.items() if name not in new}), "old"
    )
    assert old == read_manifest(Path("x.png"))
    assert main(["rerun", "x.png"]) == 0
    change("x.png", prompt_syntax="a1111")
    assert main(["rerun", "x.png"]) == 1


def test_one_of_several_comes_again_alone(make, capsys):
    main(["generate", "a red cube", "-o", "a.png", "--count", "2", "--model", _model(make)])
    assert main(["rerun", "a-1.png", "-o", "b.png"]) == 0
    with Image.open("a-1.png") as one, Image.open("b.png") as two:
        assert one.tobytes() == two.tobytes()


def test_the_number_of_threads_is_that_of_the_manifest_and_then_as_before(make, monkeypatch):
    make("x.png")
    change("x.png", threads=3)
    used: list[int] = []
    set_threads = torch.set_num_threads
    monkeypatch.setattr(torch, "set_num_threads", lambda n: (used.append(n), set_threads(n)))
    before = torch.get_num_threads()
    main(["rerun", "x.png"])
    assert used == [3, before]
    assert torch.get_num_threads() == before


def test_other_weights_are_refused_and_nothing_is_written(make, here, capsys):
    model = write_tiny_model(here / "model")
    make("x.png", model=model)
    write_tiny_model(model, seed=1)
    capsys.readouterr()
    assert main(["rerun", "x.png"]) == 2
    message = capsys.readouterr().err
    assert "are not those that made the picture" in message
    for part in ("unet (", "vae (", "text_encoder (", "--other-weights"):
        assert part in message
    assert message.count("\n") == 1
    assert not Path("x-rerun.png").exists()


def test_other_weights_on_demand_are_said_to_make_other_pixels(make, here, capsys):
    model = write_tiny_model(here / "model")
    make("x.png", model=model)
    write_tiny_model(model, seed=1)
    capsys.readouterr()
    assert main(["rerun", "x.png", "--other-weights"]) == 1
    captured = capsys.readouterr()
    assert captured.out == "x-rerun.png\n"
    assert "the pixels are not the same. Changed since: weights of text_encoder" in captured.err


def test_a_model_that_has_moved(make, here, capsys):
    model = write_tiny_model(here / "model")
    make("x.png", model=model)
    model.rename(here / "moved")
    capsys.readouterr()
    assert main(["rerun", "x.png"]) == 2
    assert "No model" in capsys.readouterr().err
    assert main(["rerun", "x.png", "--model", "moved"]) == 0


def test_a_changed_version_is_named_when_pixels_differ(make, capsys):
    make("x.png")
    change("x.png", pixels="0" * 64, versions={"safelight": "0.0.1", "torch": torch.__version__})
    capsys.readouterr()
    assert main(["rerun", "x.png"]) == 1
    assert "Changed since: safelight 0.0.1 -> " in capsys.readouterr().err


def test_a_device_that_is_not_here_gives_way_to_the_processor(make, capsys, monkeypatch):
    monkeypatch.setattr(torch.cuda, "is_available", lambda: False)
    make("x.png")
    change("x.png", device="cuda", machine="a GPU", pixels="0" * 64)
    capsys.readouterr()
    assert main(["rerun", "x.png"]) == 1
    assert "device cuda -> cpu; machine a GPU -> " in capsys.readouterr().err


@pytest.mark.parametrize("device", ["cpu:foo", "cuda:99", "tpu"])
def test_a_device_that_torch_does_not_know_gives_way_too(make, capsys, device):
    make("x.png")
    change("x.png", device=device, pixels="0" * 64)
    capsys.readouterr()
    assert main(["rerun", "x.png"]) == 1
    assert f"device {device} -> cpu" in capsys.readouterr().err


def test_threads_that_no_machine_has_are_one_line(make, capsys):
    make("x.png")
    change("x.png", threads=0)
    capsys.readouterr()
    assert main(["rerun", "x.png"]) == 2
    message = capsys.readouterr().err
    assert "x.png holds a damaged manifest: threads should lie between 1 and" in message
    assert message.count("\n") == 1


def test_a_changed_configuration_is_named_when_pixels_differ(make, capsys):
    make("x.png")
    change("x.png", pixels="0" * 64, configuration={"scheduler/scheduler_config.json": "ab" * 32})
    capsys.readouterr()
    assert main(["rerun", "x.png"]) == 1
    assert "Changed since: scheduler/scheduler_config.json abababababab -> " in (
        capsys.readouterr().err
    )


def test_a_manifest_that_tells_less_blames_nothing_that_it_does_not_tell(make, capsys):
    make("x.png")
    change("x.png", pixels="0" * 64, configuration={}, versions={"torch": torch.__version__})
    capsys.readouterr()
    assert main(["rerun", "x.png"]) == 1
    assert capsys.readouterr().err == "safelight: the pixels are not the same.\n"


def test_a_model_given_by_a_relative_path_is_found_from_another_folder(make, here, monkeypatch):
    write_tiny_model(here / "model")
    assert make("x.png", model=Path("model")).model == str(here / "model")
    (here / "elsewhere").mkdir()
    monkeypatch.chdir(here / "elsewhere")
    assert main(["rerun", "../x.png"]) == 0


def test_show_prints_the_manifest(make, capsys):
    then = make("x.jpg")
    capsys.readouterr()
    assert main(["show", "x.jpg"]) == 0
    wanted = json.loads(json.dumps(dataclasses.asdict(then)))  # where tuples are lists
    assert json.loads(capsys.readouterr().out) == wanted


@pytest.mark.parametrize("command", ["show", "rerun"])
@pytest.mark.parametrize(
    ("name", "message"),
    [
        ("none.png", "none.png does not exist"),
        ("folder", "folder is a folder; give the picture file"),
        ("text.png", "is not a picture that can be read"),
        ("cut.png", "cut.png is not a whole picture"),
        ("plain.png", "carries no safelight manifest"),
    ],
)
def test_files_that_tell_nothing(make, here, capsys, command, name, message):
    Path("folder").mkdir()
    Path("text.png").write_text("text")
    make("cut.png")
    Path("cut.png").write_bytes(Path("cut.png").read_bytes()[:-900])
    Image.new("RGB", (8, 8)).save("plain.png")
    before = sorted(here.iterdir())
    capsys.readouterr()
    assert main([command, name]) == 2
    captured = capsys.readouterr()
    assert message in captured.err
    assert captured.err.count("\n") == 1
    assert captured.out == ""
    assert sorted(here.iterdir()) == before


@pytest.mark.parametrize(
    ("output", "message"), [("x.gif", "Cannot tell the format"), ("no/x.png", "does not exist")]
)
def test_a_bad_output_is_told_before_the_model_is_read(make, capsys, monkeypatch, output, message):
    make("x.png")
    monkeypatch.setattr("safelight.app.remaking.load", lambda *a, **k: pytest.fail("was read"))
    assert main(["rerun", "x.png", "-o", output]) == 2
    assert message in capsys.readouterr().err


def _model(make) -> str:
    return make("model.png").model
