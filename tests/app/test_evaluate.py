"""`safelight eval` from end to end: a tiny model, tiny judges, and each mistake it tells early."""

import importlib.util
import json
import random
import re
from pathlib import Path

import pytest
import torch
import torch.nn.functional as F
from PIL import Image

from safelight.app import evaluation
from safelight.app.cli import main
from safelight.app.evaluation_progress import counting_pictures
from safelight.eval import judge_files
from safelight.eval.caption_ranker import CaptionRankerConfig
from safelight.eval.judge_files import new_caption_ranker, save_caption_ranker, save_scene_judge
from safelight.eval.scene_judge import SceneJudge, SceneJudgeConfig
from safelight.models.clip import ClipTextConfig
from safelight.models.features import EfficientNetLite0
from safelight.models.tokenizer import EOS, ClipTokenizer
from safelight.pipelines.image import ImagePipeline
from tiny_model import SIZE, write_tiny_model

COLOURS, SHAPES = ("red", "blue"), ("cube", "ball")
CAPTIONS = [f"number {i}" for i in range(104)]
SOLID = """
[[subjects]]
name = "solids"
seen = "scenes"
held_out = "scenes"
reference = "scenes"
others = "scenes"
judge = "scene_judge"
judge_kind = "scenes"
solids = true
most_held_out = 3
"""
NUMBERS = """
[[subjects]]
name = "numbers"
seen = "numbers"
reference = "scenes"
others = "scenes"
judge = "caption_judge"
"""
UNVARIED = """
sweep_scales = []
sweep_steps = []
"""
QUICK = """
batch_size = 40
sweep_prompts = 4
sweep_scales = [1, 3]
sweep_steps = [2]
"""


def few_features() -> EfficientNetLite0:
    """A network whose pooled features are the picture in four pixels."""
    network = EfficientNetLite0().requires_grad_(False).eval()
    network.pooled = lambda pixels: F.adaptive_avg_pool2d(pixels, 2).flatten(1)
    return network


