"""Refreshing by itself: what stands there stays as it is, in a real browser, until what is newer
takes its place.
"""

from __future__ import annotations

import shutil
from pathlib import Path
from typing import Any

import pytest
from browsing import opened, served

from topbill.lake import Lake
from topbill.reporting.queries import database

pytestmark = pytest.mark.end_to_end

WATCH = """() => {
    const seen = window.seen = {runs: 0, faded: 0, skeletons: 0, closed: 0, looks: 0};
    const app = document.querySelector('[data-testid="stApp"]');
    let running = false;
    setInterval(() => {
        const now = app.dataset.testScriptState !== "notRunning";
        seen.runs += now && !running;
        running = now;
        seen.looks += 1;
        for (const element of document.querySelectorAll('[data-testid="stElementContainer"]'))
            seen.faded += Number(getComputedStyle(element).opacity) < 0.99;
        seen.skeletons += document.querySelectorAll('[data-testid="stSkeleton"]').length;
        const open = '[data-testid="stExpander"] details[open]';
        seen.closed += document.querySelectorAll(open).length === 0;
    }, 20);
}"""
"""Looks fifty times a second at what would flicker."""


def test_two_refreshes_leave_no_trace(browser: Any, demo: Path, tmp_path: Path) -> None:
    data = tmp_path / "data"
    shutil.copytree(demo, data)
    lines = database.experiments(data)
    experiments = [database.load_experiment(data, line.key) for line in lines]
    at = round(database.published_at(data).timestamp() * 1e6)
    with (
        served(data) as url,
        opened(browser, f"{url}/experiment?experiment=home-artwork", "What next?") as page,
    ):
        page.get_by_text("Sample ratio mismatch (SRM) check").click()
        page.get_by_text("No mismatch shown.").wait_for(timeout=60_000)
        page.wait_for_timeout(500)
        page.evaluate(WATCH)
        for refresh in (1, 2):
            Lake(data).write_database(
                experiments, at + refresh * 60_000_000
            )  # another version of the same answers
            page.wait_for_function(f"window.seen.runs >= {refresh}", timeout=60_000)
        page.wait_for_timeout(1_000)
        seen = page.evaluate("window.seen")
    assert seen["looks"] > 100
    assert {name: seen[name] for name in ("faded", "skeletons", "closed")} == {
        "faded": 0,
        "skeletons": 0,
        "closed": 0,
    }
