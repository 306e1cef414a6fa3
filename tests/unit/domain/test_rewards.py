"""At what viewers looked: said once for records, and the same in SQL."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import duckdb
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from topbill.domain.records import Decision, Placement, RewardEvent
from topbill.domain.rewards import (
    CLICK_MODELS,
    IMPRESSIONS_SENT,
    SEEN,
    Looks,
    examined,
    examined_sql,
    is_example_sql,
    looked_at_sql,
)

SLOTS = 3
EVENTS = st.lists(
    st.tuples(
        st.sampled_from([SEEN, IMPRESSIONS_SENT, "play", "abandon"]),
        st.sampled_from([None, *range(SLOTS)]),
        st.sampled_from([0.0, 0.5, 1.0]),
    ),
    max_size=6,
)
Told = list[tuple[str, int | None, float]]


@dataclass
class Rules:
    """What an experiment says about its rewards."""

    click_model: str
    feedback: str = "item"
    goal: Any = None


DECISION = Decision(
    decision_id="d",
    experiment="e",
    revision="r",
    variant="v",
    unit="u",
    eligible=tuple("abcd"),
    slate=tuple(Placement(k, "abcd"[k], 0.5) for k in range(SLOTS)),
    policy="uniform",
    reason="policy",
)


def recorded(told: Told) -> list[RewardEvent]:
    events = []
    for number, (event, position, value) in enumerate(told):
        events.append(
            RewardEvent(
                decision_id="d",
                event_id=f"{number}",
                event=event,
                value=value,
                position=position,
            )
        )
    return events


def looked_at(told: Told, model: str = "examined") -> list[bool]:
    return examined(Rules(model), DECISION, recorded(told))


@pytest.mark.parametrize(
    ("told", "expected"),
    [
        ([], [True, True, True]),
        ([("play", 1, 1.0)], [True, True, True]),
        ([(SEEN, 0, 1.0)], [True, False, False]),
        ([(SEEN, 0, 1.0), ("play", 2, 1.0)], [True, False, True]),
        ([(SEEN, None, 1.0)], [True, True, True]),
        ([(SEEN, None, 0.0)], [False, False, False]),
        ([(IMPRESSIONS_SENT, None, 1.0), ("abandon", None, 1.0)], [False, False, False]),
    ],
)
def test_what_nobody_saw_is_no_example_once_impressions_are_sent(
    told: Told, expected: list[bool]
) -> None:
    assert looked_at(told) == expected


@given(EVENTS, st.randoms())
def test_the_order_of_events_changes_nothing_and_more_impressions_hide_nothing(
    told: Told, random: Any
) -> None:
    before = looked_at(told)
    shuffled = list(told)
    random.shuffle(shuffled)
    assert looked_at(shuffled) == before
    if any(event in (SEEN, IMPRESSIONS_SENT) for event, _, _ in told):
        after = looked_at([*told, (SEEN, 1, 1.0)])
        assert after[1]
        assert all(now or not was for was, now in zip(before, after, strict=True))
        assert looked_at([*told, (IMPRESSIONS_SENT, None, 1.0)]) == before


@given(EVENTS)
def test_that_impressions_are_sent_changes_nothing_for_other_click_models(told: Told) -> None:
    with_mark: Told = [*told, (IMPRESSIONS_SENT, None, 1.0)]
    for model in ("independent", "cascade"):
        assert looked_at(with_mark, model) == looked_at(told, model)


@settings(max_examples=60, deadline=None)
@given(EVENTS, st.sampled_from(sorted(CLICK_MODELS)), st.sampled_from(["item", "slate"]))
def test_sql_says_what_records_say(told: Told, model: str, feedback: str) -> None:
    rules = Rules(model, feedback)
    expected = examined(rules, DECISION, recorded(told))
    with duckdb.connect() as connection:
        connection.execute(
            "CREATE TABLE rewards (experiment VARCHAR, decision_id VARCHAR, event VARCHAR, "
            "position BIGINT, value DOUBLE)"
        )
        for event, position, value in told:
            row = ["e", "d", event, position, value]
            connection.execute("INSERT INTO rewards VALUES (?, ?, ?, ?, ?)", row)
        found = connection.execute(
            f"SELECT {examined_sql(rules)} FROM (SELECT 'd' AS decision_id, "  # noqa: S608
            f"unnest(range({SLOTS})) AS position) LEFT JOIN ({looked_at_sql()}) "
            "USING (decision_id) ORDER BY position",
            {"key": "e"},
        ).fetchall()
        condition = is_example_sql(rules)
        ((is_example,),) = connection.execute(
            f"SELECT {condition} FROM (SELECT 'd' AS decision_id)",  # noqa: S608
            {"key": "e"} if "$key" in condition else {},
        ).fetchall()
    assert [row[0] for row in found] == expected
    assert is_example == any(expected)


def test_what_does_not_count_is_counted_by_reason() -> None:
    looks = Looks()
    looks.note(Rules("examined"), DECISION, recorded([(SEEN, 0, 1.0)]))
    looks.note(Rules("examined"), DECISION, [])
    looks.note(Rules("independent"), DECISION, [])
    assert dict(looks) == {
        "decisions": 2,
        "without impressions": 1,
        "places": 6,
        "places not looked at": 2,
    }
    assert [note.split(":")[0] for note in looks.notes] == [
        "1 of 2 decisions came without impressions (event seen)",
        "2 of 6 places were not looked at",
    ]
