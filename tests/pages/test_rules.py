"""Rules narrow what may be drawn at each position; rules that contradict each other are refused, all at once."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from topbill.errors import SpecError
from topbill.records import Floats, Indices
from topbill.rules import Filling, Turns
from topbill.slates import choices, rank


class Even:
    """A policy to which all are alike."""

    mean = width = None

    def probabilities(self, remaining: Indices) -> Floats:
        return np.full(len(remaining), 1 / len(remaining))


@given(st.data())
@settings(max_examples=200, deadline=None)
def test_masks_tell_exactly_what_could_be_drawn(data: st.DataObject) -> None:
    """Whatever the pins, caps and quota: the masks give each position's choices again, and all rules hold."""
    size = data.draw(st.integers(1, 14))
    slots = data.draw(st.integers(1, size))
    caps = data.draw(st.integers(0, 3))
    groups = np.array(
        data.draw(st.lists(st.lists(st.booleans(), min_size=caps, max_size=caps), min_size=size, max_size=size)),
        dtype=bool,
    ).reshape(size, caps)
    fresh = np.array(data.draw(st.lists(st.booleans(), min_size=size, max_size=size)))
    quota = data.draw(st.integers(0, slots))
    places = data.draw(st.permutations(range(size)))
    pins = {k: places[i] for i, k in enumerate(sorted(data.draw(st.sets(st.integers(0, slots - 1), max_size=2))))}
    reserved = groups[list(pins.values())].sum(axis=0)
    left = np.array([data.draw(st.integers(int(r), size)) for r in reserved], dtype=np.int64)
    members = [np.flatnonzero(row).tolist() for row in groups]
    filling = Filling(
        groups, members, [f"cap {c}" for c in range(caps)], slots, left=left, pins=pins, fresh=(quota, fresh)
    )
    asked: list[list[int]] = []

    class Spy:
        masks = ()

        def rows(self, position: int, placed: Any) -> Indices:
            asked.append(filling.rows(position, placed).tolist())
            return np.array(asked[-1], dtype=np.intp)

    uniforms = data.draw(st.lists(st.floats(0, 0.999), min_size=slots, max_size=slots))
    slate = rank(Even(), np.arange(size), slots, 0.0, uniforms, Spy())
    assert len(set(slate.rows)) == len(slate.rows)
    for position in range(len(slate.rows)):
        told = choices(filling.masks, size, position, slate.rows[:position])
        assert told.tolist() == sorted(asked[position])
    for position, place in pins.items():
        if position < len(slate.rows):
            assert slate.rows[position] == place
    shown = [row for row in slate.rows if row not in pins.values()]
    assert (groups[shown].sum(axis=0) + reserved <= left).all()
    if len(slate.rows) == slots and fresh[list(slate.rows)].sum() < quota:
        assert slots - 1 in pins or fresh[slate.rows[-1]] or not fresh[asked[-1]].any()


def test_every_picture_s_turn_is_its_own_title_s() -> None:
    turns = Turns(["a", "b"], [np.array([0, 1]), np.array([2])])
    slate = rank(Even(), np.arange(3), 2, 0.0, [0.9, 0.9], turns)
    assert (slate.rows, slate.propensities) == ((1, 2), (0.5, 1.0))
    assert choices(turns.masks, 3, 1, [1]).tolist() == [2]


def wrong(home: Any, text: str) -> str:
    home.write(rules=text)
    with pytest.raises(SpecError) as caught:
        home.composer()
    return str(caught.value)


@pytest.mark.parametrize(
    ("lines", "says"),
    [
        (["{rule: pin, title: t01, row: best, position: 0}", "{rule: block, titles: [t01]}"], "not blocked"),
        (
            ["{rule: pin, title: t01, row: best, position: 0}", "{rule: pin, title: t02, row: best, position: 0}"],
            "a free position",
        ),
        (
            ["{rule: pin, title: t01, row: best, position: 0}", "{rule: pin, title: t01, row: fun, position: 0}"],
            "pinned once",
        ),
        (["{rule: pin, title: t01, row: best, position: 6}"], "0 to 5"),
        (["{rule: pin, title: t01, row: worst, position: 0}"], "one of the page's rows"),
        (["{rule: pin, title: t99, row: best, position: 0}"], "a title of the catalogue"),
        (["{rule: at_most, count: 3, of: genre}"], "in row fun, which has 6 titles of that genre only"),
        (["{rule: fresh, count: 7, within: 30d, rows: [best]}"], "at most 6"),
        (["{rule: fresh, count: 1, within: 30d, rows: [best]}"] * 2, "no other fresh rule"),
        (
            [
                "{rule: fresh, count: 6, within: 30d, rows: [best]}",
                "{rule: pin, title: t00, row: best, position: 0}",
            ],
            "1 of 6 places in row best are pinned",
        ),
        (["{rule: block, genres: [comedy]}"], "something to show in row fun"),
        (["{rule: fatigue, shown: 1, rest: 1d}"] * 2, "a second fatigue rule"),
        (
            [
                "{rule: at_most, count: 1, of: genre, value: drama, per: row}",
                "{rule: pin, title: t01, row: best, position: 0}",
                "{rule: pin, title: t05, row: best, position: 1}",
            ],
            "pins in row best",
        ),
        (["{rule: at_mots, count: 1, of: genre}"], "did you mean at_most"),
    ],
)
def test_contradictory_rules_are_a_validation_error(home: Any, lines: list[str], says: str) -> None:
    told = wrong(home, "rules:\n" + "\n".join(f"  - {line}" for line in lines) + "\n")
    assert says in told
    assert told.startswith("home.yaml: ")


def test_all_that_is_wrong_is_said_at_once(home: Any) -> None:
    told = wrong(
        home, "rules:\n  - {rule: pin, title: t01, row: worst, position: 9}\n  - {rule: block, titles: [t01]}\n"
    )
    assert len(told.splitlines()) == 3
