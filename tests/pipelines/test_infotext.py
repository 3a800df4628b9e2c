"""Infotext, read and written."""

import dataclasses
import json
import re

import pytest
from hypothesis import given
from hypothesis import strategies as st

from safelight.diffusion.samplers import SAMPLERS
from safelight.pipelines.infotext import Infotext, parse
from safelight.pipelines.infotext_request import asked_in
from safelight.pipelines.infotext_written import infotext_of
from safelight.pipelines.manifest import Manifest, UsedControl, UsedPicture
from safelight.pipelines.request import Hires

FORGE = (
    "a cat, (masterpiece:1.2)\nsecond line <lora:style:0.8>\n"
    "Negative prompt: ugly, [blurry]\nbad hands\n"
    "Steps: 20, Sampler: DPM++ 2M, Schedule type: Karras, CFG scale: 7, Seed: 123, "
    "Size: 512x768, Model hash: 6ce0161689, Model: v1-5-pruned, Denoising strength: 0.7, "
    'Clip skip: 2, Lora hashes: "style: 0a1b2c3d4e5f, other: 00", '
    'Civitai resources: [{"type":"checkpoint","modelVersionId":128713}], Version: f2.0.1'
)
"""With what Forge and Civitai add, as their pictures have it."""


def test_what_others_write():
    infotext = parse(FORGE)
    assert infotext.prompt == "a cat, (masterpiece:1.2)\nsecond line <lora:style:0.8>"
    assert infotext.negative == "ugly, [blurry]\nbad hands"
    expected = {
        "Steps": "20",
        "Sampler": "DPM++ 2M",
        "Schedule type": "Karras",
        "Size": "512x768",
        "Lora hashes": "style: 0a1b2c3d4e5f, other: 00",
        "Version": "f2.0.1",
    }
    assert expected.items() <= infotext.parameters.items()


@pytest.mark.parametrize(
    ("text", "expected"),
    [
        ("a cat", Infotext("a cat")),
        ("", Infotext("")),
        ("time: 12:30, mood: dark", Infotext("time: 12:30, mood: dark")),
        ("Negative prompt: mush\n", Infotext("", "mush")),
        (
            "Steps: 1, Seed: 2, Size: 8x8\n",
            Infotext("", "", {"Steps": "1", "Seed": "2", "Size": "8x8"}),
        ),
    ],
)
def test_parts_left_out(text, expected):
    assert parse(text) == expected


texts = st.text(st.characters(exclude_categories=["Cs"])) | st.lists(
    st.sampled_from(["Negative prompt:", "\n", " ", "Steps: 1, Seed: 2, Size: 3x3", '"', "\\", ","])
).map("".join)


@given(texts, texts, texts)
def test_what_is_written_is_read(prompt, negative, value):
    parameters = {"Steps": "20", "Seed": "1", "Model": value, "Size": "8x8"}
    infotext = Infotext(prompt, negative, parameters)
    assert parse(str(infotext)) == infotext


@given(texts, texts, texts)
def test_the_web_ui_reads_it_too(prompt, negative, value):
    """By its rules: lines stripped, parameters by its expression, quoted ones before the lines."""
    infotext = Infotext(prompt, negative, {"Steps": "20", "Seed": "1", "Model": value})
    read = web_ui(str(infotext))
    for name, plain in (("Prompt", prompt), ("Negative prompt", negative), ("Model", value)):
        assert stripped(read[name]) == stripped(plain)


def stripped(text: str) -> str:
    return "\n".join(line.strip() for line in text.strip().split("\n"))


def web_ui(text: str) -> dict[str, str]:
    *lines, last = text.strip().split("\n")
    prompt: list[str] = []
    negative: list[str] = []
    into = prompt
    for line in map(str.strip, lines):
        if line.startswith("Negative prompt:"):
            into = negative
            line = line.removeprefix("Negative prompt:").strip()
        into.append(line)
    read = {"Prompt": "\n".join(prompt), "Negative prompt": "\n".join(negative)}
    rule = r'\s*(\w[\w \-/]+):\s*("(?:\\.|[^\\"])+"|[^,]*)(?:,|$)'
    for name, value in re.findall(rule, last):
        quoted = len(value) > 1 and value[0] == value[-1] == '"'
        read[name] = json.loads(value) if quoted else value
    return read


@pytest.mark.parametrize(
    ("parameters", "expected"),
    [
        ({"Sampler": "Euler a"}, {"schedule": "normal", "rng": "a1111-gpu"}),
        ({"Sampler": "DPM++ 2M Karras", "RNG": "CPU"}, {"schedule": None, "rng": "cpu"}),
        ({"Sampler": "DPM++ 2M", "Schedule type": "Automatic"}, {"schedule": "karras"}),
        ({"Sampler": "DDIM", "Schedule type": "Karras"}, {"schedule": "leading"}),
        ({"Sampler": "Euler", "Schedule type": "SGM Uniform"}, {"schedule": "sgm_uniform"}),
        ({"Sampler": "Euler", "Version": "safelight 1"}, {"schedule": None}),
        ({"Clip skip": "2"}, {"clip_skip": 2}),
        ({"Token merging ratio": "0.5"}, {"token_merging": 0.5}),
        ({"Token merging ratio": "0.9"}, {"token_merging": 0.75}),
        (
            {"Variation seed": "5", "Variation seed strength": "0.25"},
            {"subseed": 5, "subseed_strength": 0.25},
        ),
        (
            {"Steps": "20", "Denoising strength": "0.5", "Hires upscale": "2"},
            {"hires": Hires(2.0, 0.5, 40)},
        ),
    ],
)
def test_what_is_asked(parameters, expected):
    asked = asked_in(Infotext("a cat", "", parameters))
    assert {name: getattr(asked.request, name) for name in expected} == expected
    assert not asked.notes


