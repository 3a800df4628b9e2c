from pathlib import Path

import pytest

from safelight.config import from_dict, to_dict
from safelight.data.config import DataConfig, FolderConfig, parse_colour
from safelight.errors import SafelightError

FOLDERS = (FolderConfig(Path("pictures")),)


def test_a_recipe_reads_as_the_configuration_it_was_written_from():
    config = DataConfig(
        (FolderConfig(Path("a"), repeats=3), FolderConfig(Path("b"))),
        size=128,
        buckets=True,
        multiple=32,
        crop="random",
        zoom=1.5,
        flip=True,
        backgrounds=("#102030", "hsl(0, 100%, 50%)"),
        caption_dropout=0.1,
    )
    assert from_dict(DataConfig, to_dict(config)) == config
    assert config.colours == ((16, 32, 48), (255, 0, 0))


def test_colours():
    assert parse_colour("white") == (255, 255, 255)
    assert parse_colour("#11223380") == (17, 34, 51)
    with pytest.raises(SafelightError, match="'whitish' is not a colour"):
        parse_colour("whitish")


@pytest.mark.parametrize(
    ("values", "told"),
    [
        ({"folders": []}, "at least one folder"),
        ({"folders": [{"path": "a", "repeats": 0}]}, "repeats should be at least 1, got 0"),
        ({"size": 0}, "size should be at least 1 pixel, got 0"),
        ({"zoom": 0.5}, "zoom should be at least 1, got 0.5"),
        ({"zoom": float("inf")}, "zoom should be at least 1, got inf"),
        ({"max_aspect": 0.5}, "max_aspect should be at least 1"),
        ({"min_side": -1}, "min_side should be at least 0, got -1"),
        ({"caption_dropout": 1.5}, "between 0 and 1, got 1.5"),
        ({"buckets": True, "size": 64, "multiple": 128}, "between 1 and size = 64, got 128"),
        ({"backgrounds": []}, "at least one colour"),
        ({"backgrounds": ["blanc"]}, "'blanc' is not a colour"),
        ({"crop": "centre"}, "Did you mean 'center'"),
        ({"colour": "white"}, "Unknown key 'colour'"),
        ({"batch": 1}, "Unknown key 'batch'"),
    ],
)
def test_mistakes_are_told(values: dict[str, object], told: str):
    with pytest.raises(SafelightError) as caught:
        from_dict(DataConfig, {"folders": [{"path": "a"}], **values})  # type: ignore[dict-item]
    assert told in str(caught.value)
