"""The page in a real browser: the bundled model at few steps, and a tiny one of clips."""

import io
import json
import os
import re
from collections.abc import Iterator
from pathlib import Path

import numpy as np
import pytest
from browsing import PHONE, WIDE, Tab, browsing, until
from PIL import Image
from serving import Running

from safelight.app.server.config import Serving
from safelight.app.server.service import Service
from tiny_estimators import write_depth
from tiny_video import write_video_model

VIEWS = ("create", "edit", "live", "animate", "inside", "training")


@pytest.fixture(scope="module")
def browser() -> Iterator:
    with browsing() as opened:
        yield opened


@pytest.fixture(scope="module")
def served(browser, tmp_path_factory) -> Iterator[str]:
    """A server's address; its model at hand is the fastest student."""
    library = tmp_path_factory.mktemp("library")
    write_video_model(library / "moving")
    before = os.environ.get("SAFELIGHT_MODELS")
    os.environ["SAFELIGHT_MODELS"] = str(library)
    serving = Serving(
        models=("default-turbo",),
        state=tmp_path_factory.mktemp("state"),
        device="cpu",
        engine="torch",
        annotators={"depth": write_depth(tmp_path_factory.mktemp("depth"))},
        grace=5.0,
    )
    running = Running(Service(serving, offline=True))
    running.wait_until_ready()
    yield running.url
    running.stop()
    if before is None:
        del os.environ["SAFELIGHT_MODELS"]
    else:
        os.environ["SAFELIGHT_MODELS"] = before


@pytest.fixture
def tab(browser, served) -> Iterator[Tab]:
    opened = Tab(browser, served)
    yield opened
    opened.close()


def create(page, prompt: str, **fields: str) -> None:
    """Fills Create's form in, sends it, and waits for one picture more."""
    tiles = page.locator(".tile")
    before = tiles.count()
    page.get_by_label("Prompt", exact=True).fill(prompt)
    for label, text in fields.items():
        page.get_by_label(label, exact=True).fill(text)
    page.get_by_role("button", name="Create", exact=True).click()
    until(page, f"document.querySelectorAll('.tile img').length > {before}")


def drag(page, target, *parts: tuple[float, float]) -> None:
    """Draws through places of an element, as parts of its sides."""
    target.scroll_into_view_if_needed()
    box = target.bounding_box()
    places = [(box["x"] + x * box["width"], box["y"] + y * box["height"]) for x, y in parts]
    page.mouse.move(*places[0])
    page.mouse.down()
    for place in places[1:]:
        page.mouse.move(*place, steps=4)
    page.mouse.up()


def pixels(element) -> np.ndarray:
    """What an element looks like, (h, w, 3)."""
    return np.asarray(Image.open(io.BytesIO(element.screenshot())).convert("RGB")).astype(int)


def a_picture(folder: Path) -> Path:
    levels = np.full((64, 64, 3), 255, np.uint8)
    levels[16:48, 16:48] = (200, 30, 30)
    Image.fromarray(levels).save(folder / "square.png")
    return folder / "square.png"


def test_a_prompt_becomes_pictures_that_stay_and_give_their_settings_back(tab, tmp_path):
    page = tab.open("#/create")
    prompt = page.get_by_label("Prompt", exact=True)
    prompt.fill("a red apple")
    prompt.press("Control+ArrowUp")
    assert prompt.input_value() == "a red (apple:1.1)"
    prompt.press("Control+ArrowUp")
    prompt.press("Control+ArrowDown")
    prompt.press("Control+ArrowDown")
    assert prompt.input_value() == "a red apple"
    with page.expect_response(lambda answer: "/events" in answer.url):
        create(page, "a 3d emoji of a red apple", Seed="7", Steps="4")
    create(page, "a 3d emoji of a green apple", Seed="8")
    page.reload()
    until(page, "document.querySelectorAll('.tile img').length == 2")

    page.get_by_role("button", name="Open: a 3d emoji of a red apple").click()
    dialog = page.get_by_role("dialog")
    with page.expect_download() as downloading:
        dialog.get_by_role("button", name="Download").click()
    file = tmp_path / "made.png"
    downloading.value.save_as(file)
    assert Image.open(file).size == (64, 64)
    dialog.get_by_text("Manifest").click()
    assert '"seed": 7' in dialog.locator("pre").inner_text()
    dialog.get_by_role("button", name="Use these settings").click()
    until(page, "document.querySelectorAll('dialog').length == 0")
    assert prompt.input_value() == "a 3d emoji of a red apple"
    assert page.get_by_label("Seed").input_value() == "7"

    for label, text in (("Prompt", "else"), ("Seed", "1")):
        page.get_by_label(label, exact=True).fill(text)
    page.locator(".drop input").set_input_files(file)
    until(page, "[...document.querySelectorAll('input')].some(i => i.value == '7')")
    assert prompt.input_value() == "a 3d emoji of a red apple"

    for colour in ("red", "green"):
        name = f"Choose to compare: a 3d emoji of a {colour} apple"
        page.get_by_role("checkbox", name=name).check(force=True)
    page.get_by_role("button", name="Compare two").click()
    told = page.get_by_role("dialog").get_by_role("table").inner_text()
    assert "seed" in told
    assert "sampler" not in told
    page.keyboard.press("Escape")
    until(page, "document.querySelectorAll('dialog').length == 0")


