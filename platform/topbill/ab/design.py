"""What an analysis needs to know of an experiment, and its rows made ready: objective column,
metrics, checks.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any, Literal

import msgspec

from topbill.ab.compare import check_metrics, read_rows
from topbill.ab.core.rows import Rows, quoted, relation_of
from topbill.ab.metrics import Mean, Metric, Proportion
from topbill.domain.errors import BadRequest
from topbill.domain.objective import WeightedMetric, WeightedSum
from topbill.spec import Experiment

OBJECTIVE = "objective"


class MetricDesign(msgspec.Struct, frozen=True, kw_only=True):
    """A metric as the analysis needs it: 0/1 or a number, the good direction, its weight and cap in
    the objective.
    """

    name: str
    binary: bool = False
    better: Literal["higher", "lower"] = "higher"
    weight: float = 0.0
    cap: float = 1.0


class Design(msgspec.Struct, frozen=True, kw_only=True):
    """What the analysis needs to know of an experiment; `shares` by variant, `guardrails` margins
    by metric.
    """

    key: str
    control: str
    shares: dict[str, float]
    metrics: tuple[MetricDesign, ...]
    guardrails: dict[str, float] = {}

    @classmethod
    def of(cls, experiment: Experiment) -> Design:
        """The design of an experiment file."""
        return cls(
            key=experiment.key,
            control=experiment.control.name,
            shares={v.name: v.share for v in experiment.variants},
            metrics=tuple(
                MetricDesign(
                    name=m.name,
                    binary=m.definition.is_proportion,
                    better=m.better,
                    weight=experiment.objective.get(m.name, 0.0),
                    cap=m.cap,
                )
                for m in experiment.metrics
            ),
            guardrails={g.metric: g.margin for g in experiment.guardrails},
        )

    def better(self, metric: str) -> Literal["higher", "lower"]:
        """Which direction of a metric (or the objective) is good."""
        return next((m.better for m in self.metrics if m.name == metric), "higher")

    @property
    def treatments(self) -> list[str]:
        """The variants other than the control."""
        return [name for name in self.shares if name != self.control]


@dataclass(frozen=True, slots=True)
class Prepared:
    """Checked rows with the metrics to read from them, the primary one first."""

    design: Design
    primary: str
    metrics: dict[str, Metric]
    rows: Rows


def prepare(
    data: Any,
    design: Design | Experiment,
    *,
    unit: str | None,
    variant: str,
    labels: Sequence[str],
    covariates: Mapping[str, str] | None,
    adjust: str = "cuped",
) -> Prepared:
    """Check `data` against the design. Raises BadRequest and BadData as `compare` does."""
    design = design if isinstance(design, Design) else Design.of(design)
    relation, primary = _with_objective(relation_of(data), design)
    metrics = _metrics(design, primary)
    check_metrics(metrics, covariates, adjust)
    rows = read_rows(
        relation, unit=unit, variant=variant, metrics=metrics, covariates=covariates, labels=labels
    )
    return Prepared(design, primary, metrics, rows)


def _with_objective(relation: Any, design: Design) -> tuple[Any, str]:
    """The relation with its objective column, and the primary metric's name: the objective's only
    metric, if it is one, for then plays read better than points."""
    weighted = [m for m in design.metrics if m.weight]
    if len(weighted) == 1 and weighted[0].weight > 0.0:
        return relation, weighted[0].name
    if OBJECTIVE in relation.columns:
        return relation, OBJECTIVE
    objective = WeightedSum.of([WeightedMetric(m.name, m.weight, m.cap) for m in weighted])
    if objective.positive <= 0.0:
        raise BadRequest("design.metrics", "no metric has a positive weight; expected an objective")
    missing = [m.name for m in weighted if m.name not in relation.columns]
    if missing:
        raise BadRequest(
            f"data.{missing[0]}", f"no such column; the data has {', '.join(relation.columns)}"
        )
    total = objective.sql(lambda name: f"CAST({quoted(name)} AS DOUBLE)")
    return relation.query(
        "unit_rows",
        f"SELECT *, {total} AS {OBJECTIVE} FROM unit_rows",  # noqa: S608
    ), OBJECTIVE


def _metrics(design: Design, primary: str) -> dict[str, Metric]:
    """All metrics, the primary one first, then in the design's order."""
    kinds: dict[str, Metric] = {
        m.name: Proportion(m.name) if m.binary else Mean(m.name) for m in design.metrics
    }
    return {
        primary: kinds.get(primary, Mean(OBJECTIVE)),
        **{k: v for k, v in kinds.items() if k != primary},
    }
