"""Infotext, read and written."""

import json
import re

import pytest
from hypothesis import given
from hypothesis import strategies as st

from safelight.pipelines.infotext import Infotext, parse

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
