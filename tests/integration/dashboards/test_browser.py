"""The app in a real browser, wide and narrow: no console error, no error box, nothing wider than
the window.

Screenshots go to the folder that TOPBILL_SCREENSHOTS names, to be looked at.
"""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pandas as pd
import pytest
from browsing import RAN, opened, served

from board.pages import PAGES as ENTRIES

pytestmark = pytest.mark.end_to_end

PAGES = {page.path: page.landmark for page in ENTRIES}
"""Each page's path, and words that stand there once it is drawn."""
WORDS = {
    "empty": "The record knows no experiment yet.",
    "alone": "Not compared",
    "uneven": "Not trustworthy (SRM)",
    "hushed": "The log cannot tell",
}


@pytest.fixture(scope="module")
def address(browser: Any, demo: Path) -> Iterator[str]:
    """The app, served from the demo's data."""
    with served(demo) as url:
        yield url


BRIGHTNESS = """() => getComputedStyle(document.querySelector('[data-testid=stApp]'))
    .backgroundColor.match(/\\d+/g).slice(0, 3).reduce((sum, part) => sum + Number(part) / 3, 0)"""
"""The mean of the background's red, green and blue, 0 to 255."""


CUT_OFF = """() => [...document.querySelectorAll('[data-testid=stButtonGroup] > div')]
    .filter(group => !group.closest('[data-testid=stSidebar][data-collapsed=true]'))
    .filter(group => group.scrollWidth > group.clientWidth + 1)
    .map(group => group.innerText)"""
"""Choices of which a part can only be seen by scrolling sideways."""
DRAWN = """() => [...document.querySelectorAll('[data-testid=stVegaLiteChart]')]
    .every(chart => chart.querySelector('canvas, svg'))"""


def brightness(page: Any) -> float:
    return float(page.evaluate(BRIGHTNESS))


def looked_at(page: Any, width: int) -> None:
    """No error, nothing wider than the window, every chart drawn, no table to be scrolled
    sideways.
    """
    assert page.locator('[data-testid="stException"]').count() == 0
    assert page.locator('[data-testid="stAlertContentError"]').count() == 0
    assert page.evaluate("document.documentElement.scrollWidth") <= width
    assert page.evaluate(CUT_OFF) == []
    page.wait_for_function(DRAWN, timeout=60_000)  # charts are drawn after the script has run
    tables = page.locator(".tb-table")
    assert all(
        tables.nth(i).evaluate("t => t.getBoundingClientRect().right") <= width
        for i in range(tables.count())
    )


@pytest.mark.parametrize("width", [1440, 390])
@pytest.mark.parametrize("path", PAGES)
def test_a_page_is_drawn_without_errors_light_and_dark(
    path: str, width: int, browser: Any, address: str, shots: Path
) -> None:
    problems: list[str] = []
    url = f"{address}/{path}?experiment=home-artwork&refresh=Off"
    with opened(browser, url, PAGES[path], width=width, problems=problems) as page:
        page.screenshot(path=shots / f"{path or 'home'}-{width}.png")
        assert page.locator(".st-key-answer").get_by_text("What next?").count() == 1
        looked_at(page, width)
        assert brightness(page) > 200
        assert problems == []
        if width < 1_000:
            return  # dark as wide as any
        page.emulate_media(color_scheme="dark")
        page.reload()  # charts take the page's colours when they are drawn
        page.get_by_text(PAGES[path]).first.wait_for(timeout=60_000)
        page.wait_for_selector(RAN, timeout=60_000)
        assert brightness(page) < 80
        page.screenshot(path=shots / f"{path or 'home'}-{width}-dark.png")
        looked_at(page, width)
        assert problems == []


