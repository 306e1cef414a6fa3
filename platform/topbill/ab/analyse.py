"""One experiment's whole A/B analysis from rows of decisions: comparisons, guardrails, split,
segments, verdict.

A report calls it so, with rows from wherever it reads them (the lake's face, say):

    design = ab.Design.of(experiment)            # or built from the lake's own tables
    found = ab.analyse(rows, design, unit="unit", variant="variant", day="day", segments=["device"])
    found.verdict.sentence, found.comparisons, msgspec.json.encode(found)

`rows` has a row per decision of a unit in the experiment: its unit, its variant, the day (any type
that sorts), a column per segment, and one per metric, NULL where the metric's window is not over
yet. Decisions outside the experiment (no variant) may be there and are left out. A column
`objective` is used if there, else computed.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from math import sqrt
from typing import Any, Literal

import msgspec

from topbill.ab import reasons
from topbill.ab.checks import guardrails as rails
from topbill.ab.checks.segments import heterogeneity, with_adjusted
from topbill.ab.checks.split import sample_ratio
from topbill.ab.compare import checked_rule, effect_of, noted
from topbill.ab.core.arms import Adjustment, Pair, estimate
from topbill.ab.core.effect import Method, Rule
from topbill.ab.core.gather import Gathered, gather
from topbill.ab.design import Design, Prepared, prepare
from topbill.ab.power import runtime as power
from topbill.ab.power import textbook
from topbill.ab.results import Analysis, Comparison, Heterogeneity
from topbill.ab.verdict import called, verdict
from topbill.spec import Experiment


def analyse(
    data: Any,
    design: Design | Experiment,
    *,
    unit: str | None = "unit",
    variant: str = "variant",
    day: str | None = "day",
    segments: Sequence[str] = (),
    covariates: Mapping[str, str] | None = None,
    method: Method = "sequential",
    alpha: float = 0.05,
    adjust: Adjustment = "cuped",
    looks: Sequence[float] = (1.0,),
) -> Analysis:
    """The A/B analysis of one experiment from rows of decisions (see the module's docstring for the
    columns).

    `unit=None` makes each decision a unit, `day=None` leaves out what needs days. `covariates` maps
    a metric (or "objective") to a pre-period column; `looks` are those of `compare`. Raises
    BadRequest for missing columns and arguments that cannot be meant; weak data never raises:
    numbers are None then, with a reason, and the verdict says what is missing.
    """
    rule = checked_rule(method, alpha, looks=looks)
    labels = [*([day] if day else []), *segments]
    ready = prepare(
        data,
        design,
        unit=unit,
        variant=variant,
        labels=labels,
        covariates=covariates,
        adjust=adjust,
    )
    known, names = ready.design, ready.design.treatments
    gathered = gather(ready.rows, ready.metrics, covariates, products=adjust == "lin")
    split = sample_ratio(ready.rows, known.shares, day=day, segments=segments)
    units_a_day = sum(split.counts.values()) / len(split.days) if split.days else 0.0
    pairs = {name: _pairs(gathered, name, known.control, names, adjust) for name in ready.metrics}
    comparisons = _comparisons(pairs, known, rule, gathered.mixed, units_a_day)
    kept = [
        rails.guardrail(name, v, pairs[name][v], rule, margin=margin, better=known.better(name))
        for name, margin in known.guardrails.items()
        for v in names
    ]
    main = [c for c in comparisons if c.metric == ready.primary]
    return Analysis(
        experiment=known.key,
        control=known.control,
        primary=ready.primary,
        method=method,
        alpha=alpha,
        units=split.counts,
        comparisons=comparisons,
        guardrails=kept,
        sample_ratio=split,
        heterogeneity=_by_segment(ready, covariates, segments, rule, adjust),
        verdict=verdict(main, kept, split, known.control),
        notes=[
            *([reasons.REASONS[reasons.CROSSOVER_UNITS]] if gathered.mixed else []),
            *_savings(comparisons),
        ],
    )


def _savings(comparisons: Sequence[Comparison]) -> list[str]:
    """What covariates are worth, a sentence a metric: the least of its variants' savings."""
    least: dict[str, float] = {}
    for c in comparisons:
        if c.variance_saved is not None:
            least[c.metric] = min(c.variance_saved, least.get(c.metric, 1.0))
    return [
        f"{metric.replace('_', ' ')}: what units did before takes away {saved:.0%} of the variance, "
        f"which is worth {1.0 / max(1.0 - saved, 1e-9) - 1.0:,.0%} more units"
        for metric, saved in least.items()
        if saved >= 0.005
    ]


def _pairs(
    gathered: Gathered, metric: str, control: str, variants: Sequence[str], adjust: Adjustment
) -> dict[str, Pair]:
    plan, arms = gathered.plans[metric], gathered.arms[metric]
    by_name = {str(key[0]): {key[1:]: arm} for key, arm in arms.items()}
    reference = by_name.get(control, {})
    return {v: estimate(plan, by_name.get(v, {}), reference, adjust) for v in variants}


def _comparisons(
    pairs: Mapping[str, Mapping[str, Pair]],
    design: Design,
    rule: Rule,
    mixed: int,
    units_a_day: float,
) -> list[Comparison]:
    total = sum(design.shares.values())
    found: list[Comparison] = []
    for metric, by_variant in pairs.items():
        of_metric = []
        for variant, pair in by_variant.items():
            share = (
                (design.shares[variant] + design.shares[design.control]) / total
                if total > 0.0
                else 0.0
            )
            rate = units_a_day * share
            of_metric.append(
                _comparison(metric, variant, pair, rule, mixed, design.better(metric), rate)
            )
        found += called(of_metric, rule.alpha)
    adjusted = textbook.adjusted([c.p_value for c in found], "fdr_bh")
    return [msgspec.structs.replace(c, p_adjusted=p) for c, p in zip(found, adjusted, strict=True)]


def _comparison(
    metric: str,
    variant: str,
    pair: Pair,
    rule: Rule,
    mixed: int,
    better: Literal["higher", "lower"],
    units_a_day: float,
) -> Comparison:
    e = noted(effect_of(metric, variant, pair, rule), mixed)
    plain = {name: getattr(e, name) for name in e.__struct_fields__}
    if e.se is None or e.difference is None or pair.control is None:
        return Comparison(**plain, better=better)
    if better == "lower":
        plain["chance_to_win"] = None if e.chance_to_win is None else 1.0 - e.chance_to_win
        plain["expected_loss"] = None if e.expected_loss is None else e.expected_loss + e.difference
    units = e.n + e.n_control
    least = power.detectable_effect(e.se * sqrt(units) / 2.0, units, rule)
    return Comparison(
        **plain,
        better=better,
        detectable=least / abs(pair.control.value)
        if least is not None and e.relative is not None
        else None,
        days_to_decision=power.days_to_decision(e.difference, e.se, units, units_a_day, rule),
        variance_saved=pair.saved,
    )


def _by_segment(
    ready: Prepared,
    covariates: Mapping[str, str] | None,
    segments: Sequence[str],
    rule: Rule,
    adjust: Adjustment,
) -> list[Heterogeneity]:
    one = {name: column for name, column in (covariates or {}).items() if name == ready.primary}
    metric = {ready.primary: ready.metrics[ready.primary]}
    found: list[Heterogeneity] = []
    for segment in segments:
        gathered = gather(ready.rows, metric, one, segments=[segment], products=adjust == "lin")
        found += heterogeneity(
            gathered,
            ready.primary,
            segment,
            control=ready.design.control,
            variants=ready.design.treatments,
            rule=rule,
            adjust=adjust,
        )
    return with_adjusted(found)
