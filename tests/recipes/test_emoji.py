import json
from pathlib import Path

import pytest
from emoji_captions import Idea, captions, informative_tags, noun_phrase, with_article
from held_out import EMOJI_FRACTION, draw_emoji, read
from PIL import Image

SNAKE = Idea(
    "1f40d", "snake", ("bearer", "ophiuchus", "snake", "zodiac"), "animals", "animal-reptile"
)


@pytest.mark.parametrize(
    ("label", "phrase"),
    [
        ("snake", "a snake"),
        ("alien", "an alien"),
        ("unicorn", "a unicorn"),
        ("hourglass done", "an hourglass that has run out"),
        ("octopus", "an octopus"),
        ("glass of milk", "a glass of milk"),
        ("glasses", "glasses"),
        ("grapes", "grapes"),
        ("bread", "bread"),
        ("rice cracker", "a rice cracker"),
        ("face with tears of joy", "a face with tears of joy"),
        ("man lifting weights", "a man lifting weights"),
        ("men wrestling", "men wrestling"),
        ("woman: red hair", "a woman with red hair"),
        ("man: bald", "a bald man"),
        ("family: man, woman, boy", "a family of man, woman and boy"),
        ("three o’clock", "a clock at three o'clock"),
        ("eight-thirty", "a clock at eight-thirty"),
    ],
)
def test_labels_become_noun_phrases(label: str, phrase: str):
    assert with_article(noun_phrase(label)) == phrase


@pytest.mark.parametrize("style", ["3d", "flat"])
def test_captions_vary_and_the_canonical_one_comes_first(style: str):
    texts = captions(SNAKE, style, seed=0)
    assert texts[0] == f"a {style} emoji of a snake"
    assert len(texts) == len(set(texts)) == 8
    assert all("snake" in text and style in text for text in texts)
    assert any("reptile" in text or "zodiac" in text for text in texts)


def test_captions_depend_on_seed_idea_and_style_alone():
    assert captions(SNAKE, "3d", seed=0) == captions(SNAKE, "3d", seed=0)
    assert captions(SNAKE, "3d", seed=0) != captions(SNAKE, "3d", seed=1)


def test_an_idea_without_tags_has_captions_of_its_label_alone():
    japan = Idea("1f5fe", "map of Japan", ("japan", "map"), "travel", "unknown")
    assert informative_tags(japan) == []
    texts = captions(japan, "flat", seed=0)
    assert len(texts) == 7
    assert all(text.count("Japan") == 1 for text in texts)


def test_held_out_ideas_are_trained_on_in_the_other_style():
    codes = read().emoji
    assert set(codes) == {"3d", "flat"}
    assert not codes["3d"] & codes["flat"]
    assert len(codes["3d"]) == len(codes["flat"]) > 50


def test_the_draw_of_ideas_depends_on_the_seed_alone():
    codes = [f"{i:05x}" for i in range(200)]
    drawn = draw_emoji(codes, seed=3)
    assert drawn == draw_emoji(codes[::-1], seed=3)
    assert drawn != draw_emoji(codes, seed=4)
    assert sum(map(len, drawn.values())) == round(200 * EMOJI_FRACTION)


def test_sources_leave_out_what_is_no_picture_and_splits_are_disjoint(tmp_path: Path):
    pytest.importorskip("resvg_py")
    from emoji import read_sources, write

    held_3d, held_flat = min(read().emoji["3d"]), min(read().emoji["flat"])
    node_modules = _packages(tmp_path, [held_3d, held_flat])
    sources = read_sources(node_modules)
    labels = [source.idea.label for source in sources]
    assert labels == [f"thing {held_3d}", f"thing {held_flat}", "lime"]
    assert [source.in_3d for source in sources] == [True, True, False]

    folder = tmp_path / "pictures"
    assert write(sources, folder) == {"train": 3, "held_out": 2}
    rows = {
        split: [json.loads(line) for line in (folder / split / "metadata.jsonl").open()]
        for split in ("train", "held_out")
    }
    assert {(row["style"], row["hexcode"]) for row in rows["held_out"]} == {
        ("3d", held_3d),
        ("flat", held_flat),
    }
    for split, of_split in rows.items():
        assert {row["file_name"] for row in of_split} == {
            path.name for path in (folder / split).glob("*.png")
        }
    picture = Image.open(folder / "train" / "flat-1f34b-200d-1f7e9.png")
    assert (picture.mode, picture.size) == ("RGBA", (128, 128))
    assert picture.getpixel((2, 2)) == (0, 0, 0, 0)
    assert picture.getpixel((64, 64)) == (0, 128, 0, 255)


