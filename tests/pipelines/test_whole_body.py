"""DWPose's arithmetic around two small ONNX networks that are what they are by construction: a
detector that names boxes, and a pose network that finds dots by their colour.
"""

from collections.abc import Sequence
from pathlib import Path

import numpy as np
import pytest
from PIL import Image, ImageDraw

from safelight.checkpoints.dwpose import DETECTOR, read_dwpose
from safelight.conditioners.annotators.pose import draw_pose
from safelight.conditioners.annotators.whole_body import (
    POINTS,
    Crop,
    decode_simcc,
    detector_input,
    people_boxes,
    whole_person,
)
from safelight.errors import SafelightError
from safelight.pipelines.annotate import annotate

pytest.importorskip("cv2")
pytest.importorskip("onnxruntime")
onnx = pytest.importorskip("onnx")
h = onnx.helper
F32 = onnx.TensorProto.FLOAT

WIDTH, HEIGHT = 24, 32  # of the pose network's input
SIDE = 64  # of the detector's
CELLS = 8**2 + 4**2 + 2**2
RED, GREEN, BLUE = (255, 0, 0), (0, 255, 0), (0, 0, 255)
COLOUR_OF = {5: RED, 6: GREEN, 91: BLUE, 130: BLUE}  # shoulders, and a point of either hand


def save(path: Path, nodes: list, inputs: dict, outputs: dict, constants: dict) -> Path:
    def values(named: dict) -> list:
        return [h.make_tensor_value_info(name, F32, shape) for name, shape in named.items()]

    tensors = [
        onnx.numpy_helper.from_array(np.asarray(value), name) for name, value in constants.items()
    ]
    graph = h.make_graph(nodes, "graph", values(inputs), values(outputs), tensors)
    onnx.save(h.make_model(graph, opset_imports=[h.make_opsetid("", 17)], ir_version=9), path)
    return path


def save_pose(path: Path, points: int = POINTS) -> Path:
    """Each point's surety along columns and rows: the most of its colour there, 0 to 1."""
    kernel = np.zeros((points, 3, 1, 1), np.float32)
    bias = np.full((points,), 0.05, np.float32)  # what is in no picture is hardly sure
    mean, std = np.array((123.675, 116.28, 103.53)), np.array((58.395, 57.12, 57.375))
    for place, colour in COLOUR_OF.items():
        if place < points:  # its own channel less the others, of levels 0 to 1
            sign = np.where(np.array(colour) > 0, 1.0, -1.0)
            kernel[place, :, 0, 0] = sign * std / 255
            bias[place] = float((sign * mean / 255).sum())
    nodes = [
        h.make_node("Conv", ["x", "kernel", "bias"], ["maps"]),
        h.make_node("ReduceMax", ["maps"], ["columns"], axes=[2], keepdims=0),
        h.make_node("ReduceMax", ["maps"], ["rows"], axes=[3], keepdims=0),
        *(h.make_node("Unsqueeze", [name, "last"], [name + "1"]) for name in ("columns", "rows")),
        *(h.make_node("Tile", [name + "1", "twice"], [name + "2"]) for name in ("columns", "rows")),
        h.make_node("Reshape", ["columns2", "flat"], ["simcc_x"]),
        h.make_node("Reshape", ["rows2", "flat"], ["simcc_y"]),
    ]
    constants = {
        "kernel": kernel,
        "bias": bias,
        "last": np.array([3]),
        "twice": np.array([1, 1, 1, 2]),
        "flat": np.array([1, points, -1]),
    }
    outputs = {"simcc_x": (1, points, 2 * WIDTH), "simcc_y": (1, points, 2 * HEIGHT)}
    return save(path, nodes, {"x": (1, 3, HEIGHT, WIDTH)}, outputs, constants)


