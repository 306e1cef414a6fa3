"""What a metric is: the events of one name inside a window, made one number.

`METRIC_KINDS` is the one definition of each kind, in Python for the learner and in SQL for
everything that reads the lake. A kind is added there and nowhere else: validation, JSON Schema,
learning, lake, reports, evaluation and simulation all read the table, and the property test that
holds Python and SQL together runs over it.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass
from types import MappingProxyType
from typing import Literal, TypeAlias

from topbill.domain.errors import BadRequest
from topbill.domain.sql import identifier, number, quoted
from topbill.domain.table_source import TableSource

TimedValue: TypeAlias = tuple[float, float]
"""An event as a metric sees it: its value, and how many seconds after the decision it happened."""

# The columns of view `rewards` that a metric reads; `r` is the view's name in every query here.
_EVENT = "r.event"
_VALUE = "r.value"
_OCCURRED_AT = "r.occurred_at"
_DECIDED_AT = "r.decided_at"
_ITEM = "r.item"
# Events of one moment keep the order of the log in both languages, so that `last` and `earliest`
# name the same event whoever computes them.
_IN_ORDER = f"({_OCCURRED_AT}, r.seq)"
Per = Literal["decision", "unit"]
"""What a metric is a number of."""
Scope = Literal["decision", "unit"]
"""What the events of a metric belong to: a decision (rewards), or a unit, whatever was decided."""
_OWN_COLUMNS = ("decision_id", "variant", "unit", "decided_at", "objective")
"""What a view of metrics has beside the metrics themselves."""


@dataclass(frozen=True)
class MetricKind:
    """How the events of a decision that are inside the window become one number.

    Attributes:
        fold: Computes it from the events, at least one, in the order of the log.
        sql: The same as a DuckDB aggregate, NULL where no event is inside. `{value}` stands for
            the event's value, `{order}` for something to order events by, and `{inside}` for the
            FILTER clause, which must follow each aggregate function.
        takes_value: Whether the values of the events matter. Where they don't, a decision without
            an event is 0 and the metric can have no other `default`.
        cap: Where the number's upper end comes from, by which the objective scales it: "fixed"
            where it is 0 or 1, "optional" where the events' values have an end (1 unless said),
            "required" where it grows with the number of events.
        summary: What it is, in a few words, for the documentation.
        of_a_day: Whether events count on one day, which the metric names, instead of in a window.
        is_learned: Whether the objective may weigh it: whether it is a number of each decision that
            an item of it can have earned.
        made_of: The keys by which a kind names the other metrics that it is made of; empty where it
            is made of events.
    """

    fold: Callable[[Sequence[TimedValue]], float]
    sql: str
    takes_value: bool
    cap: Literal["fixed", "optional", "required"]
    summary: str
    of_a_day: bool = False
    is_learned: bool = True
    made_of: tuple[str, ...] = ()

    @property
    def adds_up(self) -> bool:
        """Whether a unit's number is the sum of its decisions'."""
        return self.cap == "required" and self.is_learned

    @property
    def is_proportion(self) -> bool:
        """Whether the number is 0 or 1, so that its mean is a share of decisions."""
        return self.cap == "fixed" and not self.made_of


def _binary(_events: Sequence[TimedValue]) -> float:
    return 1.0


def _count(events: Sequence[TimedValue]) -> float:
    return float(len(events))


def _max(events: Sequence[TimedValue]) -> float:
    return max(value for value, _ in events)


def _sum(events: Sequence[TimedValue]) -> float:
    # Exactly rounded: the sum must not depend on how the events happened to be ordered.
    values = [value for value, _ in events]
    try:
        return math.fsum(values)
    except OverflowError:
        # An imported log may hold any number: it must not stop learning. Each value is divided
        # first, so that the sign of the sum is found without overflowing again.
        scaled_sum = sum(value / len(values) for value in values)
        return math.inf if scaled_sum > 0.0 else -math.inf


def _mean(events: Sequence[TimedValue]) -> float:
    return _sum(events) / len(events)


def _last(events: Sequence[TimedValue]) -> float:
    latest_value, latest = events[0]
    for value, seconds in events[1:]:
        # ≥, not >: of events of the same moment, the one that the log has last counts.
        if seconds >= latest:
            latest_value, latest = value, seconds
    return latest_value


def _earliest(events: Sequence[TimedValue]) -> float:
    # `min` answers with the first of equals: of events of the same moment, the log's first.
    value, _ = min(events, key=lambda event: event[1])
    return value


def _distinct(events: Sequence[TimedValue]) -> float:
    # Behind value and time stands the item that the event speaks of, where somebody asks.
    items = {event[2:] for event in events}
    return float(len(items - {(), (None,)}))


def _of_metrics(_events: Sequence[TimedValue]) -> float:
    raise BadRequest("metrics", "a metric of other metrics is no number of one decision's events")


_KINDS: dict[str, MetricKind] = {
    "binary": MetricKind(
        fold=_binary,
        sql="max(1.0::DOUBLE) {inside}",
        takes_value=False,
        cap="fixed",
        summary="1 if any event came, else 0",
    ),
    "max": MetricKind(
        fold=_max,
        sql="max({value}) {inside}",
        takes_value=True,
        cap="optional",
        summary="the largest value",
    ),
    "sum": MetricKind(
        fold=_sum,
        sql="fsum({value}) {inside}",
        takes_value=True,
        cap="required",
        summary="the sum of the values",
    ),
    "count": MetricKind(
        fold=_count,
        # NULL, not 0, where none is inside, as the other aggregates have it.
        sql="nullif(count(*) {inside}, 0)::DOUBLE",
        takes_value=False,
        cap="required",
        summary="how many events came",
    ),
    "mean": MetricKind(
        fold=_mean,
        sql="favg({value}) {inside}",
        takes_value=True,
        cap="optional",
        summary="the mean of the values",
    ),
    "last": MetricKind(
        fold=_last,
        sql="arg_max({value}, {order}) {inside}",
        takes_value=True,
        cap="optional",
        summary="the value of the event that happened last",
    ),
    "earliest": MetricKind(
        fold=_earliest,
        sql="arg_min({value}, {order}) {inside}",
        takes_value=True,
        cap="optional",
        summary="the value of the event that happened first",
    ),
    "retention": MetricKind(
        fold=_binary,
        sql="max(1.0::DOUBLE) {inside}",
        takes_value=False,
        cap="fixed",
        summary="1 if any event came on the metric's `day` after the unit's first decision, else 0",
        of_a_day=True,
    ),
    "distinct": MetricKind(
        fold=_distinct,
        sql=(
            f"CASE WHEN count(*) {{inside}} > 0 "
            f"THEN (count(DISTINCT {_ITEM}) {{inside}})::DOUBLE END"
        ),
        takes_value=False,
        cap="required",
        summary="how many different items the events speak of",
        is_learned=False,
    ),
    "ratio": MetricKind(
        fold=_of_metrics,
        sql="",
        takes_value=False,
        cap="fixed",
        summary="the total of one metric ÷ the total of another",
        is_learned=False,
        made_of=("numerator", "denominator"),
    ),
    "quantile": MetricKind(
        fold=_of_metrics,
        sql="",
        takes_value=True,
        cap="fixed",
        summary="the q-quantile of a metric, over those with such an event",
        is_learned=False,
        made_of=("of",),
    ),
}
METRIC_KINDS: Mapping[str, MetricKind] = MappingProxyType(_KINDS)
"""Every kind of metric by the name that an experiment file gives it."""


def event_kinds() -> list[str]:
    """The names of the kinds that are made of events, not of other metrics."""
    return [name for name, kind in METRIC_KINDS.items() if not kind.made_of]


@dataclass(frozen=True)
class Metric:
    """What is computed of a decision's events of one name inside a window (seconds after the
    decision).

    `kind` is one of `METRIC_KINDS`. The objective scales it from [`floor`, `cap`] to [0, 1];
    `default` is its value without an event. `better` says which direction is good, for reading the
    report; `covariate` what of a unit's past takes noise out of it: so many seconds of its own
    events before the unit's first decision, or a number of the context as it came with that
    decision.
    `per` says whether the report reads it of each decision or of each unit, whose decisions' events
    are then taken together; policies learn from decisions either way. `capped` says that the file
    gives its cap or floor. Of `scope` unit it is computed of what the unit did after its first
    decision, which no policy learns from. With a `day` events count on that calendar day of
    `time_zone` (an IANA name), where day 0 is that of the decision; `window` then is how long that
    is at most.
    `winsorise` is the quantile above which the report counts values as it.
    A ratio names its `numerator` and `denominator`; a quantile the metric that it is `of`, whose
    kind is `of_kind`, and its `q`. Both have event and window from there. Of a `table` it is
    computed of that table's rows, as if they were the unit's events. Raises BadRequest for an
    unknown kind.
    """

    name: str
    event: str
    kind: str
    window: float
    cap: float = 1.0
    better: Literal["higher", "lower"] = "higher"
    default: float = 0.0
    covariate: float | str | None = None
    floor: float = 0.0
    per: Per = "decision"
    capped: bool = False
    scope: Scope = "decision"
    day: int | None = None
    time_zone: str = "UTC"
    winsorise: float | None = None
    numerator: str | None = None
    denominator: str | None = None
    of: str | None = None
    of_kind: str | None = None
    q: float | None = None
    table: TableSource | None = None

    def __post_init__(self) -> None:
        if self.kind not in METRIC_KINDS:
            raise BadRequest(
                f"metrics.{self.name}.kind",
                f"got {self.kind!r}; expected one of {', '.join(METRIC_KINDS)}",
            )

    @property
    def definition(self) -> MetricKind:
        """The entry of its kind."""
        return METRIC_KINDS[self.kind]

    @property
    def is_of_decisions(self) -> bool:
        """Whether each decision has a number of it."""
        return not self.definition.made_of

    @property
    def read_per(self) -> str:
        """What the report reads it of: the decision, the unit, or what a ratio divides by."""
        return self.denominator or self.per

    @property
    def is_pooled(self) -> bool:
        """Whether it is a number of a unit that cannot be had from its decisions' numbers, but only
        from their events."""
        kind = self.definition
        if self.per == "decision" or self.denominator is not None:
            return False
        return not kind.adds_up and not kind.is_proportion

    @property
    def judged_cap(self) -> float | None:
        """The value from which on it counts as that in the report too, since policies learn nothing
        from what is beyond: its cap, where the file gives one, or a floor."""
        return self.cap if self.capped and self.definition.cap != "fixed" else None

    def value(self, events: Iterable[TimedValue]) -> float:
        """The metric of a decision's events `(value, seconds after the decision)`, in the order of
        the log; `default` if none is in the window.

        An event counts when it came at most `window` seconds after the decision. A caller's clock
        may be a little behind, so an event dated before its decision counts as well.
        """
        inside = [event for event in events if event[1] <= self.window]
        return self.definition.fold(inside) if inside else self.default

    def inside_sql(self) -> str:
        """SQL for whether a row `r` of the lake's rewards counts: its event, and in the window."""
        if self.day is not None:
            on_that_day = f"{self._day(_OCCURRED_AT)} = {self._that_day(_DECIDED_AT)}"
            return f"{_EVENT} = {quoted(self.event)} AND {on_that_day}"
        return event_inside_sql(self.event, self.window)

    def sql(self) -> str:
        """SQL for `value` over the rows `r` of the lake's rewards that belong to one decision."""
        return self.or_default_sql(self.aggregate_sql())

    def or_default_sql(self, value: str) -> str:
        """SQL for a value of it, or for what it is without an event; a quantile is only of those
        that have one."""
        return value if self.of is not None else f"coalesce({value}, {number(self.default)})"

    def aggregate_sql(self, condition: str = "true") -> str:
        """SQL for what the rows `r` of the lake's rewards that count and meet a condition make
        together; NULL where there is none."""
        inside = f"FILTER ({self.inside_sql()} AND {condition})"
        kind = METRIC_KINDS[self.of_kind or self.kind]
        return kind.sql.format(value=_VALUE, order=_IN_ORDER, inside=inside)

    def mature_sql(self, decided_at: str, now: int) -> str:
        """SQL for whether the window of a decision is over at `now` (µs since the epoch)."""
        if self.day is not None:
            return f"{self._that_day(decided_at)} < {self._day(f'make_timestamp({now})')}"
        return window_over_sql(decided_at, self.window, now)

    def _day(self, moment: str) -> str:
        """SQL for the calendar day of a moment, the SQL of a TIMESTAMP in UTC."""
        if self.time_zone == "UTC":
            return f"({moment})::DATE"
        return f"timezone({quoted(self.time_zone)}, timezone('UTC', {moment}))::DATE"

    def _that_day(self, decided_at: str) -> str:
        """SQL for the calendar day on which events count."""
        return f"({self._day(decided_at)} + {self.day})"


