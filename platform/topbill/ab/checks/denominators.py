"""Does a variant move what its metrics divide by: decisions per unit, units with a value, a ratio's
denominator?

Units were randomised, not decisions. Where a variant brings some of them back more often, a mean
per decision is one of other people than the control's, and differs by that mix although nobody does
anything differently. So what is divided by is compared as any metric is, beside the split of units;
where it differs, the metric is not called, and what counts each unit once is called instead.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import replace
from math import sqrt

from topbill.ab.core.effect import ArmEstimate, Effect, Rule, welch_df
from topbill.ab.core.units import MetricTerms, MomentsByArm
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
