"""What people come for, each from Home in at most three clicks and without reading docs."""

from __future__ import annotations

from collections.abc import Iterator
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

import pytest
from browsing import RAN, opened, served

from ... import past_experiments

MOST = 3
"""Clicks; a click into a field to type in it is one too."""


class Walk:
    """A person who begins on Home and counts their clicks."""

    def __init__(self, page: Any) -> None:
        self.page = page
        self.clicks = 0

    def click(self, element: Any) -> None:
        """Click it, and wait until the page is drawn."""
        element.first.click(timeout=120_000)
        self.clicks += 1
        assert self.clicks <= MOST
        self.page.wait_for_timeout(300)  # until the page has begun to run
        self.page.wait_for_selector(RAN, timeout=120_000)

    def go(self, title: str) -> None:
        """To a page of the navigation."""
        self.click(self.page.get_by_test_id("stSidebarNav").get_by_role("link", name=title))

    def type(self, label: str, text: str) -> None:
        """Into a field."""
        field = self.page.get_by_role("textbox", name=label)
        self.click(field)
        field.fill(text)
        field.press("Control+Enter")
        self.page.wait_for_timeout(300)
        self.page.wait_for_selector(RAN, timeout=120_000)

    def reads(self, *texts: str) -> None:
        """All of it is on the page."""
        for text in texts:
            seen = self.page.get_by_text(text).filter(visible=True)
            seen.first.wait_for(timeout=120_000)


@pytest.fixture(scope="module")
def address(browser: Any, demo: Path) -> Iterator[str]:
    """The app, served from the demo's data."""
    with served(demo) as url:
        yield url


@pytest.fixture
def walk(browser: Any, address: str) -> Iterator[Walk]:
    """Somebody on the demo's Home."""
    with opened(browser, f"{address}/?refresh=Off", "Lift of") as page:
        yield Walk(page)


def open_card(walk: Walk, key: str) -> None:
    walk.click(walk.page.locator(f'.st-key-card-{key} [data-testid="stPageLink"] a'))


@pytest.mark.slow
def test_which_variant_wins_and_how_sure(walk: Walk) -> None:
    open_card(walk, "home-artwork")
    walk.reads("What next?", "Lift of objective", "probability to beat control")
    table = walk.page.locator(".tb-table", has_text="probability to beat control")
    row = table.locator("tbody tr", has_text="thompson").inner_text()
    assert "%" in row or "+" in row
    assert " to " in row  # its interval


@pytest.mark.slow
def test_is_it_safe(walk: Walk) -> None:
    open_card(walk, "home-artwork")
    walk.reads("Guardrails", "non-inferiority margin")
    table = walk.page.locator(".tb-table", has_text="non-inferiority margin")
    rows = table.locator("tbody tr:not(.tb-group)").all_inner_texts()
    assert len(rows) == 3
    for row in rows:
        assert any(word in row for word in ("passed", "failed", "inconclusive"))


@pytest.mark.slow
def test_what_would_this_viewer_see_and_why(walk: Walk) -> None:
    walk.go("Preview")
    walk.type("Or type it", '{"device": "mobile", "hour": 3}')
    walk.reads("This viewer would see first:", "probability")
    walk.click(walk.page.locator("summary", has_text="Why ").filter(visible=True))
    walk.reads("Features that raise")


@pytest.mark.slow
def test_is_the_data_sound(walk: Walk) -> None:
    walk.go("Health")
    # The record of the tests is old, and says so.
    walk.reads("The worker last published", "What was published is sound.", "Propensity check")


@pytest.mark.slow
def test_what_changed_last_tuesday(browser: Any, phased: Path) -> None:
    with served(phased) as url, opened(browser, f"{url}/?refresh=Off", "Lift of") as page:
        walk = Walk(page)
        open_card(walk, "phased")
        walk.click(page.get_by_role("link", name="All numbers"))
        walk.reads("What changed when")
        walk.reads("Mon 2024-10-07", "thompson 20% → 50%")


@pytest.mark.slow
def test_what_did_we_learn_this_year(
    browser: Any, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    year = datetime.now(UTC).year
    begun = datetime(year, 1, 2, tzinfo=UTC).timestamp()
    monkeypatch.setattr(past_experiments, "BEGAN", int(begun * 1e6))
    data = past_experiments.record(tmp_path)
    with served(data) as url, opened(browser, f"{url}/?refresh=Off", "No experiment runs") as page:
        walk = Walk(page)
        walk.go("Library")
        walk.reads(f"In {year}, 5 experiments were concluded", "Film noir (fresh won)")
        walk.reads("Lifts, shrunken for the winner's curse")
