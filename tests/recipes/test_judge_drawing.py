import json
from pathlib import Path

import pytest

pytest.importorskip("stage", exc_type=ImportError)  # needs mujoco and OSMesa
import judge_scenes


@pytest.fixture
def drawn(monkeypatch: pytest.MonkeyPatch) -> list[int]:
    """The numbers of the pictures that were drawn, in chunks of two."""
    numbers: list[int] = []

    def save(number: int, folder: Path, split: str, _: int) -> dict[str, object]:
        numbers.append(number)
        (folder / split / f"{number}.png").touch()
        return {"file_name": f"{number}.png"}

    monkeypatch.setattr(judge_scenes, "CHUNK", 2)
    monkeypatch.setattr(judge_scenes, "draw", lambda stage, split, number, held_out: number)
    monkeypatch.setattr(judge_scenes, "save", save)
    monkeypatch.setattr("stage.Stage", object)
    return numbers


def names(folder: Path) -> list[str]:
    lines = (folder / "metadata.jsonl").read_text().splitlines()
    return [json.loads(line)["file_name"] for line in lines]


def test_a_judges_scenes_are_drawn_once_and_more_are_added(tmp_path: Path, drawn: list[int]):
    folder = judge_scenes.draw_pictures(tmp_path, 4)
    assert drawn == [0, 1, 2, 3]
    judge_scenes.draw_pictures(tmp_path, 6)
    assert drawn == [0, 1, 2, 3, 4, 5]
    assert names(folder) == [f"{number}.png" for number in range(6)]


def test_an_interrupted_drawing_goes_on(
    tmp_path: Path, drawn: list[int], monkeypatch: pytest.MonkeyPatch
):
    def draw(stage: object, split: str, number: int, held_out: object) -> int:
        if number == 3:
            raise KeyboardInterrupt
        return number

    with monkeypatch.context() as patched:
        patched.setattr(judge_scenes, "draw", draw)
        with pytest.raises(KeyboardInterrupt):
            judge_scenes.draw_pictures(tmp_path, 6)
    drawn.clear()
    folder = judge_scenes.draw_pictures(tmp_path, 6)
    assert drawn == [2, 3, 4, 5]
    assert names(folder) == [f"{number}.png" for number in range(6)]


def test_scenes_that_other_sources_drew_are_drawn_again(tmp_path: Path, drawn: list[int]):
    judge_scenes.draw_pictures(tmp_path, 4)
    (tmp_path / "truth/version.txt").write_text("of other sources")
    drawn.clear()
    judge_scenes.draw_pictures(tmp_path, 4)
    assert drawn == [0, 1, 2, 3]
