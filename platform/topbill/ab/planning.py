"""How long an experiment must run, from its own traffic: its control's metric, its units a day, its
shares.

    plan = ab.plan(rows, design, unit="unit", variant="variant", day="day", method="sequential")
    for run in plan.runtimes: run.variant, run.relative, run.units, run.days
    for least in plan.detectable: least.variant, least.days, least.units, least.relative

`rows` are those of `ab.analyse`.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from math import isfinite, sqrt
from typing import Any

import msgspec

from topbill.ab import reasons
from topbill.ab.analysis import Design, Prepared, prepare, units_a_day
from topbill.ab.checks.srm import sample_ratio
from topbill.ab.core.effect import ArmEstimate, Method, Pair, Rule, checked_rule, estimate_pair
from topbill.ab.core.units import gather
from topbill.ab.power.runtime import detectable_effect, runtime
from topbill.domain.errors import BadRequest
from topbill.spec import Experiment

LIFTS = (0.01, 0.02, 0.05, 0.10)
DAYS = (0, 7, 14, 28)


class PlannedRun(msgspec.Struct, frozen=True, kw_only=True):
    """Units (the variant's and the control's) and days to find a `relative` effect; None where it
    cannot be said.
    """

    variant: str
    relative: float
    units: int | None
    days: float | None


class Detectable(msgspec.Struct, frozen=True, kw_only=True):
    """The least `relative` effect (MDE) that `units` (the variant's and the control's) will show
    `days` from now.
    """

    variant: str
    days: int
    units: int
    relative: float | None


class Plan(msgspec.Struct, frozen=True, kw_only=True):
    """What an experiment's traffic so far says about how long it must run.

    `baseline` and `sd` (by unit) are the control's on `metric`; `units` and `units_a_day` count all
    variants. A day's traffic is the mean over the time that passed; None before a whole day has,
    when it is too early to say. `reason` says why there are no runs.
    """

    experiment: str
    metric: str
    method: Method
    alpha: float
    power: float
    units: int
    units_a_day: float | None
    baseline: float | None = None
    sd: float | None = None
    runtimes: list[PlannedRun] = []
    detectable: list[Detectable] = []
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
    days: Sequence[int] = DAYS,
    covariates: Mapping[str, str] | None = None,
    method: Method = "sequential",
    alpha: float = 0.05,
    power: float = 0.8,
) -> Plan:
    """How long an experiment must run, from what its traffic says so far.

    Args:
        data: rows as for `analyse`.
        design: the experiment, or what is needed of it.
        unit, variant, day: columns, as for `analyse`.
        metric: the one to plan for; None takes the primary one.
        relative: effects to find, as fractions of the control's value.
        days: days from now at which to say what will show.
        covariates: a pre-period column by metric; the control's standard deviation is then the
            adjusted one.
        method, alpha: how intervals will be made, as in `compare`.
        power: the chance to find an effect that is there.

    Returns:
        Runtimes to find each `relative` effect with that `power`, and the least effects that show
        in `days` from now.

    Raises:
        BadRequest: for an unknown metric and for numbers that cannot be meant.
        BadData: for columns that cannot be used.
    """
    rule = checked_rule(method, alpha)
    _check(relative, days, power)
    prepared = prepare(data, design, unit=unit, variant=variant, day=day, covariates=covariates)
    design = prepared.design
    name = metric or prepared.primary
    if name not in prepared.metrics:
        raise BadRequest("metric", f"got {name!r}; expected one of {', '.join(prepared.metrics)}")
    ratio = sample_ratio(prepared.rows, design.shares, day=day)
    units = sum(ratio.counts.values())
    result = Plan(
        experiment=design.key,
        metric=name,
        method=method,
        alpha=alpha,
        power=power,
        units=units,
        units_a_day=units_a_day(prepared.rows, ratio),
    )
    pair = _control_pair(prepared, name, (covariates or {}).get(name))
    control = pair.control
    if pair.reason or control is None:
        return msgspec.structs.replace(result, reason=pair.reason)
    if control.variance == 0.0 or control.value == 0.0:
        return msgspec.structs.replace(result, reason=reasons.CONSTANT_METRIC)
    return _with_runs(result, design, ratio.counts, control, rule, relative, days)


def _control_pair(prepared: Prepared, metric: str, covariate: str | None) -> Pair:
    """The control beside itself: only its own (adjusted) variance is wanted."""
    covariates = {} if covariate is None else {metric: covariate}
    moments = gather(prepared.rows, {metric: prepared.metrics[metric]}, covariates)
    arms = moments.of_variant(metric, prepared.design.control)
    terms = moments.terms[metric]
    for variant in prepared.design.treatments:
        # The comparison will adjust by nothing where the covariate is not there for all alike.
        pair = estimate_pair(terms, moments.of_variant(metric, variant), arms)
        if pair.remark:
            return estimate_pair(terms.unadjusted(), arms, arms)
    return estimate_pair(terms, arms, arms)


def _check(relative: Sequence[float], days: Sequence[int], power: float) -> None:
    if not 0.0 < power < 1.0:
        raise BadRequest("power", f"got {power!r}; expected a number between 0 and 1, such as 0.8")
    for lift in relative:
        if not (isfinite(lift) and lift != 0.0):
            raise BadRequest(
                "lift", f"got {lift!r}; expected a relative change such as 0.05 (5%), not 0"
            )
    for day in days:
        if not 0 <= day <= 36_500:
            raise BadRequest("days", f"got {day!r}; expected whole days from now, from 0 to 36,500")


def _with_runs(
    plan: Plan,
    design: Design,
    counts: Mapping[str, int],
    control: ArmEstimate,
    rule: Rule,
    relative: Sequence[float],
    days: Sequence[int],
) -> Plan:
    baseline, sd = control.value, sqrt(control.variance * control.n)
    total_share = sum(design.shares.values())
    runs, detectable = [], []
    for variant in design.treatments:
        shares = (design.shares[design.control], design.shares[variant])
        if min(shares) <= 0.0:
            continue
        rate = (plan.units_a_day or 0.0) * sum(shares) / total_share
        for lift in relative:
            run = runtime(
                baseline, sd, lift, rule, units_a_day=rate, shares=shares, power=plan.power
            )
            runs.append(PlannedRun(variant=variant, relative=lift, units=run.units, days=run.days))
        now = counts[design.control] + counts[variant]
        for day in days:
            # Without traffic only today can be spoken of.
            if day > 0 and rate <= 0.0:
                continue
            units = round(now + rate * day)
            least = detectable_effect(sd, units, rule, shares=shares, power=plan.power)
            detectable.append(
                Detectable(
                    variant=variant,
                    days=day,
                    units=units,
                    relative=_relative(least, baseline),
                )
            )
    return msgspec.structs.replace(
        plan, baseline=baseline, sd=sd, runtimes=runs, detectable=detectable
    )


def _relative(difference: float | None, baseline: float) -> float | None:
    return None if difference is None else difference / abs(baseline)
