"""Hints behind which a network stands: tiny random networks, and what is published of each."""

import json
from pathlib import Path

import numpy as np
import pytest
import torch
import torch.nn.functional as F
from PIL import Image
from safetensors.torch import save_file

from safelight.checkpoints.hed import read_hed
from safelight.checkpoints.movenet import kernel_names, read_movenet
from safelight.conditioners.annotators.depth import DepthMap, NormalMap
from safelight.conditioners.annotators.edges import ScribbleHed, SoftEdges
from safelight.conditioners.annotators.pose import (
    COLOURS,
    Keypoint,
    Person,
    body_of_coco,
    draw_pose,
)
from safelight.conditioners.annotators.pose_estimate import PoseSticks
from safelight.conditioners.annotators.segmentation import ade20k_colours
from safelight.errors import SafelightError
from safelight.models.movenet import MoveNet
from safelight.pipelines.annotate import annotate
from tiny_estimators import LAYERS, hed_kernels, write_depth, write_hed

cv2 = pytest.importorskip("cv2")
transformers = pytest.importorskip("transformers")

SIZE = (56, 40)
CAFFE_MEAN = (104.00698793, 116.66876762, 122.67891434)  # blue, green, red


def picture(size: tuple[int, int] = SIZE) -> Image.Image:
    levels = np.random.default_rng(0).integers(0, 255, (5, 7, 3), dtype=np.uint8)
    return Image.fromarray(levels).resize(size, Image.Resampling.BICUBIC)


def blue_first(image: Image.Image) -> torch.Tensor:
    return torch.from_numpy(np.array(image)[:, :, ::-1].copy()).permute(2, 0, 1)[None].float()


@pytest.fixture(scope="module")
def depth_folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return write_depth(tmp_path_factory.mktemp("depth"))


@pytest.fixture(scope="module")
def segmenter_folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return segmenter(tmp_path_factory.mktemp("segmenter"), classes=150)


def segmenter(folder: Path, classes: int) -> Path:
    torch.manual_seed(0)
    config = transformers.SegformerConfig(
        hidden_sizes=[8, 8, 16, 16],
        depths=[1, 1, 1, 1],
        num_attention_heads=[1, 1, 2, 2],
        decoder_hidden_size=8,
        num_labels=classes,
    )
    transformers.SegformerForSemanticSegmentation(config).save_pretrained(folder)
    size = {"height": 64, "width": 64}
    transformers.SegformerImageProcessor(size=size).save_pretrained(folder)
    return folder


def disparity(folder: Path) -> np.ndarray:
    """By transformers' own way from a picture to its depth."""
    processor = transformers.AutoImageProcessor.from_pretrained(folder)
    network = transformers.DPTForDepthEstimation.from_pretrained(folder).eval()
    with torch.no_grad():
        outputs = network(**processor(images=picture(), return_tensors="pt"))
    found = processor.post_process_depth_estimation(outputs, target_sizes=[SIZE[::-1]])
    return found[0]["predicted_depth"].numpy()


def test_depth_is_transformers_own(depth_folder: Path):
    near = disparity(depth_folder)
    expected = (near - near.min()) / np.ptp(near) * 255
    hint = np.asarray(annotate("depth_midas", picture(), weights=depth_folder)).astype(int)
    assert hint.shape == (*SIZE[::-1], 3)
    assert np.ptp(hint) == 255
    assert np.abs(hint[:, :, 0] - expected).max() < 1.1  # whole levels are cut, not rounded


def test_normals_are_those_of_the_depth(depth_folder: Path):
    near = disparity(depth_folder)
    strength = float(30 / np.ptp(near))
    hint = annotate("normal", picture(), {"strength": strength}, weights=depth_folder)
    expected = NormalMap(strength=strength)(near)
    assert np.abs(np.asarray(hint).astype(int) - np.asarray(expected)).max() <= 1
    assert np.ptp(np.asarray(hint)[:, :, 0].astype(int)) > 20


