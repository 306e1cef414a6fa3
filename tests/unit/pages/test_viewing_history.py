"""What viewers did: a title tires, rests, and is fresh again after a play; what was watched or
disliked stays away; the oldest viewer goes first.
"""

from __future__ import annotations

import math
from dataclasses import replace
from itertools import pairwise
from typing import Any, ClassVar

import msgspec
import pytest
from hypothesis import given
from hypothesis import strategies as st

from topbill.domain.profile import Merge, guests_of, viewers_of
from topbill.domain.records import Decision, Placement, RewardEvent
from topbill.log import Matured
from topbill.log.memory import MemoryLog
from topbill.pages import viewing_history
from topbill.pages.viewing_history import MOST_TITLES, NOBODY, ViewingHistory
from topbill.rules import Rules

RULES = Rules(
    blocked=frozenset(), blocked_genres=(), pins={}, caps=(), fresh={}, fatigue=(3, 100.0)
)


def test_a_title_tires_rests_and_is_fresh_again_after_a_play() -> None:
    history = ViewingHistory("home")
    for at in (10.0, 20.0, 30.0):
        history.shown(f"page-{at}", "u", ["a", "b"], at)
    assert history.known("u", RULES, 40.0).resting["fatigue"] == ["a", "b"]
    assert history.known("u", RULES, 131.0).resting["fatigue"] == []
    assert history.known("somebody else", RULES, 40.0) == NOBODY
    history.told("u", "a", "play", 1.0, 35.0)
    assert history.known("u", RULES, 40.0).resting["fatigue"] == ["b"]


def test_titles_of_one_page_do_not_rest_all_at_once_nor_come_back_at_once() -> None:
    history = ViewingHistory("home")
    titles = [f"t{number}" for number in range(60)]
    rules = replace(RULES, fatigue=(6, 100.0))
    resting = []
    for page in range(1, 7):
        history.shown(f"page-{page}", "u", titles, float(page))
        resting.append(len(history.known("u", rules, page + 0.5).resting["fatigue"]))
    assert resting[:2] == [0, 0]
    assert resting[-1] == 60
    assert max(after - before for before, after in pairwise(resting)) < 30
    back = [len(history.known("u", rules, at).resting["fatigue"]) for at in (66, 80, 95, 107)]
    assert 60 > back[0] > back[1] > back[2] > back[3] == 0


def test_what_was_watched_stays_away_until_it_may_come_again() -> None:
    history = ViewingHistory("home")
    history.told("u", "a", "play", 1.0, 10.0)
    history.told("u", "b", "play", 1.0, 20.0)
    assert history.known("u", RULES, 1e9).resting["seen"] == ["a", "b"]
    assert history.known("u", replace(RULES, again_after=50.0), 65.0).resting["seen"] == ["b"]


def test_what_was_left_before_its_end_is_not_seen() -> None:
    history = ViewingHistory("home")
    for title, fraction in (("left", 0.4), ("finished", 0.95)):
        history.told("u", title, "play", 1.0, 10.0)
        history.told("u", title, "watch_fraction", fraction, 20.0)
    assert history.known("u", RULES, 30.0).resting["seen"] == ["finished"]


def test_events_against_a_title_keep_it_away_and_out_of_the_viewer_s_taste() -> None:
    history = ViewingHistory("home", {"play": 1.0, "boo": -2.0, "bravo": 2.0})
    for title in ("a", "b", "c"):
        history.told("u", title, "play", 1.0, 10.0)
    history.told("u", "a", "boo", 1.0, 20.0)
    history.told("u", "b", "boo", 0.3, 20.0)
    history.told("u", "d", "boo", 1.0, 20.0)
    history.told("u", "e", "unknown word", 1.0, 20.0)
    known = history.known("u", RULES, 30.0)
    assert known.resting["disliked"] == ["a", "d"]
    assert known.watched == ("c", "b")
    history.told("u", "a", "bravo", 1.0, 40.0)
    assert history.known("u", RULES, 50.0).resting["disliked"] == ["d"]


