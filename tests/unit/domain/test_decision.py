"""A decision and a reward go into the lake and come back as they were, and a column is added in one
place."""

from __future__ import annotations

from typing import Any

import msgspec
import pyarrow as pa
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from topbill import lake
from topbill.domain import decision as columns
from topbill.domain.decision import (
    DECISION_COLUMNS,
    REWARD_COLUMNS,
    Origin,
    RecordColumn,
    decision_of,
    decision_rows,
    decisions_in,
    event_of,
    read_sql,
    reward_rows,
)
from topbill.domain.records import (
    NULL,
    Decision,
    EntityUse,
    Mask,
    Placement,
    RewardEvent,
    ShadowDecision,
    Stop,
    Terms,
)
from topbill.ope.replay.logged_data import LoggedData
from topbill.testing import a_decision, an_experiment, temporary_lake
from topbill.worker.archive import Span, reader

TEXT = st.text(st.characters(codec="utf-8", exclude_categories=["Cs", "Cc"]), max_size=8)
TIMES = st.integers(1, 2**50)
IDS = ("x", "y", "z")


@st.composite
def decisions(draw: st.DrawFn) -> Decision:
    """Any decision that the log may hold."""
    count = draw(st.integers(0, 3))
    shares = st.floats(1e-9, 1.0)
    slate = tuple(Placement(k, IDS[k], draw(shares)) for k in range(count))
    matrix = tuple(tuple(draw(shares) for _ in IDS) for _ in range(count))
    return Decision(
        decision_id=draw(TEXT),
        experiment=draw(TEXT),
        revision=draw(TEXT),
        variant=draw(st.one_of(st.none(), TEXT)),
        unit=draw(TEXT),
        context=msgspec.Raw(msgspec.json.encode(draw(st.dictionaries(TEXT, TEXT, max_size=2)))),
        actions=draw(st.sampled_from([NULL, msgspec.Raw(b'[{"id":"x"}]')])),
        eligible=IDS,
        slate=slate,
        propensity=draw(shares),
        probabilities=draw(st.sampled_from([None, matrix])),
        policy="thompson",
        policy_version=draw(st.integers(0, 2**40)),
        reason="policy",
        latency_us=draw(st.integers(0, 2**40)),
        decided_at=draw(TIMES),
        page=draw(TEXT),
        layer=draw(TEXT),
        place=draw(TEXT),
        masks=draw(st.sampled_from([(), (Mask("pins", 0, 1, (0, 2), only=True),)])),
        row_weight=draw(st.one_of(st.none(), st.floats(0.01, 1e6))),
        entities=draw(st.sampled_from([(), (EntityUse("titles", "v1", 3, 1),)])),
        stops=draw(st.sampled_from([(), (Stop(1, 0.25, 0.5),)])),
        shadows=draw(st.sampled_from([(), (ShadowDecision("b", (0.5,), ((0.5, 0.5),), 7),)])),
        terms=draw(st.sampled_from([None, Terms(((0, 0.5),), 0.1, ((-3, 0, 0),))])),
    )


@st.composite
def rewards(draw: st.DrawFn) -> RewardEvent:
    """Any reward whose caller's time, where given, is another than that of the receipt."""
    received_at = draw(TIMES)
    return RewardEvent(
        decision_id=draw(TEXT),
        event_id=draw(TEXT),
        event=draw(TEXT),
        value=draw(st.floats(allow_nan=False)),
        action=draw(st.one_of(st.none(), TEXT)),
        position=draw(st.one_of(st.none(), st.integers(0, 9))),
        occurred_at=draw(st.one_of(st.none(), TIMES.filter(lambda at: at != received_at))),
        received_at=received_at,
    )


def read(table: pa.Table, list_of: list[RecordColumn[Any]]) -> list[dict[str, Any]]:
    """The rows of a table as DuckDB gives them back."""
    connection = lake.connect()
    connection.register("rows", table)
    query = f"SELECT {read_sql(list_of)} FROM rows ORDER BY seq"  # noqa: S608  (our own text)
    found: list[dict[str, Any]] = connection.sql(query).to_arrow_table().to_pylist()
    connection.close()
    return found


