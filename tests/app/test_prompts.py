from pathlib import Path

import pytest

from safelight.app.prompts import gather_prompts
from safelight.errors import SafelightError


def test_the_prompt_itself_even_empty():
    assert gather_prompts("a cat", None) == ["a cat"]
    assert gather_prompts("", None) == [""]


def test_no_prompt_where_none_is_needed():
    assert gather_prompts(None, None, needed=False) == [""]
    assert gather_prompts("a cat", None, needed=False) == ["a cat"]


def test_lines_of_a_file_without_blanks_and_comments(tmp_path):
    file = tmp_path / "prompts.txt"
    file.write_bytes("\ufeffa cat\r\n\r\n  # not this\n  ein Fuß  \n".encode())
    assert gather_prompts(None, file) == ["a cat", "ein Fuß"]


@pytest.mark.parametrize(
    ("prompt", "file", "got"), [(None, None, "neither"), ("a", Path("b"), "both")]
)
def test_exactly_one_source(prompt, file, got):
    with pytest.raises(SafelightError, match=f"got {got}"):
        gather_prompts(prompt, file)


@pytest.mark.parametrize(
    ("content", "message"),
    [(b"", "holds no prompt"), (b"\n# x\n", "holds no prompt"), (b"a\xff", "not UTF-8")],
)
def test_files_without_prompts(tmp_path, content, message):
    file = tmp_path / "prompts.txt"
    file.write_bytes(content)
    with pytest.raises(SafelightError, match=message):
        gather_prompts(None, file)


def test_files_that_cannot_be_read(tmp_path):
    with pytest.raises(SafelightError, match="No such file"):
        gather_prompts(None, tmp_path / "none.txt")
    with pytest.raises(SafelightError, match="Is a directory"):
        gather_prompts(None, tmp_path)