def test_a_slope_has_one_normal_and_the_background_faces_the_viewer():
    slope = np.tile(np.arange(20, dtype=np.float32), (10, 1))  # 1 a pixel; Sobel's kernel adds to 8
    levels = np.asarray(NormalMap(background=0.5)(slope))
    normal = np.array([8, 0, 2 * np.pi]) / np.hypot(8, 2 * np.pi)
    assert (levels[:, 12:19] == (normal * 127.5 + 127.5).astype(int)).all()
    assert (levels[:, :9] == (127, 127, 255)).all()


def test_a_flat_depth_is_black():
    assert not np.asarray(DepthMap()(np.full((4, 4), 3.0, np.float32))).any()


def test_segmentation_is_transformers_own_in_the_colours_of_ade20k(segmenter_folder: Path):
    processor = transformers.AutoImageProcessor.from_pretrained(segmenter_folder)
    network = transformers.SegformerForSemanticSegmentation.from_pretrained(segmenter_folder)
    with torch.no_grad():
        outputs = network.eval()(**processor(images=picture(), return_tensors="pt"))
    [classes] = processor.post_process_semantic_segmentation(outputs, target_sizes=[SIZE[::-1]])
    hint = np.asarray(annotate("seg", picture(), weights=segmenter_folder))
    assert len(classes.unique()) > 1
    assert (hint == ade20k_colours()[classes.numpy()]).all()


def test_the_palette_is_the_published_one():
    colours = ade20k_colours()
    assert len(colours) == 150
    # wall, building, sky, floor, tree, ..., clock, flag
    assert colours[:5].tolist() == [
        [120, 120, 120],
        [180, 120, 120],
        [6, 230, 230],
        [80, 50, 50],
        [4, 200, 3],
    ]
    assert colours[-2:].tolist() == [[102, 255, 0], [92, 0, 255]]


def side_maps(x: torch.Tensor, kernels: dict[str, torch.Tensor]) -> list[np.ndarray]:
    """HED's five maps (Xie and Tu 2015, figure 3), enlarged by OpenCV."""
    maps = []
    size = x.shape[:1:-1]
    for stage, layers in enumerate(LAYERS):
        x = F.max_pool2d(x, 2, 2) if stage else x
        for layer in range(layers):
            kernel, bias = (kernels[f"{stage}.{layer}.{kind}"] for kind in ("weight", "bias"))
            x = F.relu(F.conv2d(x, kernel, bias, padding=1))
        kernel, bias = (kernels[f"{stage}.out.{kind}"] for kind in ("weight", "bias"))
        edges = F.conv2d(x, kernel, bias)[0, 0].numpy()
        maps.append(cv2.resize(edges, tuple(size), interpolation=cv2.INTER_LINEAR))
    return maps


def test_softedge_is_lllyasviels_hed(tmp_path: Path):
    norm = torch.tensor([120.0, 110, 100]).reshape(1, 3, 1, 1)
    maps = side_maps(blue_first(picture()).flip(1) - norm, hed_kernels())
    edges = 1 / (1 + np.exp(-np.mean(maps, axis=0)))
    weights = write_hed(tmp_path / "ControlNetHED.safetensors")
    hint = np.asarray(annotate("hed", picture(), weights=weights)).astype(int)
    assert np.ptp(edges) > 0.2
    assert np.abs(hint[:, :, 0] - edges * 255).max() < 1.01
    safe = np.asarray(annotate("softedge", picture(), {"safe": True}, weights=weights))
    assert {*np.unique(safe)} <= {0, 127, 255}


