"""Does a variant move what its metrics divide by: decisions per unit, units with a value, a ratio's
denominator?

Units were randomised, not decisions. Where a variant brings some of them back more often, a mean
per decision is one of other people than the control's, and differs by that mix although nobody does
anything differently. So what is divided by is compared as any metric is, beside the split of units;
where it differs, the metric is not called, and what counts each unit once is called instead. Where
it may differ (`doubts`), a call must stand without what that could have done to it.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import replace
from math import copysign, sqrt
from typing import Any

from topbill.ab.core.effect import (
    Adjustment,
    ArmEstimate,
    Effect,
    Pair,
    Rule,
    effect_of,
    welch_df,
)
from topbill.ab.core.units import Covariates, MetricTerms, MomentsByArm
from topbill.ab.metrics import Mean, Metric, Proportion, Quantile, Ratio, Sum
from topbill.ab.parts import Part
from topbill.ab.reasons import DENOMINATOR_MOVED
from topbill.ab.results import DenominatorCheck
from topbill.domain.formatting import label
from topbill.stats.moments import mean

ALPHA = 0.01
"""The chance that variants which differ in nothing raise the alarm on a metric, however often one
looks."""


def denominators(
    part: Part,
    moments: MomentsByArm,
    metrics: Mapping[str, Metric],
    names: Sequence[str],
    control: object,
    rule: Rule,
    alpha: float = ALPHA,
) -> list[DenominatorCheck]:
    """The check of each variant of a part on those of `metrics` that `names` says, as far as they
    divide by something else than the number of units; `moments` has all but the quantiles. Units
    that came in earlier phases came oftener, so it is made within strata as effects are.

    By the rule's own method where that looks once, else by the sequential one; at `alpha` for all
    variants together (Bonferroni), since one is enough to be misled by.
    """
    test = rule if rule.method == "fixed" else replace(rule, method="sequential")
    test = replace(test, alpha=alpha / max(1, len(part.variants)))
    checks = []
    for metric in names:
        own, own_moments = metrics[metric], moments
        if isinstance(own, Quantile):
            # Of quantiles there are no moments: a mean divides by what they are taken over.
            own_moments = part.gather({metric: Mean(own.column, own.per)}, None)
        terms = _of_divisor(own_moments.terms[metric])
        if terms is None:
            continue
        for variant in part.variants:
            pair = part.pair(own_moments, terms, metric, variant, control)
            if pair.reason or pair.treated is None or pair.control is None:
                continue
            p_value = _p_value(pair.treated, pair.control, test)
            checks.append(
                DenominatorCheck(
                    metric=metric,
                    variant=variant,
                    per_unit=pair.treated.value,
                    per_unit_control=pair.control.value,
                    se=sqrt(pair.treated.variance + pair.control.variance),
                    p_value=p_value,
                    alarm=p_value <= test.alpha,
                )
            )
    return checks


def _of_divisor(terms: MetricTerms) -> MetricTerms | None:
    """How the mean per unit of what a metric divides by is read off the same moments; None where
    it divides by the number of units."""
    name = terms.divisor
    if name is None:
        return None
    return MetricTerms(Sum(name), (terms.terms[1],), mean(name), empty=terms.empty)


def _p_value(treated: ArmEstimate, control: ArmEstimate, rule: Rule) -> float:
    difference = treated.value - control.value
    se = sqrt(treated.variance + control.variance)
    if se == 0.0:
        # Nothing varies in either arm: equal, or different for certain.
        return 1.0 if difference == 0.0 else 0.0
    p_value = rule.p_value(difference / se, treated.n + control.n, welch_df(treated, control))
    return 1.0 if p_value is None else p_value


def per_unit(metric: Metric) -> list[Metric]:
    """What may be called instead of a metric whose denominator moved, first choice first; of each
    the denominator is checked again.

    The mean over units of their own means counts everybody once, however often they came. Where
    variants differ in who has any value at all, only what each unit has in total is left.
    """
    if isinstance(metric, Ratio):
        return [Sum(metric.numerator)]
    if isinstance(metric, Quantile):
        return [Quantile(metric.column, metric.q, per="unit")] if metric.per == "row" else []
    if isinstance(metric, Mean | Proportion) and metric.per == "row":
        return [Mean(metric.column, per="unit"), Sum(metric.column)]
    return [Sum(metric.column)]


# --- What moved too little for an alarm

Doubts = dict[tuple[str, Any], tuple[Pair, Pair]]
"""By metric and variant, what bears out a call: either of two pairs."""


def doubts(
    part: Part,
    metrics: Mapping[str, Metric],
    pairs: Mapping[str, Mapping[Any, Pair]],
    checks: Sequence[DenominatorCheck],
    covariates: Covariates | None,
    control: Any,
    adjust: Adjustment,
) -> Doubts:
    """What else has to show a difference of `pairs` where `checks` raised no alarm, for means and
    shares per row: its own difference less what the denominator may have done to it, or the
    difference of units counted once.

    A check that raises no alarm proves nothing: what moves visits by two standard errors may move
    a rate by two of its own, and who tests the one first and then the other calls far more than
    alpha of such rates (Guggenberger 2010, on pretests). To count each unit once is right whatever
    moved, but where nothing did, it may have half the power.
    """
    quiet, own = [], {}
    for check in checks:
        metric = metrics[check.metric]
        if isinstance(metric, Mean | Proportion) and metric.per == "row" and not check.alarm:
            quiet.append(check)
            own[check.metric] = per_unit(metric)[0]
    if not quiet:
        return {}
    _, once = part.gathered(own, covariates, control, adjust)
    result: Doubts = {}
    for check in quiet:
        name: Any = check.variant  # by value, as labels are
        pair, counted_once = pairs[check.metric][name], once[check.metric][name]
        # What is judged by counts of units already counts each once.
        if pair.rates is None and not pair.reason and not counted_once.reason:
            result[check.metric, name] = (drawn(pair, counted_once, check), counted_once)
    return result


def drawn(pair: Pair, once: Pair, check: DenominatorCheck) -> Pair:
    """The pair with its difference drawn towards that of units counted once, by at most as many of
    its standard errors as the denominator differs by of its own."""
    t, c = pair.treated, pair.control
    if t is None or c is None or once.treated is None or once.control is None:
        return pair
    difference = t.value - c.value
    too_far = difference - (once.treated.value - once.control.value)
    if too_far * difference <= 0.0:
        return pair
    most = abs(check.z) * sqrt(t.variance + c.variance)
    less = copysign(min(abs(too_far), most), difference)
    return replace(pair, treated=replace(t, value=t.value - less))


def shows_something(by_variant: Mapping[Any, Pair], rule: Rule) -> bool:
    """Whether the interval of some variant's difference leaves zero out."""
    return any(_side(effect_of("", name, pair, rule)) for name, pair in by_variant.items())


