"""Simulated browsing: the expectation told is that of what viewers do, every layer matters, and
learning gets on.
"""

from __future__ import annotations

import copy
from itertools import permutations
from typing import Any

import msgspec
import numpy as np
import pytest

from topbill.catalog import Picture
from topbill.domain.records import Actions
from topbill.pages import CompiledPage, PageAnswer
from topbill.simulation.arrivals import Arrivals
from topbill.simulation.page_oracle import Oracle, decided_by
from topbill.simulation.page_viewers import GENRES, Browsing, PageViewers
from topbill.simulation.page_visits import PageRun, browse, concentration


@pytest.fixture
def viewers(home: Any) -> PageViewers:
    return PageViewers(
        home.catalog(),
        seed=1,
        browsing=Browsing(viewers=50, start=home.now),
        sources=home.file().sources,
    )


def test_the_expected_plays_of_a_page_are_the_mean_of_what_viewers_do(
    home: Any, viewers: PageViewers
) -> None:
    page = home.compose(home.compiled_page(), 1).answer
    copies = [msgspec.structs.replace(page, page_id=f"page-{n}") for n in range(20_000)]
    done = [viewers.react(3, copy)[1] >= 0.7 for copy in copies]
    error = np.std(done) / len(done) ** 0.5
    assert abs(np.mean(done) - viewers.expected(3, page)) < 4 * error
    assert viewers.expected(3, page) > 10 * error


def test_each_layer_matters(home: Any, viewers: PageViewers) -> None:
    """Better rows, titles or pictures, each alone, raise what is to be expected."""
    page = home.compose(home.compiled_page(), 1).answer
    viewer = 3
    best = viewers.expected(viewer, page)

    def worth(row: Any) -> float:
        return viewers.expected(viewer, msgspec.structs.replace(page, rows=(row,)))

    def with_rows(rows: Any) -> PageAnswer:
        return msgspec.structs.replace(page, rows=tuple(rows))

    # A row alone stands at the top: what its titles are worth, and whether the viewer looks along
    # it.
    down, up = (with_rows(sorted(page.rows, key=worth, reverse=high)) for high in (False, True))
    assert viewers.expected(viewer, down) < viewers.expected(viewer, up)

    def by_wish(row: Any, sign: int) -> Any:
        def wish(tile: Any) -> float:
            logit, done = viewers.wish(viewer, [viewers.catalog.index[tile.title]])
            return sign * float(logit[0] + np.log(done[0]))

        return msgspec.structs.replace(row, titles=tuple(sorted(row.titles, key=wish)))

    worst, best = (
        viewers.expected(viewer, with_rows(by_wish(r, s) for r in page.rows)) for s in (1, -1)
    )
    assert worst < best


def test_viewers_come_back_the_likelier_the_more_they_watched(home: Any) -> None:
    """Over many pages: who watched all of it comes again soon more often than who played
    nothing.
    """
    viewers = PageViewers(home.catalog(), browsing=Browsing(viewers=2_000))
    coming, content = Arrivals(viewers), np.random.default_rng(0).random(4_000) < 0.5
    came = []
    for number, happy in enumerate(content.tolist()):
        came.append(coming.who(number))
        coming.watched(number, float(happy))
    again = np.array([came[n] in came[n + 1 : n + 200] for n in range(3_800)])
    nothing, all_of_it = again[~content[:3_800]], again[content[:3_800]]
    error = (nothing.var() / nothing.size + all_of_it.var() / all_of_it.size) ** 0.5
    assert all_of_it.mean() > nothing.mean() + 4 * error
    assert len(set(came)) > 500


def test_rows_interest_who_has_a_taste_for_them(home: Any) -> None:
    viewers = PageViewers(
        home.catalog(), browsing=Browsing(viewers=400), sources=home.file().sources
    )
    comedy = viewers.taste[:, GENRES.index("comedy")]
    fun = np.array([viewers.interest(viewer, "fun") for viewer in range(400)])
    assert fun[comedy > 0.5].mean() > fun[comedy < 0.1].mean() + 0.2
    assert viewers.interest(0, "unheard of") == 0.5


def test_browsing_serves_credits_and_learns(home: Any, viewers: PageViewers) -> None:
    compiled_page = home.compiled_page()
    visits = browse(compiled_page, viewers, 200, PageRun(learn_every=20, signals_every=100))
    assert len(visits) == 200
    played = [visit for visit in visits if visit.played]
    assert 0 < len(played) < 200
    assert all(visit.played in visit.seen.titles for visit in played)
    assert compiled_page.engine.find("titles").policies["only"].learned > 200 * 12  # type: ignore[attr-defined]
    assert compiled_page.candidate_model.trending.max() == 1.0
    shown, top = concentration([visit.seen for visit in visits])
    assert 20 < shown <= 60
    assert 0.0 < top < 1.0


