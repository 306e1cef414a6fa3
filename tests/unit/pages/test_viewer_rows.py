"""Rows that are made of what each viewer did: which titles stand there, in which order, and what is
said of a row that has none.
"""

from __future__ import annotations

import json
from typing import Any

import msgspec
import pytest

from topbill.candidates import Play, count
from topbill.domain.errors import SpecError
from topbill.domain.page_answer import RowAnswer
from topbill.engine import Engine
from topbill.pages import CompiledPage, ComposedPage, PageRequest, compose
from topbill.pages.explain import explain_title
from topbill.pages.viewer_rows import MOST_OWN
from topbill.pages.viewing_history import KnownViewer, ViewingHistory

from ...small_page import NOW, PAGE, ROWS, Home, layer

DAY = 86_400.0
OWN = """  going-on: {source: unfinished, within: 30d}
  mine: {source: list}
  once-more: {source: again, after: 60d}
  because: {source: because, of: last 2}
"""
ACTIONS = ROWS.replace(
    "]",
    ", {id: going-on}, {id: mine}, {id: once-more}, "
    "{id: because, payload: {label: 'Because you watched {title}'}}]",
)
RULES = """
rules:
  - {rule: fatigue, shown: 2, rest: 7d}
  - {rule: block, titles: [t01]}
"""


def own_page(home: Home, rules: str = RULES, count: int = 9) -> CompiledPage:
    """The small page with a row of each source that is the viewer's own; all rows are shown."""
    page = PAGE.replace("count: 3}", f"count: {count}}}").replace(
        "\nsources:", "\nsources:\n" + OWN
    )
    home.write(rules, page.replace("sources:\n\n", "sources:\n"))
    rows = layer("rows", "rows", "policy: uniform", actions=ACTIONS)
    (home.folder / "pages" / "home" / "rows.yaml").write_text(rows)
    return home.compiled_page()


def composed(page: CompiledPage, known: KnownViewer, number: int = 0, **asked: Any) -> ComposedPage:
    """A page for a viewer of whom that is known."""
    request = msgspec.convert({"page": "home", "profile": "u", **asked}, PageRequest)
    page_id = f"page-{number}"
    return compose(page, request, page.viewer(request, page_id, known), page_id, NOW)


def rows(made: ComposedPage) -> dict[str, RowAnswer]:
    return {row.row: row for row in made.answer.rows}


def shown(made: ComposedPage, row: str) -> list[str]:
    return [tile.title for tile in rows(made)[row].titles]


def history(page: CompiledPage, *events: tuple[str, str, float, float]) -> KnownViewer:
    """What is known of a viewer of whom (title, event, value, days ago) was told."""
    seen = ViewingHistory("home", page.file.signals)
    for title, event, value, days in events:
        seen.told("u", title, event, value, NOW - days * DAY)
    return seen.known("u", page.file.rules, NOW)


def test_what_was_begun_goes_on_the_latest_first(home: Home) -> None:
    page = own_page(home)
    events = [
        ("t02", "watch_fraction", 0.3, 3.0),
        ("t06", "watch_fraction", 0.8, 1.0),
        ("t08", "watch_fraction", 0.95, 1.0),  # all but its credits
        ("t10", "play", 1.0, 1.0),  # nobody said how much of it
        ("t12", "watch_fraction", 0.3, 31.0),  # longer ago than the row keeps it
        ("t14", "watch_fraction", 0.3, 2.0),
        ("t14", "thumbs_down", 1.0, 2.0),
    ]
    for number in range(5):
        made = composed(page, history(page, *events), number)
        assert shown(made, "going-on") == ["t06", "t02"]
        (decision,) = [d for d in made.decisions if d.decision_id.endswith(":going-on")]
        assert [placed.propensity for placed in decision.slate] == [1.0, 1.0]
    assert [mask.rule for mask in decision.masks] == ["order", "order"]


def test_the_list_is_what_was_put_there_last_in_whatever_order_events_come(home: Home) -> None:
    page = own_page(home)
    known = history(
        page,
        ("t02", "watchlist_add", 1.0, 3.0),
        ("t06", "watchlist_remove", 1.0, 1.0),
        ("t06", "watchlist_add", 1.0, 2.0),
        ("t08", "watchlist_add", 1.0, 1.0),
        ("t01", "watchlist_add", 1.0, 1.0),  # blocked
        ("t10", "watchlist_add", 1.0, 1.0),  # watched since
        ("t10", "play", 1.0, 0.5),
    )
    assert known.listed == ["t10", "t01", "t08", "t02"]
    made = composed(page, known)
    assert sorted(shown(made, "mine")) == ["t02", "t08"]
    assert rows(made)["mine"].removed == {"block": 1, "seen": 1}


def test_what_was_watched_comes_again_in_its_own_row_alone(home: Home) -> None:
    page = own_page(home)
    known = history(page, ("t02", "play", 1.0, 61.0), ("t06", "play", 1.0, 59.0))
    made = composed(page, known)
    assert shown(made, "once-more") == ["t02"]
    elsewhere = [t.title for row in made.answer.rows if row.row != "once-more" for t in row.titles]
    assert not {"t02", "t06"} & set(elsewhere)
    own = [d for d in made.decisions if d.layer == "titles"]
    stored = msgspec.structs.replace(made.decisions[0], decided_at=int(NOW * 1e6))
    assert explain_title(page, stored, own, "t02")["barred"] == []
    assert explain_title(page, stored, own, "t06")["barred"] == ["seen"]


