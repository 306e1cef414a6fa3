"""The columns of a decision, of a reward and of a unit's event, said once.

Tables, views, and what is read back from them into records are all derived from the lists
`DECISION_COLUMNS`, `REWARD_COLUMNS` and `EVENT_COLUMNS`: a column is added here and nowhere else.
It then stands in the Delta table (older files read as null there), in the analytics database, and
in the records that evaluation, the worker and exports read.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from itertools import chain
from operator import attrgetter
from typing import Any, Generic, TypeVar

import msgspec
import pyarrow as pa

from topbill.domain.arrow_columns import list_array, struct_lists, text_array
from topbill.domain.origin import Origin
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
    UnitEvent,
)

Row = TypeVar("Row")
_TIME = pa.timestamp("us", tz="UTC")
_STRINGS = pa.list_(pa.string())
_NUMBERS = pa.list_(pa.float64())
_MASKS = pa.list_(
    pa.struct(
        {
            "rule": pa.string(),
            "start": pa.int64(),
            "stop": pa.int64(),
            "rows": pa.list_(pa.int64()),
            "only": pa.bool_(),
        }
    )
)
_ENTITIES = pa.list_(
    pa.struct(
        {
            "table": pa.string(),
            "version": pa.string(),
            "asked": pa.int64(),
            "unknown": pa.int64(),
        }
    )
)
_STOPS = pa.list_(
    pa.struct(
        {
            "position": pa.int64(),
            "worth": pa.float64(),
            "probability": pa.float64(),
            "reach": pa.float64(),
            "cost": pa.float64(),
        }
    )
)
_SHADOWS = pa.list_(
    pa.struct(
        {
            "variant": pa.string(),
            "propensities": _NUMBERS,
            "probabilities": pa.list_(_NUMBERS),
            "latency_us": pa.int64(),
            "failure": pa.string(),
        }
    )
)
_TERMS = pa.struct(
    {
        "boosts": pa.list_(pa.struct({"row": pa.int64(), "by": pa.float64()})),
        "diversity": pa.float64(),
        "alike": pa.list_(pa.list_(pa.int64())),
    }
)
SEQ = "seq"
"""The column that every table has beside those of its list: the row's place in the log."""


@dataclass(frozen=True)
class RecordColumn(Generic[Row]):
    """A column of the lake, in both directions.

    Attributes:
        name: Its name in tables and views.
        type: Its Arrow type; `sql_type` is derived from it.
        values: What records have there, one each, or an array of these: asked for many at once,
            since thousands are published every two seconds.
        field: The field of the record that is restored from it; None where nothing is.
        restore: The field's value, from the whole row that was read: a field may need several
            columns. By default the value as it stands.
    """

    name: str
    type: pa.DataType
    values: Callable[[Sequence[Row]], Sequence[Any] | pa.Array]
    field: str | None = None
    restore: Callable[[Mapping[str, Any]], Any] | None = None

    @property
    def sql_type(self) -> str:
        """The DuckDB type in views."""
        return sql_type(self.type)

    def read_sql(self, table: str = "") -> str:
        """SQL that reads it for `restore`, named as the column: times as µs since the epoch."""
        column = f'{table}."{self.name}"' if table else f'"{self.name}"'
        if pa.types.is_timestamp(self.type):
            return f'epoch_us({column}) AS "{self.name}"'
        return column


LoggedReward = tuple[RewardEvent, Origin]


# ------------------------------------------------------------------ how fields look in a table


def _contexts(decisions: Sequence[Decision]) -> pa.Array:
    return text_array([decision.context for decision in decisions])


def _actions(decisions: Sequence[Decision]) -> pa.Array:
    # NULL is JSON's null. A table has a "nothing" of its own, which counts and conditions know.
    offered = [decision.actions for decision in decisions]
    return text_array([None if raw is NULL or raw == NULL else raw for raw in offered])


def _each(name: str) -> Callable[[Sequence[Any]], list[Any]]:
    """A field of each record. `map` keeps it in C."""
    get = attrgetter(name)
    return lambda records: list(map(get, records))


def _eligible(decisions: Sequence[Decision]) -> pa.Array:
    ids = list(chain.from_iterable([decision.eligible for decision in decisions]))
    return list_array([len(decision.eligible) for decision in decisions], ids, _STRINGS)


def _placed(name: str, type_: pa.DataType) -> Callable[[Sequence[Decision]], pa.Array]:
    """A field of what was placed."""
    get = attrgetter(name)

    def values(decisions: Sequence[Decision]) -> pa.Array:
        slates = [decision.slate for decision in decisions]
        items = list(map(get, chain.from_iterable(slates)))
        return list_array(list(map(len, slates)), items, type_)

    return values


