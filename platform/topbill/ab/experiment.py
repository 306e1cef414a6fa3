"""One experiment's whole A/B analysis from rows of decisions: comparisons, guardrails, split, segments, verdict.

A report calls it so, with rows from wherever it reads them (the lake's face, say):

    design = ab.Design.of(experiment)            # or built from the lake's own tables
    found = ab.analyse(rows, design, unit="unit", variant="variant", day="day", segments=["device"])
    found.verdict.sentence, found.comparisons, msgspec.json.encode(found)

`rows` has a row per decision of a unit in the experiment: its unit, its variant, the day (any type that sorts),
a column per segment, and one per metric, NULL where the metric's window is not over yet. Decisions outside the
experiment (no variant) may be there and are left out. A column `objective` is used if there, else computed.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from math import sqrt
from typing import Any, Literal

import msgspec

from topbill.ab import guardrails as rails
from topbill.ab import power, reasons, textbook
from topbill.ab.analysis import Analysis, Comparison, Heterogeneity
from topbill.ab.arms import Adjustment, Pair, estimate
from topbill.ab.compare import check_metrics, checked_rule, effect_of, noted, read_rows
from topbill.ab.effect import Method, Rule
from topbill.ab.gather import Gathered, gather
from topbill.ab.metrics import Mean, Metric, Proportion
from topbill.ab.rows import Rows, quoted, relation_of
from topbill.ab.segments import heterogeneity, with_adjusted
from topbill.ab.split import sample_ratio
from topbill.ab.verdict import verdict
from topbill.errors import BadRequest
from topbill.spec import Experiment

OBJECTIVE = "objective"


class MetricDesign(msgspec.Struct, frozen=True, kw_only=True):
    """A metric as the analysis needs it: 0/1 or a number, the good direction, its weight and cap in the objective."""

    name: str
    binary: bool = False
    better: Literal["higher", "lower"] = "higher"
    weight: float = 0.0
    cap: float = 1.0


class Design(msgspec.Struct, frozen=True, kw_only=True):
    """What the analysis needs to know of an experiment; `shares` by variant, `guardrails` margins by metric."""

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
                    binary=m.kind == "binary",
                    better=m.better,
                    weight=experiment.objective.get(m.name, 0.0),
                    cap=m.cap,
                )
                for m in experiment.metrics
            ),
            guardrails={g.metric: g.worse_by_at_most for g in experiment.guardrails},
        )


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
) -> Analysis:
    """The A/B analysis of one experiment from rows of decisions (see the module's docstring for the columns).

    `unit=None` makes each decision a unit, `day=None` leaves out what needs days. `covariates` maps a metric (or
    "objective") to a pre-period column. Raises BadRequest for missing columns and arguments that cannot be meant;
    weak data never raises: numbers are None then, with a reason, and the verdict says what is missing.
    """
    design = design if isinstance(design, Design) else Design.of(design)
    rule = checked_rule(method, alpha)
    relation, primary = with_objective(relation_of(data), design)
    metrics = metrics_of(design, primary)
    check_metrics(metrics, covariates, adjust)
    labels = [*([day] if day else []), *segments]
    rows = read_rows(relation, unit=unit, variant=variant, metrics=metrics, covariates=covariates, labels=labels)
    gathered = gather(rows, metrics, covariates, products=adjust == "lin")
    names = [name for name in design.shares if name != design.control]
    split = sample_ratio(rows, design.shares, day=day, segments=segments)
    units_a_day = sum(split.counts.values()) / len(split.days) if split.days else 0.0
    pairs = {name: _pairs(gathered, name, design.control, names, adjust) for name in metrics}
    comparisons = _comparisons(pairs, design, rule, gathered.mixed, units_a_day)
    kept = [
        rails.guardrail(name, v, pairs[name][v], rule, worse_by_at_most=margin, better=_better(design, name))
        for name, margin in design.guardrails.items()
        for v in names
    ]
    differing = _by_segment(rows, metrics, covariates, primary, segments, design, names, rule, adjust)
    return Analysis(
        experiment=design.key,
        control=design.control,
        primary=primary,
        method=method,
        alpha=alpha,
        units=split.counts,
        comparisons=comparisons,
        guardrails=kept,
        sample_ratio=split,
        heterogeneity=differing,
        verdict=verdict([c for c in comparisons if c.metric == primary], kept, split, design.control, alpha),
        notes=[reasons.REASONS[reasons.CROSSOVER_UNITS]] if gathered.mixed else [],
    )


def with_objective(relation: Any, design: Design) -> tuple[Any, str]:
    """The relation with its objective column, and the primary metric's name: the objective's only metric, if it is
    one, for then plays read better than points."""
    weighted = [m for m in design.metrics if m.weight]
    if len(weighted) == 1 and weighted[0].weight > 0.0:
        return relation, weighted[0].name
    if OBJECTIVE in relation.columns:
        return relation, OBJECTIVE
    positive = sum(m.weight for m in weighted if m.weight > 0.0)
    if positive <= 0.0:
        raise BadRequest("design.metrics", "no metric has a positive weight; expected an objective")
    missing = [m.name for m in weighted if m.name not in relation.columns]
    if missing:
        raise BadRequest(f"data.{missing[0]}", f"no such column; the data has {', '.join(relation.columns)}")
    parts = [
        f"{m.weight!r} * least(1.0, greatest(0.0, CAST({quoted(m.name)} AS DOUBLE) / {m.cap!r}))" for m in weighted
    ]
    total = f"least(1.0, greatest(0.0, ({' + '.join(parts)}) / {positive!r}))"
    return relation.query("unit_rows", f"SELECT *, {total} AS {OBJECTIVE} FROM unit_rows"), OBJECTIVE  # noqa: S608


def metrics_of(design: Design, primary: str) -> dict[str, Metric]:
    """All metrics, the primary one first, then in the design's order."""
    kinds: dict[str, Metric] = {m.name: Proportion(m.name) if m.binary else Mean(m.name) for m in design.metrics}
    return {primary: kinds.get(primary, Mean(OBJECTIVE)), **{k: v for k, v in kinds.items() if k != primary}}


def _better(design: Design, metric: str) -> Literal["higher", "lower"]:
    return next((m.better for m in design.metrics if m.name == metric), "higher")


def _pairs(
    gathered: Gathered, metric: str, control: str, variants: Sequence[str], adjust: Adjustment
) -> dict[str, Pair]:
    plan, arms = gathered.plans[metric], gathered.arms[metric]
    by_name = {str(key[0]): {key[1:]: arm} for key, arm in arms.items()}
    reference = by_name.get(control, {})
    return {v: estimate(plan, by_name.get(v, {}), reference, adjust) for v in variants}


def _comparisons(
    pairs: Mapping[str, Mapping[str, Pair]], design: Design, rule: Rule, mixed: int, units_a_day: float
) -> list[Comparison]:
    total = sum(design.shares.values())
    found = []
    for metric, by_variant in pairs.items():
        for variant, pair in by_variant.items():
            share = (design.shares[variant] + design.shares[design.control]) / total if total > 0.0 else 0.0
            found.append(_comparison(metric, variant, pair, rule, mixed, _better(design, metric), units_a_day * share))
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
    sign = 1.0 if better == "higher" else -1.0
    low, high = sorted((sign * (e.difference_low or 0.0), sign * (e.difference_high or 0.0)))
    if better == "lower":
        plain["chance_to_win"] = None if e.chance_to_win is None else 1.0 - e.chance_to_win
        plain["expected_loss"] = None if e.expected_loss is None else e.expected_loss + e.difference
    units = e.n + e.n_control
    least = power.detectable_effect(e.se * sqrt(units) / 2.0, units, rule)
    return Comparison(
        **plain,
        better=better,
        call="better" if low > 0.0 else "worse" if high < 0.0 else "no_call",
        detectable=least / abs(pair.control.value) if least is not None and e.relative is not None else None,
        days_to_decision=power.days_to_decision(e.difference, e.se, units, units_a_day, rule),
    )


def _by_segment(
    rows: Rows,
    metrics: Mapping[str, Metric],
    covariates: Mapping[str, str] | None,
    primary: str,
    segments: Sequence[str],
    design: Design,
    variants: Sequence[str],
    rule: Rule,
    adjust: Adjustment,
) -> list[Heterogeneity]:
    one = {name: column for name, column in (covariates or {}).items() if name == primary}
    found: list[Heterogeneity] = []
    for segment in segments:
        gathered = gather(rows, {primary: metrics[primary]}, one, segments=[segment], products=adjust == "lin")
        found += heterogeneity(
            gathered, primary, segment, control=design.control, variants=variants, rule=rule, adjust=adjust
        )
    return with_adjusted(found)