def test_the_network_of_controlnet_1_sees_blue_first(tmp_path: Path):
    state = {
        "moduleCombine.0.weight": torch.tensor([0.1, 0.2, 0.3, 0.2, 0.4]).reshape(1, 5, 1, 1),
        "moduleCombine.0.bias": torch.tensor([-0.1]),
    }
    for key, tensor in hed_kernels().items():
        stage, layer, kind = key.split(".")
        name = ("One", "Two", "Thr", "Fou", "Fiv")[int(stage)]
        if layer == "out":
            state[f"moduleScore{name}.{kind}"] = tensor
        else:
            state[f"moduleVgg{name}.{2 * int(layer) + (stage != '0')}.{kind}"] = tensor
    save_file(state, tmp_path / "network-bsds500.safetensors")
    mean = torch.tensor(CAFFE_MEAN).reshape(1, 3, 1, 1)
    maps = side_maps(blue_first(picture()) - mean, hed_kernels())
    combined = np.tensordot(state["moduleCombine.0.weight"].flatten().numpy(), maps, 1) - 0.1
    network = read_hed(tmp_path / "network-bsds500.safetensors")
    found = network(blue_first(picture()).flip(1))[0, 0].numpy()
    np.testing.assert_allclose(found, 1 / (1 + np.exp(-combined)), atol=1e-5)


def highest_along(levels: np.ndarray, step: tuple[int, int]) -> np.ndarray:
    """Where neither neighbour along a line is higher, by shifted copies."""
    around = np.pad(levels, 1, constant_values=-1.0)
    height, width = levels.shape
    neighbours = [
        around[1 + side * step[0] :, 1 + side * step[1] :][:height, :width] for side in (-1, 1)
    ]
    return (levels >= neighbours[0]) & (levels >= neighbours[1])


def test_a_scribble_is_the_ridges_drawn_thick():
    draws = np.random.default_rng(0).random((9, 12)).astype(np.float32)
    edges = cv2.resize(draws, (90, 70), interpolation=cv2.INTER_CUBIC).clip(0, 1)
    levels = cv2.GaussianBlur((edges * 255).astype(np.uint8).astype(np.float32), (0, 0), 3.0)
    lines = ((0, 1), (1, 0), (1, 1), (1, -1))
    ridges = np.any([highest_along(levels, step) for step in lines], axis=0) & (levels > 127)
    thick = cv2.GaussianBlur(ridges.astype(np.uint8) * 255, (0, 0), 3.0) > 4
    assert 0.2 < thick.mean() < 0.95
    assert (np.asarray(ScribbleHed()(edges)) == 255 * thick[..., None]).all()


def test_soft_edges_are_as_bright_as_they_are_sure():
    edges = np.array([[0, 0.3, 0.35, 0.5, 0.7, 1]], np.float32)
    assert np.asarray(SoftEdges()(edges))[0, :, 0].tolist() == [0, 76, 89, 127, 178, 255]
    safe = np.asarray(SoftEdges(safe=True)(edges))[0, :, 0]
    assert safe.tolist() == [0, 0, 127, 127, 255, 255]


EXPECTED = [(k % 5 - 2.0, k - 8.0) for k in range(17)]


@pytest.fixture(scope="module")
def movenet(tmp_path_factory: pytest.TempPathFactory) -> tuple[Path, MoveNet]:
    """A MoveNet that expects joints at `EXPECTED` cells from the middle, down and across, whatever
    it sees, and its graph model in half precision."""
    folder = tmp_path_factory.mktemp("movenet")
    torch.manual_seed(0)
    network = MoveNet().eval()
    with torch.no_grad():
        for name in ("heatmap", "regress", "offset"):
            network.heads[name].out.weight.zero_()
        network.heads["regress"].out.bias.copy_(torch.tensor(EXPECTED).flatten())
        network.heads["offset"].out.bias.fill_(0.5)
        network.center_weight.zero_()[24, 24] = 1
    network.half().float()
    state, weights, content = network.state_dict(), [], b""
    for ours, theirs, depthwise in kernel_names():
        tensor = state[ours]
        if tensor.ndim == 4:
            tensor = tensor.permute((2, 3, 0, 1) if depthwise else (2, 3, 1, 0))
        quantization = {"dtype": "float16", "original_dtype": "float32"}
        entry = {"name": theirs, "shape": list(tensor.shape), "dtype": "float32"}
        weights.append({**entry, "quantization": quantization})
        content += tensor.numpy().astype(np.float16).tobytes()
    manifest = [{"paths": ["weights.bin"], "weights": weights}]
    (folder / "net.json").write_text(json.dumps({"weightsManifest": manifest}))
    (folder / "weights.bin").write_bytes(content)
    return folder / "net.json", network


