"""How long an experiment must run: from its own traffic, or before it has any.

    plan = ab.plan(rows, design, unit="unit", variant="variant", day="day", method="sequential")
    for run in plan.runtimes: run.variant, run.relative, run.units, run.days, run.ship_days
    for least in plan.detectable: least.variant, least.days, least.units, least.relative
    for guard in plan.guardrails: guard.variant, guard.metric, guard.units, guard.days

    plan = ab.plan_ahead(0.12, units_a_day=40_000, variants=3)

`rows` are those of `ab.analyse`. Both plan by the rule that calls: Holm over the treatments, the
method's boundary, and a guardrail's margin.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from math import isfinite, sqrt
from typing import TYPE_CHECKING, Any, NamedTuple

import msgspec
import numpy as np

from topbill.ab import reasons
from topbill.ab.analysis import Design, Prepared, prepare, units_a_day, worth_of
from topbill.ab.checks.srm import counts_by_phase, sample_ratio
from topbill.ab.core.effect import (
    THIN,
    Pair,
    Rule,
    checked_rule,
    estimate_pair,
    information_of,
)
from topbill.ab.core.quantile import quantile_pairs
from topbill.ab.core.units import Covariates, MomentsByArm, gather, joint_moments
from topbill.ab.metrics import Proportion, Quantile
from topbill.ab.parts import Columns
from topbill.ab.power.joint import units_for_all
from topbill.ab.power.runtime import Aim, detectable_effect, units_for
from topbill.domain.errors import BadRequest
from topbill.domain.margin import Margin, MarginUnit
from topbill.domain.reading import Method
from topbill.domain.records import Floats
from topbill.spec import Experiment
from topbill.stats.frames import frame_of, html_of
from topbill.stats.moments import regression_slope

if TYPE_CHECKING:
    import pandas as pd

LIFTS = (0.01, 0.02, 0.05, 0.10)
DAYS = (0, 7, 14, 28)


class PlannedRun(msgspec.Struct, frozen=True, kw_only=True):
    """Units (the variant's and the control's) and days until a `relative` effect is called, by the
    shares in force from the start; None where it cannot be said. `days_left` are those from now,
    with what there is already: units that came by other shares count for what they tell.

    `all_units` are those of all variants by then. `ship_units` and `ship_days` are for the call and
    every guardrail of the experiment, at one look, where guarded metrics do not change; without
    guardrails they are `units` and `days`, and None where another metric than the primary one is
    planned for. `ship_days_left` are those from now.
    """

    variant: str
    relative: float
    units: int | None
    days: float | None
    all_units: int | None = None
    ship_units: int | None = None
    ship_days: float | None = None
    days_left: float | None = None
    ship_days_left: float | None = None


class Detectable(msgspec.Struct, frozen=True, kw_only=True):
    """The least `relative` effect (MDE) that `units` (the variant's and the control's) will show
    `days` from now.
    """

    variant: str
    days: int
    units: int
    relative: float | None


class PlannedGuardrail(msgspec.Struct, frozen=True, kw_only=True):
    """Units (the variant's and the control's) and days until a variant that does not change the
    metric is known to keep its guardrail; None where it cannot be said, and `reason` says why.
    `days_left` as in `PlannedRun`.

    `margin` is in `margin_unit`, see `Margin`; `reachable` is about the margin, in the same unit,
    that is known to be kept by the time the least of the plan's lifts is called.
    """

    variant: str
    metric: str
    margin: float
    margin_unit: MarginUnit = "relative"
    units: int | None = None
    days: float | None = None
    all_units: int | None = None
    reachable: float | None = None
    days_left: float | None = None
    reason: str = reasons.OK


class Plan(msgspec.Struct, frozen=True, kw_only=True):
    """What an experiment's traffic, so far or as expected, says about how long it must run.

    `baseline` and `sd` (by unit) are the control's on `metric`; `units` and `units_a_day` count all
    variants. A day's traffic is the mean over the time that passed, at the traffic in force; None
    before a whole day has passed, when it is too early to say, and where variants are compared no
    more. `treatments` is how many variants are compared with the control: Holm calls over them.
    `looks` are those of method "group-sequential". `reason` says why there are no runs.
    """

    experiment: str
    metric: str
    method: Method
    alpha: float
    power: float
    units: int
    units_a_day: float | None
    treatments: int = 1
    looks: tuple[float, ...] = (1.0,)
    baseline: float | None = None
    sd: float | None = None
    runtimes: list[PlannedRun] = []
    detectable: list[Detectable] = []
    guardrails: list[PlannedGuardrail] = []
    reason: str = reasons.OK
    rule: list[str] = []
    """By what rule the experiment is decided, a sentence each, where its file says it."""

    def to_frame(self) -> pd.DataFrame:
        """What each lift takes, a row for each variant and lift, with a column for each field of
        `PlannedRun`; `pandas.NA` where it cannot be said.
        """
        return frame_of([msgspec.structs.asdict(run) for run in self.runtimes], text=("variant",))

    def _repr_html_(self) -> str:
        if self.reason:
            return html_of(
                self.to_frame(), f"Nothing can be planned: {reasons.REASONS[self.reason]}."
            )
        least = frame_of([msgspec.structs.asdict(d) for d in self.detectable], text=("variant",))
        of = self.experiment or "before launch"
        return html_of(
            self.to_frame(),
            f"{of}: units and days until a lift of {self.metric} is found with "
            f"{self.power:.0%} power",
        ) + html_of(least, "minimum detectable effect (MDE)")


class GuardrailAhead(NamedTuple):
    """A guardrail of an experiment that has no traffic yet: a rate whose value today is
    `baseline`."""

    metric: str
    margin: Margin
    better: str
    baseline: float


@dataclass(frozen=True, slots=True)
class Outlook:
    """What is expected of a metric: the control's value, a unit's standard deviation, and whether
    it is a rate, whose variance goes with its value."""

    baseline: float
    sd: float
    is_rate: bool = False

    def lift(self, relative: float, shares: tuple[float, float], tests: int) -> Aim | None:
        """The aim to find a relative effect; None where a rate would leave 0 to 1."""
        sd, value = self.sd, self.baseline * (1.0 + relative)
        if self.is_rate:
            if not 0.0 <= value <= 1.0:
                return None
            sd *= sqrt(value * (1.0 - value) / (self.baseline * (1.0 - self.baseline)))
        return Aim(abs(relative * self.baseline), (self.sd, sd), shares, tests)

    def harmless(self, margin: Margin, better: str, shares: tuple[float, float]) -> Aim:
        """The aim to know that the metric, unchanged, is worse by less than the margin."""
        if not margin.is_relative:
            return Aim(margin.value, (self.sd, self.sd), shares)
        # What is tested is t − k·c, k being what of the control's size must be left; see
        # `verdict.guardrail`.
        size = abs(self.baseline)
        k = (
            1.0 - margin.value
            if (better == "higher") == (self.baseline > 0.0)
            else 1.0 + margin.value
        )
        return Aim(margin.value * size, (k * self.sd, self.sd), shares)


@dataclass(frozen=True, slots=True)
class Guarded:
    """A guardrail to plan for; `outlook` is None where `reason` says why nothing is expected."""

    metric: str
    margin: Margin
    better: str
    outlook: Outlook | None
    reason: str = reasons.OK


def plan(
    data: Any,
    design: Design | Experiment,
    *,
    unit: str | None = "unit",
    variant: str = "variant",
    day: str | None = "day",
    phase: str | None = None,
    first_exposure: bool = False,
    metric: str | None = None,
    relative: Sequence[float] = LIFTS,
    days: Sequence[int] = DAYS,
    covariates: Covariates | None = None,
    method: Method = "sequential",
    alpha: float = 0.05,
    power: float = 0.8,
    looks: Sequence[float] = (1.0,),
) -> Plan:
    """How long an experiment must run, from what its traffic says so far.

    Args:
        data: rows as for `analyse`.
        design: the experiment, or what is needed of it.
        unit, variant, day, phase: columns, as for `analyse`. Of phases the plan is by the shares in
            force now, and what came by others counts for what it tells.
        first_exposure: as for `analyse`.
        metric: the one to plan for; None takes the primary one.
        relative: effects to find, as fractions of the control's value.
        days: days from now at which to say what will show.
        covariates: a pre-period column by metric; the control's standard deviation is then the
            adjusted one.
        method, alpha: how intervals will be made, as in `compare`.
        power: the chance to find an effect that is there.
        looks: with "group-sequential": the fractions of the planned units at which will be looked.

    Returns:
        Runtimes until each `relative` effect of one variant is called with that `power`, beside
        treatments that change nothing; the least effects that show in `days` from now; and the
        runtimes until guardrails are known to be kept.

    Raises:
        BadRequest: for an unknown metric and for numbers that cannot be meant.
        BadData: for columns that cannot be used.
    """
    rule = checked_rule(method, alpha, looks=looks)
    _check(relative, days, power)
    columns = Columns(unit, variant, day, phase, first_exposure)
    prepared = prepare(data, design, columns=columns, covariates=covariates)
    design = prepared.design
    name = metric or prepared.primary
    if name not in prepared.metrics:
        raise BadRequest("metric", f"got {name!r}; expected one of {', '.join(prepared.metrics)}")
    ratio = sample_ratio(prepared.rows, prepared.intended, day=day)
    result = Plan(
        experiment=design.key,
        metric=name,
        method=method,
        alpha=alpha,
        power=power,
        units=sum(ratio.counts.values()),
        units_a_day=units_a_day(prepared, ratio),
        treatments=len(_running(design.shares, design.control)),
        looks=rule.looks,
    )
    names = list(dict.fromkeys([name, *design.guardrails]))
    plain = {m: prepared.metrics[m] for m in names if not isinstance(prepared.metrics[m], Quantile)}
    own = {m: column for m, column in (covariates or {}).items() if m in plain}
    moments = gather(prepared.rows, plain, own)
    outlook, reason = _outlook(prepared, moments, name)
    if outlook is None:
        return msgspec.structs.replace(result, reason=reason)
    guarded = []
    for guardrail, margin in design.margins.items():
        expected, why = _outlook(prepared, moments, guardrail)
        guarded.append(Guarded(guardrail, margin, design.better(guardrail), expected, why))
    correlation = np.eye(1)
    if guarded:
        correlation = _correlation(prepared, moments, [name, *(g.metric for g in guarded)])
    return _with_runs(
        result,
        outlook,
        guarded,
        correlation,
        shares=design.shares,
        control=design.control,
        rule=rule,
        relative=relative,
        days=days,
        collected=_collected(prepared),
        is_primary=name == prepared.primary,
    )


def plan_ahead(
    baseline: float,
    *,
    sd: float | None = None,
    units_a_day: float | None = None,
    variants: int = 2,
    shares: Sequence[float] | None = None,
    relative: Sequence[float] = LIFTS,
    margins: Sequence[Margin] = (),
    days: Sequence[int] = DAYS,
    method: Method = "sequential",
    alpha: float = 0.05,
    power: float = 0.8,
    looks: Sequence[float] = (1.0,),
    decisions_per_unit: float = 1.0,
    design_effect: float = 1.0,
    variance_saved: float = 0.0,
    metric: str = "metric",
    names: Sequence[str] = (),
    guardrails: Sequence[GuardrailAhead] = (),
) -> Plan:
    """How long an experiment must run, before it has any traffic.

    Args:
        baseline: the control's value: of a rate between 0 and 1, or with `sd` any number but 0.
        sd: the standard deviation by unit of a numeric metric; None says that it is a rate.
        units_a_day: new units a day of all variants together; None leaves out days.
        variants: how many there are, the control counted, with equal shares.
        shares: the control's share and then each treatment's, on any scale, instead of `variants`.
        relative: effects to find, as fractions of the baseline.
        margins: margins within which the metric, as a guardrail, is to be known harmless (lower
            being better, the worst case).
        days: days of running at which to say what shows.
        method, alpha, power, looks: as for `plan`.
        decisions_per_unit: how many decisions of a unit the metric's mean is over.
        design_effect: how many times larger the variance is for decisions of one unit being alike:
            1 + (decisions per unit − 1) · their correlation (Kish 1965).
        variance_saved: the share of the variance that a covariate takes away (CUPED).
        metric: what `baseline` is of.
        names: the control's name and then each treatment's, of `shares`.
        guardrails: rates of their own that must not be harmed.

    Raises:
        BadRequest: for numbers that cannot be meant.
    """
    rule = checked_rule(method, alpha, looks=looks)
    _check(relative, days, power)
    outlook = _outlook_ahead(baseline, sd, decisions_per_unit, design_effect, variance_saved)
    by_variant = _shares_ahead(variants, shares, names)
    for lift in relative:
        if outlook.lift(lift, (1.0, 1.0), 1) is None:
            raise BadRequest(
                "lift",
                f"got {lift:+.4g} of a rate of {baseline:.4g}; expected one after which the rate "
                "is between 0 and 1",
            )
    if units_a_day is not None and not (isfinite(units_a_day) and units_a_day > 0.0):
        raise BadRequest("units_per_day", f"got {units_a_day!r}; expected a positive number")
    _check_points(margins, outlook)
    guarded = [Guarded(metric, margin, "lower", outlook) for margin in margins]
    for rail in guardrails:
        of_rail = _outlook_ahead(rail.baseline, None, decisions_per_unit, design_effect, 0.0)
        _check_points([rail.margin], of_rail)
        guarded.append(Guarded(rail.metric, rail.margin, rail.better, of_rail))
    result = Plan(
        experiment="",
        metric=metric,
        method=method,
        alpha=alpha,
        power=power,
        units=0,
        units_a_day=units_a_day,
        treatments=len(by_variant) - 1,
        looks=rule.looks,
    )
    result = _with_runs(
        result,
        outlook,
        guarded,
        None,
        shares=by_variant,
        control=next(iter(by_variant)),
        rule=rule,
        relative=relative,
        # At the start there is nothing to be seen yet.
        days=[day for day in days if day > 0],
        collected=dict.fromkeys(by_variant, Collected()),
        is_primary=False,
    )
    are_alike = len(set(by_variant.values())) == 1 and len(by_variant) > 2
    return _of_each(result) if are_alike and not names else result


def _of_each(plan: Plan) -> Plan:
    """The plan of treatments that are all alike: of one of them, called `each variant`."""
    runs = [run for run in plan.runtimes if run.variant == "variant 1"]
    detectable = [line for line in plan.detectable if line.variant == "variant 1"]
    guardrails = [line for line in plan.guardrails if line.variant == "variant 1"]
    return msgspec.structs.replace(
        plan,
        runtimes=[msgspec.structs.replace(run, variant="each variant") for run in runs],
        detectable=[msgspec.structs.replace(line, variant="each variant") for line in detectable],
        guardrails=[msgspec.structs.replace(line, variant="each variant") for line in guardrails],
    )


# --- What is expected


def _outlook(prepared: Prepared, moments: MomentsByArm, metric: str) -> tuple[Outlook | None, str]:
    """What the control says of a metric, or why it says nothing."""
    kind, design = prepared.metrics[metric], prepared.design
    if isinstance(kind, Quantile):
        by_variant = quantile_pairs(prepared.rows, kind, moments, design.control, design.treatments)
        pair = next(iter(by_variant.values()))
    else:
        pair = _control_pair(moments, metric, design)
    control = pair.control
    if pair.reason or control is None:
        return None, pair.reason
    if control.variance == 0.0 or control.value == 0.0:
        return None, reasons.CONSTANT_METRIC
    is_rate = isinstance(kind, Proportion)
    return Outlook(control.value, sqrt(control.variance * control.n), is_rate), reasons.OK


def _control_pair(moments: MomentsByArm, metric: str, design: Design) -> Pair:
    """The control beside itself: only its own (adjusted) variance is wanted."""
    arms = moments.of_variant(metric, design.control)
    terms = moments.terms[metric]
    for variant in design.treatments:
        # The comparison will adjust by nothing where the covariate is not there for all alike.
        pair = estimate_pair(terms, moments.of_variant(metric, variant), arms)
        if pair.remark:
            return estimate_pair(terms.unadjusted(), arms, arms)
    return estimate_pair(terms, arms, arms)


def _correlation(prepared: Prepared, moments: MomentsByArm, names: Sequence[str]) -> Floats:
    """How metrics go together within a unit of the control (k, k), adjusted as they are compared;
    a quantile, and a metric that does not vary, is taken to go with none."""
    terms = [moments.terms.get(name) for name in names]
    plain = [one for one in terms if one is not None]
    joint = joint_moments(prepared.rows, plain, prepared.design.control) if plain else None
    correlation = np.eye(len(names))
    if joint is None:
        return correlation
    gradients = []
    for one in terms:
        if one is None:
            gradients.append(np.zeros(len(joint.columns)))
            continue
        gradient = one.statistic(joint).gradient
        if one.covariate is not None:
            gradient = gradient - regression_slope(joint, one.statistic, one.covariate)
        gradients.append(gradient)
    rows = np.stack(gradients)
    covariance = rows @ joint.scatter @ rows.T
    size = np.sqrt(covariance.diagonal())
    scale = np.outer(size, size)
    np.divide(covariance, scale, out=correlation, where=scale > 0.0)
    np.fill_diagonal(correlation, 1.0)
    return correlation


def _outlook_ahead(
    baseline: float, sd: float | None, decisions: float, design_effect: float, saved: float
) -> Outlook:
    if not (isfinite(decisions) and decisions >= 1.0):
        raise BadRequest(
            "decisions_per_unit", f"got {decisions!r}; expected a number of at least 1"
        )
    if not (isfinite(design_effect) and design_effect >= 1.0):
        raise BadRequest("design_effect", f"got {design_effect!r}; expected a number of at least 1")
    if not 0.0 <= saved < 1.0:
        raise BadRequest("variance_saved", f"got {saved!r}; expected a share from 0 to below 1")
    factor = sqrt(design_effect / decisions * (1.0 - saved))
    if sd is not None:
        if not (isfinite(baseline) and baseline != 0.0):
            raise BadRequest("mean", f"got {baseline!r}; expected a number other than 0")
        if not (isfinite(sd) and sd > 0.0):
            raise BadRequest("sd", f"got {sd!r}; expected a positive standard deviation by unit")
        return Outlook(baseline, sd * factor)
    if not 0.0 < baseline < 1.0:
        raise BadRequest(
            "baseline", f"got {baseline!r}; expected a rate between 0 and 1, such as 0.12"
        )
    return Outlook(baseline, sqrt(baseline * (1.0 - baseline)) * factor, is_rate=True)


def _shares_ahead(
    variants: int, shares: Sequence[float] | None, names: Sequence[str]
) -> dict[str, float]:
    """The control's and the treatments' shares by name."""
    if shares is None:
        if not 2 <= variants <= 100:
            raise BadRequest(
                "variants", f"got {variants!r}; expected from 2 to 100, the control counted"
            )
        shares = [1.0] * variants
    if len(shares) < 2 or not all(isfinite(share) and share > 0.0 for share in shares):
        raise BadRequest(
            "shares",
            f"got {', '.join(f'{share:g}' for share in shares)}; expected two positive shares at "
            "least, the control's first",
        )
    names = names or ["control", *(f"variant {i}" for i in range(1, len(shares)))]
    return dict(zip(names, map(float, shares), strict=True))


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


def _check_points(margins: Sequence[Margin], outlook: Outlook) -> None:
    """Percentage points are of rates; a rate's own unit is better said in them."""
    for margin in margins:
        if margin.value <= 0.0:
            raise BadRequest("margin", f"got {margin}; expected a margin above 0")
        if outlook.is_rate and margin.unit == "absolute":
            raise BadRequest(
                "margin", f"got {margin}; expected a percentage (10%) or points (2pp) of a rate"
            )
        if not outlook.is_rate and margin.unit == "points":
            raise BadRequest(
                "margin",
                f"got {margin}; expected a percentage (10%) or a number: points are of rates",
            )