def metric_column(name: str) -> str:
    """A metric's column in `values_sql` and in the lake's views `metrics."KEY"`, as an SQL
    identifier.

    It is called as the metric is. A metric that bears the name of one of the view's own columns
    gets an underscore at its end, one more than those that it ends with already.
    """
    is_reserved = name.rstrip("_").lower() in _OWN_COLUMNS
    return identifier(f"{name}_" if is_reserved else name)


def values_sql(metrics: Sequence[Metric], rewards: str) -> str:
    """A query over the lake's view `rewards`: a row per decision that got an event of the metrics,
    with `decision_id`, what the event's decision was (`variant`, `unit`, `decided_at`), and a
    column for each metric, called as `metric_column` says.

    `rewards` is the condition that its rows `r` must meet. A decision without an event has no row:
    whoever joins this puts `Metric.default` there. A ratio is no number of a decision, and has no
    column.
    """
    metrics = [metric for metric in metrics if metric.denominator is None]
    events = ", ".join(sorted({quoted(metric.event) for metric in metrics}))
    columns = ", ".join(f"{metric.sql()} AS {metric_column(metric.name)}" for metric in metrics)
    # One pass over the events computes all metrics: each has its own FILTER, and the condition on
    # the names lets DuckDB skip what no metric reads.
    return (
        "SELECT r.decision_id AS decision_id, any_value(r.variant) AS variant, "  # noqa: S608
        f"any_value(r.unit) AS unit, any_value({_DECIDED_AT}) AS decided_at, {columns} "
        f"FROM rewards r WHERE {rewards} AND {_EVENT} IN ({events}) GROUP BY r.decision_id"
    )