def _structs_of(name: str, type_: pa.DataType) -> Callable[[Sequence[Decision]], pa.Array]:
    """A field that is a tuple of structs."""
    get = attrgetter(name)
    return lambda decisions: struct_lists(list(map(get, decisions)), type_)


def _actions_raw(row: Mapping[str, Any]) -> msgspec.Raw:
    text = row["actions"]
    return NULL if text is None else msgspec.Raw(text.encode())


def _slate(row: Mapping[str, Any]) -> tuple[Placement, ...]:
    drawn = zip(row["slate"], row["propensities"], strict=True)
    return tuple(Placement(k, action, propensity) for k, (action, propensity) in enumerate(drawn))


def _matrix(row: Mapping[str, Any]) -> tuple[tuple[float, ...], ...] | None:
    matrix = row["probabilities"]
    return None if matrix is None else tuple(map(tuple, matrix))


def _shadows(row: Mapping[str, Any]) -> tuple[ShadowDecision, ...]:
    # Null in files that were written before there were any.
    shadows = []
    for shadow in row["shadows"] or ():
        drawn = {"propensities": tuple(shadow["propensities"]), "probabilities": _matrix(shadow)}
        shadows.append(ShadowDecision(**{**shadow, **drawn}))
    return tuple(shadows)


def _masks(row: Mapping[str, Any]) -> tuple[Mask, ...]:
    # Null in files of tables that were made before pages were.
    masks = []
    for mask in row["masks"] or ():
        masks.append(Mask(**{**mask, "rows": tuple(mask["rows"])}))
    return tuple(masks)


def _entities(row: Mapping[str, Any]) -> tuple[EntityUse, ...]:
    # Null in files of tables that were made before there were any.
    return tuple([EntityUse(**use) for use in row["entities"] or ()])


def _stops(row: Mapping[str, Any]) -> tuple[Stop, ...]:
    # Null in files that were written before lengths were drawn.
    return tuple(Stop(**stop) for stop in row["stops"] or ())


def _terms_row(terms: Terms | None) -> dict[str, Any] | None:
    if terms is None:
        return None
    boosts = [{"row": row, "by": by} for row, by in terms.boosts]
    return {"boosts": boosts, "diversity": terms.diversity, "alike": terms.alike}


def _terms(row: Mapping[str, Any]) -> Terms | None:
    terms = row["terms"]
    if terms is None:
        return None
    boosts = tuple((boost["row"], boost["by"]) for boost in terms["boosts"])
    return Terms(boosts, terms["diversity"], tuple(map(tuple, terms["alike"])))


def _plain(name: str, type_: pa.DataType) -> RecordColumn[Decision]:
    """A column that is a field as it is."""
    return RecordColumn(name, type_, _each(name), field=name)


def _optional(name: str) -> RecordColumn[Decision]:
    """A text that is empty where there is none, and null in the table."""
    get = attrgetter(name)
    return RecordColumn(
        name,
        pa.string(),
        lambda decisions: [text or None for text in map(get, decisions)],
        field=name,
        restore=lambda row: row[name] or "",
    )


DECISION_COLUMNS: list[RecordColumn[Decision]] = [
    _plain("decision_id", pa.string()),
    _plain("decided_at", _TIME),
    _plain("experiment", pa.string()),
    _plain("revision", pa.string()),
    _plain("variant", pa.string()),
    _plain("unit", pa.string()),
    RecordColumn(
        "context",
        pa.string(),
        _contexts,
        field="context",
        restore=lambda row: msgspec.Raw(row["context"].encode()),
    ),
    RecordColumn("actions", pa.string(), _actions, field="actions", restore=_actions_raw),
    RecordColumn(
        "eligible",
        _STRINGS,
        _eligible,
        field="eligible",
        restore=lambda row: tuple(row["eligible"]),
    ),
    RecordColumn(
        "slate",
        _STRINGS,
        _placed("action", _STRINGS),
        field="slate",
        restore=_slate,
    ),
    RecordColumn(
        "propensities",
        _NUMBERS,
        _placed("propensity", _NUMBERS),
    ),
    _plain("propensity", pa.float64()),
    RecordColumn(
        "probabilities",
        pa.list_(_NUMBERS),
        _each("probabilities"),
        field="probabilities",
        restore=_matrix,
    ),
    _plain("policy", pa.string()),
    _plain("policy_version", pa.int64()),
    _plain("reason", pa.string()),
    _plain("latency_us", pa.int64()),
    _optional("page"),
    _optional("layer"),
    _optional("place"),
    RecordColumn("masks", _MASKS, _structs_of("masks", _MASKS), field="masks", restore=_masks),
    # Null is 1: whoever averages takes coalesce(row_weight, 1).
    _plain("row_weight", pa.float64()),
    RecordColumn(
        "entities",
        _ENTITIES,
        _structs_of("entities", _ENTITIES),
        field="entities",
        restore=_entities,
    ),
    RecordColumn("stops", _STOPS, _structs_of("stops", _STOPS), field="stops", restore=_stops),
    RecordColumn(
        "shadows", _SHADOWS, _structs_of("shadows", _SHADOWS), field="shadows", restore=_shadows
    ),
    RecordColumn(
        "terms",
        _TERMS,
        lambda decisions: [_terms_row(decision.terms) for decision in decisions],
        field="terms",
        restore=_terms,
    ),
]
"""What the lake has of a decision, in the order of view `decisions`; its `seq` comes last."""