def test_a_picture_is_seen_on_its_way_and_given_up(tab):
    page = tab.open("#/create")
    page.get_by_label("Model").select_option("default")
    page.get_by_label("Prompt", exact=True).fill("a castle")
    page.get_by_label("Steps").fill("200")
    page.get_by_label("Pictures").fill("8")  # so that it is not done before it is given up
    page.get_by_role("button", name="Create", exact=True).click()
    page.wait_for_selector(".job .preview:visible")
    assert re.search(r"Step \d+ of 200", page.locator(".job").inner_text())
    page.get_by_role("button", name="Cancel").click()
    until(page, "document.querySelectorAll('.job').length == 0")
    [job] = page.evaluate("fetch('v1/jobs?limit=1').then(answer => answer.json())")["jobs"]
    assert job["state"] == "cancelled"


def test_what_cannot_be_made_is_told(tab):
    page = tab.open("#/create")
    page.get_by_label("Prompt", exact=True).fill("<lora:nowhere:1>")
    page.get_by_role("button", name="Create", exact=True).click()
    page.get_by_text("The prompt names an adapter 'nowhere' that is not there.").wait_for()
    tab.complaints = [line for line in tab.complaints if "400 (Bad Request)" not in line]


@pytest.mark.parametrize("way", ["Picture", "Inpaint", "Outpaint"])
def test_a_picture_is_edited(tab, tmp_path, way):
    page = tab.open("#/edit")
    page.get_by_role("radio", name=way).click()
    page.locator(".drop input").set_input_files(a_picture(tmp_path))
    page.get_by_text("64 x 64 pixels").wait_for()
    page.get_by_label("Prompt", exact=True).fill("a 3d emoji of a red heart")
    if way == "Inpaint":
        drag(page, page.locator(".board-canvas"), (0.3, 0.5), (0.7, 0.5))
        drag(page, page.locator(".board-canvas"), (0.3, 0.9), (0.7, 0.9))
        page.get_by_role("button", name="Undo").click()
    with page.expect_request(lambda request: request.url.endswith("/v1/jobs")) as asking:
        page.get_by_role("button", name="Make it").click()
    asked = json.loads(asking.value.post_data)
    if way == "Inpaint":
        import base64

        mask = np.asarray(Image.open(io.BytesIO(base64.b64decode(asked["mask"]))).convert("L"))
        assert mask.shape == (64, 64)
        assert (mask[32, 20:44] == 255).all()
        assert mask[56].max() == 0
    page.wait_for_selector(".tile img")
    size = (64 + 2 * 16, 64 + 2 * 16) if way == "Outpaint" else (64, 64)
    until(
        page,
        "([w, h]) => { const i = document.querySelector('.tile img');"
        " return i.naturalWidth === w && i.naturalHeight === h }",
        list(size),
    )