# --- What there is


@dataclass(frozen=True, slots=True)
class Collected:
    """The units of a variant and the control that there are, and how many, split by the shares in
    force, would tell as much (see `worth_of`)."""

    units: int = 0
    worth: float = 0.0

    @property
    def beside(self) -> float:
        """By how many more they are than they are worth."""
        return self.units - self.worth


def _collected(prepared: Prepared) -> dict[str, Collected]:
    """What there is of each treatment, on the phases that it shares with the control."""
    design, names = prepared.design, prepared.intended.names
    by_variant = {}
    for part in prepared.parts:
        came = counts_by_phase(part.rows, prepared.intended)
        for variant in part.variants:
            by_stratum: dict[int, tuple[int, int]] = {}
            for number, row in came.items():
                counts = dict(zip(names, row, strict=True))
                stratum = 0 if part.strata is None else part.strata[number]
                one, other = by_stratum.get(stratum, (0, 0))
                by_stratum[stratum] = (one + counts[variant], other + counts[design.control])
            by_variant[variant] = _worth_collected(design, variant, by_stratum, part.strata)
    return by_variant


def _worth_collected(
    design: Design,
    variant: str,
    by_stratum: Mapping[int, tuple[int, int]],
    strata: Mapping[int, int] | None,
) -> Collected:
    units = sum(n + n_control for n, n_control in by_stratum.values())
    information = None
    if strata is not None:
        # Those that are too thin are not read, see `without_thin`.
        thick = [pair for pair in by_stratum.values() if min(pair) >= THIN]
        information = sum(information_of(*pair) for pair in thick)
    worth = worth_of(design, variant, information)
    return Collected(units, float(units) if worth is None else worth)