def _of_event(name: str, type_: pa.DataType) -> RecordColumn[LoggedReward]:
    get = attrgetter(name)
    return RecordColumn(name, type_, lambda rows: [get(event) for event, _ in rows], field=name)


def _of_origin(name: str, type_: pa.DataType) -> RecordColumn[LoggedReward]:
    get = attrgetter(name)
    return RecordColumn(name, type_, lambda rows: [get(origin) for _, origin in rows])


def _occurred_at(event: RewardEvent | UnitEvent) -> int:
    return event.received_at if event.occurred_at is None else event.occurred_at


REWARD_COLUMNS: list[RecordColumn[LoggedReward]] = [
    _of_event("decision_id", pa.string()),
    _of_event("event_id", pa.string()),
    _of_event("event", pa.string()),
    _of_event("value", pa.float64()),
    _of_event("action", pa.string()),
    _of_event("position", pa.int64()),
    # When it happened: the caller's time where given, else the time of receipt.
    RecordColumn(
        "occurred_at",
        _TIME,
        lambda rows: [_occurred_at(event) for event, _ in rows],
        field="occurred_at",
        restore=lambda row: (
            None if row["occurred_at"] == row["received_at"] else row["occurred_at"]
        ),
    ),
    _of_event("received_at", _TIME),
    # A reward carries what is asked of its decision most: so metrics by variant and unit need no
    # join of millions.
    _of_origin("experiment", pa.string()),
    _of_origin("variant", pa.string()),
    _of_origin("unit", pa.string()),
    _of_origin("decided_at", _TIME),
    RecordColumn("item", pa.string(), lambda rows: [origin.item(event) for event, origin in rows]),
]
"""What the lake has of a reward, in the order of view `rewards`; its `seq` comes last."""


def _of_unit(name: str, type_: pa.DataType) -> RecordColumn[UnitEvent]:
    return RecordColumn(name, type_, _each(name))


EVENT_COLUMNS: list[RecordColumn[UnitEvent]] = [
    _of_unit("unit", pa.string()),
    _of_unit("unit_type", pa.string()),
    _of_unit("event", pa.string()),
    _of_unit("value", pa.float64()),
    _of_unit("action", pa.string()),
    # As of a reward: the caller's time where given, else the time of receipt.
    RecordColumn(
        "occurred_at",
        _TIME,
        lambda events: [_occurred_at(event) for event in events],
    ),
    _of_unit("received_at", _TIME),
    _of_unit("event_id", pa.string()),
]
"""What the lake has of an event of a unit, in the order of view `events`. The table has its `seq`
too; the view has not, so that it says the same in whatever order events came."""


# ------------------------------------------------------------------ what is derived


def schema(columns: Iterable[RecordColumn[Any]]) -> pa.Schema:
    """The Arrow schema of a table with these columns."""
    fields = [pa.field(SEQ, pa.int64())]
    for column in columns:
        fields.append(pa.field(column.name, column.type))
    return pa.schema(fields)


def sql_types(columns: Iterable[RecordColumn[Any]]) -> dict[str, str]:
    """Name → DuckDB type of a view with these columns."""
    types = {column.name: column.sql_type for column in columns}
    return {**types, SEQ: "BIGINT"}


def sql_type(type_: pa.DataType) -> str:
    """The DuckDB type in which views show an Arrow type. Times are UTC, without a zone: DuckDB
    needs an extension for zones. Raises TypeError for one that no column has had yet."""
    if pa.types.is_timestamp(type_):
        return "TIMESTAMP"
    if pa.types.is_list(type_):
        return f"{sql_type(type_.value_type)}[]"
    if pa.types.is_struct(type_):
        fields = [f'"{field.name}" {sql_type(field.type)}' for field in type_]
        return f"STRUCT({', '.join(fields)})"
    for arrow, name in _SQL_TYPES:
        if type_ == arrow:
            return name
    raise TypeError(f"got the Arrow type {type_}; expected one with an entry in _SQL_TYPES")


