import json
from pathlib import Path

import numpy as np
import pytest
import torch
from PIL import Image

from safelight.data.folders import PictureItem
from safelight.errors import SafelightError
from safelight.eval.judge_files import load_scene_judge, save_scene_judge
from safelight.eval.judges import SceneVerdicts, rates
from safelight.eval.pictures import read_pictures
from safelight.eval.scene_judge import SceneJudge, SceneJudgeConfig, instances, make_labels
from safelight.eval.scene_training import NO_COLOUR, read_scenes, train_scene_judge
from safelight.eval.segmentation import mean_iou, pixel_accuracy
from safelight.train.optim import OptimConfig

COLOURS = {"red": (220, 20, 20), "green": (20, 200, 40), "blue": (30, 40, 220)}
CONFIG = SceneJudgeConfig(tuple(COLOURS), ("bar", "post", "person"), size=32, channels=(16, 32, 48))
QUICK = OptimConfig(lr=2e-2, optimizer="muon", schedule="cosine", warmup=10, betas=(0.95, 0.99))
SIZES = {"bar": (12, 5), "post": (5, 12)}


def _draw(rng: np.random.Generator, count: int) -> tuple[np.ndarray, np.ndarray, list[dict]]:
    """A grey picture of 32 pixels with upright and lying rectangles side by side."""
    picture = np.full((32, 32, 3), rng.integers(120, 170), dtype=np.uint8)
    ids = np.zeros((32, 32), dtype=np.uint8)
    objects = []
    for number in range(count):
        colour, shape = rng.choice(list(COLOURS)), rng.choice(list(SIZES))
        width, height = SIZES[shape]
        left = int(rng.integers(1, 3)) + 15 * number + (12 - width) // 2
        top = int(rng.integers(2, 18))
        picture[top : top + height, left : left + width] = COLOURS[colour]
        ids[top : top + height, left : left + width] = number + 1
        objects.append({"colour": colour, "shape": shape, "size": "big", "segment": number + 1})
    return picture, ids, objects


def _write(folder: Path, number: int, seed: int) -> Path:
    rng = np.random.default_rng(seed)
    (folder / "truth").mkdir(parents=True)
    rows = []
    for i in range(number):
        picture, ids, objects = _draw(rng, 1 + i % 2)
        Image.fromarray(picture).save(folder / f"{i}.png")
        Image.fromarray(ids).save(folder / "truth" / f"{i}.png")
        text = " and ".join(f"a {thing['colour']} {thing['shape']}" for thing in objects)
        row = {"file_name": f"{i}.png", "texts": [text], "objects": objects}
        rows.append(json.dumps(row | {"segmentation": f"truth/{i}.png"}))
    (folder / "metadata.jsonl").write_text("\n".join(rows))
    return folder


@pytest.fixture(scope="module")
def judge(tmp_path_factory: pytest.TempPathFactory) -> SceneJudge:
    examples = read_scenes(_write(tmp_path_factory.mktemp("scenes") / "train", 96, 0), CONFIG)
    return train_scene_judge(CONFIG, examples, steps=100, optim=QUICK)


def test_a_trained_judge_tells_rectangles_in_new_pictures(judge: SceneJudge, tmp_path: Path):
    real = read_pictures(_write(tmp_path / "new", 60, 1), 32)
    counts = rates(SceneVerdicts(judge)(real.pixels, real.items))
    assert counts["colour and shape"].part >= 0.9
    assert counts["count"].part >= 0.9
    wrong = [
        PictureItem(item.path, item.size, real.items[i - 1].captions, real.items[i - 1].extras)
        for i, item in enumerate(real.items)
    ]
    assert rates(SceneVerdicts(judge)(real.pixels, wrong))["all"].part < 0.3


def test_a_trained_judge_says_what_each_pixel_is(judge: SceneJudge, tmp_path: Path):
    folder = _write(tmp_path / "new", 60, 1)
    real = read_pictures(folder, 32)
    wanted = torch.zeros(60, 32, 32, dtype=torch.int64)
    for i, item in enumerate(real.items):
        ids = torch.tensor(np.array(Image.open(folder / str(item.extras["segmentation"]))))
        for thing in item.extras["objects"]:
            wanted[i][ids == thing["segment"]] = 1 + CONFIG.shapes.index(thing["shape"])
    found = judge.kinds(real.pixels, batch_size=32)
    assert pixel_accuracy(found, wanted) > 0.95
    assert mean_iou(found, wanted) > 0.7  # after 100 steps
    assert mean_iou(found, wanted.flip(0)) < 0.5
    assert judge.kinds(torch.zeros(0, 3, 32, 32)).shape == (0, 32, 32)