@pytest.fixture(scope="module")
def world(tmp_path_factory) -> Path:
    """Pictures of both kinds, and their judges with random weights."""
    root = tmp_path_factory.mktemp("world")
    drawn = random.Random(0)
    rows = []
    for folder, names in (("scenes", [f"s{i}" for i in range(6)]), ("numbers", CAPTIONS)):
        (root / folder).mkdir()
        for name in names:
            picture = Image.new("RGB", (40, 40), tuple(drawn.choices(range(256), k=3)))
            picture.save(root / folder / f"{name}.png")
            (root / folder / f"{name}.txt").write_text(name)
    for i in range(6):
        colour, shape = COLOURS[i % 2], SHAPES[i // 2 % 2]
        solid = {"colour": colour, "shape": shape, "size": "big"}
        text = f"a {colour} {shape}"
        rows.append({"file_name": f"s{i}.png", "text": text, "objects": [solid] if i < 5 else []})
    metadata = "".join(json.dumps(row) + "\n" for row in rows)
    (root / "scenes" / "metadata.jsonl").write_text(metadata)
    torch.manual_seed(0)
    scene_judge = SceneJudge(SceneJudgeConfig(COLOURS, SHAPES, 32, (8, 16)))
    save_scene_judge(scene_judge, root / "scene_judge")
    tokenizer = ClipTokenizer.train(CAPTIONS, 560, 16)
    text = ClipTextConfig(
        vocab_size=tokenizer.vocab_size,
        hidden_size=16,
        intermediate_size=32,
        num_hidden_layers=1,
        num_attention_heads=2,
        max_position_embeddings=16,
        eos_token_id=tokenizer.id_of(EOS),
        projection_dim=16,
    )
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(judge_files, "load_features", few_features)
        ranker = new_caption_ranker(CaptionRankerConfig(text), tokenizer)
    save_caption_ranker(ranker, root / "caption_judge")
    return root


@pytest.fixture(autouse=True)
def features(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(judge_files, "load_features", few_features)
    monkeypatch.setattr(evaluation, "load_features", lambda source: few_features())


@pytest.fixture
def made(monkeypatch: pytest.MonkeyPatch) -> list[int]:
    """How many pictures each batch of the model had, and its width."""
    batches: list[int] = []
    sample = ImagePipeline.sample

    def counted(self, prompts, seeds, settings):
        assert (settings.width, settings.height) == (SIZE, SIZE)  # the model's own
        batches.append(len(prompts))
        return sample(self, prompts, seeds, settings)

    monkeypatch.setattr(ImagePipeline, "sample", counted)
    return batches


@pytest.fixture
def measure(world, model_folder, tmp_path):
    def run(text: str, output: str = "out/report", model: Path = model_folder) -> int:
        path = world / "evaluation.toml"
        path.write_text(text)
        arguments = ["--model", str(model), "-o", str(tmp_path / output)]
        return main(["eval", str(path), *arguments])

    return run


def test_a_whole_evaluation_and_then_nothing_left_to_make(measure, made, tmp_path, capsys):
    assert measure(QUICK + SOLID + NUMBERS) == 0
    captured = capsys.readouterr()
    output = tmp_path / "out" / "report"
    names = ["report.json", "report.md", "scale.png", "steps.png"]
    assert captured.out.splitlines() == [str(output / name) for name in names]
    assert sum(made) == 5 + 3 + 3 * 4 + 104 + 3 * 4
    assert made[5:8] == [40, 40, 24]
    first, *_, last = captured.err.splitlines()
    assert first.startswith("solids: seen prompts: 5 of 136 pictures, ")
    assert last.startswith("numbers: steps 2: 136 of 136 pictures, 0 min left")
    report = json.loads((output / "report.json").read_text())
    assert (report["size"], report["steps"], report["scale"]) == (SIZE, 3, 2.0)
    solids, numbers = report["subjects"]
    assert solids["seen"]["real"]["count"]["of"] == 5
    assert solids["held_out"]["prompts"] == 3
    assert numbers["seen"]["generated"]["own caption first of 100"]["of"] == 104
    assert solids["fidelity"]["pictures"] == 5
    assert f"{SIZE} x {SIZE} pixels; euler, 3 steps" in (output / "report.md").read_text()

    del made[:]
    assert measure(QUICK + SOLID + NUMBERS) == 0
    assert made == []
    again = json.loads((output / "report.json").read_text())
    assert again | {"seconds": 0} == report | {"seconds": 0}

    assert measure(QUICK.replace("[2]", "[1]") + SOLID) == 0
    assert made == [4]
    assert len(list((output / "made").iterdir())) == 5


def test_an_interrupted_evaluation_goes_on(measure, made, monkeypatch):
    sample = ImagePipeline.sample

    def interrupted(self, prompts, seeds, settings):
        if len(made) == 3:
            raise KeyboardInterrupt
        return sample(self, prompts, seeds, settings)

    monkeypatch.setattr(ImagePipeline, "sample", interrupted)
    assert measure(QUICK + SOLID) == 130
    monkeypatch.setattr(ImagePipeline, "sample", sample)
    assert made == [5, 3, 4]
    assert measure(QUICK + SOLID) == 0
    assert made == [5, 3, 4, 4, 4]


def test_another_scheduler_makes_pictures_anew(measure, made, tmp_path):
    model = write_tiny_model(tmp_path / "model")
    assert measure(UNVARIED + SOLID, model=model) == 0
    path = model / "scheduler" / "scheduler_config.json"
    path.write_text(path.read_text().replace("v_prediction", "epsilon"))
    assert measure(UNVARIED + SOLID, model=model) == 0
    assert made == [5, 3] * 2


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("subjects = []", "subjects is empty"),
        ("batch_size = 0" + SOLID, "batch_size should be 1 or more, got 0"),
        ("sweep_prompts = 3" + SOLID, "sweep_prompts should be 4 or more, got 3"),
        (SOLID + "most = 0", "subjects[0].most should be 4 or more, got 0"),
        (
            SOLID.replace("held_out = 3", "held_out = 0"),
            "subjects[0].most_held_out should be 1 or more, got 0",
        ),
        (SOLID + "many = 3", "Unknown key"),
        ("size = 30" + SOLID, "width should be a multiple of 4 for this model, got 30"),
        ("size = 0" + SOLID, "size should be 11 pixels or more, got 0"),
        ("size = 8" + SOLID, "size should be 11 pixels or more, got 8"),
        ("steps = 0" + SOLID, "steps should be 1 or more, got 0"),
        ("sweep_steps = [0]" + SOLID, "steps should be 1 or more, got 0"),
        ("sweep_scales = [-1]" + SOLID, "scale should be a finite number from 0 up"),
        ("sampler = 'oiler'" + SOLID, "Did you mean 'euler'"),
        (NUMBERS.replace("caption_judge", "scenes"), "No judge in"),
        (SOLID.replace('"scenes"', '"nowhere"', 1), "No folder"),
        (SOLID.replace('"scenes"', '"numbers"', 1), "needs 4 pictures or more with objects"),
        (NUMBERS + "most = 99", "have 99 different ones; give more pictures"),
    ],
)
def test_mistakes_are_told_before_a_picture_is_made(measure, made, tmp_path, capsys, text, message):
    assert measure(text) == 2
    captured = capsys.readouterr()
    assert message in captured.err
    assert captured.err.count("\n") == 1
    assert captured.out == ""
    assert made == []
    assert not (tmp_path / "out").exists()