@settings(max_examples=30)
@given(st.lists(decisions(), min_size=1, max_size=3))
def test_a_decision_comes_back_as_it_was(originals: list[Decision]) -> None:
    rows = read(decision_rows(list(enumerate(originals, 1))), DECISION_COLUMNS)
    assert [row["seq"] for row in rows] == list(range(1, len(originals) + 1))
    for row, original in zip(rows, originals, strict=True):
        restored = decision_of(row)
        assert msgspec.json.encode(restored) == msgspec.json.encode(original)
    # All of a batch at once, by its columns.
    by_column = {name: [row[name] for row in rows] for name in rows[0]}
    together = decisions_in(by_column)
    assert [msgspec.json.encode(one) for one in together] == [
        msgspec.json.encode(one) for one in originals
    ]
    # What was not read is as if it had not been said.
    del by_column["probabilities"]
    assert decisions_in(by_column) == [
        msgspec.structs.replace(one, probabilities=None) for one in together
    ]


@settings(max_examples=30)
@given(st.lists(rewards(), min_size=1, max_size=3))
def test_a_reward_comes_back_as_it_was(originals: list[RewardEvent]) -> None:
    origin = Origin(1, "home", "a", "u", ("x",))
    table = reward_rows([(seq, event, origin) for seq, event in enumerate(originals, 1)])
    assert [event_of(row) for row in read(table, REWARD_COLUMNS)] == originals


@settings(max_examples=30)
@given(st.lists(decisions(), min_size=1, max_size=4))
def test_many_decisions_become_the_rows_that_each_of_them_becomes(
    originals: list[Decision],
) -> None:
    rows = list(enumerate(originals, 1))
    one_by_one = pa.concat_tables([decision_rows([row]) for row in rows])
    assert decision_rows(rows).equals(one_by_one.combine_chunks())


def test_a_column_is_added_in_one_place() -> None:
    """In the table, the view, and what evaluation and the worker read back."""
    added: RecordColumn[Decision] = RecordColumn(
        "request_hash",
        pa.string(),
        lambda decisions: [decision.request_hash for decision in decisions],
        field="request_hash",
    )
    DECISION_COLUMNS.append(added)
    try:
        stored = a_decision("d1", decided_at=1_000_000, request_hash="5eed")
        with temporary_lake([an_experiment()], [stored]) as data:
            database = data / lake.DATABASE
            (row,) = lake.sql(database, "SELECT request_hash FROM decisions").to_pylist()
            types = {
                row["column_name"]: row["column_type"]
                for row in lake.sql(database, "DESCRIBE decisions").to_pylist()
            }
            logged = LoggedData(data, "home")
            try:
                (evaluated,) = [one.decision for one in logged]
            finally:
                logged.close()
            ((_, learned, *_),) = reader(data)(Span("home", 0, 9, 0, 2_000_000), [])
    finally:
        DECISION_COLUMNS.remove(added)
    assert row == {"request_hash": "5eed"}
    assert types["request_hash"] == "VARCHAR"
    assert evaluated.request_hash == learned.request_hash == "5eed"


def test_each_arrow_type_has_one_of_duckdbs() -> None:
    types = columns.sql_types(DECISION_COLUMNS)
    assert types["masks"] == (
        'STRUCT("rule" VARCHAR, "start" BIGINT, "stop" BIGINT, "rows" BIGINT[], "only" BOOLEAN)[]'
    )
    assert (types["decided_at"], types["probabilities"]) == ("TIMESTAMP", "DOUBLE[][]")
    with pytest.raises(TypeError, match="got the Arrow type date32"):
        columns.sql_type(pa.date32())


def test_rows_of_0_1_0_are_read_under_the_names_of_today() -> None:
    """What a body in the log calls its fields is as it was: a row of 0.1.0 is read whole, and one
    of today can be read by 0.1.0."""
    body = b'{"decision_id":"d","experiment":"e","revision":"r","variant":"v","unit":"u",'
    body += b'"policy":"p","reason":"policy","micros":41,"at":7}'
    decision = msgspec.json.decode(body, type=Decision)
    assert (decision.latency_us, decision.decided_at) == (41, 7)
    assert msgspec.json.decode(msgspec.json.encode(decision))["micros"] == 41
    event = msgspec.json.decode(
        b'{"decision_id":"d","event_id":"e","event":"play","at":9}', type=RewardEvent
    )
    assert event.received_at == 9
