import sys

import numpy as np
import pytest
from PIL import Image

from safelight.errors import SafelightError
from safelight.pipelines.annotate import annotate

cv2 = pytest.importorskip("cv2")

SIZE = (60, 44)


def picture(mode: str = "RGB") -> Image.Image:
    """A bright disc and a dark bar on a grey ground: edges, lines and colours."""
    across, down = np.meshgrid(np.arange(SIZE[0]), np.arange(SIZE[1]))
    levels = np.full((SIZE[1], SIZE[0], 3), 120, np.uint8)
    levels[(across - 20) ** 2 + (down - 20) ** 2 < 120] = (250, 200, 40)
    levels[:, 44:48] = (10, 20, 60)
    return Image.fromarray(levels).convert(mode)


def levels(image: Image.Image) -> np.ndarray:
    return np.asarray(image).astype(int)


def test_canny_is_that_of_opencv():
    edges = cv2.Canny(np.asarray(picture()), 100, 200)
    assert edges.any()
    assert (levels(annotate("canny", picture())) == edges[..., None]).all()


def test_canny_takes_thresholds():
    faint = Image.fromarray((100 + levels(picture()) // 10).astype(np.uint8))
    edges = cv2.Canny(np.asarray(faint), 10, 20)
    hint = annotate("canny", faint, {"low": 10, "high": 20})
    assert (levels(hint) == edges[..., None]).all()
    assert edges.any()
    assert not levels(annotate("canny", faint)).any()


def test_scribble_strokes_where_the_web_ui_does():
    # The extension's own formula: 2 * (255 - whole levels of lightness) above the threshold.
    given = np.asarray(picture()).astype(np.float32)
    near, far = (cv2.GaussianBlur(given, (0, 0), sigma) for sigma in (0.5, 5.0))
    lightness = (255 - (far - near).min(axis=2)).clip(0, 255).astype(np.uint8)
    strokes = 2 * (255 - lightness.astype(int)) > 32
    assert 0 < strokes.mean() < 0.5
    assert (levels(annotate("scribble_xdog", picture())) == 255 * strokes[..., None]).all()


def test_lineart_draws_the_dark_bar():
    hint = levels(annotate("lineart", picture()))[:, :, 0]
    assert hint[:, 45:47].min() > 100
    assert hint[:, :8].max() < 20


def test_lineart_of_a_flat_picture_is_black():
    assert not levels(annotate("lineart", Image.new("RGB", SIZE, (90, 90, 90)))).any()


def test_shuffle_keeps_colours_and_depends_on_its_seed_alone():
    first, again, other = (
        levels(annotate("shuffle", picture(), {"seed": seed, "cell": 16})) for seed in (0, 0, 1)
    )
    assert (first == again).all()
    assert (first != other).any()
    assert (first != levels(picture())).any()
    assert first.min() >= levels(picture()).min()


def test_tile_means_areas():
    hint = levels(annotate("tile", picture(), {"rate": 4}))
    assert abs(hint.mean() - levels(picture()).mean()) < 1
    assert (levels(annotate("tile_resample", picture())) == levels(picture())).all()


@pytest.mark.parametrize("name", ["canny", "scribble", "lineart", "shuffle", "tile"])
@pytest.mark.parametrize("mode", ["L", "LA", "RGBA", "P"])
def test_any_mode_gives_rgb_of_its_size(name: str, mode: str):
    hint = annotate(name, picture(mode))
    assert (hint.mode, hint.size) == ("RGB", SIZE)
    if mode == "RGBA":
        assert (levels(hint) == levels(annotate(name, picture()))).all()


def test_what_is_transparent_is_white():
    glass = Image.new("RGBA", SIZE, (0, 0, 0, 0))
    assert (levels(annotate("tile", glass)) == 255).all()


@pytest.mark.parametrize(
    ("name", "options", "says"),
    [
        ("cany", {}, "Did you mean 'canny'"),
        ("canny", {"hihg": 3}, "Did you mean 'high'"),
        ("canny", {"low": 300}, "0 <= low <= high"),
        ("scribble", {"threshold": 0}, "between 1 and 64"),
        ("lineart", {"sigma": 0}, "above 0"),
        ("shuffle", {"seed": -1}, "seed of 0 or more"),
        ("tile", {"rate": 0.5}, "between 1 and 64"),
    ],
)
def test_errors_say_the_remedy(name: str, options: dict[str, float], says: str):
    with pytest.raises(SafelightError, match=says):
        annotate(name, picture(), options)


def test_a_missing_opencv_names_its_extra(monkeypatch: pytest.MonkeyPatch):
    monkeypatch.setitem(sys.modules, "cv2", None)
    with pytest.raises(SafelightError, match=r"safelight\[control\]"):
        annotate("canny", picture())