def raw(boxes: Sequence[tuple[int, float, Sequence[float]]], classes: int = 80) -> np.ndarray:
    """YOLOX's output in which some cells, by their number, hold a box in pixels with a surety."""
    found = np.full((CELLS, 5 + classes), 0.01, np.float32)
    starts, counts, strides = np.cumsum((0, 64, 16, 4)), (8, 4, 2), (8, 16, 32)
    for cell, sure, (left, top, right, bottom) in boxes:
        level = int(np.searchsorted(starts, cell, side="right")) - 1
        count, stride = counts[level], strides[level]
        down, across = divmod(cell - starts[level], count)
        found[cell, :2] = (left + right) / 2 / stride - across, (top + bottom) / 2 / stride - down
        found[cell, 2:4] = np.log((right - left) / stride), np.log((bottom - top) / stride)
        found[cell, 4:6] = sure, 1
    return found


def save_detector(path: Path, found: np.ndarray) -> Path:
    nodes = [
        h.make_node("ReduceSum", ["x"], ["sum"], keepdims=1),
        h.make_node("Mul", ["sum", "zero"], ["nothing"]),
        h.make_node("Reshape", ["nothing", "one"], ["nothing1"]),
        h.make_node("Add", ["found", "nothing1"], ["y"]),
    ]
    constants = {"zero": np.float32(0), "one": np.array([1, 1, 1]), "found": found[None]}
    return save(path, nodes, {"x": (1, 3, SIDE, SIDE)}, {"y": (1, *found.shape)}, constants)


def dotted(size: tuple[int, int], dots: Sequence[tuple[tuple[int, int, int], int, int]]):
    image = Image.new("RGB", size)
    draw = ImageDraw.Draw(image)
    for colour, x, y in dots:
        draw.rectangle((x - 3, y - 3, x + 3, y + 3), fill=colour)
    return image


def test_points_lie_where_the_dots_are_in_each_persons_box(tmp_path: Path):
    """Of two people, in a picture that is not square, the surer one first."""
    left = [(RED, 60, 40), (GREEN, 30, 44), (BLUE, 70, 80)]
    right = [(RED, 250, 60), (GREEN, 220, 62), (BLUE, 262, 100)]
    image = dotted((320, 160), [*left, *right])
    boxes = [(20, 20, 80, 110), (205, 40, 275, 120)]  # in the picture; fifths of them in the square
    found = raw([(3, 0.6, [v / 5 for v in boxes[0]]), (70, 0.9, [v / 5 for v in boxes[1]])])
    pose = save_pose(tmp_path / "dw-ll_ucoco_384.onnx")
    save_detector(tmp_path / DETECTOR, found)
    people = read_dwpose(pose, tmp_path / DETECTOR)(image)
    assert len(people) == 2
    for (places, surety), dots in zip(people, (right, left), strict=True):
        truth = {5: dots[0], 6: dots[1], 91: dots[2]}
        for point, (_, x, y) in truth.items():
            # A pixel of the pose network is up to six of the picture's, and dots are seven wide.
            assert np.abs(places[point] - (x, y)).max() < 6
            assert surety[point] > 0.7
        assert surety[0] == pytest.approx(0.05)

    options = {"threshold": 0.3, "width": 2}
    hint = annotate("dwpose", image, options, weights=pose)
    whole = [whole_person(*person, 0.3) for person in people]
    assert all(person.left_hand[0] is not None and person.body[1] is not None for person in whole)
    assert all(point is None for person in whole for point in person.face)
    assert np.array_equal(np.array(hint), np.array(draw_pose(whole, image.size, width=2)))
    bare = annotate("pose", image, {**options, "hands": False, "face": False}, weights=pose)
    assert not np.array_equal(np.array(bare), np.array(hint))


def test_without_a_detector_the_picture_is_one_person(tmp_path: Path):
    image = dotted((60, 80), [(RED, 40, 20), (GREEN, 15, 24)])
    [(places, _)] = read_dwpose(save_pose(tmp_path / "pose.onnx"), None)(image)
    assert np.abs(places[5] - (40, 20)).max() < 5
    assert np.abs(places[6] - (15, 24)).max() < 5