def test_all_plays_are_told_newest_last_each_once_and_by_what_they_say_of_taste() -> None:
    history = ViewingHistory("home")
    day = 86_400.0
    for at, title in enumerate(["a", "b", "a", *map(str, range(40))]):
        history.told("u", title, "play", 1.0, at)
    history.told("u", "loved", "thumbs_up", 1.0, 5 * 365 * day + 42)
    known = history.known("u", RULES, 1e9)
    assert known.watched == ("b", "a", *map(str, range(40)), "loved")
    by_title = dict(zip(known.watched, known.worth, strict=True))
    assert by_title["a"] == pytest.approx(1.0, abs=1e-6)  # two plays, five years older
    assert by_title["b"] == pytest.approx(math.log2(1.5), abs=1e-6)
    assert by_title["loved"] == pytest.approx(math.log2(3.0))


def test_pages_with_a_title_are_counted_until_it_is_played() -> None:
    history = ViewingHistory("home")
    for at in (10.0, 20.0):
        history.shown(f"page-{at}", "u", ["a", "b"], at)
    history.told("u", "a", "play", 1.0, 25.0)
    assert history.known("u", RULES, 30.0).shown == {"b": 2}


def test_a_viewer_s_titles_are_bounded() -> None:
    history = ViewingHistory("home")
    for at in range(MOST_TITLES + 5):
        history.told("u", str(at), "play", 1.0, at)
    seen = history.known("u", RULES, 1e6).resting["seen"]
    assert (len(seen), seen[0]) == (MOST_TITLES, "5")


def test_the_titles_of_all_viewers_are_bounded(monkeypatch: Any) -> None:
    monkeypatch.setattr(viewing_history, "MOST_OF_ALL", 30)
    history = ViewingHistory("home")
    for viewer in range(8):
        history.shown(f"page-{viewer}", str(viewer), map(str, range(9)), viewer)
        history.told(str(viewer), "3", "play", 1.0, viewer)
        history.told(str(viewer), "x", "play", 1.0, viewer)
    remembered = [viewer for viewer in range(8) if history.known(str(viewer), RULES, 9.0) != NOBODY]
    assert remembered == [5, 6, 7]


def test_the_viewer_that_was_here_longest_ago_is_forgotten_first(monkeypatch: Any) -> None:
    monkeypatch.setattr(viewing_history, "MOST_VIEWERS", 2)
    history = ViewingHistory("home")
    for unit in ("u", "v", "u", "w"):
        history.told(unit, "a", "play", 1.0, 0.0)
    told = [history.known(unit, RULES, 1.0).watched for unit in ("u", "v", "w")]
    assert told == [("a",), (), ("a",)]


EVENTS = ["play", "watch_fraction", "thumbs_up", "thumbs_down", "watchlist_add", "watchlist_remove"]


@given(
    st.lists(
        st.tuples(
            st.sampled_from(["u", "guest", "earlier guest"]),
            st.sampled_from("abc"),
            st.sampled_from(EVENTS),
            st.sampled_from([0.3, 0.5, 1.0]),
        ),
        max_size=12,
    ),
    st.integers(0, 12),
)
def test_a_profile_knows_of_its_guests_as_if_it_had_been_there_itself(
    told: list[tuple[str, str, str, float]], merged_at: int
) -> None:
    log = MemoryLog()
    apart, alone = ViewingHistory("home"), ViewingHistory("home")
    for at, (unit, title, event, value) in enumerate(told):
        if at == merged_at:
            log.merge_profile("u", "profile_id", "guest", [])
        apart.told(unit, title, event, value, 1.0 + at)
        alone.told("u", title, event, value, 1.0 + at)
    log.merge_profile("guest", "profile_id", "earlier guest", [])
    log.merge_profile("u", "profile_id", "guest", [])
    before = apart.known("guest", RULES, 50.0)
    apart.follow(log)
    one, other = apart.known("u", RULES, 50.0), alone.known("u", RULES, 50.0)
    assert comparable(one) == comparable(other)
    # Whoever is a guest there next is not shown what the profile did.
    if not any(unit == "earlier guest" for unit, *_ in told):
        assert comparable(apart.known("guest", RULES, 50.0)) == comparable(before)


