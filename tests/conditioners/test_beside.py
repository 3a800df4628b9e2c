"""What stands beside the prompt, as parts of a conditioning, and the nulls of each."""

import pytest
import torch
import torch.nn.functional as F

from safelight.conditioners.beside import (
    ClassConditioner,
    InpaintingConditioner,
    LayoutConditioner,
    LowResolutionConditioner,
    MapConditioner,
    SemanticConditioner,
    in_cells,
    laid_out,
)
from safelight.conditioners.conditions import (
    Class,
    Conditions,
    Depth,
    Inpainting,
    Layout,
    LowResolution,
    Semantic,
    cell_detail,
    channels_of,
    classes_of,
    in_order,
)
from safelight.errors import SafelightError
from safelight.models.any_autoencoder import likeliest
from safelight.models.layout import LayoutEncoder, LayoutEncoderConfig
from safelight.types import Box, Conditioning
from tiny_model import FACTOR, tiny_folder

BOTH = torch.tensor([True, False])


def test_a_class_is_one_hot_before_what_was_in_the_vector_and_its_null_is_the_last():
    cond = Conditioning(vector=torch.full((2, 1), 7.0))
    put = ClassConditioner(Class(("ball", "cube")))
    told = put(cond, (torch.tensor([1, 1]),), BOTH)
    assert told.vector is not None
    assert told.vector.tolist() == [[0, 1, 0, 7], [0, 0, 1, 7]]


