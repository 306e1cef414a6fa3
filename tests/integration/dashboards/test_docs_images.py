"""The pictures of the dashboards in the documentation, made as the dashboards draw simulated
viewers: `make screenshots` puts them into docs/images, and CI makes them before the site.
"""

from __future__ import annotations

import os
import re
from collections.abc import Iterator
from io import BytesIO
from pathlib import Path
from typing import Any

import pytest
from browsing import opened, served

from board.pages import PAGES
from topbill.log import now_micros
from topbill.simulation import recording
from topbill.spec import Experiment

Image = pytest.importorskip("PIL.Image", reason="Streamlit brings it")

ROOT = Path(__file__).parents[3]
SHOWN = {"": 900, "verdict": 1_000, "experiment": 1_120, "artwork": 1_045}
"""Pages that the documentation shows, by path, and how many pixels from the top."""
LARGEST = 150_000
"""Bytes of a picture: what is kept beside the text has to stay small."""
DRAWN = """() => [...document.querySelectorAll('[data-testid=stVegaLiteChart]')]
    .every(chart => chart.querySelector('canvas, svg'))"""
VISITS = 3_000


def name_of(path: str) -> str:
    return f"dashboard-{path or 'home'}.webp"


@pytest.fixture(scope="module")
def address(
    browser: Any, tmp_path_factory: pytest.TempPathFactory, examples: dict[str, Experiment]
) -> Iterator[str]:
    """The app on a record that ends now: one that stands still would say so on every page."""
    with pytest.MonkeyPatch.context() as patch:
        took = VISITS * recording.STEP + 61_000_000
        patch.setattr(recording, "START", now_micros() - took)
        folder = tmp_path_factory.mktemp("images")
        chosen = [examples[key] for key in ("home-artwork", "home-rows", "home-titles")]
        data = recording.record_visits(folder, chosen, VISITS)
    with served(data) as url:
        yield url


@pytest.fixture(scope="module")
def images(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The folder that TOPBILL_IMAGES names."""
    folder = Path(os.environ.get("TOPBILL_IMAGES") or tmp_path_factory.mktemp("images"))
    folder.mkdir(parents=True, exist_ok=True)
    return folder


@pytest.mark.slow
@pytest.mark.end_to_end
@pytest.mark.parametrize(("path", "height"), SHOWN.items())
def test_a_picture_is_made_of_the_page(
    path: str, height: int, browser: Any, address: str, images: Path
) -> None:
    landmark = next(page.landmark for page in PAGES if page.path == path)
    problems: list[str] = []
    url = f"{address}/{path}?experiment=home-artwork&refresh=Off"
    with opened(browser, url, landmark, problems=problems) as page:
        page.wait_for_function(DRAWN, timeout=60_000)
        assert page.get_by_text("Stale data").count() == 0
        shot = page.screenshot(clip={"x": 0, "y": 0, "width": 1440, "height": height})
    assert problems == []
    picture = Image.open(BytesIO(shot)).convert("RGB")
    file = images / name_of(path)
    picture.save(file, "WEBP", quality=80, method=6)
    assert file.stat().st_size < LARGEST
    # A page that is blank has one colour, or few.
    assert len(picture.getcolors(picture.width * picture.height)) > 500


def test_the_pages_show_the_pictures_that_are_made() -> None:
    made = {name_of(path) for path in SHOWN}
    pages = [ROOT / "README.md", *(ROOT / "docs").glob("*.md")]
    shown = {
        name
        for page in pages
        for name in re.findall(r"images/(dashboard-\S+?)\)", page.read_text())
    }
    assert shown == made
    assert {file.name for file in (ROOT / "docs" / "images").glob("dashboard-*")} == made