def is_doubtful(effect: Effect, others: Sequence[Effect]) -> bool:
    """Whether an effect shows a difference that none of the others (if any) bears out."""
    side = _side(effect)
    return side != 0 and bool(others) and all(_side(other) != side for other in others)


def _side(effect: Effect) -> int:
    """On which side of zero the interval of the difference is; 0 where it has zero in it."""
    low, high = effect.difference_low, effect.difference_high
    if low is None or high is None:
        return 0
    return (low > 0.0) - (high < 0.0)


def withheld(effect: Effect) -> Effect:
    """The effect without what would call it: its values stand, the interval and p-value do not."""
    return Effect(
        metric=effect.metric,
        variant=effect.variant,
        value=effect.value,
        control_value=effect.control_value,
        difference=effect.difference,
        n=effect.n,
        n_control=effect.n_control,
        reason=DENOMINATOR_MOVED,
        is_proportion=effect.is_proportion,
    )


def sentence(check: DenominatorCheck, control: str) -> str:
    """What differs, with its numbers."""
    p = "p < 0.001" if check.p_value < 0.001 else f"p = {check.p_value:.2g}"
    return (
        f"{label(check.metric)}: what it is divided by differs, {check.per_unit:.3g} a unit in "
        f"{check.variant} and {check.per_unit_control:.3g} in {control} ({p}), so that a rate "
        "moves by who comes how often; see it per unit"
    )
