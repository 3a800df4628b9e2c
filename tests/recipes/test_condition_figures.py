from pathlib import Path

import numpy as np
import pytest
import torch
from condition_figures import (
    box_iou,
    boxes_kept,
    classes_there,
    kept_psnr,
    own_first,
    painted_kinds,
    table,
)
from condition_trials import ask, boxes_of, draw_masks, enlarged
from conditions import PALETTE, class_of, painted
from conditions import boxes_of as boxes_of_row
from PIL import Image
from sheets import boxed, sheet, written

from safelight.data.folders import PictureItem
from safelight.eval.quality import psnr
from safelight.eval.scene_truth import FoundObject
from safelight.types import Box

CUBE = FoundObject("red", "cube", (0.1, 0.1, 0.5, 0.5), 0.16)
BALL = FoundObject("blue", "ball", (0.5, 0.2, 0.9, 0.6), 0.12)
PERSON = FoundObject("white", "person", (0.2, 0.0, 0.6, 1.0), 0.4)
ROW = {
    "objects": [
        {"colour": "red", "shape": "cube", "box": [16, 32, 64, 64], "segment": 1},
        {"colour": "blue", "shape": "ball", "box": [64, 32, 128, 96], "segment": 2},
    ]
}


def test_boxes_meet_by_the_part_of_both():
    assert box_iou((0, 0, 1, 1), (0, 0, 1, 1)) == 1
    assert box_iou((0, 0, 0.5, 1), (0.25, 0, 0.75, 1)) == pytest.approx(1 / 3)
    assert box_iou((0, 0, 0.2, 0.2), (0.5, 0.5, 1, 1)) == 0
    assert box_iou((0, 0, 0.2, 1), (0.5, 0, 1, 1)) == 0


def test_a_class_is_there_by_colour_and_shape():
    found = [(CUBE, BALL), (CUBE,), (), (PERSON,), (CUBE,)]
    names = ["blue ball", "blue cube", "red cube", "person", "person"]
    assert classes_there(names, found).tolist() == [1, 0, 0, 1, 0]


def test_a_box_is_kept_by_what_stands_there():
    moved = tuple(edge + 0.2 for edge in CUBE.box)
    asked = [
        (Box("a red cube", CUBE.box), Box("a blue ball", BALL.box)),
        (Box("a red cube", moved), Box("a person", PERSON.box)),
        (Box("a blue cube", CUBE.box),),
    ]
    found = [(BALL, CUBE), (CUBE, PERSON), (CUBE,)]
    assert boxes_kept(asked, found).tolist() == [1, 1, 0, 1, 0]


def test_painted_maps_are_read_as_they_are_painted(tmp_path: Path):
    segments = np.zeros((8, 8), np.uint8)
    segments[2:4, 2:4], segments[5:, 5:] = 1, 2
    Image.fromarray(segments).save(tmp_path / "segments.png")
    levels = np.array(painted(tmp_path, ROW | {"segmentation": "segments.png"}))
    kinds = painted_kinds(torch.from_numpy(levels)[None], ("ball", "cube", "person"))
    assert torch.equal(kinds[0], torch.tensor([0, 2, 1])[torch.from_numpy(segments).long()])
    with pytest.raises(ValueError, match="does not paint with"):
        painted_kinds(torch.full((1, 2, 2, 3), 7, dtype=torch.uint8), ("ball",))


def test_every_thing_has_a_colour_of_its_own():
    assert len(set(PALETTE.values())) == len(PALETTE)


def test_a_row_says_its_class_and_its_boxes():
    assert class_of(ROW) == "red cube"
    assert class_of({"objects": [], "person": {}}) == "person"
    row = ROW | {"person": {"box": [0, 0, 32, 128]}}
    assert boxes_of_row(row) == [
        {"label": "a red cube", "box": [0.125, 0.25, 0.5, 0.5]},
        {"label": "a blue ball", "box": [0.5, 0.25, 1.0, 0.75]},
        {"label": "a person", "box": [0.0, 0.0, 0.25, 1.0]},
    ]
    item = PictureItem(Path("a.png"), (8, 8), ("",), {"boxes": boxes_of_row(row)})
    assert boxes_of(item)[0] == Box("a red cube", (0.125, 0.25, 0.5, 0.5))


def test_what_is_kept_is_compared_outside_of_the_mask_alone():
    real = torch.zeros(2, 3, 4, 4)
    masks = torch.zeros(2, 4, 4, dtype=torch.bool)
    masks[:, :2] = True
    made = real.clone()
    made[:, :, :2] = 1.0  # under the mask
    made[0, :, 2:], made[1, :, 2:] = 0.2, 0.02
    assert kept_psnr(made, real, masks).tolist() == pytest.approx([20, 40], abs=1e-3)
    none = torch.zeros_like(masks)
    torch.testing.assert_close(kept_psnr(made, real, none), psnr(made, real))


def test_a_picture_is_its_own_where_no_other_is_as_near():
    real = torch.eye(3)
    made = torch.tensor([[5.0, 1.0, 0.0], [0.9, 1.0, 0.0], [1.0, 0.0, 0.5]])
    assert own_first(made, real).tolist() == [1, 1, 0]
    assert own_first(torch.ones(3, 3), real).tolist() == [0, 0, 0]  # as near to all


def test_a_table_says_which_figures_are_better_low():
    report = {
        "depth": {"scenes": {"depth error": {"with": 0.03, "without": 0.09, "real": 0.02}}},
        "low_resolution": {"emoji": {"PSNR, dB": {"with": 24.26, "real": 31.0}}},
        "class": {"scenes": {"class there": {"with": 0.875}}},
    }
    assert table(report, ("with", "without", "real")).splitlines() == [
        "| condition | pictures |  | with | without | real |",
        "|---|---|---|---:|---:|---:|",
        "| depth | scenes | depth error (lower is better) | 0.030 | 0.090 | 0.020 |",
        "| low resolution | emoji | PSNR, dB | 24.3 |  | 31.0 |",
        "| class | scenes | class there | 87.5 % |  |  |",
    ]


def test_masks_are_the_same_each_time_and_leave_something():
    masks = draw_masks(20, 16)
    assert torch.equal(masks, draw_masks(20, 16))
    assert masks.any(dim=(1, 2)).all()
    assert not masks.all(dim=2).all(dim=1).any()
    assert len(torch.unique(masks.float(), dim=0)) == 20


def test_small_pictures_are_asked_for_four_times_smaller():
    pixels = torch.zeros(3, 16, 16)
    pixels[:, :, 8:] = 1.0
    item = PictureItem(Path("a.png"), (16, 16), ("",))
    small = ask("low_resolution", item, pixels).value
    assert isinstance(small, Image.Image)
    assert small.size == (4, 4)
    assert torch.allclose(enlarged(pixels, Image.Resampling.NEAREST), pixels, atol=1 / 127)
    with pytest.raises(ValueError, match="'pose'"):
        ask("pose", item, pixels)


def test_a_sheet_has_ten_columns_and_cells_say_what_was_asked():
    boxes = (Box("a red cube", (0.25, 0.25, 0.75, 0.75)), Box("a person", (0.0, 0.0, 1.0, 1.0)))
    told = torch.stack([boxed(boxes, 64), written("red cube", 64)]).repeat(8, 1, 1, 1)
    image = sheet([told, told, told])
    assert image.size == (960, 288)
    edge = told[0, :, 30, 16]
    assert edge[0] > 0.5 > 0 > edge[1]  # red
    assert (told[1] < 0).any()
    assert sheet([told[:3]]).size == (288, 96)