def test_who_knows_the_viewers_makes_better_pages_in_every_layer(
    home: Any, viewers: PageViewers
) -> None:
    """For the same viewers and the same luck; and what decides a page in between leaves no
    trace.
    """
    catalog = copy.copy(home.catalog())
    catalog.pictures = tuple(
        tuple(Picture(p.id, {"tone": p.id.rpartition("/")[2], "faces": 1}, p.payload) for p in own)
        for own in catalog.pictures
    )
    compiled_page = CompiledPage(home.file(), home.compiled_page().engine, catalog)
    viewers = PageViewers(catalog, seed=1, browsing=viewers.browsing, sources=home.file().sources)
    plain = {"rows": "only", "titles": "only", "artwork": "only"}
    knowing = {layer: Oracle(layer, viewers) for layer in plain}
    arms = {
        "plain": plain,
        "best": knowing,
        **{layer: {**knowing, layer: "only"} for layer in plain},
    }
    bounds = [live.bounds for live in compiled_page.engine.experiments.values()]
    policies = [live.policies for live in compiled_page.engine.experiments.values()]
    visits = browse(compiled_page, viewers, 150, PageRun(arms=arms, learn_every=1000))
    assert [live.bounds for live in compiled_page.engine.experiments.values()] == bounds
    assert [live.policies for live in compiled_page.engine.experiments.values()] == policies
    assert all(visit.arms["plain"] == visit.seen for visit in visits)
    worth = {arm: np.array([visit.arms[arm].expected for visit in visits]) for arm in arms}
    for layer in plain:
        gain = worth["best"] - worth[layer]
        assert gain.mean() > 4 * gain.std() / len(gain) ** 0.5
    assert worth["plain"].mean() < min(worth[layer].mean() for layer in plain)


def test_the_best_known_order_of_a_row_is_within_a_trifle_of_the_best_of_all_orders(
    home: Any, viewers: PageViewers
) -> None:
    """Exhaustively: 720 orders of six titles, with the pictures that they have."""
    compiled_page = home.compiled_page()
    one = Oracle("titles", viewers)
    for viewer in range(8):
        one.compiled_page, one.viewer, one.now = compiled_page, viewer, home.now
        with decided_by(compiled_page, {"titles": one}):
            page = home.compose(compiled_page, viewer).answer
        tiles = page.rows[0].titles
        alone = [
            viewers.expected(viewer, msgspec.structs.replace(page, rows=(replaced,)))
            for order in permutations(tiles)
            for replaced in [msgspec.structs.replace(page.rows[0], titles=order)]
        ]
        known = np.argsort(
            -one.score(np.zeros(0), _ids([t.title for t in tiles]), 0).mean, kind="stable"
        )
        chosen = msgspec.structs.replace(page.rows[0], titles=tuple(tiles[i] for i in known))
        assert viewers.expected(viewer, msgspec.structs.replace(page, rows=(chosen,))) > 0.97 * max(
            alone
        )


def test_a_catalogue_that_changes_on_the_way_is_taken_over(home: Any, viewers: PageViewers) -> None:
    before = copy.copy(home.catalog())
    before.pictures = tuple(own[:1] for own in before.pictures)
    compiled_page = CompiledPage(home.file(), home.compiled_page().engine, before)
    visits = browse(
        compiled_page, viewers, 60, PageRun(catalogues={30: home.catalog()}, signals_every=10)
    )
    early, late = (
        {p for v in part for p in v.seen.pictures} for part in (visits[:30], visits[30:])
    )
    assert all(picture and picture.endswith("warm") for picture in early)
    assert any(picture and picture.endswith("dark") for picture in late)


def test_what_viewers_look_for_follows_popularity_and_taste(
    home: Any, viewers: PageViewers
) -> None:
    luck = np.random.default_rng(0)
    plays = [viewers.choose(viewer, 5, luck) for viewer in range(50)]
    assert all(len(set(own)) == 5 for own in plays)
    assert np.mean(plays) < (len(viewers.catalog) - 1) / 2 - 5  # rows lie by falling popularity
    assert all(viewers.reach(viewer).sum() == pytest.approx(1.0) for viewer in range(5))


def _ids(titles: list[str]) -> Actions:
    return Actions(titles, np.zeros((len(titles), 0)))
