"""A page loads in one go. Its script runs once, and nothing that is drawn moves by much meanwhile:
the cumulative layout shift (CLS, the largest sum of shifts that follow each other within seconds)
of a page that was looked at before, from the browser's own measure. Up to 0.1 counts as good.
"""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
from benchmarks.dashboards import Server, opened, served

from board.pages import PAGES

pytestmark = pytest.mark.end_to_end


@pytest.fixture(scope="module")
def server(browser: Any, demo: Path) -> Iterator[Server]:
    with served(demo) as server:
        yield server


@pytest.mark.parametrize("page", [page.name for page in PAGES])
def test_a_page_that_was_looked_at_before_is_drawn_once_and_holds_still(
    page: str, browser: Any, server: Server
) -> None:
    query = "&experiment=home-artwork"
    opened(browser, server, page, 1440, query)
    for width in (1440, 390):
        load = opened(browser, server, page, width, query)
        assert load.runs == 1
        assert load.shift < 0.1, load.moves
