"""The app in a real browser, wide and narrow: no console error, no error box, nothing wider than the window.

Screenshots go to the folder that TOPBILL_SCREENSHOTS names, to be looked at.
"""

from __future__ import annotations

import os
import re
import shutil
import socket
import subprocess
import sys
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any
from urllib.request import urlopen

import pandas as pd
import pytest

from topbill import dashboard

EXPERIMENTS = Path(__file__).parents[2] / "experiments"
CHROMIUM = shutil.which("chromium") or shutil.which("chromium-browser")
FLAGS = ["--headless", "--no-sandbox", "--disable-gpu", "--disable-background-networking"]
PAGES = {
    "": "Lift of",
    "experiment": "What next?",
    "bandit": "Estimated regret",
    "artwork": "In numbers",
    "what-if": "Evaluate",
    "preview": "What each variant would show",
    "decisions": "The latest decisions",
    "health": "Have viewers changed?",
}
"""Each page's path, and words that stand there once it is drawn."""


@pytest.fixture(scope="module")
def address(demo: Path) -> Iterator[str]:
    """The app, served from the demo's data."""
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        port = probe.getsockname()[1]
    arguments, environment = dashboard.launch(EXPERIMENTS, demo, port=port)
    process = subprocess.Popen([sys.executable, *arguments], env=environment, stdout=subprocess.DEVNULL)
    try:
        url = f"http://127.0.0.1:{port}"
        for _ in range(600):
            try:
                with urlopen(f"{url}/_stcore/health", timeout=1):  # noqa: S310  (an address of ours)
                    break
            except OSError:
                time.sleep(0.1)
        yield url
    finally:
        process.terminate()
        process.wait(20)


@pytest.fixture(scope="module")
def browser(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Any]:
    """A Chromium with a new profile; skips where there is none."""
    if CHROMIUM is None:
        pytest.skip("no chromium on this machine: apt-get install chromium")
    playwright = pytest.importorskip(
        "playwright.sync_api", reason="playwright is not installed: pip install playwright"
    )
    with playwright.sync_playwright() as started:
        profile = tmp_path_factory.mktemp("profile")
        context = started.chromium.launch_persistent_context(str(profile), executable_path=CHROMIUM, args=FLAGS)
        yield context
        context.close()


@pytest.fixture(scope="module")
def shots(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = Path(os.environ.get("TOPBILL_SCREENSHOTS") or tmp_path_factory.mktemp("screenshots"))
    folder.mkdir(parents=True, exist_ok=True)
    return folder


@pytest.mark.parametrize("width", [1440, 390])
@pytest.mark.parametrize("path", PAGES)
def test_a_page_is_drawn_without_errors(path: str, width: int, browser: Any, address: str, shots: Path) -> None:
    page, problems = browser.new_page(), []
    page.set_viewport_size({"width": width, "height": 2400})
    # Below a page's own path Streamlit's client looks for its server there first, in vain, and then at the root.
    in_vain = f"{address}/{path}/_stcore/"

    def heard(said: Any) -> None:
        if said.type == "error" and not said.location["url"].startswith(in_vain):
            problems.append(said.text)

    page.on("console", heard)
    page.on("pageerror", lambda error: problems.append(str(error)))
    try:
        page.goto(f"{address}/{path}?experiment=home-artwork&refresh=Off")
        page.get_by_text(PAGES[path]).first.wait_for(timeout=60_000)
        page.wait_for_selector('[data-testid="stApp"][data-test-script-state="notRunning"]', timeout=60_000)
        page.screenshot(path=shots / f"{path or 'home'}-{width}.png")
        assert page.locator('[data-testid="stException"]').count() == 0
        assert page.locator('[data-testid="stAlertContentError"]').count() == 0
        assert page.evaluate("document.documentElement.scrollWidth") <= width
        charts = page.locator('[data-testid="stVegaLiteChart"]')
        charts_drawn = [charts.nth(i).locator("canvas, svg").count() for i in range(charts.count())]
        assert all(charts_drawn)
        assert problems == []
    finally:
        page.close()


def test_a_card_opens_its_experiment_and_other_pages_keep_it(browser: Any, address: str) -> None:
    page = browser.new_page()
    try:
        page.goto(f"{address}/?refresh=Off")
        page.locator('.st-key-card-home-rows [data-testid="stPageLink"] a').click(timeout=60_000)
        heading = page.get_by_role("heading", name="Order of the homepage's rows")
        heading.wait_for(timeout=60_000)
        assert "experiment=home-rows" in page.url
        page.get_by_role("link", name="Decisions").click()
        page.get_by_text("The latest decisions").first.wait_for(timeout=60_000)
        heading.wait_for(timeout=60_000)
        assert "experiment=home-rows" in page.url
    finally:
        page.close()


def test_numbers_are_saved_as_csv(browser: Any, address: str, tmp_path: Path) -> None:
    page = browser.new_page()
    page.set_viewport_size({"width": 1440, "height": 2400})
    try:
        page.goto(f"{address}/experiment?experiment=home-artwork&refresh=Off")
        button = page.locator('[data-testid="stDownloadButton"] button').first
        button.wait_for(timeout=60_000)
        page.wait_for_selector('[data-testid="stApp"][data-test-script-state="notRunning"]', timeout=60_000)
        with page.expect_download() as saved:
            button.click()
        saved.value.save_as(tmp_path / "numbers.csv")
        assert saved.value.suggested_filename.endswith(".csv")
        assert len(pd.read_csv(tmp_path / "numbers.csv")) > 0
    finally:
        page.close()


@pytest.mark.parametrize("path", PAGES)
def test_a_page_is_dark_where_the_viewer_wants_it(path: str, browser: Any, address: str, shots: Path) -> None:
    page = browser.new_page()
    page.emulate_media(color_scheme="dark")
    page.set_viewport_size({"width": 1440, "height": 2400})
    try:
        page.goto(f"{address}/{path}?experiment=home-artwork&refresh=Off")
        page.get_by_text(PAGES[path]).first.wait_for(timeout=60_000)
        page.wait_for_selector('[data-testid="stApp"][data-test-script-state="notRunning"]', timeout=60_000)
        page.screenshot(path=shots / f"{path or 'home'}-1440-dark.png")
        colour = page.evaluate("getComputedStyle(document.querySelector('[data-testid=stApp]')).backgroundColor")
        assert sum(int(part) for part in re.findall(r"\d+", colour)[:3]) < 3 * 80
    finally:
        page.close()


def test_a_chart_is_saved_as_png(browser: Any, address: str, tmp_path: Path) -> None:
    page = browser.new_page()
    page.set_viewport_size({"width": 1440, "height": 2400})
    try:
        page.goto(f"{address}/experiment?experiment=home-artwork&refresh=Off")
        page.get_by_text("What next?").first.wait_for(timeout=60_000)
        page.wait_for_selector('[data-testid="stApp"][data-test-script-state="notRunning"]', timeout=60_000)
        place = page.locator('[data-testid="stElementContainer"]', has=page.locator('[data-testid="stVegaLiteChart"]'))
        place.first.locator('[data-testid="stVegaLiteChart"]').hover()
        with page.expect_download() as saved:
            place.first.get_by_role("button", name="Download as PNG").click()
        saved.value.save_as(tmp_path / "chart.png")
        assert (tmp_path / "chart.png").read_bytes().startswith(b"\x89PNG")
    finally:
        page.close()
