import json
from pathlib import Path

import pytest

from safelight.data.captions import caption_beside, caption_from_name, read_metadata
from safelight.errors import SafelightError


@pytest.mark.parametrize(
    ("path", "caption"),
    [
        ("red_apple.png", "red apple"),
        ("A photo of Ada.jpg", "A photo of Ada"),
        ("red-apple-012.png", "red apple"),
        ("3d emoji.webp", "3d emoji"),
        ("1f600 grinning.webp", "grinning"),
        ("Café au lait.jpg", "Café au lait"),
        ("我的猫.jpg", "我的猫"),
        ("cats/IMG_1234.jpg", "cats"),
        ("black cat/2024/DSC00012.JPG", "black cat"),
        ("cat/PXL_20240102_112233444.jpg", "cat"),
        ("cat/7f3a9c2e11d0.png", "cat"),
        ("cat/IMG-20240101-WA0003.jpg", "cat"),
        ("cat/Screenshot (12).png", "cat"),
        ("0001.png", "my pictures"),
    ],
)
def test_names_become_captions(tmp_path: Path, path: str, caption: str):
    root = tmp_path / "my_pictures"
    assert caption_from_name(root / path, root) == caption


def test_no_folder_outside_the_root_gives_its_name(tmp_path: Path):
    root = tmp_path / "secret" / "123"
    assert caption_from_name(root / "1.png", root) == ""


def test_text_files(tmp_path: Path):
    picture = tmp_path / "a.b.jpg"
    assert caption_beside(picture) is None
    (tmp_path / "a.b.txt").write_bytes("\ufeff a café,\r\n  at night\n".encode())
    assert caption_beside(picture) == "a café, at night"
    (tmp_path / "a.b.txt").write_text("")
    assert caption_beside(picture) == ""
    (tmp_path / "a.b.txt").write_bytes("café".encode("latin-1"))
    with pytest.raises(SafelightError, match=r"a\.b\.txt is not UTF-8"):
        caption_beside(picture)


def test_jsonl_rows(tmp_path: Path):
    rows = [
        {"file_name": "a.png", "text": "one", "depth": "depth/a.png", "keypoints": [[1, 2]]},
        {"file_name": "./sub/../b.png", "texts": ["two", "three"]},
        {"file_name": "b.png", "text": "four"},
        {"file_name": "c.png"},
    ]
    path = tmp_path / "metadata.jsonl"
    path.write_text("\ufeff" + "\n\n".join(json.dumps(row) for row in rows), encoding="utf-8")
    found = read_metadata(path)
    assert found[tmp_path / "a.png"].captions == ("one",)
    assert found[tmp_path / "a.png"].extras == {"depth": "depth/a.png", "keypoints": [[1, 2]]}
    assert found[tmp_path / "b.png"].captions == ("two", "three", "four")
    assert found[tmp_path / "c.png"].captions == ()


def test_unicode_line_separators_do_not_end_a_row(tmp_path: Path):
    path = tmp_path / "metadata.jsonl"
    row = {"file_name": "a.png", "text": "one\u2028two\x85three"}
    path.write_text(json.dumps(row, ensure_ascii=False) + "\n", encoding="utf-8")
    assert read_metadata(path)[tmp_path / "a.png"].captions == ("one\u2028two\x85three",)


def test_csv_rows(tmp_path: Path):
    path = tmp_path / "metadata.csv"
    path.write_text(
        'file_name,text,style\r\na.png,"a red, ripe apple",3d\r\nb.png,"two\nlines",flat\r\n'
        "c.png,,flat\r\n"
    )
    found = read_metadata(path)
    assert found[tmp_path / "a.png"].captions == ("a red, ripe apple",)
    assert found[tmp_path / "a.png"].extras == {"style": "3d"}
    assert found[tmp_path / "b.png"].captions == ("two\nlines",)
    assert found[tmp_path / "c.png"].captions == ("",)


@pytest.mark.parametrize(
    ("name", "content", "told"),
    [
        ("metadata.jsonl", b'{"file_name": "a.png"}\n{"file_name": ', "line 2: not valid JSON"),
        ("metadata.jsonl", b'["a.png"]', "line 1: expected a JSON object"),
        ("metadata.jsonl", b'{"text": "no picture"}', "line 1: no file_name"),
        ("metadata.jsonl", b'{"file_name": 3}', "line 1: no file_name"),
        ("metadata.jsonl", b'{"file_name": "a", "text": 3}', "text should be a string, got 3"),
        ("metadata.jsonl", b'{"file_name": "a", "texts": "x"}', "texts should be a list"),
        ("metadata.jsonl", b'{"file_name": "a", "texts": [1]}', "strings only, got 1"),
        ("metadata.jsonl", b'{"file_name": "a", "texts": {"b": 1}}', "texts should be a list"),
        ("metadata.jsonl", b"\xff\xfe{\x00", "not UTF-8"),
        ("metadata.jsonl", b"[" * 100_000, "line 1: not valid JSON"),
        ("metadata.csv", b"", "the first line should name the columns"),
        ("metadata.csv", b"path,text\na.png,b", "file_name among them; it is 'path,text'"),
        ("metadata.csv", b"file_name,text\na.png,a red, ripe apple", "expected 2 cells, got 3"),
        ("metadata.csv", b'file_name,text\na.png,"open', "unexpected end of data"),
        ("metadata.csv", b"file_name,text\n,b", "line 2: no file_name"),
        ("metadata.csv", b"file_name,texts\na.png,b", "texts should be a list"),
        ("metadata.csv", b"file_name\n\xff", "not UTF-8"),
    ],
)
def test_unreadable_metadata_is_told_in_one_line(
    tmp_path: Path, name: str, content: bytes, told: str
):
    path = tmp_path / name
    path.write_bytes(content)
    with pytest.raises(SafelightError) as caught:
        read_metadata(path)
    assert told in str(caught.value)
    assert str(caught.value).startswith(str(path))
    assert "\n" not in str(caught.value)