def test_a_picture_is_drawn_again_only_if_what_it_is_drawn_from_has_changed(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
):
    pytest.importorskip("resvg_py")
    import emoji

    held_3d, held_flat = min(read().emoji["3d"]), min(read().emoji["flat"])
    modules = _packages(tmp_path, [held_3d, held_flat])
    folder = tmp_path / "pictures"
    drawn: list[tuple[str, str]] = []
    draw = emoji.draw

    def counted(source: emoji.Source, style: str) -> Image.Image:
        drawn.append((source.idea.label, style))
        return draw(source, style)

    monkeypatch.setattr(emoji, "draw", counted)
    emoji.write(emoji.read_sources(modules), folder)
    assert len(drawn) == 5
    drawn.clear()
    emoji.write(emoji.read_sources(modules), folder)
    assert drawn == []

    icons = modules / "@iconify-json/noto/icons.json"
    changed = json.loads(icons.read_text())
    body = '<circle cx="64" cy="64" r="50" fill="#800000"/>'
    changed["icons"]["icon-1f34b-200d-1f7e9"]["body"] = body
    icons.write_text(json.dumps(changed))
    webp = modules / f"@lobehub/fluent-emoji-3d/assets/{held_flat}.webp"
    Image.new("RGBA", (256, 256), (30, 200, 30, 255)).save(webp)
    emoji.write(emoji.read_sources(modules), folder)
    assert sorted(drawn) == [("lime", "flat"), (f"thing {held_flat}", "3d")]
    lime = Image.open(folder / "train" / "flat-1f34b-200d-1f7e9.png")
    assert lime.getpixel((64, 64)) == (128, 0, 0, 255)
    drawn.clear()
    monkeypatch.setattr(emoji, "version", lambda name: "another")
    emoji.write(emoji.read_sources(modules), folder)
    assert {style for _, style in drawn} == {"flat"}


def test_shrinking_bleeds_no_colour_from_transparent_pixels():
    pytest.importorskip("resvg_py")
    from emoji import shrink

    picture = Image.new("RGBA", (256, 256), (255, 0, 0, 0))
    picture.paste((0, 0, 255, 255), (101, 101, 155, 155))
    small = shrink(picture, 128)
    colours = {pixel[:3] for _, pixel in small.getcolors(128 * 128) if pixel[3] > 40}
    assert all(red < 8 and blue > 240 for red, _, blue in colours)


def _packages(root: Path, held_out: list[str]) -> Path:
    """npm packages in miniature: two held-out ideas, one without a 3D picture, and a flag."""
    modules = root / "node_modules"
    base, noto = modules / "emojibase-data", modules / "@iconify-json" / "noto"
    assets = modules / "@lobehub" / "fluent-emoji-3d" / "assets"
    for folder in (base / "meta", base / "en", noto, assets):
        folder.mkdir(parents=True)
    names = {"groups": {"4": "food-drink", "9": "flags"}, "subgroups": {"42": "food-fruit"}}
    (base / "meta" / "groups.json").write_text(json.dumps(names))
    entries = [
        {"hexcode": code.upper(), "label": f"thing {code}", "group": 4, "subgroup": 42}
        for code in held_out
    ]
    entries += [
        {"hexcode": "1F34B-200D-1F7E9", "label": "lime", "group": 4, "subgroup": 42},
        {"hexcode": "1F3C1", "label": "chequered flag", "group": 9, "subgroup": 42},
        {"hexcode": "1F1E6", "label": "regional indicator A"},
    ]
    (base / "en" / "data.json").write_text(json.dumps(entries))
    codes = [*held_out, "1f34b-200d-1f7e9", "1f3c1", "1f1e6"]
    (noto / "chars.json").write_text(json.dumps({code: f"icon-{code}" for code in codes}))
    body = '<circle cx="64" cy="64" r="50" fill="#008000"/>'
    (noto / "icons.json").write_text(
        json.dumps({"icons": {f"icon-{code}": {"body": body} for code in codes}})
    )
    for code in held_out:
        Image.new("RGBA", (256, 256), (200, 30, 30, 255)).save(assets / f"{code}.webp")
    return modules
