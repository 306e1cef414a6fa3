"""What can be compared between variants: a few metric kinds, each a sum or two per randomised
unit.
"""

from __future__ import annotations

from collections.abc import Mapping
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


def check_metrics(
    metrics: Mapping[str, Metric],
    covariates: Mapping[str, str] | None,
    adjust: str,
    strata: str | None = None,
) -> None:
    """Check that metrics, covariates and adjustments go together.

    Raises:
        BadRequest: naming the argument that does not.
    """
    if not metrics:
        raise BadRequest(
            "metrics",
            "got none; expected a dict of name to Mean, Proportion, Sum, Ratio or Quantile",
        )
    for name, metric in metrics.items():
        if not isinstance(metric, Metric):
            raise BadRequest(
                f"metrics.{name}",
                f"got {metric!r}; expected Mean, Proportion, Sum, Ratio or Quantile",
            )
        if isinstance(metric, Quantile) and strata is not None:
            raise BadRequest(
                f"metrics.{name}",
                "a Quantile cannot be post-stratified; compare it without `strata`",
            )
    if adjust not in ("cuped", "lin"):
        raise BadRequest("adjust", f"got {adjust!r}; expected cuped or lin")
    for name in covariates or {}:
        _check_covariate(name, metrics, adjust)


def _check_covariate(name: str, metrics: Mapping[str, Metric], adjust: str) -> None:
    if name not in metrics:
        raise BadRequest(
            f"covariates.{name}", f"no such metric; the metrics are {', '.join(metrics)}"
        )
    if adjust == "lin" and isinstance(metrics[name], Ratio):
        raise BadRequest("adjust", "lin adjusts one value a unit, not a Ratio; use adjust='cuped'")
    if isinstance(metrics[name], Quantile):
        raise BadRequest(f"covariates.{name}", "a Quantile takes no covariate; leave it out")