# --- What it takes


def _running(shares: Mapping[str, float], control: str) -> list[str]:
    """The treatments that get units."""
    return [name for name, share in shares.items() if name != control and share > 0.0]


def _with_runs(
    plan: Plan,
    outlook: Outlook,
    guarded: Sequence[Guarded],
    correlation: Floats | None,
    *,
    shares: Mapping[str, float],
    control: str,
    rule: Rule,
    relative: Sequence[float],
    days: Sequence[int],
    collected: Mapping[str, Collected],
    is_primary: bool,
) -> Plan:
    runs: list[PlannedRun] = []
    detectable: list[Detectable] = []
    guardrails: list[PlannedGuardrail] = []
    total = sum(shares.values())
    for variant in _running(shares, control) if shares[control] > 0.0 else []:
        pair = (shares[control], shares[variant])
        rate = (plan.units_a_day or 0.0) * sum(pair) / total
        reader = _Arms(
            variant=variant,
            shares=pair,
            units_a_day=rate,
            all_to_own=total / sum(pair),
            rule=rule,
            power=plan.power,
            tests=plan.treatments,
            collected=collected[variant],
        )
        own = reader.runs(outlook, guarded if is_primary else None, correlation, relative)
        runs += own
        detectable += reader.detectable(outlook, days)
        guardrails += reader.guardrails(guarded, own)
    return msgspec.structs.replace(
        plan,
        baseline=outlook.baseline,
        sd=outlook.sd,
        runtimes=runs,
        detectable=detectable,
        guardrails=guardrails,
    )