def test_nobody_is_a_black_hint(tmp_path: Path):
    pose = save_pose(tmp_path / "pose.onnx")
    save_detector(tmp_path / DETECTOR, raw([]))
    hint = annotate("pose", dotted((64, 64), [(RED, 10, 10)]), weights=pose)
    assert not np.array(hint).any()


def test_boxes_are_the_surest_of_those_that_overlap_and_people_alone():
    boxes = [
        (0, 0.5, (8, 8, 24, 40)),
        (1, 0.9, (9, 8, 25, 41)),  # nearly the same
        (40, 0.8, (40, 4, 60, 60)),
        (80, 0.2, (2, 2, 9, 9)),  # not sure
    ]
    found = raw(boxes)
    found[2] = raw([(2, 0.9, (30, 30, 50, 50))])[2]
    found[2, 5], found[2, 20] = 0.0, 1.0  # another class
    kept = people_boxes(found, SIDE, 0.5)
    expected = [np.array(box) / 0.5 for box in ((9, 8, 25, 41), (40, 4, 60, 60))]
    assert len(kept) == len(expected)
    for box, other in zip(kept, expected, strict=True):
        np.testing.assert_allclose(box, other, atol=1e-4)


def test_the_detector_sees_blue_first_in_the_upper_left_of_grey():
    x, scale = detector_input(Image.new("RGB", (200, 100), (10, 20, 30)), SIDE)
    assert (x.shape, scale) == ((1, 3, SIDE, SIDE), 0.32)
    assert x[0, :, 0, 0].tolist() == [30, 20, 10]
    assert (x[0, :, 33:] == 114).all()
    assert (x[0, :, :32] != 114).all()


def test_a_crop_is_a_quarter_larger_and_has_the_networks_shape():
    crop = Crop.around(np.array((10.0, 20, 50, 100)), (WIDTH, HEIGHT))
    assert crop.middle.tolist() == [30, 60]
    assert crop.sides.tolist() == [75, 100]  # of 50 and 100, the width at three quarters
    cells = np.array(((0.0, 0), (2 * WIDTH, 2 * HEIGHT), (WIDTH, HEIGHT)))
    np.testing.assert_allclose(crop.places(cells), ((-7.5, 10), (67.5, 110), (30, 60)))


def test_a_point_is_as_sure_as_its_less_sure_side():
    columns = np.zeros((2, 6), np.float32)
    rows = np.zeros((2, 8), np.float32)
    columns[0, 4], rows[0, 7] = 0.9, 0.4
    columns[1, 1], rows[1, 2] = 0.3, 0.8
    cells, surety = decode_simcc(columns, rows)
    assert cells.tolist() == [[4, 7], [1, 2]]
    np.testing.assert_allclose(surety, (0.4, 0.3))


def test_other_networks_are_told_in_a_line(tmp_path: Path):
    image = dotted((64, 64), [])
    with pytest.raises(SafelightError, match="133 points"):
        read_dwpose(save_pose(tmp_path / "body.onnx", points=17), None)(image)
    pose = save_pose(tmp_path / "pose.onnx")
    with pytest.raises(SafelightError, match="expected a square"):
        read_dwpose(pose, pose)
    few = save_detector(tmp_path / "few.onnx", raw([])[:50])
    with pytest.raises(SafelightError, match="84 cells"):
        read_dwpose(pose, few)(image)
    broken = tmp_path / "broken.onnx"
    broken.write_bytes(b"no network")
    with pytest.raises(SafelightError, match=r"Cannot read .*broken\.onnx"):
        read_dwpose(broken, None)
    with pytest.raises(SafelightError, match=r"yolox_l\.onnx"):
        annotate("pose", image, weights=tmp_path / "none.onnx")