def test_movenet_is_read_from_its_graph_model(movenet: tuple[Path, MoveNet]):
    path, network = movenet
    found = read_movenet(path).state_dict()
    assert found.keys() == network.state_dict().keys()
    assert all((found[key] == tensor).all() for key, tensor in network.state_dict().items())


def test_a_pose_lies_where_the_picture_is_in_the_square(movenet: tuple[Path, MoveNet]):
    options = {"threshold": 0.4, "width": 2}
    hint = annotate("openpose", picture(), options, weights=movenet[0])
    # 56 x 40 fills 192 x 137 of the square, 27 from its top; half a cell is the offset.
    points = tuple(
        Keypoint((24.5 + across) * 4 * 56 / 192, ((24.5 + down) * 4 - 27) * 40 / 137)
        for down, across in EXPECTED
    )
    expected = draw_pose([Person(body_of_coco(points))], SIZE, width=2)
    assert np.asarray(expected).any()
    assert (np.asarray(hint) == np.asarray(expected)).all()


def test_joints_that_are_not_sure_are_left_out():
    places, surety = np.full((17, 2), 10.0), np.zeros(17)
    surety[0] = 0.9
    drawn = np.asarray(PoseSticks()(places, surety, (20, 20)))
    assert {tuple(colour) for colour in drawn.reshape(-1, 3).tolist()} == {(0, 0, 0), COLOURS[0]}


@pytest.mark.parametrize(
    ("kind", "says"),
    [
        ("depth", "Depth-Anything"),
        ("normal", "Depth-Anything"),
        ("seg", "upernet"),
        ("hed", r"ControlNetHED\.pth"),
        ("scribble_hed", r"ControlNetHED\.pth"),
        ("openpose", r"movenet-lightning\.json"),
    ],
)
def test_missing_weights_say_what_to_fetch(kind: str, says: str, tmp_path: Path):
    with pytest.raises(SafelightError, match=says):
        annotate(kind, picture())
    with pytest.raises(SafelightError, match=f"nothing-here does not exist.*{says}"):
        annotate(kind, picture(), weights=tmp_path / "nothing-here")


def test_weights_of_something_else_are_refused(
    tmp_path: Path, depth_folder: Path, movenet: tuple[Path, MoveNet]
):
    save_file({"a": torch.zeros(1)}, tmp_path / "a.safetensors")
    with pytest.raises(SafelightError, match="expected the edge network HED"):
        annotate("hed", picture(), weights=tmp_path / "a.safetensors")
    with pytest.raises(SafelightError, match="tells 7 classes apart"):
        annotate("seg", picture(), weights=segmenter(tmp_path / "seven", classes=7))
    with pytest.raises(SafelightError, match="leave the weights out"):
        annotate("canny", picture(), weights=depth_folder)
    broken = tmp_path / "net.json"
    broken.write_text(movenet[0].read_text())
    (tmp_path / "weights.bin").write_bytes(b"1234")
    with pytest.raises(SafelightError, match="cut off"):
        annotate("pose", picture(), weights=broken)
    broken.write_text("{}")
    with pytest.raises(SafelightError, match=r"expected movenet-lightning\.json"):
        annotate("pose", picture(), weights=broken)


def test_edges_need_sixteen_pixels(tmp_path: Path):
    weights = write_hed(tmp_path / "hed.safetensors")
    with pytest.raises(SafelightError, match="16 pixels a side or more, got 15 x 40"):
        annotate("hed", picture((15, 40)), weights=weights)
    assert annotate("hed", picture((16, 17)), weights=weights).size == (16, 17)
