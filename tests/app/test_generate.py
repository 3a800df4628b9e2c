"""`safelight generate`, in process, by the arguments that a user types."""

from pathlib import Path

import pytest
from PIL import Image

from safelight.app.cli import main
from safelight.pipelines.picture_files import read_manifest

PROMPT = "a red cube"


@pytest.fixture(autouse=True)
def here(tmp_path, monkeypatch) -> Path:
    monkeypatch.chdir(tmp_path)
    return tmp_path


@pytest.fixture
def generate(model_folder):
    def run(*arguments: str) -> int:
        return main(["generate", *arguments, "--model", str(model_folder), "--device", "cpu"])

    return run


def pixels(path: str) -> bytes:
    with Image.open(path) as image:
        return image.convert("RGB").tobytes()


def test_a_picture_with_its_manifest_and_its_path_on_standard_output(generate, here, capsys):
    assert generate(PROMPT, "-o", "apple.png", "--seed", "7") == 0
    assert capsys.readouterr().out == "apple.png\n"
    assert [path.name for path in here.iterdir()] == ["apple.png"]
    manifest = read_manifest(Path("apple.png"))
    assert (manifest.prompt, manifest.seed, manifest.steps) == (PROMPT, 7, 3)


def test_every_option_reaches_the_manifest(generate):
    options = (
        "--negative mush --steps 2 --scale 3.5 --sampler heun --seed -9 --width 36 --height 40"
    )
    assert generate(PROMPT, *options.split(), "--output", "x.webp", "--precision", "bfloat16") == 0
    made = read_manifest(Path("x.webp"))
    assert (made.negative, made.steps, made.scale, made.sampler) == ("mush", 2, 3.5, "heun")
    assert (made.seed, made.width, made.height, made.precision) == (-9, 36, 40, "bfloat16")


def test_several_pictures_are_those_of_the_seeds_that_follow(generate, capsys):
    assert generate(PROMPT, "-o", "many.png", "--seed", "3", "--count", "3") == 0
    assert capsys.readouterr().out.split() == ["many-0.png", "many-1.png", "many-2.png"]
    for place in range(3):
        assert generate(PROMPT, "-o", "one.png", "--seed", str(3 + place)) == 0
        assert pixels("one.png") == pixels(f"many-{place}.png")


def test_a_file_of_prompts_gives_each_line_the_same_seeds(generate, here):
    Path("prompts.txt").write_text("a blue ball\n\n# no\na red cube\n")
    Path("out").mkdir()
    assert generate("--prompts", "prompts.txt", "-o", "out", "--seed", "5", "--count", "2") == 0
    assert sorted(path.name for path in Path("out").iterdir()) == [
        "0-a-blue-ball-5.png",
        "0-a-blue-ball-6.png",
        "1-a-red-cube-5.png",
        "1-a-red-cube-6.png",
    ]
    assert generate(PROMPT, "--seed", "6") == 0
    assert pixels("a-red-cube-6.png") == pixels("out/1-a-red-cube-6.png")


def test_a_prompt_that_is_cut_is_said(generate, capsys):
    assert generate("cube " * 14 + "ball", "-o", "x.png", "--plain-prompt") == 0
    assert "too long for this model, which does not see 'ball'" in capsys.readouterr().err


def test_an_old_picture_is_replaced(generate):
    Path("x.png").write_text("old")
    assert generate(PROMPT, "-o", "x.png") == 0
    assert read_manifest(Path("x.png")).prompt == PROMPT