_SQL_TYPES = [
    (pa.string(), "VARCHAR"),
    (pa.int64(), "BIGINT"),
    (pa.float64(), "DOUBLE"),
    (pa.bool_(), "BOOLEAN"),
]


def decision_rows(rows: Sequence[tuple[int, Decision]]) -> pa.Table:
    """Decisions with their `seq` as the columns of the lake's `decisions`."""
    decisions = [decision for _, decision in rows]
    return _table([seq for seq, _ in rows], decisions, DECISION_COLUMNS)


def reward_rows(rows: Sequence[tuple[int, RewardEvent, Origin]]) -> pa.Table:
    """Reward events with their `seq` and their decision's origin as the columns of the lake's
    `rewards`."""
    events = [(event, origin) for _, event, origin in rows]
    return _table([seq for seq, _, _ in rows], events, REWARD_COLUMNS)


def unit_event_rows(rows: Sequence[tuple[int, UnitEvent]]) -> pa.Table:
    """Events of units with their `seq` as the columns of the lake's `events`."""
    return _table([seq for seq, _ in rows], [event for _, event in rows], EVENT_COLUMNS)


def _table(
    seqs: list[int], records: Sequence[Row], columns: Sequence[RecordColumn[Row]]
) -> pa.Table:
    arrays: dict[str, Sequence[Any] | pa.Array] = {SEQ: seqs}
    for column in columns:
        arrays[column.name] = column.values(records)
    return pa.table(arrays, schema=schema(columns))


def read_sql(columns: Iterable[RecordColumn[Any]], table: str = "") -> str:
    """What to SELECT, `seq` first, so that `decision_of` and `event_of` can restore records."""
    names = [f"{table}.{SEQ}" if table else SEQ]
    for column in columns:
        names.append(column.read_sql(table))
    return ", ".join(names)


def decision_of(row: Mapping[str, Any]) -> Decision:
    """The decision that a row of `read_sql(DECISION_COLUMNS)` says."""
    return Decision(**_fields(row, DECISION_COLUMNS))


class _BatchRow(Mapping[str, Any]):
    """A row of columns, read where it is asked for: most of a batch's values never are."""

    __slots__ = ("_columns", "number")

    def __init__(self, columns: Mapping[str, list[Any]]) -> None:
        self._columns, self.number = columns, 0

    def __getitem__(self, name: str) -> Any:
        return self._columns[name][self.number]

    def __iter__(self) -> Iterator[str]:
        return iter(self._columns)

    def __len__(self) -> int:
        return len(self._columns)


def decisions_in(columns: Mapping[str, list[Any]]) -> list[Decision]:
    """What `decision_of` says of each row of a batch, given as its columns: in half the time, since
    what no decision of the batch has is restored once. Fields whose columns were not read have
    their defaults.
    """
    count = len(columns[SEQ])
    row = _BatchRow(columns)
    fields: dict[str, Sequence[Any]] = {}
    for column in DECISION_COLUMNS:
        if column.field is None or column.name not in columns:
            continue
        values, restore = columns[column.name], column.restore
        if restore is None:
            fields[column.field] = values
        elif count and (values[0] is None or values[0] == []) and values.count(values[0]) == count:
            row.number = 0
            fields[column.field] = [restore(row)] * count
        else:
            restored = []
            for row.number in range(count):
                restored.append(restore(row))
            fields[column.field] = restored
    names = tuple(fields)
    return [
        Decision(**dict(zip(names, values, strict=True)))
        for values in zip(*fields.values(), strict=True)
    ]


def event_of(row: Mapping[str, Any]) -> RewardEvent:
    """The event that a row of `read_sql(REWARD_COLUMNS)` says."""
    return RewardEvent(**_fields(row, REWARD_COLUMNS))


def _fields(row: Mapping[str, Any], columns: Iterable[RecordColumn[Any]]) -> dict[str, Any]:
    fields = {}
    for column in columns:
        if column.field is not None:
            restore = column.restore
            fields[column.field] = row[column.name] if restore is None else restore(row)
    return fields


def events_sql(rewards: str) -> str:
    """A DuckDB aggregate: the events of one decision in the order of the log, as a list of structs
    for `event_of`; `rewards` is the alias of the view."""
    # Its place first, by which an engine without ORDER BY in a list sorts.
    pairs = [f"'{SEQ}': {rewards}.{SEQ}"]
    for column in REWARD_COLUMNS:
        if column.field is not None:
            expression = column.read_sql(rewards).removesuffix(f' AS "{column.name}"')
            pairs.append(f"'{column.name}': {expression}")
    return f"list({{{', '.join(pairs)}}} ORDER BY {rewards}.{SEQ})"
