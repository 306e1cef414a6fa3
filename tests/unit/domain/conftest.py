"""A kind of metric that exists for one test only."""

from __future__ import annotations

import statistics
from collections.abc import Callable, Sequence

import pytest

from topbill.domain import metric
from topbill.domain.metric import MetricKind, TimedValue


def _median(events: Sequence[TimedValue]) -> float:
    return statistics.median(value for value, _ in events)


MEDIAN = MetricKind(
    fold=_median,
    sql="median({value}) {inside}",
    takes_value=True,
    cap="optional",
    summary="the value in the middle",
)


@pytest.fixture
def register(monkeypatch: pytest.MonkeyPatch) -> Callable[[str, MetricKind], None]:
    """Adds a kind of metric to the table, and to nothing else, until the test is over."""

    def add(name: str, kind: MetricKind) -> None:
        monkeypatch.setitem(metric._KINDS, name, kind)

    return add