MISTAKES = [
    ([], "Give either a PROMPT or --prompts FILE; got neither"),
    ([PROMPT, "--prompts", "p.txt"], "got both"),
    (["--prompts", "none.txt"], "Cannot read the prompts none.txt: No such file"),
    (["--prompts", "empty.txt"], "empty.txt holds no prompt"),
    ([PROMPT, "--sampler", "heum"], "Unknown sampler 'heum'. Did you mean 'heun'"),
    ([PROMPT, "--schedule", "karas"], "Unknown schedule 'karas'. Did you mean 'karras'"),
    ([PROMPT, "--sigmas", "9,x,0"], "--sigmas should be numbers with commas"),
    ([PROMPT, "--width", "33"], "width should be a multiple of 4 for this model, got 33"),
    ([PROMPT, "--height", "0"], "height should be 1 or more, got 0"),
    ([PROMPT, "--steps", "0"], "steps should be 1 or more"),
    ([PROMPT, "--steps", "1.5"], "Invalid value for --steps"),
    ([PROMPT, "--seed", "1.5"], "Invalid value for --seed"),
    ([PROMPT, "--subseed", "3"], "--subseed does nothing by itself"),
    ([PROMPT, "--sampler", "EDMEulerScheduler"], "of the kind edm, this model's are betas"),
    ([PROMPT, "--count", "0"], "count should be 1 or more"),
    ([PROMPT, "--scale", "nan"], "scale should be a finite number"),
    ([PROMPT, "--seed", "x"], "Invalid value for --seed"),
    ([PROMPT, "--seed", "99999999999999999999"], "seed should lie between"),
    ([PROMPT, "--sed", "3"], "Did you mean --seed?"),
    ([PROMPT, "--precision", "float8"], "Choose from"),
    ([PROMPT, "--device", "tpu"], "no device 'tpu'"),
    ([PROMPT, "--device", "cpu:foo"], "no device 'cpu:foo'; it has cpu"),
    ([PROMPT, "--device", "cuda:99"], "no device 'cuda:99'; it has cpu"),
    ([PROMPT, "-o", "missing/x.png"], "The folder missing does not exist; make it first"),
    ([PROMPT, "-o", "x.gif"], "Cannot tell the format of 'x.gif'"),
    ([PROMPT, "-o", "empty.txt/x.png"], "empty.txt is a file, not a folder"),
    ([PROMPT, "-o", "n" * 300 + ".png"], "name too long"),
    ([PROMPT, "surplus"], "surplus"),
    ([PROMPT, "--model", "none/such"], "No model 'none/such'. Looked for a folder"),
    ([PROMPT, "--model", "empty.txt"], "empty.txt is not a readable PyTorch file"),
    (["broken \udc80"], "not valid Unicode"),
]


@pytest.mark.parametrize(("arguments", "message"), MISTAKES, ids=[m for _, m in MISTAKES])
def test_a_mistake_is_one_line_and_status_2(model_folder, here, capsys, arguments, message):
    Path("empty.txt").write_text("\n")
    model = [] if "--model" in arguments else ["--model", str(model_folder)]
    device = [] if "--device" in arguments else ["--device", "cpu"]
    assert main(["generate", *arguments, *model, *device]) == 2
    captured = capsys.readouterr()
    assert captured.out == ""
    assert captured.err.count("\n") == 1
    assert captured.err.startswith("safelight: ")
    assert message.lower() in captured.err.lower()
    assert [path.name for path in here.iterdir()] == ["empty.txt"]


def test_a_disk_that_fills_leaves_what_was_whole(generate, here, capsys, monkeypatch):
    assert generate(PROMPT, "-o", "x.png") == 0
    before = Path("x.png").read_bytes()

    def full(descriptor: int) -> None:
        raise OSError(28, "No space left on device")

    monkeypatch.setattr("os.fsync", full)
    assert generate(PROMPT, "-o", "x.png", "--seed", "1") == 2
    assert "Cannot write x.png: No space left on device." in capsys.readouterr().err
    assert Path("x.png").read_bytes() == before
    assert [path.name for path in here.iterdir()] == ["x.png"]


def test_an_interrupt_keeps_the_pictures_that_are_done(generate, here, capsys, monkeypatch):
    from safelight.pipelines.generated import GeneratedImage

    write = GeneratedImage.save

    def interrupted(self: GeneratedImage, path: Path, *, infotext: bool) -> None:
        if self.manifest.place == 1:
            raise KeyboardInterrupt
        write(self, path, infotext=infotext)

    monkeypatch.setattr(GeneratedImage, "save", interrupted)
    assert generate(PROMPT, "-o", "x.png", "--count", "3") == 130
    assert capsys.readouterr().err == "safelight: interrupted.\n"
    assert [path.name for path in here.iterdir()] == ["x-0.png"]