@given(texts, texts, st.sampled_from(sorted(SAMPLERS)), st.floats(0, 30), st.integers(0, 2**64 - 9))
def test_a_manifest_is_asked_for_again(prompt, negative, sampler, scale, seed):
    manifest = Manifest(
        prompt,
        negative,
        seed=seed,
        steps=7,
        scale=scale,
        sampler=sampler,
        width=64,
        height=48,
        model="/models/a, b",
        weights={},
        precision="float32",
        device="cpu",
        machine="",
        threads=1,
        versions={"safelight": "1"},
        hires=Hires(1.5, 0.6, 5),
        prompt_syntax="a1111",
        clip_skip=2,
        subseed=3,
        subseed_strength=0.5,
    )
    request = asked_in(parse(str(infotext_of(manifest)))).request
    for name in ("prompt", "negative", "seed", "steps", "scale", "width", "height", "clip_skip"):
        assert getattr(request, name) == getattr(manifest, name)
    assert (request.subseed, request.subseed_strength, request.rng) == (3, 0.5, "cpu")
    assert request.hires is not None
    assert int(5 * 0.6) == int((request.hires.steps or 0) * request.hires.strength)


SMALL = Manifest.from_json(
    json.dumps(
        {"prompt": "a (cat) [b", "negative": "", "seed": 1, "steps": 1, "scale": 1.0}
        | {"sampler": "ddim", "width": 8, "height": 8, "model": "m", "weights": {}}
        | {"precision": "float32", "device": "cpu", "machine": "", "threads": 1, "format": 1}
    ),
    "",
)


def test_plain_text_is_escaped():
    assert infotext_of(SMALL).prompt == r"a \(cat\) \[b"
    timed = dataclasses.replace(SMALL, prompt="at 12:30|")
    assert infotext_of(timed).prompt == r"at 12\:30\|"


def extension(text: str) -> dict[str, str]:
    """The fields of a unit by the extension's rules, which escapes nothing."""
    return dict(item.strip().split(": ") for item in text.split(","))


def control(kind: str, **changed) -> UsedControl:
    return UsedControl(kind, "", "", UsedPicture(None, ""), "", **changed)


def test_controls_as_the_extension_has_them():
    controls = (
        dataclasses.replace(
            control("pose", weight=0.8, start=0.1, end=0.9, mode="prompt", resize="crop"),
            network="/nets/open, pose: v11.safetensors",
        ),
        control("canny", hint=True, mode="guess", resize="nearest"),
        control("openpose_hand"),
    )
    said = infotext_of(dataclasses.replace(SMALL, controls=controls)).parameters
    first, second, third = (extension(said[f"ControlNet {place}"]) for place in range(3))
    assert first == {
        "Module": "openpose",
        "Model": "open_ pose_ v11",
        "Weight": "0.8",
        "Resize Mode": "Crop and Resize",
        "Guidance Start": "0.1",
        "Guidance End": "0.9",
        "Pixel Perfect": "True",
        "Control Mode": "My prompt is more important",
    }
    assert (second["Module"], second["Pixel Perfect"]) == ("none", "False")
    assert second["Control Mode"] == "ControlNet is more important"
    assert third["Module"] == "openpose_hand"


@pytest.mark.parametrize(
    ("unit", "options"),
    [
        (
            "Module: lineart_standard (from white bg & black line), "
            "Model: control_v11p [1a2b3c4d], Weight: 0.75, "
            "Resize Mode: Resize and Fill, Processor Res: 512, Threshold A: -1, "
            "Guidance Start: 0.25, Guidance End: 0.5, Control Mode: ControlNet is more important",
            "--control lineart=FILE:0.75 --control-net lineart=control_v11p --control-start 0.25 "
            "--control-end 0.5 --control-mode control --control-resize fill",
        ),
        (
            "Module: none, Model: a b, Weight: x",
            "--control KIND=FILE --hint --control-net 'KIND=a b'",
        ),
        (
            "Module: canny, Model: None, Weight: 1, Control Mode: Balanced",
            "--control canny=FILE --control-mode balanced",
        ),
    ],
)
def test_controls_that_others_made_are_said(unit, options):
    [note] = asked_in(Infotext("a cat", "", {"ControlNet 1": unit})).notes
    assert note.startswith("ControlNet 1 (")
    assert "is not honoured" in note
    assert note.endswith(f"takes {options}.")


def test_controls_of_the_former_form_are_said():
    unit = "preprocessor: canny, model: a, weight: 1"
    asked = asked_in(Infotext("a cat", "", {"ControlNet 0": unit}))
    assert asked.notes == (f"ControlNet 0: {unit} is not honoured.",)
