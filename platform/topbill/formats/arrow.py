"""Decisions with their reward events as Arrow columns: what Parquet, Arrow and Delta files of an
export hold.

One row a decision, its events nested. Fields without a column of their own are kept as JSON in
`more`.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from typing import Any

import msgspec
import pyarrow as pa

from topbill.domain.errors import BadData
from topbill.domain.records import NULL, Decision, Placement, RewardEvent

Row = tuple[Decision, list[RewardEvent]]
_PLACEMENT = pa.struct({"position": pa.int64(), "action": pa.string(), "propensity": pa.float64()})
_EVENT = pa.struct(
    {
        "event_id": pa.string(),
        "event": pa.string(),
        "value": pa.float64(),
        "action": pa.string(),
        "position": pa.int64(),
        "occurred_at": pa.int64(),
        "received_at": pa.int64(),
    }
)
_PLAIN: dict[str, pa.DataType] = {
    "decision_id": pa.string(),
    "experiment": pa.string(),
    "revision": pa.string(),
    "variant": pa.string(),
    "unit": pa.string(),
    "propensity": pa.float64(),
    "policy": pa.string(),
    "policy_version": pa.int64(),
    "reason": pa.string(),
    "decided_at": pa.int64(),
}
SCHEMA = pa.schema(
    {
        **_PLAIN,
        "context": pa.string(),
        "actions": pa.string(),
        "eligible": pa.list_(pa.string()),
        "slate": pa.list_(_PLACEMENT),
        "probabilities": pa.list_(pa.list_(pa.float64())),
        "events": pa.list_(_EVENT),
        "more": pa.string(),
    }
)
_MORE = [f.name for f in msgspec.structs.fields(Decision) if f.name not in SCHEMA.names]
_STORED = {
    field.name: field.encode_name
    for kind in (RewardEvent, Decision)
    for field in msgspec.structs.fields(kind)
}
"""Field → the name under which `msgspec.convert` looks for it."""
_DEFAULTS = {f.name: f.default for f in msgspec.structs.fields(Decision)}


def to_table(rows: Sequence[Row]) -> pa.Table:
    """The rows as a table of SCHEMA."""
    decisions = [decision for decision, _ in rows]
    columns: dict[str, list[Any]] = {name: [getattr(d, name) for d in decisions] for name in _PLAIN}
    columns["context"] = [bytes(d.context) for d in decisions]
    columns["actions"] = [None if d.actions == NULL else bytes(d.actions) for d in decisions]
    columns["eligible"] = [d.eligible for d in decisions]
    columns["slate"] = [[msgspec.structs.asdict(placed) for placed in d.slate] for d in decisions]
    columns["probabilities"] = [d.probabilities for d in decisions]
    columns["events"] = [[msgspec.structs.asdict(event) for event in events] for _, events in rows]
    columns["more"] = [_more(d) for d in decisions]
    return pa.table(columns, schema=SCHEMA)


def from_table(table: pa.Table | pa.RecordBatch, first: int = 0) -> Iterator[Row]:
    """The rows of a table. Raises BadData, naming the row counted from `first`, for what is no
    export of ours.
    """
    if "at" in table.schema.names:
        # Exports of 0.1.0 call it so; in their events and in `more` it is the stored name anyway.
        names = ["decided_at" if name == "at" else name for name in table.schema.names]
        table = table.rename_columns(names)
    missing = [name for name in SCHEMA.names if name not in table.schema.names]
    if missing:
        raise BadData(
            f"column {missing[0]}", f"not there; expected the columns {', '.join(SCHEMA.names)}"
        )
    try:
        table.validate(
            full=True
        )  # what Arrow itself does not look at is not to be trusted: damaged offsets crash it
        rows = table.select(SCHEMA.names).to_pylist()
    except (pa.ArrowException, UnicodeDecodeError) as error:
        raise BadData(
            f"after row {first}", f"{error}; expected rows as an export writes them"
        ) from None
    for number, row in enumerate(rows, first):
        try:
            yield _row(row)
        except (AttributeError, TypeError, ValueError) as error:
            raise BadData(
                f"row {number}", f"{error}; expected a row as an export writes it"
            ) from None


def _row(row: dict[str, Any]) -> Row:
    plain = {name: row[name] for name in _PLAIN}
    more = msgspec.json.decode(row["more"] or "{}")
    actions = row["actions"]
    decision = msgspec.convert(
        _stored(plain)
        | _stored(more)
        | {
            "eligible": row["eligible"],
            "slate": [Placement(**placed) for placed in row["slate"]],
            "probabilities": row["probabilities"],
        },
        Decision,
    )
    decision = msgspec.structs.replace(
        decision,
        context=msgspec.Raw(row["context"].encode()),
        actions=NULL if actions is None else msgspec.Raw(actions.encode()),
    )
    events = [
        msgspec.convert({**_stored(event), "decision_id": row["decision_id"]}, RewardEvent)
        for event in row["events"]
    ]
    return decision, events


def _stored(fields: dict[str, Any]) -> dict[str, Any]:
    return {_STORED.get(name, name): value for name, value in fields.items()}


def _more(decision: Decision) -> str | None:
    """The fields that have no column and are not what they are by default, as JSON."""
    held = {name: getattr(decision, name) for name in _MORE}
    held = {name: value for name, value in held.items() if value != _DEFAULTS[name]}
    return msgspec.json.encode(held).decode() if held else None
