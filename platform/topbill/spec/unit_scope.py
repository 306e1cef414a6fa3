"""What a metric of `scope: unit` may say: it is of what a unit did, of whatever decision."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from topbill.domain.metric import METRIC_KINDS
from topbill.domain.table_source import DATABASES, TableSource, table_event
from topbill.spec.fields import SECONDS, Location, Verbatim

Content = Mapping[str, Any]


def is_of_units(parts: Content) -> bool:
    """Whether a metric is of what units did: it says so, or only that has days."""
    return parts.get("scope") == "unit" or "from" in parts or has_day(parts)


def has_day(parts: Content) -> bool:
    """Whether a metric, as a file has it, counts on a day instead of in a window."""
    return "day" in parts or _is_of_a_day(parts)


def read_unit_scope(name: str, parts: Content, content: Content, at: Location) -> dict[str, Any]:
    """The fields of a metric of scope unit, after a problem for each key that it cannot mean.

    Args:
        name: The metric's.
        parts: What could be read of the metric.
        content: What could be read of the file.
        at: The file's place.
    """
    where = at.key("metrics").key(name)
    _check_day(parts, where)
    if "from" in parts:
        _check_table(parts, where)
    if "unit" not in content and not at.has_problem("unit"):
        where.key("from" if "from" in parts else "scope").wrong(
            Verbatim("a table joined by unit") if "from" in parts else "unit",
            "a unit: in this file, by whose name events and tables say whose they are",
            "for example unit: profile_id",
        )
    if parts.get("per") == "decision":
        where.key("per").wrong("decision", "unit or nothing, since scope: unit")
    if name in content.get("objective", {}):
        # A decision's policy would be taught by what all decisions of the unit brought about.
        at.key("objective").key(name).wrong(
            Verbatim("a metric of scope: unit"),
            "metrics of decisions, since policies learn from decisions",
            "leave it out here: the report compares it, and a guardrail may watch it",
        )
    fields = {**parts, "scope": "unit", "per": "unit"}
    source = fields.pop("from", None)
    if source is not None:
        fields["event"] = table_event(name)
        source = _with_columns(source, parts.get("kind"))
        # What could not be read of it was told, and then there is no experiment.
        if "unit" in source:
            fields["table"] = TableSource(**source)
    if "day" in parts:
        # The longest that it can take: a decision at the first moment of its day.
        fields["window"] = float((parts["day"] + 1) * SECONDS["d"])
        fields["time_zone"] = content.get("time_zone", "UTC")
    return fields


def _is_of_a_day(parts: Content) -> bool:
    kind = parts.get("kind")
    # Whatever stands there: this may be asked before it was read.
    return isinstance(kind, str) and kind in METRIC_KINDS and METRIC_KINDS[kind].of_a_day


def _check_day(parts: Content, where: Location) -> None:
    """A day where the kind needs one, in place of a window; and no decision's."""
    if not _is_of_a_day(parts):
        if "day" in parts and "kind" in parts:
            kinds = [name for name, kind in METRIC_KINDS.items() if kind.of_a_day]
            expected = f"a window, since kind: {parts['kind']}"
            where.key("day").wrong(parts["day"], expected, f"a day is for {', '.join(kinds)}")
        return
    kind = parts["kind"]
    if "day" not in parts and not where.has_problem("day"):
        where.key("day").wrong(
            Verbatim("nothing"), f"the day after the first decision, since kind: {kind}", "day: 7"
        )
    if "window" in parts:
        where.key("window").wrong(
            Verbatim("a window"), f"none, since kind: {kind}", "its day says when events count"
        )
    if parts.get("scope") == "decision":
        where.key("scope").wrong("decision", f"unit or nothing, since kind: {kind}")


def _with_columns(source: Content, kind: Any) -> Content:
    """What a table says of its columns. SQL can call them as they are called here."""
    if "sql" not in source:
        return source
    usual = {"unit": "unit"}
    if kind in METRIC_KINDS and METRIC_KINDS[kind].takes_value:
        usual["value"] = "value"
    return {**usual, **source}


def _check_table(parts: Content, where: Location) -> None:
    """A metric of a table: its columns are those that the kind needs, and it is no decision's."""
    source, at = parts["from"], where.key("from")
    if parts.get("scope") == "decision":
        where.key("scope").wrong("decision", "unit or nothing, since a table is joined by unit")
    if isinstance(parts.get("covariate"), float):
        where.key("covariate").wrong(
            Verbatim("a time to look back"),
            "a number in context: a table is not read before the first decision",
        )
    if "kind" in parts:
        _check_columns(parts["kind"], _with_columns(source, parts["kind"]), at)
    for name in ("file", "table"):
        if "sql" in source and name in source:
            at.key("sql").wrong(source["sql"], f"no sql beside a {name}", "leave out one of them")
            return
    if "file" not in source:
        return
    is_database = source["file"].endswith(DATABASES)
    if is_database and "table" not in source and not at.has_problem("table"):
        at.key("table").wrong(Verbatim("nothing"), "the table of the database", "table: orders")
    if not is_database and "table" in source:
        at.key("table").wrong(source["table"], f"no table, since {source['file']} is one itself")


def _check_columns(kind: str, source: Content, at: Location) -> None:
    takes_value = METRIC_KINDS[kind].takes_value
    if kind == "distinct":
        at.wrong(Verbatim("a table"), "no kind: distinct, since its rows speak of no items")
    elif takes_value and "value" not in source and not at.has_problem("value"):
        at.key("value").wrong(Verbatim("nothing"), f"the column of numbers, since kind: {kind}")
    elif not takes_value and "value" in source:
        at.key("value").wrong(source["value"], f"no value, since a {kind} counts rows")
    # Without a time no row is the first, the last, or of a day.
    is_ordered = kind in ("last", "earliest") or METRIC_KINDS[kind].of_a_day
    if is_ordered and "at" not in source and not at.has_problem("at"):
        at.key("at").wrong(Verbatim("nothing"), f"the column of times, since kind: {kind}")
