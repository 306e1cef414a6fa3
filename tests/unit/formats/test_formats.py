"""Slates as dsjson, Eppo's bandit events, Arrow columns, obp's slates: round trips, foreign files,
named errors.
"""

from __future__ import annotations

import io
import json
from typing import Any

import msgspec
import numpy as np
import pyarrow as pa
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from topbill.domain.errors import BadData
from topbill.domain.records import Decision, Placement, RewardEvent
from topbill.formats import arrow_rows, ccb, eppo, obp_slates

from .decisions import FEATURES, IDS, logged

Row = tuple[Decision, list[RewardEvent]]
OLD_EVENTS = pa.list_(
    pa.struct(
        {
            "event_id": pa.string(),
            "event": pa.string(),
            "value": pa.float64(),
            "action": pa.string(),
            "position": pa.int64(),
            "occurred_at": pa.int64(),
            "at": pa.int64(),
        }
    )
)
"""The events of an export of 0.1.0."""


@given(logged(slots=4))
def test_a_slate_survives_dsjson(row: Row) -> None:
    assert ccb.parse_line(ccb.dump_line(*row, FEATURES)) == row


@given(logged())
def test_a_decision_survives_eppos_format(row: Row) -> None:
    assert eppo.parse_line(eppo.dump_line(*row, FEATURES)) == row


@given(st.lists(logged(slots=4), max_size=6))
def test_any_log_survives_arrow_columns(rows: list[Row]) -> None:
    assert list(arrow_rows.from_table(arrow_rows.to_table(rows))) == rows


@settings(max_examples=25)
@given(st.lists(logged(slots=2), min_size=1, max_size=3), st.booleans())
def test_columns_that_0_1_0_exported_are_read_under_the_names_of_today(
    rows: list[Row], batches: bool
) -> None:
    table = arrow_rows.to_table(rows)
    events = []
    for of_decision in table["events"].to_pylist():
        events.append([{**event, "at": event.pop("received_at")} for event in of_decision])
    more = [text and text.replace('"latency_us"', '"micros"') for text in table["more"].to_pylist()]
    names = ["at" if name == "decided_at" else name for name in table.schema.names]
    old = table.rename_columns(names)
    old = old.set_column(names.index("events"), "events", pa.array(events, OLD_EVENTS))
    old = old.set_column(names.index("more"), "more", pa.array(more, pa.string()))
    parts = old.to_batches() if batches else [old]
    assert [row for part in parts for row in arrow_rows.from_table(part)] == rows


@given(
    st.lists(
        logged(slots=4, names=st.from_regex(r"[a-z][a-z0-9]{0,7}", fullmatch=True)),
        min_size=1,
        max_size=6,
    )
)
def test_the_real_parser_of_vw_reads_slates(rows: list[Row]) -> None:
    # Names of the context in ASCII, without a leading underscore: others are special to VW, or
    # crash it.
    text = b"\n".join(ccb.dump_line(*row, FEATURES) for row in rows)
    vw = pytest.importorskip("vowpal_wabbit_next", reason="it has no wheel for this Python")
    workspace = vw.Workspace(["--ccb_explore_adf", "--quiet", "-q", "::"])
    with vw.DSJsonFormatReader(workspace, io.StringIO(text.decode())) as reader:
        examples = list(reader)
    assert len(examples) == len(rows)
    for example, (decision, events) in zip(examples, rows, strict=True):
        assert isinstance(example, list)
        assert len(example) == 1 + len(IDS) + len(decision.slate), "shared, actions, slots"
        for k, (slot, placed) in enumerate(
            zip(example[1 + len(IDS) :], decision.slate, strict=True)
        ):
            outcome = slot.get_label().outcome
            worth = sum(e.value for e in events if e.position in (None, k))
            assert outcome is not None
            cost, pairs = outcome
            assert cost == pytest.approx(-worth, rel=1e-5, abs=1e-4)
            action, p = pairs[0]
            assert (IDS[action], p) == (placed.action, pytest.approx(placed.propensity, rel=1e-5))
        workspace.learn_one(example)


FOREIGN = {
    "Timestamp": "2019-09-10T14:43:37.2010000Z",
    "Version": "1",
    "EventId": "e",
    "c": {
        "GUser": {"id": "mk"},
        "_multi": [
            {"TAction": {"topic": "ski"}},
            {"TAction": {"topic": "herbs"}},
            {"_tag": "city"},
        ],
        "_slots": [{"_id": "a"}, {"_id": "b"}],
    },
    "_outcomes": [
        {"_label_cost": -1.0, "_id": "a", "_a": [1, 0, 2], "_p": [0.8, 0.1, 0.1], "_o": []},
        {"_label_cost": 0.0, "_id": "b", "_a": 2, "_p": 0.5, "_o": []},
    ],
}


def test_a_foreign_slate_is_read_with_its_probabilities_and_costs() -> None:
    decision, events = ccb.parse_line(json.dumps(FOREIGN).encode(), experiment="x")
    assert decision.slate == (Placement(0, "a2", 0.8), Placement(1, "city", 0.5))
    assert decision.propensity == pytest.approx(0.4)
    assert decision.decided_at == 1_568_126_617_201_000
    assert json.loads(bytes(decision.context)) == {"GUser": {"id": "mk"}}
    assert [(e.position, e.value) for e in events] == [(0, 1.0)]


