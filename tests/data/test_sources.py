"""What pictures are conditioned on, read from their metadata."""

from dataclasses import replace
from pathlib import Path

import pytest
import torch

from safelight.data.boxes import as_cut, boxes_of
from safelight.data.folders import PictureFolder, PictureItem
from safelight.data.masks import draw_mask
from safelight.data.sources import Classes, Cut, Layouts, shrunk
from safelight.errors import SafelightError
from safelight.rng import generator_for
from safelight.types import Box

ITEM = PictureItem(Path("a.png"), (80, 40), ("",))
RANDOM = torch.Generator()


def test_boxes_move_with_the_cut_and_its_mirror():
    boxes = [Box("left", (0.0, 0.0, 0.25, 1.0)), Box("middle", (0.375, 0.25, 0.625, 0.75))]
    # of 80 x 40 the middle 40 x 40 is shown: from a quarter to three quarters across
    (middle,) = as_cut(boxes, (80, 40), (20, 20), flip=False)
    assert middle == Box("middle", (0.25, 0.25, 0.75, 0.75))
    whole = as_cut(boxes, (80, 40), (40, 20), flip=True)
    assert whole == [Box("left", (0.75, 0.0, 1.0, 1.0)), Box("middle", (0.375, 0.25, 0.625, 0.75))]
    tall = as_cut([Box("low", (0.0, 0.5, 1.0, 1.0))], (40, 80), (10, 10), flip=False)
    assert tall == [Box("low", (0.0, 0.5, 1.0, 1.0))]


@pytest.mark.parametrize(
    ("rows", "told"),
    [
        (None, "no 'boxes' in its metadata"),
        ("x", "no 'boxes' in its metadata"),
        ([{"label": "a", "box": [0, 0, 1]}], "should have a label and a box of four numbers"),
        ([{"box": [0, 0, 1, 1]}], "should have a label"),
        ([{"label": "a", "box": [0, 0, 1, "1"]}], "four numbers"),
        ([{"label": "a", "box": [0, 0, 0, 1]}], "left, top, right and bottom"),
    ],
)
def test_metadata_without_boxes_is_refused_with_the_pictures_name(rows, told: str):
    with pytest.raises(SafelightError, match=told) as error:
        boxes_of(replace(ITEM, extras={"boxes": rows}), "boxes")
    assert "a.png" in str(error.value)


def test_classes_are_numbers_of_their_names_and_others_are_refused():
    pictures = PictureFolder(
        tuple(replace(ITEM, extras={"class": name}) for name in ("cube", "ball", 3))
    )
    source = Classes(pictures, "class", ["3", "ball", "cube"])
    cuts = [Cut(item, (8, 8), False, 0) for item in range(3)]
    assert [int(source(cut, RANDOM)[0]) for cut in cuts] == [2, 1, 0]
    with pytest.raises(SafelightError, match=r"no class 'cube'. Did you mean 'cubes'"):
        Classes(pictures, "class", ["3", "ball", "cubes"])
    with pytest.raises(SafelightError, match="no 'kind' in its metadata"):
        Classes(pictures, "kind", ["3"])


def test_layouts_have_room_for_so_many_boxes_and_say_which_are_there():
    rows = [{"label": f"thing {i}", "box": [0.1 * i, 0, 0.1 * i + 0.1, 1]} for i in range(3)]
    pictures = PictureFolder((replace(ITEM, extras={"boxes": rows}),))

    def encode(texts):
        return torch.tensor([[len(text), 1] for text in texts])

    ids, edges, there = Layouts(pictures, "boxes", 2, encode)(Cut(0, (40, 20), False, 0), RANDOM)
    assert ids.tolist() == [[7, 1], [7, 1]]
    assert there.tolist() == [True, True]
    torch.testing.assert_close(edges, torch.tensor([[0.0, 0, 0.1, 1], [0.1, 0, 0.2, 1]]))
    ids, edges, there = Layouts(pictures, "boxes", 4, encode)(Cut(0, (40, 20), False, 0), RANDOM)
    assert there.tolist() == [True, True, True, False]
    assert ids[3].tolist() == [0, 1]


def test_masks_are_a_function_of_their_draws_some_whole_and_none_empty():
    masks = [draw_mask((24, 32), generator_for(0, i)) for i in range(200)]
    again = draw_mask((24, 32), generator_for(0, 7))
    assert torch.equal(again, masks[7])
    assert all(mask.shape == (1, 24, 32) and mask.max() == 1 for mask in masks)
    assert set(torch.stack(masks).unique().tolist()) == {0.0, 1.0}
    parts = torch.stack([mask.mean() for mask in masks])
    assert 0.15 < (parts == 1).float().mean() < 0.4
    assert 0.2 < parts[parts < 1].mean() < 0.8


def test_a_small_copy_is_the_mean_of_what_falls_together():
    levels = torch.arange(48, dtype=torch.uint8).reshape(4, 4, 3).numpy()
    assert shrunk(levels, 4).tolist() == [[[23, 24, 25]]]  # of 22.5, 23.5, 24.5
    assert shrunk(levels, 2)[0, 0].tolist() == [8, 9, 10]