def test_of_what_was_watched_long_ago_the_latest_comes_again(home: Home) -> None:
    page = own_page(home)
    long_ago = [(title, (99 + age) * DAY) for age, title in enumerate(reversed(page.catalog.ids))]
    known = KnownViewer(finished=long_ago * 20)
    request = PageRequest(page="home")
    again = page.viewer(request, "page-1", known).own["once-more"]
    assert len(again) == MOST_OWN
    assert page.catalog.ids[again[0]] == long_ago[0][0]


def test_each_of_the_last_titles_has_a_row_that_says_its_name(home: Home) -> None:
    page = own_page(home)
    watched = ["t02", "t08", "t03", "t10"]  # the last two are for adults
    made = composed(page, KnownViewer(), watched=watched, maturity=12)
    payloads = {row: json.loads(bytes(rows(made)[row].payload)) for row in ("because", "because-2")}
    assert payloads == {
        "because": {
            "label": "Because you watched Title 8",
            "because": {"id": "t08", "title": "Title 8"},
        },
        "because-2": {
            "label": "Because you watched Title 2",
            "because": {"id": "t02", "title": "Title 2"},
        },
    }
    made = composed(page, KnownViewer(), watched=["t02", "t03"], maturity=12)
    assert {"because", "because-2"} & set(rows(made)) == {"because"}
    assert "Title 2" in json.loads(bytes(rows(made)["because"].payload))["label"]
    (decision,) = [d for d in made.decisions if d.layer == "rows"]
    # What was drawn from can be had again from the log alone.
    offered = [action["id"] for action in json.loads(bytes(decision.actions))]
    assert {placed.action for placed in decision.slate} <= set(decision.eligible) <= set(offered)


def test_a_row_that_has_nothing_is_not_there_and_says_why(home: Home) -> None:
    page = own_page(home)
    made = composed(page, KnownViewer())
    assert set(rows(made)) == {"best", "fun", "tension", "fresh"}
    told = dict(note.removeprefix("row ").split(": ") for note in made.answer.notes)
    assert told == {
        "going-on": "this viewer has begun nothing that is unfinished",
        "mine": "this viewer's list is empty",
        "once-more": "this viewer has watched nothing so long ago",
        "because": "this viewer has liked too few titles that a heading may name",
        "because-2": "this viewer has liked too few titles that a heading may name",
    }
    known = history(page, ("t01", "watchlist_add", 1.0, 3.0))
    assert (
        "row mine: rules keep all 1 of its titles away: block" in composed(page, known).answer.notes
    )


def test_rows_above_leave_a_viewers_own_titles_to_their_row(home: Home) -> None:
    page = own_page(home)
    known = history(
        page, *[(f"t{number:02d}", "watchlist_add", 1.0, 1.0) for number in (0, 2, 6, 8)]
    )
    tired = known._replace(resting={"fatigue": ["t00"], "seen": [], "disliked": []})
    for number in range(10):
        # Nor do they tire: who put them there looks for them.
        assert sorted(shown(composed(page, tired, number), "mine")) == ["t00", "t02", "t06", "t08"]


def test_where_nothing_was_played_of_late_it_is_said_that_trends_are_of_anywhere(
    home: Home,
) -> None:
    page = PAGE.replace("{source: popular}", "{source: trending, by: region}")
    home.write(RULES, page.replace("count: 3}", "count: 4}"))
    plays = [Play("u", title, NOW, "us") for title in ("t08", "t02", "t02")]
    signals = count(plays, home.catalog(), NOW)
    engine = Engine(home.experiments(), clock=lambda: 0.0)
    compiled = CompiledPage(home.file(), engine, home.catalog(), signals)
    here, there = (composed(compiled, KnownViewer(), region=region) for region in ("us", "de"))
    assert here.answer.notes == ()
    assert there.answer.notes == (
        "row best: nothing was played in region de of late; it has what is trending anywhere",
    )


@pytest.mark.parametrize(
    ("old", "new", "says"),
    [
        ("of: last 2", "of: last 11", "last 1 to last 10, such as last 3"),
        ("of: last 2", "of: first 2", "last 1 to last 10, such as last 3"),
        ("{source: list}", "{source: list, by: region}", "by with source trending"),
        ("{source: popular}", "{source: trending, by: age}", "one of region"),
        ("{source: list}", "{source: list, within: 3d}", "within with source unfinished"),
        (", after: 60d", "", "after: 30d here, or a rule {rule: seen, again_after: 90d}"),
        ("  mine:", "  because-2:", "got a row called because-2; expected another name"),
        ("{source: unfinished", "{source: unfinshed", "did you mean unfinished?"),
        (
            "titles: [t01]}",
            "titles: [t01]}\n  - {rule: pin, title: t02, row: mine, position: 0}",
            "no pin in a row that each viewer has of one's own",
        ),
    ],
)
def test_what_is_wrong_with_such_a_row_is_named(home: Home, old: str, new: str, says: str) -> None:
    own_page(home)
    file = home.folder / "pages" / "home.yaml"
    assert old in file.read_text()
    file.write_text(file.read_text().replace(old, new, 1))
    with pytest.raises(SpecError) as caught:
        home.file()
    assert says in str(caught.value)


def test_rules_of_a_row_hold_in_all_that_it_is(home: Home) -> None:
    page = own_page(
        home, "rules:\n  - {rule: at_most, count: 1, of: genre, except: [because, fun, tension]}\n"
    )
    (cap,) = page.file.rules.caps
    assert cap.exempt == ("because", "because-2", "fun", "tension")