def unit_values_sql(metrics: Sequence[Metric], rewards: str, now: int) -> str:
    """A query over the lake's view `rewards`: a row per unit and variant with `unit`, `variant`,
    and a column for each metric, called as `metric_column` says: the metric of the events of all
    its decisions whose window is over at `now` (µs since the epoch), each event in the window of
    its own decision; NULL where there is none.

    `rewards` is the condition that its rows `r` must meet.
    """
    events = ", ".join(sorted({quoted(metric.event) for metric in metrics}))
    columns = []
    for metric in metrics:
        value = metric.aggregate_sql(metric.mature_sql(_DECIDED_AT, now))
        columns.append(f"{value} AS {metric_column(metric.name)}")
    return (
        f"SELECT r.unit AS unit, r.variant AS variant, {', '.join(columns)} "  # noqa: S608
        f"FROM rewards r WHERE {rewards} AND {_EVENT} IN ({events}) GROUP BY r.unit, r.variant"
    )


def unit_scope_sql(
    metrics: Sequence[Metric], first: str, unit_type: str, events: str = "events"
) -> str:
    """A query over the lake's view `events`: a row per unit and variant with `unit`, `variant`, and
    a column for each metric of scope unit, called as `metric_column` says: of the events after the
    unit's first decision in the variant and in the metric's window of it; NULL where there is none.

    Args:
        metrics: Those metrics, at least one.
        first: A query for the first decisions: `unit`, `variant`, `decided_at`.
        unit_type: What the experiment calls its unit.
        events: The view, or a query in brackets with its columns; what has no `occurred_at` there
            counts whenever it was.
    """
    names = ", ".join(sorted({quoted(metric.event) for metric in metrics}))
    columns = []
    for metric in metrics:
        columns.append(f"{metric.aggregate_sql()} AS {metric_column(metric.name)}")
    # Strictly after: what is dated as the decision itself is the visit that it was made in. Events
    # of one moment go by their ids, since the view has no order of its own.
    return (
        f"SELECT r.unit AS unit, r.variant AS variant, {', '.join(columns)} FROM ("  # noqa: S608
        "SELECT f.unit, f.variant, f.decided_at, "
        "v.event, v.value, v.action AS item, "
        "coalesce(v.occurred_at, f.decided_at) AS occurred_at, v.event_id AS seq "
        f"FROM ({first}) f JOIN {events} v ON v.unit = f.unit "
        f"WHERE v.unit_type = {quoted(unit_type)} AND v.event IN ({names}) "
        "AND (v.occurred_at > f.decided_at OR v.occurred_at IS NULL)) r GROUP BY r.unit, r.variant"
    )