@dataclass(frozen=True, slots=True)
class _Arms:
    """A variant beside the control: their shares and new units a day, how many times as many units
    all variants have, the rule by which they are called, and the units that there are."""

    variant: str
    shares: tuple[float, float]
    units_a_day: float
    all_to_own: float
    rule: Rule
    power: float
    tests: int
    collected: Collected

    def days(self, units: int | None) -> float | None:
        return None if units is None or self.units_a_day <= 0.0 else units / self.units_a_day

    def days_left(self, units: int | None) -> float | None:
        """The days from now until there is as much as so many units would tell."""
        days = self.days(units)
        return None if days is None else max(0.0, days - self.collected.worth / self.units_a_day)

    def all_units(self, units: int | None) -> int | None:
        return None if units is None else round(units * self.all_to_own)

    def runs(
        self,
        outlook: Outlook,
        guarded: Sequence[Guarded] | None,
        correlation: Floats | None,
        relative: Sequence[float],
    ) -> list[PlannedRun]:
        """What each lift takes; `guarded` is None where a call alone ships nothing."""
        runs = []
        for lift in relative:
            aim = outlook.lift(lift, self.shares, self.tests)
            units = self._call(aim)
            left = self._call(aim, self.collected.beside)
            ship, ship_left = units, left
            if guarded is None or aim is None or units is None:
                ship = ship_left = None
            elif guarded:
                aims = self._aims(aim, lift, guarded, correlation)
                ship = self._all(aims)
                ship_left = self._all(aims, self.collected.beside)
            runs.append(
                PlannedRun(
                    variant=self.variant,
                    relative=lift,
                    units=units,
                    days=self.days(units),
                    all_units=self.all_units(units),
                    ship_units=ship,
                    ship_days=self.days(ship),
                    days_left=self.days_left(left),
                    ship_days_left=self.days_left(ship_left),
                )
            )
        return runs

    def _call(self, aim: Aim | None, beside: float = 0.0) -> int | None:
        """Units until the aim is called; `beside` as for `units_for`."""
        return None if aim is None else units_for(aim, self.rule, self.power, beside=beside)

    def _aims(
        self, aim: Aim, lift: float, guarded: Sequence[Guarded], correlation: Floats | None
    ) -> tuple[list[Aim], Floats] | None:
        """The call and all guardrails, with how they go together; None where one of them never is
        shown."""
        aims, signs = [aim], [1.0 if lift > 0.0 else -1.0]
        for g in guarded:
            if g.outlook is None:
                return None
            aims.append(g.outlook.harmless(g.margin, g.better, self.shares))
            signs.append(1.0 if g.better == "higher" else -1.0)
        matrix = np.eye(len(aims)) if correlation is None else correlation
        return aims, matrix * np.outer(signs, signs)

    def _all(self, together: tuple[list[Aim], Floats] | None, beside: float = 0.0) -> int | None:
        """Units until all of them are there at one look."""
        if together is None:
            return None
        return units_for_all(*together, self.rule, self.power, beside=beside)

    def detectable(self, outlook: Outlook, days: Sequence[int]) -> list[Detectable]:
        """The minimum detectable effects (MDE)."""
        lines = []
        for day in days:
            # Without traffic only today can be spoken of.
            if day > 0 and self.units_a_day <= 0.0:
                continue
            more = self.units_a_day * day
            least = detectable_effect(
                outlook.sd,
                self.collected.worth + more,
                self.rule,
                shares=self.shares,
                power=self.power,
                tests=self.tests,
                beside=self.collected.beside,
            )
            relative = None if least is None else least / abs(outlook.baseline)
            units = round(self.collected.units + more)
            lines.append(Detectable(variant=self.variant, days=day, units=units, relative=relative))
        return lines

    def guardrails(
        self, guarded: Sequence[Guarded], runs: Sequence[PlannedRun]
    ) -> list[PlannedGuardrail]:
        """What it takes to know that guardrails are kept, beside what the least of the lifts
        takes."""
        least = min(runs, key=lambda run: abs(run.relative), default=None)
        by_then = None if least is None else least.units
        lines = []
        for g in guarded:
            units, left, reachable = None, None, None
            if g.outlook is not None:
                aim = g.outlook.harmless(g.margin, g.better, self.shares)
                units, left = self._call(aim), self._call(aim, self.collected.beside)
                reachable = self._reachable(g.margin, g.outlook, by_then)
            lines.append(
                PlannedGuardrail(
                    variant=self.variant,
                    metric=g.metric,
                    margin=g.margin.value,
                    margin_unit=g.margin.unit,
                    units=units,
                    days=self.days(units),
                    all_units=self.all_units(units),
                    reachable=reachable,
                    days_left=self.days_left(left),
                    reason=g.reason,
                )
            )
        return lines

    def _reachable(self, margin: Margin, outlook: Outlook, units: int | None) -> float | None:
        """About the margin that is known to be kept at so many units."""
        if units is None:
            return None
        # As if the margin took nothing from the control's noise, of which it takes little.
        room = detectable_effect(outlook.sd, units, self.rule, shares=self.shares, power=self.power)
        if room is None or not margin.is_relative:
            return room
        return room / abs(outlook.baseline)