def test_a_judge_is_read_back_the_same(judge: SceneJudge, tmp_path: Path):
    save_scene_judge(judge, tmp_path / "judge")
    again = load_scene_judge(tmp_path / "judge")
    assert again.config == judge.config
    real = read_pictures(_write(tmp_path / "new", 6, 2), 32)
    assert again.find(real.pixels) == judge.find(real.pixels)
    with pytest.raises(SafelightError, match="No judge in"):
        load_scene_judge(tmp_path)


def test_boxes_are_parts_of_the_picture_and_the_largest_comes_first(judge: SceneJudge):
    picture = np.full((32, 32, 3), 140, dtype=np.uint8)
    picture[4:16, 4:9] = COLOURS["red"]
    picture[20:25, 14:26] = COLOURS["blue"]
    pixels = torch.from_numpy(picture).permute(2, 0, 1)[None].float() / 127.5 - 1
    larger = torch.nn.functional.interpolate(pixels, scale_factor=2.0, mode="nearest")
    for shown in (pixels, larger):
        (found,) = judge.find(shown)
        assert {(thing.colour, thing.shape) for thing in found} == {
            ("red", "post"),
            ("blue", "bar"),
        }
        assert found[0].area >= found[1].area
        box = next(thing.box for thing in found if thing.colour == "red")
        np.testing.assert_allclose(np.array(box) * 32, (4, 4, 9, 16), atol=2.5)


def test_labels_point_to_the_centre_of_each_object():
    ids = torch.zeros(1, 8, 8, dtype=torch.int64)
    ids[0, 2:6, 1:4] = 1
    ids[0, 0, 7] = 2
    labels = make_labels(ids, [[1, 2]], [[0, NO_COLOUR]])
    assert labels.shape[0, 3, 2] == 2
    assert labels.shape[0, 0, 7] == 3
    assert labels.shape[0, 7, 7] == 0
    assert labels.colour[0, 3, 2] == 0
    assert labels.colour[0, 0, 7] == NO_COLOUR
    rows, columns = torch.nonzero(ids[0] == 1, as_tuple=True)
    x = (columns + 0.5) / 8 + labels.offset[0, 0, rows, columns]
    y = (rows + 0.5) / 8 + labels.offset[0, 1, rows, columns]
    torch.testing.assert_close(x, torch.full_like(x, 2.5 / 8))
    torch.testing.assert_close(y, torch.full_like(y, 4 / 8))


def test_an_object_cut_in_two_stays_one_and_touching_ones_are_two():
    ids = torch.zeros(1, 32, 32, dtype=torch.int64)
    ids[0, 4:14, 2:26] = 1
    ids[0, 2:30, 12:16] = 2  # before the first, which it cuts in two
    ids[0, 14:24, 16:28] = 3  # touches both
    labels = make_labels(ids, [[0, 0, 0]], [[0, 0, 0]])
    masks = instances(ids[0] > 0, labels.offset[0])
    found = sorted(mask.nonzero().tolist() for mask in masks)
    expected = sorted((ids[0] == i).nonzero().tolist() for i in (1, 2, 3))
    assert found == expected
    assert instances(torch.zeros(8, 8, dtype=torch.bool), torch.zeros(2, 8, 8)) == []


def test_scenes_with_unknown_names_are_refused(tmp_path: Path):
    folder = _write(tmp_path / "scenes", 4, 0)
    few = SceneJudgeConfig(("red", "green", "blue"), ("bar", "pole", "person"), size=32)
    with pytest.raises(SafelightError, match="'post' is not one the judge knows"):
        read_scenes(folder, few)


def test_people_have_a_shape_and_no_colour(tmp_path: Path):
    Image.fromarray(np.full((32, 32, 3), 90, dtype=np.uint8)).save(tmp_path / "0.png")
    Image.fromarray(np.ones((32, 32), dtype=np.uint8)).save(tmp_path / "ids.png")
    row = {"file_name": "0.png", "text": "a person", "objects": [], "person": {"segment": 1}}
    (tmp_path / "metadata.jsonl").write_text(json.dumps(row | {"segmentation": "ids.png"}))
    examples = read_scenes(tmp_path, CONFIG)
    assert examples.shapes == ((2,),)
    assert examples.colours == ((NO_COLOUR,),)