@pytest.mark.parametrize(
    ("text", "lacks"),
    [
        (SOLID, "scipy and matplotlib"),
        (NUMBERS, "matplotlib"),
        (UNVARIED + SOLID, "scipy"),
    ],
)
def test_missing_packages_are_named_with_their_extra(
    measure, made, capsys, monkeypatch, text, lacks
):
    find = importlib.util.find_spec
    absent = ("scipy", "matplotlib")
    monkeypatch.setattr(
        importlib.util, "find_spec", lambda name, *a: None if name in absent else find(name, *a)
    )
    assert measure(text) == 2
    message = capsys.readouterr().err
    assert f"needs {lacks}, not installed here" in message
    assert 'pip install "safelight[eval]"' in message
    assert made == []


def test_an_output_that_cannot_be_written_is_told_first(measure, made, tmp_path, capsys):
    (tmp_path / "file").write_text("")
    assert measure(SOLID, "file/deep/er") == 2
    assert f"{tmp_path / 'file'} is a file, not a folder" in capsys.readouterr().err
    assert made == []


def test_a_file_that_is_not_there(capsys):
    assert main(["eval", "none.toml"]) == 2
    assert capsys.readouterr().err == (
        "safelight: No evaluation file none.toml; expected a TOML file.\n"
    )


def test_a_damaged_picture_is_left_out_and_told(measure, world, capsys):
    scenes = world / "scenes"
    whole = (scenes / "s1.png").read_bytes()
    try:
        (scenes / "s1.png").write_bytes(whole[:50] + bytes(8) + whole[58:])
        assert measure(UNVARIED + SOLID) == 0
    finally:
        (scenes / "s1.png").write_bytes(whole)
    message = capsys.readouterr().err
    assert f"{scenes}: 1 files skipped, the first {scenes / 's1.png'}: it is damaged" in message
    assert "seen prompts: 4 of 7 pictures" in message


def test_a_terminal_shows_a_bar_with_the_time_left(monkeypatch, capsys):
    monkeypatch.setenv("FORCE_COLOR", "1")
    monkeypatch.setenv("COLUMNS", "100")
    with counting_pictures(10) as on_pictures:
        on_pictures("emoji [a/b]: seen prompts", 4)
    shown = capsys.readouterr()
    assert shown.out == ""
    assert "4/10 pictures" in re.sub(r"\x1b\[[0-9;?]*[A-Za-z]", "", shown.err)
    assert "emoji [a/b]: seen prompts" in shown.err
