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
from topbill.formats.rows import Row

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
# Fields of a decision without a column, with their defaults: `more` holds what differs from them.
_MORE = {
    field.name: field.default
    for field in msgspec.structs.fields(Decision)
    if field.name not in SCHEMA.names
}
# Field → the name under which `msgspec.convert` looks for it.
_STORED = {
    field.name: field.encode_name
    for kind in (RewardEvent, Decision)
    for field in msgspec.structs.fields(kind)
}


def to_table(rows: Sequence[Row]) -> pa.Table:
    """The rows as a table of SCHEMA."""
    columns: dict[str, list[Any]] = {name: [] for name in SCHEMA.names}
    for decision, events in rows:
        for name in _PLAIN:
            columns[name].append(getattr(decision, name))
        actions = decision.actions
        columns["context"].append(bytes(decision.context))
        columns["actions"].append(None if actions == NULL else bytes(actions))
        columns["eligible"].append(decision.eligible)
        columns["slate"].append([msgspec.structs.asdict(placed) for placed in decision.slate])
        columns["probabilities"].append(decision.probabilities)
        columns["events"].append([msgspec.structs.asdict(event) for event in events])
        columns["more"].append(_more(decision))
    return pa.table(columns, schema=SCHEMA)


def from_table(table: pa.Table | pa.RecordBatch, first: int = 0) -> Iterator[Row]:
    """The rows of a table.

    Args:
        table: With the columns of SCHEMA, in any order.
        first: The number of its first row, for errors.

    Raises:
        BadData: Naming the row, for what is no export of ours.
    """
    if "at" in table.schema.names:
        # Exports of 0.1.0 call it so; in their events and in `more` it is the stored name anyway.
        names = ["decided_at" if name == "at" else name for name in table.schema.names]
        table = table.rename_columns(names)
    for name in SCHEMA.names:
        if name not in table.schema.names:
            raise BadData(
                f"column {name}", f"not there; expected the columns {', '.join(SCHEMA.names)}"
            )
    try:
        # What Arrow itself does not look at is not to be trusted: damaged offsets crash it.
        table.validate(full=True)
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
    """The decision and its events; msgspec checks every type."""
    fields = {name: row[name] for name in _PLAIN}
    fields |= msgspec.json.decode(row["more"] or "{}")
    fields["eligible"] = row["eligible"]
    fields["slate"] = [Placement(**placed) for placed in row["slate"]]
    fields["probabilities"] = row["probabilities"]
    decision = msgspec.convert(_stored(fields), Decision)
    # JSON texts go around the conversion: it takes no bytes for them.
    actions = row["actions"]
    decision = msgspec.structs.replace(
        decision,
        context=msgspec.Raw(row["context"].encode()),
        actions=NULL if actions is None else msgspec.Raw(actions.encode()),
    )
    events: list[RewardEvent] = []
    for event in row["events"]:
        own = {**_stored(event), "decision_id": row["decision_id"]}
        events.append(msgspec.convert(own, RewardEvent))
    return decision, events


def _stored(fields: dict[str, Any]) -> dict[str, Any]:
    return {_STORED.get(name, name): value for name, value in fields.items()}


def _more(decision: Decision) -> str | None:
    """The fields that have no column and are not what they are by default, as JSON."""
    more: dict[str, Any] = {}
    for name, default in _MORE.items():
        value = getattr(decision, name)
        if value != default:
            more[name] = value
    return msgspec.json.encode(more).decode() if more else None
