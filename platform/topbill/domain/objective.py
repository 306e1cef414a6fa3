"""What is to be raised: a weighted sum of metrics in [0, 1], in Python and in SQL, and when it is
final."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass
from functools import cached_property
from typing import NamedTuple

from topbill.domain.metric import Metric, TimedValue, longest_window, window_over, window_over_sql
from topbill.domain.sql import identifier, number
from topbill.domain.sums import plain_sum

OBJECTIVE_RANGE = (0.0, 1.0)
"""The least and the largest objective that an item can earn."""


class WeightedMetric(NamedTuple):
    """A metric's share in a weighted sum: its weight, and the values that count as 1 and as 0."""

    name: str
    weight: float
    cap: float
    floor: float = 0.0

    @property
    def range(self) -> float:
        """What lies between the two."""
        return self.cap - self.floor


@dataclass(frozen=True)
class WeightedSum:
    """Σ weight · clip((metric − floor) / (cap − floor), 0, 1) ÷ Σ positive weights, clipped to
    [0, 1]; without a floor it is 0.

    A negative weight is a penalty: it takes away from what positive ones earn, never below 0. So 1
    means that every wanted metric reached its cap and no penalty fell due. Without a positive
    weight there is nothing to earn, and the sum is 0.
    """

    metrics: tuple[WeightedMetric, ...]
    positive: float
    """The sum of the positive weights."""

    @classmethod
    def of(cls, metrics: Sequence[WeightedMetric]) -> WeightedSum:
        """The sum of these metrics."""
        return cls(tuple(metrics), plain_sum(m.weight for m in metrics if m.weight > 0.0))

    def value(self, metric_values: Mapping[str, float]) -> float:
        """The sum for these values. A metric without a value counts as 0."""
        if self.positive <= 0.0:
            return 0.0
        total = 0.0
        for metric in self.metrics:
            share = (metric_values.get(metric.name, 0.0) - metric.floor) / metric.range
            total += metric.weight * min(1.0, max(0.0, share))
        return min(1.0, max(0.0, total / self.positive))

    def sql(self, column: Callable[[str], str] = identifier) -> str:
        """SQL for `value`; `column` gives the SQL of a metric by its name."""
        if self.positive <= 0.0:
            return number(0.0)
        # The same operations in the same order as in `value`: equal to the last bit for equal
        # metrics, so that reports show what the learner was told.
        terms = []
        for metric in self.metrics:
            value = column(metric.name)
            if metric.floor:
                value = f"({value} - {number(metric.floor)})"
            share = f"{value} / {number(metric.range)}"
            terms.append(f"{number(metric.weight)} * {_clipped(share)}")
        return _clipped(f"({' + '.join(terms)}) / {number(self.positive)}")

    def unclipped_sql(self, column: Callable[[str], str] = identifier) -> str:
        """SQL for Σ weight / (cap − floor) · column: what runs parallel to the sum over any
        numbers, such as covariates, whose scale is another and whose ends must not be cut."""
        terms = []
        for metric in self.metrics:
            terms.append(f"{number(metric.weight / metric.range)} * {column(metric.name)}")
        return " + ".join(terms) or "NULL::DOUBLE"


def _clipped(expression: str) -> str:
    return f"least(1.0::DOUBLE, greatest(0.0::DOUBLE, {expression}))"


class OwnUnits(NamedTuple):
    """A metric's own value is `floor` + `range` · objective."""

    metric: str
    floor: float
    range: float


@dataclass(frozen=True)
class Objective:
    """An experiment's objective: the metrics that it names, with their weights.

    Attributes:
        metrics: The metrics that have a weight, in the order of the file, also where it is 0.
        weights: Weight by metric name.
    """

    metrics: tuple[Metric, ...]
    weights: Mapping[str, float]

    @classmethod
    def of(cls, metrics: Iterable[Metric], weights: Mapping[str, float]) -> Objective:
        """The objective that gives these weights to some of `metrics`."""
        return cls(tuple(m for m in metrics if m.name in weights), weights)

    @cached_property
    def score(self) -> WeightedSum:
        """The objective as a function of its metrics."""
        shares = tuple(
            WeightedMetric(m.name, self.weights[m.name], m.cap, m.floor) for m in self.metrics
        )
        # Added in the order of the weights, not of the metrics: policies were learned from rewards
        # with these last bits, and are verified against them.
        return WeightedSum(shares, plain_sum(w for w in self.weights.values() if w > 0.0))

    def value(self, metric_values: Mapping[str, float]) -> float:
        """The objective in [0, 1] of a decision with these metrics; see `WeightedSum`."""
        return self.score.value(metric_values)

    def of_events(self, events: Mapping[str, Sequence[TimedValue]]) -> float:
        """The objective of a decision whose events were these, by event name, in the order of the
        log."""
        values: dict[str, float] = {}
        for metric in self.metrics:
            values[metric.name] = metric.value(events.get(metric.event, ()))
        return self.value(values)

    def clipped(self, events: Mapping[str, Sequence[TimedValue]]) -> set[str]:
        """Which metrics of such a decision the objective takes for an end of [floor, cap]: as `NAME
        below 0`, `NAME below its floor of -1` or `NAME above its cap of 1`."""
        sides: set[str] = set()
        for metric in self.metrics:
            value = metric.value(events.get(metric.event, ()))
            # Without a weight it counts for nothing, whatever its value.
            if not self.weights[metric.name]:
                continue
            if value < metric.floor:
                end = f"its floor of {metric.floor:g}" if metric.floor else "0"
                sides.add(f"{metric.name} below {end}")
            elif value > metric.cap:
                sides.add(f"{metric.name} above its cap of {metric.cap:g}")
        return sides

    @cached_property
    def default(self) -> float:
        """The objective of a decision without an event: not 0 where a metric has a default."""
        return self.value({metric.name: metric.default for metric in self.metrics})

    @cached_property
    def own_units(self) -> OwnUnits | None:
        """How the objective is turned back into its metric's units; None where it stays as it is.

        Of a metric with a floor alone: there 0 is no reward of 0, so that ratios of the objective
        would mean nothing. Several metrics have no unit in common.
        """
        weighed = [metric for metric in self.score.metrics if metric.weight]
        if len(weighed) != 1 or not weighed[0].floor or weighed[0].weight < 0.0:
            return None
        return OwnUnits(weighed[0].name, weighed[0].floor, weighed[0].range)

    def range_of_sum(self, items: float = 1.0) -> tuple[float, float]:
        """The least and the most that so many items can earn together, in the metric's own units
        where values are told in those.
        """
        least, most = OBJECTIVE_RANGE
        if self.own_units is not None:
            floor, scale = self.own_units.floor, self.own_units.range
            least, most = floor + scale * least, floor + scale * most
        return items * least, items * most

    def sql(self, column: Callable[[str], str] = identifier) -> str:
        """SQL for `value`; `column` gives the SQL of a metric by its name."""
        return self.score.sql(column)

    @cached_property
    def window(self) -> float:
        """Seconds after a decision from which on its objective is final."""
        return longest_window(self.metrics)

    def is_mature(self, decided_at: int, now: int) -> bool:
        """Whether the objective of a decision is final at `now` (both µs since the epoch)."""
        return window_over(decided_at, self.window, now)

    def mature_sql(self, decided_at: str, now: int | str) -> str:
        """SQL for `is_mature`; `decided_at` is the SQL of a TIMESTAMP, `now` µs or the SQL of
        them.
        """
        return window_over_sql(decided_at, self.window, now)
