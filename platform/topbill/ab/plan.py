"""How long an experiment must run, from its own traffic: its control's metric, its units a day, its shares.

    found = ab.plan(rows, design, unit="unit", variant="variant", day="day", method="sequential")
    for run in found.runtimes: run.variant, run.relative, run.units, run.days

`rows` are those of `ab.analyse`.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from math import sqrt
from typing import Any

import msgspec

from topbill.ab import reasons
from topbill.ab.arms import estimate
from topbill.ab.compare import checked_rule, read_rows
from topbill.ab.effect import Method
from topbill.ab.experiment import Design, metrics_of, with_objective
from topbill.ab.gather import gather
from topbill.ab.power import runtime
from topbill.ab.rows import relation_of
from topbill.ab.split import sample_ratio
from topbill.errors import BadRequest
from topbill.spec import Experiment

LIFTS = (0.01, 0.02, 0.05, 0.10)


class PlannedRun(msgspec.Struct, frozen=True, kw_only=True):
    """Units (the variant's and the control's) and days to find a `relative` effect; None where it cannot be said."""

    variant: str
    relative: float
    units: int | None
    days: float | None


class Plan(msgspec.Struct, frozen=True, kw_only=True):
    """What an experiment's traffic so far says about how long it must run.

    `baseline` and `sd` (by unit) are the control's on `metric`; `units` and `units_a_day` count all variants.
    `reason` says why there are no runs.
    """

    experiment: str
    metric: str
    method: Method
    alpha: float
    power: float
    units: int
    units_a_day: float
    baseline: float | None = None
    sd: float | None = None
    runtimes: list[PlannedRun] = []
    reason: str = reasons.OK


def plan(
    data: Any,
    design: Design | Experiment,
    *,
    unit: str | None = "unit",
    variant: str = "variant",
    day: str | None = "day",
    metric: str | None = None,
    relative: Sequence[float] = LIFTS,
    covariates: Mapping[str, str] | None = None,
    method: Method = "sequential",
    alpha: float = 0.05,
    power: float = 0.8,
) -> Plan:
    """Runtimes to find each `relative` effect on `metric` (the primary one unless named) with that `power`.

    With a covariate the control's standard deviation is the adjusted one. Raises BadRequest for an unknown metric.
    """
    design = design if isinstance(design, Design) else Design.of(design)
    rule = checked_rule(method, alpha)
    relation, primary = with_objective(relation_of(data), design)
    metrics = metrics_of(design, primary)
    name = primary if metric is None else metric
    if name not in metrics:
        raise BadRequest("metric", f"got {name!r}; expected one of {', '.join(metrics)}")
    one, covariate = {name: metrics[name]}, {k: v for k, v in (covariates or {}).items() if k == name}
    rows = read_rows(
        relation, unit=unit, variant=variant, metrics=one, covariates=covariate, labels=[day] if day else []
    )
    split = sample_ratio(rows, design.shares, day=day)
    units, total = sum(split.counts.values()), sum(design.shares.values())
    units_a_day = units / len(split.days) if split.days else 0.0
    about = {"experiment": design.key, "metric": name, "method": method, "alpha": alpha, "power": power}
    shown = Plan(**about, units=units, units_a_day=units_a_day)  # type: ignore[arg-type]
    gathered = gather(rows, one, covariate)
    control = {key[1:]: arm for key, arm in gathered.arms[name].items() if str(key[0]) == design.control}
    pair = estimate(gathered.plans[name], control, control)
    if pair.reason or pair.control is None or pair.control.variance == 0.0 or pair.control.value == 0.0:
        return msgspec.structs.replace(shown, reason=pair.reason or reasons.CONSTANT_METRIC)
    baseline, sd = pair.control.value, sqrt(pair.control.variance * pair.control.n)
    runs = []
    for other in design.shares:
        shares = (design.shares[design.control], design.shares[other])
        if other != design.control and min(shares) > 0.0:
            rate = units_a_day * sum(shares) / total
            found = [runtime(baseline, sd, r, rule, units_a_day=rate, shares=shares, power=power) for r in relative]
            runs += [PlannedRun(variant=other, relative=f.relative, units=f.units, days=f.days) for f in found]
    return msgspec.structs.replace(shown, baseline=baseline, sd=sd, runtimes=runs)