@pytest.mark.parametrize("colour", ["#ff5a3c", "#ffffff", "#000000", "#808080"])
def test_a_mask_is_seen_on_any_colour(tab, tmp_path, colour):
    page = tab.open("#/edit/inside")
    Image.new("RGB", (64, 64), colour).save(tmp_path / "flat.png")
    page.locator(".drop input").set_input_files(tmp_path / "flat.png")
    page.get_by_text("64 x 64 pixels").wait_for()
    board = page.locator(".board-canvas")
    drag(page, board, (0.3, 0.5), (0.7, 0.5))
    seen = pixels(board)
    height, width = seen.shape[:2]
    inside = seen[int(0.47 * height) : int(0.53 * height), int(0.35 * width) : int(0.65 * width)]
    edge = seen[int(0.4 * height) : int(0.5 * height), width // 2]
    free = seen[int(0.15 * height), width // 2]
    for part in (inside.reshape(-1, 3), edge):
        far = np.abs(part - free).sum(axis=1)
        assert far.max() > 250
        assert (far > 200).mean() > 0.1


def test_lines_and_poses_are_seen_before_they_lead(tab, tmp_path):
    page = tab.open("#/edit")
    page.get_by_role("radio", name="Control").click()
    seen = page.get_by_alt_text("What the model will see")

    page.get_by_role("radio", name="Edges").click()
    with page.expect_response("**/v1/annotate"):
        page.locator(".drop input").set_input_files(a_picture(tmp_path))
    seen.wait_for()
    assert (
        page.evaluate("(i) => i.decode().then(() => i.naturalWidth)", seen.element_handle()) == 64
    )

    edges = pixels(seen)
    with page.expect_response("**/v1/annotate") as answer:  # which the worker estimates
        page.get_by_role("radio", name="Depth").click()
    assert answer.value.ok
    seen.wait_for()
    assert not np.array_equal(pixels(seen), edges)

    page.get_by_role("radio", name="Pose").click()
    seen.wait_for()
    first = pixels(seen)
    with page.expect_response("**/v1/pose"):
        page.get_by_role("button", name="left wrist").focus()
        for _ in range(12):
            page.keyboard.press("ArrowUp")
    page.wait_for_timeout(300)
    assert not np.array_equal(pixels(seen), first)
    with page.expect_response("**/v1/pose"):
        box = page.get_by_role("button", name="right wrist").bounding_box()
        page.mouse.move(box["x"] + box["width"] / 2, box["y"] + box["height"] / 2)
        page.mouse.down()
        page.mouse.move(box["x"] - 40, box["y"] - 60, steps=4)
        page.mouse.up()

    page.get_by_role("radio", name="Scribble").click()
    drag(page, page.locator(".board-canvas"), (0.3, 0.3), (0.7, 0.3), (0.7, 0.7), (0.3, 0.7))
    seen.wait_for()
    page.get_by_label("Prompt", exact=True).fill("a red cube")
    page.get_by_role("button", name="Make it").click()
    page.wait_for_selector(".tile img")


def test_a_picture_follows_what_is_drawn(tab, browser, served):
    page = tab.open("#/live")
    made = page.locator(".live-picture")
    page.get_by_role("button", name="Begin").click()
    page.wait_for_selector("button:has-text('Edit this picture'):enabled")
    first = pixels(made)
    drag(page, page.locator(".board-canvas"), (0.2, 0.5), (0.5, 0.4), (0.8, 0.5))
    page.wait_for_timeout(1000)
    second = pixels(made)
    for _ in range(100):
        if np.abs(second - first).mean() > 1:
            break
        page.wait_for_timeout(200)
        second = pixels(made)
    assert np.abs(second - first).mean() > 1

    other = Tab(browser, served)
    there = other.open("#/live")
    there.get_by_role("button", name="Begin").click()
    there.get_by_text("has room for one").wait_for()
    other.close()
    page.get_by_role("button", name="Stop").click()
    page.get_by_text("It rests.").wait_for()


def test_a_picture_becomes_a_clip(tab, tmp_path):
    page = tab.open("#/animate")
    page.locator(".drop input").set_input_files(a_picture(tmp_path))
    page.get_by_label("Prompt", exact=True).fill("a red cube")
    page.get_by_label("Frames", exact=True).fill("4")
    page.get_by_role("button", name="Animate", exact=True).click()
    until(page, "document.querySelector('video')?.readyState >= 2")
    assert page.evaluate("document.querySelector('video').duration") == pytest.approx(0.5, abs=0.05)
    assert page.evaluate("document.querySelector('video').controls")


def test_without_a_video_model_it_says_so(tab):
    def without(route) -> None:
        answer = route.fetch()
        offer = answer.json()
        for model in offer["models"]:
            model["clips"] = False
        route.fulfill(response=answer, json=offer)

    tab.page.route("**/v1/offer", without)
    page = tab.open("#/animate")
    page.get_by_role("heading", name="No video model is here yet").wait_for()


@pytest.mark.parametrize("theme", ["dark", "light"])
@pytest.mark.parametrize("size", [WIDE, PHONE], ids=["wide", "phone"])
def test_every_view_fits_is_labelled_and_is_readable(browser, served, theme, size):
    tab = Tab(browser, served, size, theme)
    page = tab.open("")
    assert page.evaluate("document.documentElement.dataset.theme") == theme
    for view in VIEWS:
        page.goto(f"{served}/#/{view}")
        until(page, f"document.querySelector('.view-{view} .panel')")
        assert page.evaluate("document.documentElement.scrollWidth") == size[0]
        assert page.evaluate(_UNLABELLED) == []
        assert page.evaluate(_FAINT) == []
    tab.close()


def test_the_keyboard_leads_everywhere_and_a_theme_is_remembered(tab):
    page = tab.open("#/create")
    page.evaluate("document.body.focus()")
    page.keyboard.press("Tab")
    assert page.evaluate("document.activeElement.textContent") == "Skip to the view"
    page.get_by_role("link", name="Edit").focus()
    page.keyboard.press("Enter")
    page.wait_for_selector(".view-edit")
    page.get_by_role("radio", name="Picture").focus()
    page.keyboard.press("ArrowRight")
    assert page.get_by_role("radio", name="Inpaint").get_attribute("aria-checked") == "true"
    page.get_by_role("button", name="Switch to light").press("Enter")
    page.reload()
    assert page.evaluate("document.documentElement.dataset.theme") == "light"


def test_the_reference_is_the_servers_own(tab):
    page = tab.open("docs")
    assert page.locator(".operation").count() > 45
    page.locator(".operation", has_text="/v1/clips").locator("summary").click()
    assert "a name from /v1/offer" in page.locator(".operation[open]").inner_text()


def test_a_server_with_a_token_is_asked_once(browser, tmp_path):
    service = Service(Serving(models=("default",), state=tmp_path, token="a-secret", grace=1.0))
    service.supervisor.start = lambda: None
    running = Running(service)
    tab = Tab(browser, running.url)
    page = tab.page
    page.goto(f"{running.url}/#/create")
    field = page.get_by_label("Token", exact=True).last
    for secret in ("wrong", "a-secret"):
        field.wait_for()
        field.fill(secret)
        page.get_by_role("button", name="Go on").click()
        page.wait_for_timeout(500)
    page.get_by_role("heading", name="Create", exact=True).wait_for()
    page.reload()
    page.get_by_role("heading", name="Create", exact=True).wait_for()
    tab.complaints = [line for line in tab.complaints if "401 (Unauthorized)" not in line]
    tab.close()
    running.stop()


_UNLABELLED = """() => [...document.querySelectorAll('input, select, textarea, button, canvas')]
    .filter((one) => one.checkVisibility() && !one.labels?.length && !one.ariaLabel
        && !one.getAttribute('aria-label') && !one.textContent.trim())
    .map((one) => one.outerHTML)"""

# Text whose contrast with its ground is below 4.5 (WCAG AA), or edges of controls below 3.
_FAINT = """() => {
  const channels = (colour) => colour.match(/[\\d.]+/g).map(Number);
  const light = ([r, g, b]) => [r, g, b].map((one) => one / 255)
    .map((one) => one <= 0.04045 ? one / 12.92 : ((one + 0.055) / 1.055) ** 2.4)
    .reduce((sum, one, at) => sum + one * [0.2126, 0.7152, 0.0722][at], 0);
  const over = (top, below) => top.length < 4 ? top
    : [0, 1, 2].map((at) => top[at] * top[3] + below[at] * (1 - top[3]));
  const ground = (one) => {
    if (!one) return [0, 0, 0];
    const own = channels(getComputedStyle(one).backgroundColor);
    return own.length === 4 && own[3] < 1 ? over(own, ground(one.parentElement)) : own;
  };
  const ratio = (one, other) => {
    const [high, low] = [light(one), light(other)].sort((a, b) => b - a);
    return (high + 0.05) / (low + 0.05);
  };
  const found = [];
  for (const one of document.querySelectorAll('body *')) {
    const style = getComputedStyle(one);
    if (!one.checkVisibility() || one.disabled) continue;
    const says = [...one.childNodes].some((node) => node.nodeType === 3 && node.data.trim());
    if (says && ratio(channels(style.color), ground(one)) < 4.5) found.push(one.outerHTML);
    const field = one.matches(
      'input:not([type=range], [type=checkbox], [type=file]), select, textarea');
    const edge = ratio(channels(style.borderColor), ground(one.parentElement));
    if (field && edge < 3) found.push(one.outerHTML);
  }
  return found;
}"""
