"""The page's view Inside in a real browser, on the fastest student."""

from collections.abc import Iterator

import numpy as np
import pytest
from browsing import PHONE, WIDE, Tab, browsing
from serving import Running

from safelight.app.server.config import Serving
from safelight.app.server.service import Service


@pytest.fixture(scope="module")
def browser() -> Iterator:
    with browsing() as opened:
        yield opened


@pytest.fixture(scope="module")
def served(browser, tmp_path_factory) -> Iterator[str]:
    serving = Serving(
        models=("default-turbo",),
        state=tmp_path_factory.mktemp("state"),
        device="cpu",
        engine="torch",
        grace=5.0,
    )
    running = Running(Service(serving, offline=True))
    running.wait_until_ready()
    yield running.url
    running.stop()


@pytest.fixture(params=[WIDE, PHONE], ids=["wide", "phone"])
def tab(browser, served, request) -> Iterator[Tab]:
    opened = Tab(browser, served, request.param)
    yield opened
    opened.close()


def look(page, prompt: str) -> None:
    page.get_by_label("Prompt", exact=True).fill(prompt)
    page.get_by_label("Steps", exact=True).fill("3")
    page.get_by_label("Seed", exact=True).fill("7")
    page.get_by_role("button", name="Look inside", exact=True).click()
    page.wait_for_selector(".strip")


def heat(page) -> np.ndarray:
    """The canvas' pixels."""
    page.wait_for_selector(".inside-heat[width='4']", state="attached")  # as fine as it looks
    told = page.evaluate(
        """() => { const c = document.querySelector('.inside-heat');
        return [...c.getContext('2d').getImageData(0, 0, c.width, c.height).data]; }"""
    )
    return np.array(told).reshape(-1, 4)


def test_steps_and_words_are_seen(tab):
    page = tab.open("#/inside")
    look(page, "a red apple")
    assert page.locator(".frame-button").count() == 3
    image = page.locator(".inside-image")
    last = image.get_attribute("src")
    page.get_by_role("button", name="Step 1", exact=True).click()
    assert image.get_attribute("src") != last
    assert "sigma" in page.locator(".inside-stage figcaption").inner_text()
    page.get_by_label("Step", exact=True).press("End")
    assert image.get_attribute("src") == last
    page.get_by_role("radio", name="x, the latent").click()
    assert image.get_attribute("src").startswith("data:image/png")

    canvas = page.locator(".inside-heat")
    assert not canvas.is_visible()
    page.get_by_role("button", name="apple", exact=True).click()
    page.wait_for_selector(".inside-heat:not([hidden])")
    apple = heat(page)
    assert len(np.unique(apple, axis=0)) > 1
    page.get_by_role("button", name="red", exact=True).click()
    page.wait_for_function(
        "document.querySelector('.inside [role=status]').innerText.startsWith('red')"
    )
    page.get_by_label("Attention").select_option("step")
    assert "of the attention" in page.locator(".inside [role=status]").inner_text()
    assert page.evaluate("document.documentElement.scrollWidth <= innerWidth")

    page.get_by_role("link", name="Create", exact=True).click()
    page.wait_for_selector(".view-create h1")
    page.get_by_role("link", name="Inside", exact=True).click()
    page.wait_for_selector(".strip")  # what was looked into is there again


def test_a_row_and_a_grid_are_made(tab):
    page = tab.open("#/inside")
    page.get_by_label("Prompt", exact=True).fill("a red apple")
    page.get_by_label("Steps", exact=True).fill("1")
    page.get_by_label("Scales").fill("1, 2")
    page.get_by_role("button", name="Make the row").click()
    page.locator(".guidance-row img").nth(1).wait_for()
    page.get_by_label("Columns", exact=True).select_option("words")
    page.get_by_label("Values of the columns").fill("red, green")
    page.get_by_label("Rows", exact=True).select_option("seed")
    page.get_by_label("Values of the rows").fill("1-2")
    page.get_by_role("button", name="Make the grid").click()
    page.locator(".cells img").nth(3).wait_for()
    heads = page.locator(".cells th").all_inner_texts()
    assert heads == ["words red", "words green", "seed 1", "seed 2"]
    with page.expect_download() as downloading:
        page.locator(".panel", has=page.locator(".cells")).get_by_role(
            "button", name="Download as one picture"
        ).click()
    assert downloading.value.suggested_filename.startswith("grid-")


def test_what_cannot_be_watched_is_told(tab):
    page = tab.open("#/inside")
    page.get_by_label("Prompt", exact=True).fill("a red AND a blue apple")
    page.get_by_role("button", name="Look inside", exact=True).click()
    page.wait_for_selector(".job .bad")
    assert "leave AND" in page.locator(".job .bad").inner_text()