@pytest.mark.parametrize(
    "change",
    [
        {"_outcomes": [{"_a": [9], "_p": [0.5]}]},
        {"_outcomes": [{"_a": [0], "_p": [0.0]}]},
        {"_outcomes": [{"_a": [0], "_p": [0.5]}, {"_a": [0], "_p": [0.5]}]},
        {"_outcomes": 7},
        {"c": {}},
    ],
)
def test_a_broken_slate_is_refused_with_its_line(change: dict[str, Any]) -> None:
    with pytest.raises(BadData, match="line 7"):
        ccb.parse_line(json.dumps(FOREIGN | change).encode(), number=7)


def test_an_event_of_eppos_own_is_read() -> None:
    event = {
        "timestamp": "2026-01-31T12:00:00.000Z",
        "flagKey": "banner",
        "banditKey": "banner_bandit",
        "subject": "alice",
        "action": "nike",
        "actionProbability": 0.25,
        "optimalityGap": 0.5,
        "modelVersion": "v123",
        "subjectNumericAttributes": {"age": 25},
        "subjectCategoricalAttributes": {"country": "USA"},
        "actionNumericAttributes": {"discount": 0.2},
        "actionCategoricalAttributes": {"from": "usa"},
        "metaData": {"sdkLanguage": "go"},
    }
    decision, events = eppo.parse_line(json.dumps(event).encode())
    assert events == []
    assert (decision.experiment, decision.variant, decision.unit) == (
        "banner",
        "banner_bandit",
        "alice",
    )
    assert decision.slate == (Placement(0, "nike", 0.25),)
    assert json.loads(bytes(decision.context)) == {"age": 25, "country": "USA"}
    assert json.loads(bytes(decision.actions)) == [
        {"id": "nike", "features": {"discount": 0.2, "from": "usa"}}
    ]


@pytest.mark.parametrize(
    "broken",
    [b"{", b"[]", b'{"action":"a"}', b'{"action":"a","actionProbability":0,"subject":"s"}'],
)
def test_what_is_no_bandit_event_is_refused_with_its_line(broken: bytes) -> None:
    with pytest.raises(BadData, match="line 3"):
        eppo.parse_line(broken, number=3)


@given(logged())
def test_eppos_attributes_are_apart_by_kind(row: Row) -> None:
    line = json.loads(eppo.dump_line(*row, FEATURES))
    assert line["actionProbability"] == row[0].slate[0].propensity
    for side in ("subject", "action"):
        assert all(type(v) in (int, float) for v in line[f"{side}NumericAttributes"].values())
        assert all(type(v) is str for v in line[f"{side}CategoricalAttributes"].values())


@st.composite
def slate_feedbacks(draw: st.DrawFn) -> dict[str, Any]:
    n, slots, actions, d = (
        draw(st.integers(1, 8)),
        draw(st.integers(1, 3)),
        4,
        draw(st.integers(0, 3)),
    )
    steps = draw(st.lists(st.floats(0.05, 1.0), min_size=n * slots, max_size=n * slots))
    cascade = np.cumprod(np.array(steps).reshape(n, slots), axis=1)
    chosen = np.array([draw(st.permutations(range(actions)))[:slots] for _ in range(n)])
    context = draw(
        st.lists(st.lists(st.floats(-9, 9), min_size=d, max_size=d), min_size=n, max_size=n)
    )
    return {
        "n_rounds": n,
        "n_unique_action": actions,
        "slate_id": np.repeat(np.arange(n), slots),
        "action": chosen.ravel(),
        "position": np.tile(np.arange(slots), n),
        "reward": np.array(
            draw(st.lists(st.floats(-5, 5), min_size=n * slots, max_size=n * slots))
        ),
        "pscore_cascade": cascade.ravel(),
        "pscore": np.repeat(cascade[:, -1], slots),
        "context": np.repeat(np.array(context, dtype=np.float64).reshape(n, d), slots, axis=0),
    }


@given(slate_feedbacks())
def test_obps_slates_survive_being_decisions(feedback: dict[str, Any]) -> None:
    back = obp_slates.to_slate_feedback(obp_slates.from_slate_feedback(feedback, "imported"))
    assert back.keys() == feedback.keys()
    for name, value in feedback.items():
        np.testing.assert_allclose(back[name], value, rtol=1e-12, err_msg=name)


def test_a_slate_with_rising_probabilities_is_refused() -> None:
    feedback = {
        "slate_id": [5, 5],
        "action": [0, 1],
        "position": [0, 1],
        "reward": [0, 0],
        "pscore_cascade": [0.1, 0.2],
    }
    with pytest.raises(BadData, match="slate 5"):
        list(obp_slates.from_slate_feedback(feedback, "x"))
    with pytest.raises(BadData, match="pscore_cascade"):
        list(obp_slates.from_slate_feedback({**feedback, "pscore_cascade": None}, "x"))


def test_columns_that_are_missing_are_named() -> None:
    with pytest.raises(BadData, match="column slate"):
        list(arrow_rows.from_table(arrow_rows.to_table([]).drop_columns(["slate"])))
    row = Decision(
        decision_id="d",
        experiment="x",
        revision="",
        variant=None,
        unit="u",
        policy="p",
        reason="policy",
        decided_at=1,
    )
    table = arrow_rows.to_table([(row, [])])
    broken = table.set_column(table.schema.get_field_index("reason"), "reason", [["nonsense"]])
    with pytest.raises(BadData, match="row 40"):
        list(arrow_rows.from_table(broken, first=40))
    assert msgspec.structs.asdict(row)