def comparable(known: viewing_history.KnownViewer) -> object:
    resting = {rule: sorted(titles) for rule, titles in known.resting.items() if titles}
    lists = (list(known.watched), list(known.unfinished), sorted(known.finished))
    return (*lists, list(known.listed), resting)


def test_who_was_merged_into_whom_is_told_also_in_a_ring() -> None:
    pairs = [("a", "g"), ("b", "a"), ("c", "d"), ("d", "c"), ("d", "e")]
    merges = [Merge(place, unit, "profile_id", guest) for place, (unit, guest) in enumerate(pairs)]
    assert viewers_of(merges) == {"g": "b", "a": "b", "c": "c", "d": "c", "e": "c"}
    merged = {"a": ["g", "h"], "b": ["a"], "c": ["d"], "d": ["c", "e"]}
    assert guests_of("b", merged) == ["a", "h", "g"]
    assert guests_of("b", merged, 2) == ["a", "h"]
    assert guests_of("c", merged) == ["d", "e"]


def test_what_was_picked_at_the_start_is_liked_and_not_seen() -> None:
    history = ViewingHistory("home")
    history.told("u", "a", "onboarding_pick", 1.0, 10.0)
    known = history.known("u", RULES, 20.0)
    assert (known.watched, known.resting["seen"]) == (("a",), [])


def test_pages_without_impressions_are_counted_until_one_comes(home: Any) -> None:
    log, history = MemoryLog(), ViewingHistory("home")
    compiled_page = home.compiled_page()
    for number in range(3):
        log.append(home.compose(compiled_page, number).decisions)
    history.follow(log)
    assert history.unseen_pages == 3
    seen = RewardEvent(decision_id="page-1", event_id="e", event="seen", action="t00")
    log.append([], [seen])
    history.follow(log)
    assert history.unseen_pages == 0


@given(st.lists(st.sampled_from(["made", "read", "followed first", "follow"]), max_size=12))
def test_pages_that_a_process_made_are_known_as_if_they_were_read(steps: list[str]) -> None:
    now = [1_000_000]
    log = MemoryLog(clock=lambda: now[0])
    one, other = ViewingHistory("home"), ViewingHistory("home")
    for number, step in enumerate([*steps, "follow"]):
        now[0] += 1_000_000
        page = page_of(number, f"t{number % 3}", f"t{number % 4}")
        if step != "follow":
            log.append([page])
        if step in ("follow", "followed first"):
            one.follow(log)
        if step in ("made", "followed first"):
            one.made(page)
    other.follow(log)
    at = now[0] / 1e6
    assert one.known("u", RULES, at) == other.known("u", RULES, at)
    assert one.unseen_pages == other.unseen_pages


def test_pages_that_a_process_made_are_not_read_and_others_are_in_their_order() -> None:
    log, history = MemoryLog(), ViewingHistory("home")
    pages = [page_of(number, f"t{number}") for number in range(4)]
    for number, page in enumerate(pages):
        log.append([page])
        if number != 2:
            history.made(page)

    class Reader:
        read: ClassVar[list[str]] = []

        def __getattr__(self, name: str) -> Any:
            return getattr(log, name)

        def matured(self, *arguments: Any) -> list[Matured]:
            rows = log.matured(*arguments)
            self.read.extend(row.decision.decision_id for row in rows)
            return rows

    history.follow(Reader())
    assert Reader.read == ["page-2"]
    assert list(history.known("u", RULES, 1.0).shown) == ["t0", "t1", "t2", "t3"]


def page_of(number: int, *titles: str) -> Decision:
    return Decision(
        decision_id=f"page-{number}",
        experiment="home",
        revision="r1",
        variant=None,
        unit="u",
        context=msgspec.Raw(b"{}"),
        slate=tuple(Placement(place, title, 1.0) for place, title in enumerate(titles)),
        propensity=1.0,
        policy="page",
        reason="policy",
    )
