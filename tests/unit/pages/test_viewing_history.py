"""What viewers saw: a title tires, rests, and is fresh again after a play; the oldest viewer
goes first.
"""

from __future__ import annotations

from typing import Any

from topbill.pages import viewing_history
from topbill.pages.viewing_history import ViewingHistory


def test_a_title_tires_rests_and_is_fresh_again_after_a_play() -> None:
    seen = ViewingHistory("home")
    for at in (10.0, 20.0, 30.0):
        seen.shown(f"page-{at}", "u", ["a", "b"], at)
    assert seen.fatigued("u", 3, 100.0, 40.0) == ["a", "b"]
    assert seen.fatigued("u", 4, 100.0, 40.0) == []
    assert seen.fatigued("u", 3, 100.0, 131.0) == []
    assert seen.fatigued("somebody else", 1, 100.0, 40.0) == []
    seen.played("u", "a")
    assert seen.fatigued("u", 3, 100.0, 40.0) == ["b"]


def test_the_last_plays_are_kept_newest_last_and_each_once() -> None:
    seen = ViewingHistory("home")
    for title in ["a", "b", "a", *map(str, range(19))]:
        seen.played("u", title)
    assert seen.watched("u") == ("a", *map(str, range(19)))
    assert seen.watched("somebody else") == ()


def test_the_viewer_that_was_here_longest_ago_is_forgotten_first(monkeypatch: Any) -> None:
    monkeypatch.setattr(viewing_history, "MOST_VIEWERS", 2)
    seen = ViewingHistory("home")
    for unit in ("u", "v", "u", "w"):
        seen.played(unit, "a")
    assert [seen.watched(unit) for unit in ("u", "v", "w")] == [("a",), (), ("a",)]