def event_inside_sql(event: str, window: float) -> str:
    """SQL for whether a row `r` of the lake's rewards is such an event in a window of so many
    seconds."""
    # Divided into seconds exactly as the learner does, so that both agree on the last microsecond
    # of a window.
    seconds = f"(epoch_us({_OCCURRED_AT}) - epoch_us({_DECIDED_AT})) / 1e6"
    return f"{_EVENT} = {quoted(event)} AND {seconds} <= {number(window)}"


def microseconds(seconds: float) -> int:
    """Whole microseconds, the unit of all times in log and lake."""
    return round(seconds * 1e6)


def window_over(decided_at: int, window: float, now: int) -> bool:
    """Whether a window of that many seconds after `decided_at` is over at `now` (both µs since the
    epoch): no event counts any more from then on."""
    return decided_at + microseconds(window) < now


def window_over_sql(decided_at: str, window: float, now: int | str) -> str:
    """SQL for `window_over`; `decided_at` is the SQL of a TIMESTAMP, `now` µs or the SQL of
    them.
    """
    return f"epoch_us({decided_at}) + {microseconds(window)} < {now}"


def longest_window(metrics: Iterable[Metric]) -> float:
    """Seconds after which no event counts in any of these metrics; 0 for none."""
    return max((metric.window for metric in metrics), default=0.0)