@pytest.mark.parametrize("detail", [1, 2, 4])
def test_a_map_keeps_what_each_cell_sees(detail: int):
    pixels = torch.rand(2, 3, 8, 12) * 2 - 1
    put = MapConditioner(Depth(detail), FACTOR)
    told = put(Conditioning(concat=torch.ones(2, 1, 2, 3)), (pixels,), BOTH)
    assert told.concat is not None
    assert told.concat.shape == (2, 1 + detail**2, 2, 3)
    assert channels_of(Depth(detail), 4, FACTOR) == detail**2
    assert (told.concat[:, 0] == 1).all()
    assert (told.concat[1, 1:] == 0).all()
    mean = pixels.mean(1, keepdim=True)
    again = F.pixel_shuffle(told.concat[:1, 1:], detail)
    torch.testing.assert_close(again, F.avg_pool2d(mean[:1], FACTOR // detail))


def test_a_map_of_full_detail_loses_nothing():
    pixels = torch.rand(1, 1, 8, 8)
    assert torch.equal(F.pixel_shuffle(in_cells(pixels, (2, 2), 4), 4), pixels)


def test_painted_classes_are_those_of_the_nearest_colours():
    palette = {"sky": "#0000ff", "grass": "#00ff00"}
    put = SemanticConditioner(Semantic(palette, detail=4), FACTOR)
    pixels = torch.full((2, 3, 4, 8), -1.0)
    pixels[:, 2] = 0.9  # not quite blue
    pixels[:, :, :, 4:] = torch.tensor([-0.5, 0.8, -1.0])[:, None, None]  # not quite green
    assert put.one_hot(pixels)[0, :, 0].tolist() == [[1] * 4 + [0] * 4, [0] * 4 + [1] * 4]
    told = put(Conditioning(), (pixels,), BOTH)
    assert told.concat is not None
    assert told.concat.shape == (2, 32, 1, 2)
    assert told.concat[0].sum() == 32
    assert told.concat[1].abs().sum() == 0


@pytest.mark.parametrize(("factor", "side", "channels"), [(2, 8, 12), (4, 4, 3), (8, 2, 3)])
def test_a_small_picture_stands_beside_the_cells_that_it_becomes(factor, side, channels):
    small = torch.rand(2, 3, side, side)
    put = LowResolutionConditioner(LowResolution(factor), tiny_folder().autoencoder)
    told = put(Conditioning(), (small,), BOTH)
    assert told.concat is not None
    assert told.concat.shape == (2, channels, 4, 4)
    assert channels_of(LowResolution(factor), 4, FACTOR) == channels
    if side >= 4:
        assert torch.equal(F.pixel_shuffle(told.concat[:1], side // 4), small[:1])
    assert not told.concat[1].any()


def test_an_encoded_small_picture_is_the_latents_of_the_large_one():
    autoencoder = tiny_folder().autoencoder
    small = torch.rand(2, 3, 4, 6)
    put = LowResolutionConditioner(LowResolution(4, encoded=True), autoencoder)
    told = put(Conditioning(), (small,), BOTH).concat
    assert told is not None
    assert told.shape == (2, channels_of(LowResolution(4, encoded=True), 4, FACTOR), 4, 6)
    assert not told[1].any()
    large = F.interpolate(small, size=(16, 24), mode="bicubic", align_corners=False)
    z = autoencoder.scale(likeliest(autoencoder, large.clamp(-1, 1)))
    torch.testing.assert_close(told[0], z[0])


def test_inpainting_sees_the_mask_and_what_is_left_and_nothing_where_it_is_dropped():
    autoencoder = tiny_folder().autoencoder
    mask = torch.zeros(2, 1, 16, 16)
    mask[..., :8] = 1
    pixels = torch.rand(2, 3, 16, 16)
    told = InpaintingConditioner(Inpainting(), autoencoder)(Conditioning(), (mask, pixels), BOTH)
    other = InpaintingConditioner(Inpainting(), autoencoder)(
        Conditioning(), (mask, pixels * (1 - mask) + mask), BOTH
    )
    assert told.concat is not None
    assert other.concat is not None
    assert told.concat.shape == (2, 5, 4, 4)
    assert told.concat[0, 0].tolist() == [[1, 1, 0, 0]] * 4
    assert (told.concat[1, 0] == 1).all()
    assert torch.equal(told.concat, other.concat)  # what is under the mask is not seen
    blank = InpaintingConditioner(Inpainting(), autoencoder)(
        Conditioning(), (torch.ones_like(mask), pixels), BOTH
    )
    assert blank.concat is not None
    torch.testing.assert_close(told.concat[1], blank.concat[1])


def test_boxes_are_tokens_after_the_prompts_and_those_not_there_are_alike():
    folder = tiny_folder()
    tower, tokenizer = folder.text_towers[0], folder.tokenizers[0]
    torch.manual_seed(0)
    encoder = LayoutEncoder(LayoutEncoderConfig(label_dim=32, token_dim=32, hidden_dim=16))
    torch.nn.init.normal_(encoder.null)
    labels = ["a red cube", "a blue ball", ""]
    ids = dict(zip(labels, tokenizer.encode(labels), strict=True))
    one = laid_out(
        [Box("a red cube", (0.0, 0.0, 0.5, 1.0)), Box("a blue ball", (0.5, 0.0, 1.0, 1.0))], 3, ids
    )
    two = laid_out(
        [Box("a red cube", (0.0, 0.0, 0.5, 1.0)), Box("a red cube", (0.5, 0.0, 1.0, 1.0))], 3, ids
    )
    inputs = tuple(torch.stack(pair) for pair in zip(one, two, strict=True))
    put = LayoutConditioner(Layout(3), encoder, tower)  # pyright: ignore[reportArgumentType]
    text = torch.randn(2, 5, 32)
    told = put(Conditioning(context=text), inputs, torch.tensor([True, True])).context
    none = put(Conditioning(context=text), inputs, torch.tensor([False, False])).context
    assert told is not None
    assert none is not None
    assert told.shape == (2, 8, 32)
    assert torch.equal(told[:, :5], text)
    assert torch.equal(told[0, 5], told[1, 5])  # the same box
    assert not torch.allclose(told[0, 6], told[1, 6])  # another label
    assert not torch.allclose(told[1, 5], told[1, 6])  # another place
    assert torch.equal(told[0, 7], encoder.null)
    assert all(torch.equal(row, encoder.null) for row in none[:, 5:].flatten(0, 1))


def test_a_tokens_place_does_not_depend_on_the_other_boxes():
    encoder = LayoutEncoder(LayoutEncoderConfig(label_dim=4, token_dim=8))
    labels, edges = torch.randn(1, 3, 4), torch.rand(1, 3, 4)
    there = torch.ones(1, 3, dtype=torch.bool)
    turned = encoder(labels.flip(1), edges.flip(1), there)
    torch.testing.assert_close(encoder(labels, edges, there), turned.flip(1))


def test_conditions_come_in_their_own_order_and_back_from_a_file():
    named = [Layout(2), Class(("a", "b")), Inpainting(), Semantic({"x": "#000000", "y": "#ffFFff"})]
    ordered = in_order(named)
    assert [c.kind for c in ordered] == ["inpainting", "semantic", "class", "layout"]
    values = Conditions(ordered).to_values()
    assert Conditions.from_values(values, "there").conditions == ordered
    assert classes_of(ordered) == 3


@pytest.mark.parametrize(
    ("values", "told"),
    [
        ({}, "one list"),
        ({"conditions": [{"kind": "dept"}]}, "Did you mean 'depth'"),
        ({"conditions": [3]}, "no condition None"),
        ({"conditions": [{"kind": "depth"}, {"kind": "depth"}]}, "2 conditions depth"),
        ({"conditions": [{"kind": "depth", "detial": 2}]}, "Did you mean 'detail'"),
        ({"conditions": [{"kind": "class", "names": []}]}, "should have names"),
        ({"conditions": [{"kind": "class", "names": ["a", "a"]}]}, "each once"),
        ({"conditions": [{"kind": "semantic", "palette": {"a": "#000000"}}]}, "two or more"),
        ({"conditions": [{"kind": "semantic", "palette": {"a": "red", "b": "#000000"}}]}, "red"),
        ({"conditions": [{"kind": "low_resolution", "factor": 1}]}, "2 or more"),
        ({"conditions": [{"kind": "layout", "most": 0}]}, "1 or more"),
    ],
)
def test_a_file_that_names_what_cannot_be_is_refused_in_one_line(values, told: str):
    with pytest.raises(SafelightError, match=told):
        Conditions.from_values(values, "conditions.json")


def test_a_detail_that_does_not_divide_a_cell_is_refused():
    with pytest.raises(SafelightError, match="divide the 4 pixels"):
        cell_detail(Depth(3), 4)


@pytest.mark.parametrize(
    "edges",
    [(0.5, 0.0, 0.5, 1.0), (0.0, 0.0, 1.1, 1.0), (-0.1, 0.0, 1.0, 1.0), (0.0, 1.0, 1.0, 0.0)],
)
def test_edges_that_are_no_box_are_refused(edges):
    with pytest.raises(SafelightError, match="'a ball' should be left, top"):
        Box("a ball", edges)
