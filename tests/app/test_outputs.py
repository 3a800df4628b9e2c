from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from safelight.app.outputs import check_file, check_folder, check_preview, plan_outputs
from safelight.errors import SafelightError
from safelight.pipelines.request import Request


@pytest.fixture(autouse=True)
def folder(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    return tmp_path


def names(output: str | None, *requests: Request) -> list[list[str]]:
    return [[str(path) for path in paths] for paths in plan_outputs(output, requests)]


def test_one_picture_takes_the_name_as_it_is():
    assert names("apple.png", Request("a")) == [["apple.png"]]


def test_several_are_numbered_from_zero():
    assert names("apple.png", Request("a", count=3)) == [
        ["apple-0.png", "apple-1.png", "apple-2.png"]
    ]


def test_numbers_run_through_all_prompts_with_as_many_digits_as_the_last_needs():
    paths = names("x.webp", *[Request("a", count=2)] * 6)
    assert paths[0] == ["x-00.webp", "x-01.webp"]
    assert paths[5] == ["x-10.webp", "x-11.webp"]


def test_a_folder_gets_names_of_prompt_and_seed(folder):
    (folder / "pictures").mkdir()
    for output in ("pictures", "pictures/"):
        assert names(output, Request("A red Apple!", seed=5, count=2)) == [
            ["pictures/a-red-apple-5.png", "pictures/a-red-apple-6.png"]
        ]


def test_variations_are_told_apart_by_their_sub_seeds():
    request = Request("two cats", seed=5, subseed=8, subseed_strength=0.1, count=2)
    assert names(None, request) == [["two-cats-5-8.png", "two-cats-5-9.png"]]


def test_without_output_the_current_folder():
    assert names(None, Request("two cats")) == [["two-cats-0.png"]]


def test_prompts_alike_do_not_overwrite_each_other():
    assert names(None, Request("a cat"), Request("A cat.")) == [
        ["0-a-cat-0.png"],
        ["1-a-cat-0.png"],
    ]


@given(prompts=st.lists(st.text(max_size=300), min_size=1, max_size=12), count=st.integers(1, 12))
def test_names_are_distinct_valid_and_stay_in_the_folder(prompts: list[str], count: int):
    planned = plan_outputs(None, [Request(prompt, count=count) for prompt in prompts])
    paths = [path for paths in planned for path in paths]
    assert len(set(paths)) == len(prompts) * count
    for path in paths:
        assert path.parent == Path()
        assert path.suffix == ".png"
        assert len(path.name.encode("utf-8", "surrogatepass")) <= 240
        assert not path.name.startswith("-")


@pytest.mark.parametrize(
    ("output", "message"),
    [
        ("missing/apple.png", "folder missing does not exist; make it first: mkdir -p missing"),
        ("missing/", "folder missing does not exist"),
        ("apple", "end it in .png, .webp, .jpg, .jpeg"),
        ("apple.gif", "Cannot tell the format of 'apple.gif'"),
        ("file.txt/apple.png", "file.txt is a file, not a folder"),
    ],
)
def test_outputs_that_cannot_be(folder, output, message):
    (folder / "file.txt").write_text("")
    with pytest.raises(SafelightError, match=message):
        plan_outputs(output, [Request("a")])


def test_a_folder_that_cannot_be_written(folder, monkeypatch):
    monkeypatch.setattr("os.access", lambda path, mode: False)
    with pytest.raises(SafelightError, match="cannot be written"):
        check_folder(folder)


@pytest.mark.parametrize(
    ("output", "request_", "said"),
    [
        ("a.png", Request("a", count=2), "a-1.png is a folder already"),
        ("n" * 254 + ".png", Request("a"), "name too long"),
    ],
)
def test_a_file_that_cannot_be_written_is_told_before(folder, output, request_, said):
    (folder / "a-1.png").mkdir()
    with pytest.raises((SafelightError, OSError), match=said):
        plan_outputs(output, [request_])
    assert [path.name for path in folder.iterdir()] == ["a-1.png"]


def test_a_place_that_takes_no_files_is_told_before(folder, monkeypatch):
    """As one that says it can be written, and cannot."""

    def refused(self):
        raise OSError(30, "Read-only file system", str(self))

    monkeypatch.setattr(Path, "touch", refused)
    for check in (lambda: plan_outputs("x.png", [Request("a")]), lambda: check_file(Path("y.png"))):
        with pytest.raises(SafelightError, match=r"Cannot write [xy].png: Read-only file system\."):
            check()
    with pytest.raises(SafelightError, match=r"Cannot write p.png"):
        check_preview(Path("p.png"), [])
