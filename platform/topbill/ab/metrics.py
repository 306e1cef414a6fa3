"""What can be compared between variants: a few metric kinds, each a sum or two per randomised
unit.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Literal, TypeAlias

from topbill.domain.errors import BadRequest

Per = Literal["row", "unit"]


@dataclass(frozen=True, slots=True)
class Mean:
    """The mean of a column over rows, its standard error clustered by unit; or over units of the
    unit's mean.
    """

    column: str
    per: Per = "row"


@dataclass(frozen=True, slots=True)
class Proportion:
    """The share of rows where a 0/1 column is 1, clustered by unit; or the share of units with any
    such row.
    """

    column: str
    per: Per = "row"


@dataclass(frozen=True, slots=True)
class Sum:
    """The mean over units of a column's total in the unit, such as plays per viewer."""

    column: str


@dataclass(frozen=True, slots=True)
class Ratio:
    """Σ numerator / Σ denominator, by the delta method over units, such as clicks per session."""

    numerator: str
    denominator: str


@dataclass(frozen=True, slots=True)
class Quantile:
    """The q-quantile of a column over rows (events, clustered by unit), or over units of the unit's
    mean.
    """

    column: str
    q: float = 0.5
    per: Per = "row"

    def __post_init__(self) -> None:
        if not 0.0 < self.q < 1.0:
            raise BadRequest(
                "metrics", f"Quantile({self.column!r}, q={self.q}); expected q between 0 and 1"
            )


Metric: TypeAlias = Mean | Proportion | Sum | Ratio | Quantile


def columns_of(metric: Metric) -> tuple[str, ...]:
    """The data columns that a metric reads."""
    return (metric.numerator, metric.denominator) if isinstance(metric, Ratio) else (metric.column,)
