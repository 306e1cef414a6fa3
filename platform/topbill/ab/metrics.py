"""What can be compared between variants: a few metric kinds, each a sum or two per randomised
unit.
"""

from __future__ import annotations

from typing import Literal, TypeAlias

import msgspec

from topbill.domain.errors import BadRequest

Per = Literal["row", "unit"]


class Mean(msgspec.Struct, frozen=True):
    """The mean of a column over rows, its standard error clustered by unit; or over units of the
    unit's mean.
    """

    column: str
    per: Per = "row"


class Proportion(msgspec.Struct, frozen=True):
    """The share of rows where a 0/1 column is 1, clustered by unit; or the share of units with any
    such row.
    """

    column: str
    per: Per = "row"


class Sum(msgspec.Struct, frozen=True):
    """The mean over units of a column's total in the unit, such as plays per viewer.

    Missing values add nothing; with `known_only`, units that have no value at all are left out
    rather than counted as 0. A total above `cap` counts as it.
    """

    column: str
    known_only: bool = False
    cap: float | None = None


class Ratio(msgspec.Struct, frozen=True):
    """Σ numerator / Σ denominator, by the delta method over units, such as clicks per session."""

    numerator: str
    denominator: str


class Quantile(msgspec.Struct, frozen=True):
    """The q-quantile of a column over rows (events, clustered by unit), or over units of the unit's
    mean. Of counts and other values that move in steps it is the mid-quantile, which is between
    them.
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
