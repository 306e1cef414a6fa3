"""Simulated browsing: the expectation told is that of what viewers do, every layer matters, and learning gets on."""

from __future__ import annotations

from typing import Any

import msgspec
import numpy as np
import pytest

from topbill.pages import PageAnswer
from topbill.simulate.browse import Browsers, Ways, browse, concentration


@pytest.fixture
def browsers(home: Any) -> Browsers:
    return Browsers(home.catalog(), seed=1, ways=Ways(viewers=50, start=home.now))


def test_the_expected_plays_of_a_page_are_the_mean_of_what_viewers_do(home: Any, browsers: Browsers) -> None:
    page = home.compose(home.composer(), 1).answer
    copies = [msgspec.structs.replace(page, page_id=f"page-{n}") for n in range(20_000)]
    done = [browsers.react(3, copy)[1] >= 0.7 for copy in copies]
    error = np.std(done) / len(done) ** 0.5
    assert abs(np.mean(done) - browsers.expected(3, page)) < 4 * error
    assert browsers.expected(3, page) > 10 * error


def test_each_layer_matters(home: Any, browsers: Browsers) -> None:
    """Better rows, titles or pictures, each alone, raise what is to be expected."""
    page = home.compose(home.composer(), 1).answer
    viewer = 3
    best = browsers.expected(viewer, page)

    def worth(row: Any) -> float:
        return browsers.expected(viewer, msgspec.structs.replace(page, rows=(row,)))

    def with_rows(rows: Any) -> PageAnswer:
        return msgspec.structs.replace(page, rows=tuple(rows))

    down, up = (with_rows(sorted(page.rows, key=worth, reverse=high)) for high in (False, True))
    assert browsers.expected(viewer, down) < browsers.expected(viewer, up)

    def by_wish(row: Any, sign: int) -> Any:
        def wish(tile: Any) -> float:
            logit, done = browsers.wish(viewer, [browsers.catalog.index[tile.title]])
            return sign * float(logit[0] + np.log(done[0]))

        return msgspec.structs.replace(row, titles=tuple(sorted(row.titles, key=wish)))

    worst, best = (browsers.expected(viewer, with_rows(by_wish(r, s) for r in page.rows)) for s in (1, -1))
    assert worst < best


def test_browsing_serves_credits_and_learns(home: Any, browsers: Browsers) -> None:
    composer = home.composer()
    visits = browse(composer, browsers, 200, learn_every=20, signals_every=100)
    assert len(visits) == 200
    played = [visit for visit in visits if visit.played]
    assert 0 < len(played) < 200
    assert all(visit.played in visit.titles for visit in played)
    assert composer.engine.find("titles").policies["only"].model.learned > 200 * 12  # type: ignore[attr-defined]
    assert composer.stage.heat.max() == 1.0
    shown, top = concentration(visits)
    assert 20 < shown <= 60
    assert 0.0 < top < 1.0