def test_a_card_opens_its_experiment_and_other_pages_keep_it(browser: Any, address: str) -> None:
    with opened(browser, f"{address}/?refresh=Off", PAGES[""]) as page:
        page.locator('.st-key-card-home-rows [data-testid="stPageLink"] a').click(timeout=60_000)
        heading = page.get_by_role("heading", name="Order of the homepage's rows")
        heading.wait_for(timeout=60_000)
        assert "experiment=home-rows" in page.url
        page.get_by_role("link", name="Decisions").click()
        page.get_by_text(PAGES["decisions"]).first.wait_for(timeout=60_000)
        heading.wait_for(timeout=60_000)
        assert "experiment=home-rows" in page.url
        page.locator(".tb-table td a").first.click()
        page.get_by_text("Candidates and their probabilities").wait_for(timeout=60_000)
        heading.wait_for(timeout=60_000)


def test_the_address_holds_what_was_chosen(browser: Any, address: str) -> None:
    """Group, layer and typed context are in it, and who opens it sees the same."""
    with opened(browser, f"{address}/page?refresh=Off", PAGES["page"]) as page:
        page.get_by_role("radio", name="artwork").click()
        page.wait_for_url("**layer=artwork**", timeout=60_000)
    typed = "context=%7B%22device%22%3A%22mobile%22%2C%22hour%22%3A3%7D"
    url = f"{address}/preview?experiment=home-artwork&{typed}&refresh=Off"
    with opened(browser, url, PAGES["preview"]) as page:
        typed_in = page.get_by_role("textbox", name="Or type it")
        expect = pytest.importorskip("playwright.sync_api").expect
        expect(typed_in).to_have_value('{"device":"mobile","hour":3}', timeout=60_000)
        assert page.get_by_text("crime", exact=True).count() == 0


def test_numbers_are_saved_as_csv(browser: Any, address: str, tmp_path: Path) -> None:
    with opened(
        browser, f"{address}/experiment?experiment=home-artwork&refresh=Off", "What next?"
    ) as page:
        with page.expect_download() as saved:
            page.locator('[data-testid="stDownloadButton"] button').first.click()
        saved.value.save_as(tmp_path / "numbers.csv")
        assert saved.value.suggested_filename.endswith(".csv")
        assert len(pd.read_csv(tmp_path / "numbers.csv")) > 0


def test_a_chart_is_saved_as_png(browser: Any, address: str, tmp_path: Path) -> None:
    with opened(
        browser, f"{address}/experiment?experiment=home-artwork&refresh=Off", "What next?"
    ) as page:
        place = page.locator(
            '[data-testid="stElementContainer"]',
            has=page.locator('[data-testid="stVegaLiteChart"]'),
        )
        place.first.locator('[data-testid="stVegaLiteChart"]').hover()
        with page.expect_download() as saved:
            place.first.get_by_role("button", name="Download as PNG").click()
        saved.value.save_as(tmp_path / "chart.png")
        assert (tmp_path / "chart.png").read_bytes().startswith(b"\x89PNG")


@pytest.mark.parametrize(
    ("folder", "path"), [("empty", ""), ("alone", "experiment"), ("uneven", "experiment")]
)
def test_other_records_are_looked_at_too(
    folder: str, path: str, browser: Any, shots: Path, request: pytest.FixtureRequest
) -> None:
    """An empty lake, one variant, a sample-ratio mismatch."""
    with served(request.getfixturevalue(folder)) as url:
        for width in (1440, 390):
            with opened(browser, f"{url}/{path}?refresh=Off", WORDS[folder], width=width) as page:
                page.screenshot(path=shots / f"{folder}-{path or 'home'}-{width}.png")
                looked_at(page, width)


def test_a_refusal_is_looked_at_too(browser: Any, hushed: Path, shots: Path) -> None:
    with (
        served(hushed) as url,
        opened(
            browser, f"{url}/what-if?candidate=pure%20chance&refresh=Off", "Not asked yet"
        ) as page,
    ):
        page.get_by_role("button", name="Evaluate").click()
        page.get_by_text(WORDS["hushed"]).wait_for(timeout=60_000)
        for width in (1440, 390):
            page.set_viewport_size({"width": width, "height": 2400})
            page.wait_for_selector(RAN, timeout=60_000)
            page.wait_for_timeout(700)  # the sidebar slides away
            page.screenshot(path=shots / f"refusal-{width}.png")
            looked_at(page, width)
