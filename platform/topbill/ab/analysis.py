"""One experiment's whole A/B analysis from rows of decisions: comparisons, guardrails, split,
segments, verdict.

A report calls it so, with rows from wherever it reads them (the analytics database, say):

    design = ab.Design.of(experiment)            # or built from the lake's own tables
    result = ab.analyse(rows, design, unit="unit", variant="variant", segments=["device"])
    result.verdict.sentence, result.comparisons, msgspec.json.encode(result)

`rows` has a row per decision of a unit in the experiment: its unit, its variant, the moment or the
day (any type that sorts), a column per segment, and one per metric, NULL where the metric's window
is not over yet. Decisions outside the experiment (no variant) may be there and are left out. A
column `objective` is used if there, else computed.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field, replace
from functools import partial
from math import sqrt
from typing import Any

import msgspec

from topbill.ab import reasons
from topbill.ab.checks.denominators import (
    Doubts,
    denominators,
    doubts,
    per_unit,
    shows_something,
    withheld,
)
from topbill.ab.checks.denominators import sentence as moved_sentence
from topbill.ab.checks.segments import heterogeneity, with_adjusted
from topbill.ab.checks.srm import Intended, sample_ratio
from topbill.ab.core.effect import (
    Adjustment,
    Effect,
    Pair,
    Rule,
    checked_rule,
    effect_of,
    is_share,
    loss_of_control,
)
from topbill.ab.core.units import (
    Covariates,
    UnitRows,
    check_columns,
    covariates_of,
    read_rows,
    with_read_times,
)
from topbill.ab.judged import Direction, Limit, MetricDesign, judged
from topbill.ab.judged import sentence as cut_sentence
from topbill.ab.metrics import Mean, Metric, Quantile
from topbill.ab.parts import (
    Columns,
    Part,
    checked_phases,
    intended_of,
    parts_of,
    units_of_one_variant,
    with_units,
    within_phases,
)
from topbill.ab.phases import Phase, Reading, with_changes
from topbill.ab.power import runtime
from topbill.ab.results import (
    Analysis,
    Comparison,
    DenominatorCheck,
    GuardrailResult,
    Heterogeneity,
    SampleRatio,
    Split,
)
from topbill.ab.verdict import called, guardrail, phase_notes, verdict
from topbill.domain.errors import BadRequest
from topbill.domain.formatting import label, listing
from topbill.domain.instants import instant
from topbill.domain.margin import Margin
from topbill.domain.objective import OBJECTIVE_RANGE, WeightedMetric, WeightedSum
from topbill.domain.reading import Method
from topbill.domain.sql import identifier
from topbill.domain.zones import UTC, checked_zone
from topbill.lake.frames import relation_of
from topbill.spec import Experiment

OBJECTIVE = "objective"


class Design(msgspec.Struct, frozen=True, kw_only=True):
    """What the analysis needs to know of an experiment; `shares` by variant, `guardrails` margins
    by metric, a plain number being relative (0.1: 10% of the control's value); `phases` (the oldest
    first) where variants or shares were changed on the way.

    Raises:
        BadRequest: for a metric that only a guardrail watches and that does not say which direction
            is good; for a guardrail of no metric; and for a control that has no share.
    """

    key: str
    control: str
    shares: dict[str, float]
    metrics: tuple[MetricDesign, ...]
    guardrails: dict[str, float | Margin] = {}
    phases: tuple[Phase, ...] = ()

    def __post_init__(self) -> None:
        names = [m.name for m in self.metrics]
        for name in self.guardrails:
            if name not in names and name != OBJECTIVE:
                raise BadRequest(
                    f"design.guardrails.{name}", f"no such metric; the metrics are {listing(names)}"
                )
        if self.shares and self.control not in self.shares:
            raise BadRequest(
                "design.control",
                f"got {self.control!r}, which has no share; expected one of "
                f"{listing([str(label) for label in self.shares])}",
            )
        for m in self.metrics:
            if m.name in self.guardrails and m.better is None and not m.weight:
                raise BadRequest(
                    f"design.metrics.{m.name}.better",
                    "got nothing; expected 'higher' or 'lower', since only a guardrail watches "
                    "it and no weight says which direction is good",
                )

    @classmethod
    def of(cls, experiment: Experiment) -> Design:
        """The design of an experiment file."""
        metrics = tuple(
            MetricDesign(
                name=m.name,
                binary=m.definition.is_proportion,
                better=m.better,
                weight=experiment.objective.get(m.name, 0.0),
                cap=m.judged_cap,
                floor=m.floor,
                per=m.per,
                winsorise=m.winsorise,
                q=m.q,
                numerator=m.numerator,
                denominator=m.denominator,
            )
            for m in experiment.metrics
        )
        return cls(
            key=experiment.key,
            control=experiment.control.name,
            shares={v.name: v.share for v in experiment.variants},
            metrics=metrics,
            guardrails={g.metric: Margin(g.margin, g.margin_unit) for g in experiment.guardrails},
        )

    def better(self, metric: str) -> Direction:
        """Which direction of a metric (or the objective) is good."""
        for m in self.metrics:
            if m.name == metric:
                return m.direction
        return "higher"

    @property
    def margins(self) -> dict[str, Margin]:
        """The margin of each guardrail's metric."""
        margins = {}
        for metric, margin in self.guardrails.items():
            margins[metric] = margin if isinstance(margin, Margin) else Margin(margin)
        return margins

    @property
    def treatments(self) -> list[str]:
        """The variants other than the control."""
        return [name for name in self.shares if name != self.control]


def analyse(
    data: Any,
    design: Design | Experiment,
    *,
    unit: str | None = "unit",
    variant: str = "variant",
    day: str | None = "day",
    segments: Sequence[str] = (),
    phase: str | None = None,
    first_exposure: bool = False,
    covariates: Covariates | None = None,
    method: Method = "sequential",
    alpha: float = 0.05,
    adjust: Adjustment = "cuped",
    looks: Sequence[float] = (1.0,),
    time_zone: str = UTC,
    decides: bool = True,
) -> Analysis:
    """The A/B analysis of one experiment from rows of decisions.

    Args:
        data: a frame, Arrow data, a dict of columns or a DuckDB relation, as in `compare`; see the
            module's docstring for its columns.
        design: the experiment, or what is needed of it.
        unit: the unit's column; None makes each decision a unit.
        variant: the variant's column.
        day: the column of the moment (or only the day) of a row; None leaves out what needs days.
            Of moments (without a zone: in UTC) the days are those of `time_zone`.
        segments: columns to look into for effects that differ. A unit belongs to the segment of its
            first row: by `day`, and of one day's rows the one that stands first.
        phase: the column with the number of each row's phase, from 0, among those of the design:
            the split is tested by the shares in force when a unit came, and effects are taken
            within strata of equal shares. Units that changed variant with the phase count for the
            one that they were given first.
        first_exposure: let every unit that was seen in several variants count for its first;
            otherwise those that no phase explains are counted and left out.
        covariates: a pre-period column, or several, by metric (or "objective").
        method, alpha, adjust, looks: those of `compare`.
        time_zone: whose days are counted, such as `Europe/Oslo`.
        decides: whether the verdict may advise to ship; False where the design's control is another
            variant than the one in use.

    Raises:
        BadRequest: for missing columns and arguments that cannot be meant.
        BadData: for columns that cannot be used. Weak data never raises: numbers are None then,
            with a reason, and the verdict says what is missing.
    """
    rule = checked_rule(method, alpha, looks=looks)
    columns = Columns(unit, variant, day, phase, first_exposure)
    prepared = prepare(
        data, design, columns=columns, labels=segments, covariates=covariates, adjust=adjust
    )
    design = prepared.design
    dated = replace(prepared.rows, zone=checked_zone(time_zone))
    ratio = sample_ratio(dated, prepared.intended, day=day, segments=segments)
    ratio = msgspec.structs.replace(ratio, moved=prepared.moved, phases=prepared.splits)
    # One table for all that follows, so that guardrails and comparisons speak of the same numbers.
    table = judged_table(prepared, covariates, rule, adjust)
    rate = units_a_day(prepared, ratio)
    comparisons, counted_once = _comparisons(table, design, rule, rate)
    guardrails = _guardrails(table, design, rule, rate)
    uncovered = _uncovered(table.pairs)
    # A covariate that tells the variants apart does so within each segment too.
    usable = {m: column for m, column in (covariates or {}).items() if m not in uncovered}
    as_they_came = _as_they_came(prepared, table, rule)
    primary = [c for c in comparisons if c.metric == prepared.primary]
    # What is not called per decision is told by what each unit counts once in.
    instead = {c.variant: c for c in counted_once if c.metric == prepared.primary}
    primary = [instead.get(c.variant, c) for c in primary]
    moved = [check for check in table.checks if check.alarm]
    return Analysis(
        experiment=design.key,
        control=design.control,
        primary=prepared.primary,
        method=method,
        alpha=alpha,
        units=ratio.counts,
        comparisons=comparisons,
        guardrails=guardrails,
        sample_ratio=ratio,
        heterogeneity=_by_segment(
            prepared, _called(prepared, table), usable, segments, rule, adjust
        ),
        verdict=verdict(
            primary,
            guardrails,
            ratio,
            design.control,
            ended=prepared.ended,
            decides=decides,
        ),
        notes=[
            *_crossovers(ratio),
            *phase_notes(prepared.phases, design.control, table.thin, prepared.alone),
            *(moved_sentence(check, design.control) for check in moved),
            *_doubtful(comparisons),
            *_cut_off(prepared, as_they_came),
            *_infinite_covariates(prepared.rows, covariates),
            *uncovered.values(),
            *_savings([*comparisons, *counted_once]),
        ],
        denominators=table.checks,
        per_unit=counted_once,
        as_they_came=as_they_came,
        phases=prepared.phases or [_only_phase(design, ratio)],
        excluded=_excluded(ratio.mixed, table.thin, prepared.alone),
    )


def _only_phase(design: Design, ratio: SampleRatio) -> Phase:
    """All of it, where nothing says that anything was changed."""
    only = (
        design.phases[0] if design.phases else Phase(shares=design.shares, control=design.control)
    )
    p_value = ratio.p_value if only.shares else None
    return msgspec.structs.replace(only, units=ratio.counts, srm_p=p_value)


def _excluded(mixed: int, thin: int, alone: int) -> dict[str, int]:
    """Units that were left out, by reason."""
    counts = {
        reasons.CROSSOVER_UNITS: mixed,
        reasons.THIN_STRATA: thin,
        reasons.ONE_VARIANT: alone,
    }
    return {reason: n for reason, n in counts.items() if n}


# --- The rows


@dataclass(frozen=True, slots=True)
class Prepared:
    """Checked rows with the metrics to read from them, the primary one first; those that some value
    was cut off of also as they came, and where.

    Attributes:
        design: The experiment as it is read: with the variants and shares of the last phase that
            had several.
        primary: The name of the metric that the verdict is about.
        metrics: All metrics.
        rows: The rows of all phases that are read, units in their first variants.
        per: What each metric is a number of.
        as_they_came: Metrics that some value was cut off of, without that.
        limits: Where it was cut off.
        parts: The rows that variants are compared on.
        intended: What units were to be split by.
        phases: All phases with their units; `splits` are of those that are read.
        moved: Units that changed variant and count for their first.
        alone: Units that came only while there was one variant.
        ended: When the last phase with several variants ended, if there was one after it.
    """

    design: Design
    primary: str
    metrics: dict[str, Metric]
    rows: UnitRows
    per: dict[str, str]
    as_they_came: dict[str, Metric]
    limits: dict[str, Limit]
    parts: tuple[Part, ...]
    intended: Intended
    moved: int = 0
    phases: list[Phase] = field(default_factory=list)
    splits: list[Split] = field(default_factory=list)
    alone: int = 0
    ended: str | None = None


def prepare(
    data: Any,
    design: Design | Experiment,
    *,
    columns: Columns,
    covariates: Covariates | None,
    labels: Sequence[str] = (),
    adjust: str = "cuped",
) -> Prepared:
    """Check `data` against the design.

    Raises:
        BadRequest, BadData: as `compare` does.
    """
    design = design if isinstance(design, Design) else Design.of(design)
    relation, primary = _with_objective(relation_of(data), design)
    # As times, not as text: by them a unit's first row is found.
    relation = with_read_times(relation, columns.time)
    check_columns(relation.columns, columns.named)
    checked_phases(relation, columns, design.phases)
    reading = Reading.of(design.phases) if design.phases else None
    if reading is None or reading.last is None:
        columns = replace(columns, phase=None)
    else:
        design = _as_read(design, reading.last)
    by = judged(relation, design.metrics, unit=columns.unit, variant=columns.variant)
    metrics: dict[str, Metric] = {primary: Mean(OBJECTIVE), **by.metrics}

    def read(rows: Any) -> UnitRows:
        return read_rows(
            rows,
            unit=columns.unit,
            variant=columns.variant,
            metrics=metrics | {f"{n} as it came": m for n, m in by.as_they_came.items()},
            covariates=covariates,
            adjust=adjust,
            labels=[*labels, columns.phase] if columns.phase else labels,
            time=columns.time,
        )

    inside = by.relation
    if columns.phase is not None and reading is not None and not reading.is_all:
        inside = within_phases(inside, columns.phase, reading.numbers)
    exposures = columns.exposures(inside)
    rows = read(exposures.relation)
    prepared = Prepared(
        design,
        primary,
        metrics,
        rows,
        {m.name: m.read_per for m in design.metrics},
        by.as_they_came,
        by.limits,
        (Part(tuple(design.treatments), rows),),
        Intended.always(design.shares),
        exposures.moved,
    )
    if reading is None or columns.phase is None:
        phases = with_changes(design.phases) if len(design.phases) > 1 else []
        return replace(prepared, phases=phases)
    intended = intended_of(columns, reading)
    phases, splits = with_units(by.relation, columns, reading, rows, intended)
    variants = (design.control, *design.treatments)
    return replace(
        prepared,
        parts=parts_of(by.relation, columns, reading, rows, variants, read),
        intended=intended,
        phases=phases,
        splits=splits,
        alone=units_of_one_variant(by.relation, columns, reading),
        ended=reading.ended,
    )


def _as_read(design: Design, last: Phase) -> Design:
    """The design with the variants of the last phase that had several."""
    return msgspec.structs.replace(
        design, control=last.control or design.control, shares=last.shares
    )


def _with_objective(relation: Any, design: Design) -> tuple[Any, str]:
    """The relation with its objective column, and the primary metric's name: the objective's only
    metric, if it is one, for then plays read better than points."""
    weighted = [m for m in design.metrics if m.weight]
    if len(weighted) == 1 and weighted[0].weight > 0.0:
        return relation, weighted[0].name
    if OBJECTIVE in relation.columns:
        return relation, OBJECTIVE
    objective = WeightedSum.of(
        [WeightedMetric(m.name, m.weight, m.scale, m.floor) for m in weighted]
    )
    if objective.positive <= 0.0:
        raise BadRequest("design.metrics", "no metric has a positive weight; expected an objective")
    check_columns(relation.columns, [m.name for m in weighted])
    total = objective.sql(lambda name: f"CAST({identifier(name)} AS DOUBLE)")
    query = f"SELECT *, {total} AS {OBJECTIVE} FROM unit_rows"  # noqa: S608  (numbers and quoted identifiers)
    return relation.query("unit_rows", query), OBJECTIVE


def units_a_day(prepared: Prepared, ratio: SampleRatio) -> float | None:
    """New units a day at the traffic in force, from all that came so far; None before the first
    whole day is over, when it is too early to say, and where variants are compared no more: what
    is over will not be decided by waiting."""
    elapsed = prepared.rows.elapsed_days()
    if prepared.ended is not None or elapsed <= 0.0:
        return None
    compared = [phase for phase in prepared.phases if phase.compares]
    return sum(ratio.counts.values()) / full_days(compared, prepared.rows, elapsed)


def full_days(phases: Sequence[Phase], rows: UnitRows, elapsed: float) -> float:
    """How many days at the last phase's traffic would have brought as many units as came in the
    phases, to which those in proportion to traffic and time came; the days that passed where
    nothing says when a phase began."""
    if len(phases) < 2 or not rows.is_moment or phases[-1].traffic <= 0.0:
        return elapsed
    first, last = rows.span()
    days = 0.0
    for phase in phases:
        since = first if phase.since is None else max(first, _day_of(phase.since))
        until = last if phase.until is None else min(last, _day_of(phase.until))
        days += phase.traffic / phases[-1].traffic * max(0.0, until - since)
    return days or elapsed


def _day_of(iso: str) -> float:
    """A moment of the record, as `UnitRows.span` counts days."""
    return instant("since", iso).timestamp() / 86_400.0


# --- The comparisons


@dataclass(frozen=True, slots=True)
class Table:
    """Each variant beside the control on each metric; what variants' metrics divide by; and by
    metric and variant what is called instead where that differs, and what has to bear out a call
    where it may. `mixed` units were left out for
    having been seen in several variants, `thin` for a phase with too few of one."""

    pairs: dict[str, dict[str, Pair]]
    checks: list[DenominatorCheck]
    instead: dict[tuple[str, str], Pair]
    doubts: Doubts
    per: Mapping[str, str]
    mixed: int
    thin: int

    def judged(self, metric: str, variant: str) -> tuple[Pair, str]:
        """The pair that calls are made of, and what it is a number of."""
        if (metric, variant) in self.instead:
            return self.instead[metric, variant], "unit"
        return self.pairs[metric][variant], self.per.get(metric, "decision")


def judged_table(
    prepared: Prepared, covariates: Covariates | None, rule: Rule, adjust: Adjustment
) -> Table:
    design, metrics = prepared.design, prepared.metrics
    of_decisions = [m.name for m in design.metrics if m.is_of_decisions]
    if OBJECTIVE in metrics:
        of_decisions.append(OBJECTIVE)
    pairs: dict[str, dict[str, Pair]] = {name: {} for name in metrics}
    checks: list[DenominatorCheck] = []
    instead: dict[tuple[str, str], Pair] = {}
    in_doubt: Doubts = {}
    mixed = thin = 0
    for part in prepared.parts:
        moments, of_part = part.gathered(metrics, covariates, design.control, adjust)
        for name in metrics:
            pairs[name] |= of_part[name]
        own_checks = denominators(part, moments, metrics, of_decisions, design.control, rule)
        checks += own_checks
        for name in {check.metric: None for check in own_checks if check.alarm}:
            variants: list[Any] = [c.variant for c in own_checks if c.metric == name and c.alarm]
            own = replace(part, variants=tuple(variants))
            by_variant = _per_unit(prepared, own, name, covariates, rule, adjust)
            instead |= {(name, variant): pair for variant, pair in by_variant.items()}
        # To group by unit once more costs as much as all before, so only where it may matter.
        decided = [c for c in own_checks if _decided(design, c.metric, of_part[c.metric], rule)]
        in_doubt |= doubts(part, metrics, of_part, decided, covariates, design.control, adjust)
        mixed = max(mixed, moments.mixed)
        thin += part.thin_units(moments, prepared.primary, design.control)
    for name, by_variant in pairs.items():
        pairs[name] = {variant: by_variant[variant] for variant in design.treatments}
    if OBJECTIVE in pairs:
        pairs[OBJECTIVE] = _bounded(pairs[OBJECTIVE], prepared.rows)
    return Table(pairs, checks, instead, in_doubt, prepared.per, mixed, thin)


def _decided(design: Design, metric: str, by_variant: Mapping[Any, Pair], rule: Rule) -> bool:
    """Whether anything may be said of a metric that the denominator may have made."""
    return metric in design.guardrails or shows_something(by_variant, rule)


def _bounded(by_variant: dict[str, Pair], rows: UnitRows) -> dict[str, Pair]:
    """The objective's pairs, within its range."""
    summary = rows.columns.get(OBJECTIVE)
    least, most = OBJECTIVE_RANGE
    # A column of one's own may be anything; only what is computed has that range.
    if summary is None or summary.low < least or summary.high > most:
        return by_variant
    return {variant: replace(pair, bounds=OBJECTIVE_RANGE) for variant, pair in by_variant.items()}


def _per_unit(
    prepared: Prepared,
    part: Part,
    name: str,
    covariates: Covariates | None,
    rule: Rule,
    adjust: Adjustment,
) -> dict[str, Pair]:
    """What is called of a metric whose denominator a part's variants move, each unit counted
    once."""
    control = prepared.design.control
    pairs: dict[str, Pair] = {}
    for metric in per_unit(prepared.metrics[name]):
        metrics = {name: metric}
        is_proportion = is_share(metric, prepared.metrics[name])
        moments, by_metric = part.gathered(metrics, covariates, control, adjust)
        checks = denominators(part, moments, metrics, [name], control, rule)
        moved = [check.variant for check in checks if check.alarm]
        for variant in part.variants:
            if variant not in pairs and variant not in moved:
                pairs[variant] = replace(by_metric[name][variant], is_proportion=is_proportion)
        if len(pairs) == len(part.variants):
            return pairs
    # Whatever could be divided by, variants differ in it: nothing can be called.
    for variant in part.variants:
        if variant not in pairs:
            pair = by_metric[name][variant]
            pairs[variant] = replace(pair, reason=reasons.DENOMINATOR_MOVED)
    return pairs


def _comparisons(
    table: Table, design: Design, rule: Rule, units_a_day: float | None
) -> tuple[list[Comparison], list[Comparison]]:
    """A comparison of each metric and variant, and those that are called instead where a variant
    moves what the metric divides by; without `units_a_day` none says how long to wait."""
    comparisons: list[Comparison] = []
    counted_once: list[Comparison] = []
    for metric, by_variant in table.pairs.items():
        better = design.better(metric)
        of_metric = []
        judged = {variant: table.judged(metric, variant) for variant in by_variant}
        # Holm's first step is what a treatment has to pass beside others that change nothing.
        tests = sum(not pair.reason for pair, _ in judged.values())
        for variant, (pair, per) in judged.items():
            row = _comparison(metric, variant, pair, rule, table.mixed, better, tests)
            of_metric.append(msgspec.structs.replace(row, per=per))
        in_doubt: dict[object, list[Effect]] = {}
        for variant in by_variant:
            others = table.doubts.get((metric, variant), ())
            in_doubt[variant] = [effect_of(metric, variant, pair, rule) for pair in others]
        pairs = {variant: pair for variant, (pair, _) in judged.items()}
        with_days = _with_days(of_metric, pairs, design, rule, units_a_day)
        for row in called(with_days, rule.alpha, in_doubt):
            name: Any = row.variant  # by value, as labels are: never its text
            if (metric, name) not in table.instead:
                comparisons.append(row)
                continue
            effect = effect_of(metric, name, by_variant[name], rule, table.mixed)
            bare = withheld(effect)
            comparisons.append(Comparison(**msgspec.structs.asdict(bare), better=better))
            counted_once.append(row)
    return comparisons, counted_once


def _comparison(
    metric: str,
    variant: str,
    pair: Pair,
    rule: Rule,
    mixed: int,
    better: Direction,
    tests: int,
) -> Comparison:
    effect = effect_of(metric, variant, pair, rule, mixed)
    result = Comparison(**msgspec.structs.asdict(effect), better=better)
    if effect.se is None or effect.difference is None or pair.control is None:
        return result
    chance, loss = effect.chance_to_win, effect.expected_loss
    if better == "lower" and chance is not None:
        # Where less is better, the variant loses what staying with the control would where more is.
        chance, loss = 1.0 - chance, loss_of_control(effect, pair, rule)
    units = effect.n + effect.n_control
    # Of two equal arms whose difference has this standard error, a unit's standard deviation.
    sd = effect.se * sqrt(units) / 2.0
    least = runtime.detectable_effect(sd, units, rule, tests=max(tests, 1))
    detectable = None
    if least is not None and effect.relative is not None:
        detectable = least / abs(pair.control.value)
    return msgspec.structs.replace(
        result,
        chance_to_win=chance,
        expected_loss=loss,
        detectable=detectable,
        variance_saved=pair.saved,
    )


def _with_days(
    of_metric: Sequence[Comparison],
    pairs: Mapping[Any, Pair],
    design: Design,
    rule: Rule,
    units_a_day: float | None,
) -> list[Comparison]:
    """One metric's comparisons with the days until Holm calls each if differences stay."""
    readable, progress = [], []
    for c in of_metric:
        if c.difference is None or c.se is None:
            continue
        units, rate = c.n + c.n_control, _pair_rate(design, c.variant, units_a_day)
        worth = worth_of(design, c.variant, pairs[c.variant].information)
        readable.append(c.variant)
        progress.append(runtime.Progress(c.difference, c.se, units, rate, worth))
    days = dict(zip(readable, runtime.days_by_holm(progress, rule), strict=True))
    return [msgspec.structs.replace(c, days_to_decision=days.get(c.variant)) for c in of_metric]


def _guardrails(
    table: Table, design: Design, rule: Rule, units_a_day: float | None
) -> list[GuardrailResult]:
    """Each variant on each guardrail, as each metric is judged."""
    results = []
    for metric, margin in design.margins.items():
        for name in design.treatments:
            pair, per = table.judged(metric, name)
            judge = partial(
                guardrail,
                metric,
                name,
                rule=rule,
                margin=margin,
                better=design.better(metric),
                units_a_day=_pair_rate(design, name, units_a_day),
                worth=worth_of(design, name, pair.information),
            )
            result = judge(pair)
            others = [judge(other) for other in table.doubts.get((metric, name), ())]
            if others and all(other.status != result.status for other in others):
                result = msgspec.structs.replace(
                    result, status="undecided", reason=reasons.DENOMINATOR_DOUBTFUL
                )
            results.append(msgspec.structs.replace(result, per=per))
    return results


def _pair_rate(design: Design, variant: Any, units_a_day: float | None) -> float:
    """New units a day of a variant and the control: no others bring their decision nearer, nor
    units of the one without any of the other."""
    total = sum(design.shares.values())
    both = (design.shares[variant], design.shares[design.control])
    return (units_a_day or 0.0) * sum(both) / total if min(both) > 0.0 else 0.0


def worth_of(design: Design, variant: Any, information: float | None) -> float | None:
    """How many units of a variant and the control, split by the shares in force, tell as much as
    those of all phases: N of them have an information (see `Pair`) of N·q·(1 − q), q the variant's
    part of the two shares."""
    both = (design.shares[variant], design.shares[design.control])
    if information is None or min(both) <= 0.0:
        return None
    return information * sum(both) ** 2 / (both[0] * both[1])


def _as_they_came(prepared: Prepared, table: Table, rule: Rule) -> list[Effect]:
    """The effects on metrics of which some value was cut off, as if none had been."""
    if not prepared.as_they_came:
        return []
    pairs: dict[str, dict[str, Pair]] = {name: {} for name in prepared.as_they_came}
    for part in prepared.parts:
        _, of_part = part.gathered(prepared.as_they_came, None, prepared.design.control, "cuped")
        for name, by_variant in of_part.items():
            pairs[name] |= by_variant
    return [
        effect_of(metric, variant, pair, rule, table.mixed)
        for metric, by_variant in pairs.items()
        for variant, pair in by_variant.items()
    ]


def _cut_off(prepared: Prepared, as_they_came: Sequence[Effect]) -> list[str]:
    """For each metric of which values were cut off, a sentence with what it says without."""
    sentences = []
    for metric in prepared.as_they_came:
        effects = [e for e in as_they_came if e.metric == metric]
        sentences.append(cut_sentence(metric, prepared.limits[metric], effects))
    return sentences


def _crossovers(ratio: SampleRatio) -> list[str]:
    """How many units were seen in several variants, and what was done with them."""
    sentences = []
    every = ratio.mixed + sum(ratio.counts.values())
    if ratio.mixed:
        sentences.append(
            f"{ratio.mixed:,} of {every:,} units ({ratio.mixed / every:.1%}) were seen in more "
            "than one variant; they were left out"
        )
    if ratio.moved:
        sentences.append(
            f"{ratio.moved:,} of {every:,} units ({ratio.moved / max(every, 1):.1%}) changed "
            "variant; each counts for the one that it was given first, which may make differences "
            "smaller, never larger"
        )
    return sentences


def _infinite_covariates(rows: UnitRows, covariates: Covariates | None) -> list[str]:
    """How many rows have an infinite value of a covariate, a sentence a column."""
    columns: list[str] = []
    for metric in covariates or {}:
        columns += covariates_of(covariates, metric)
    sentences = []
    for column in dict.fromkeys(columns):
        infinite = rows.columns[column].infinite
        if infinite:
            sentences.append(
                f"{label(column)}: {infinite:,} of {rows.count:,} rows have an infinite value, "
                "which counts as missing"
            )
    return sentences


def _uncovered(pairs: Mapping[str, Mapping[str, Pair]]) -> dict[str, str]:
    """By metric that cannot be adjusted by its covariate, a sentence that says why."""
    sentences: dict[str, str] = {}
    for metric, by_variant in pairs.items():
        for code in (reasons.COVARIATE_IS_METRIC, reasons.COVARIATE_MISSING):
            names = [n for n, pair in by_variant.items() if pair.remark == code]
            if names:
                sentences[metric] = (
                    f"{label(metric)}, {listing(names, len(names))}: {reasons.REASONS[code]}"
                )
    return sentences


def _doubtful(comparisons: Sequence[Comparison]) -> list[str]:
    """Why intervals that leave zero out are no calls, a sentence a metric."""
    variants: dict[str, list[str]] = {}
    for c in comparisons:
        if c.reason == reasons.DENOMINATOR_DOUBTFUL:
            variants.setdefault(c.metric, []).append(str(c.variant))
    why = reasons.REASONS[reasons.DENOMINATOR_DOUBTFUL]
    return [
        f"{label(metric)}, {listing(names, len(names))}: {why}"
        for metric, names in variants.items()
    ]


def _savings(comparisons: Sequence[Comparison]) -> list[str]:
    """What covariates are worth, a sentence a metric: the least of its variants' savings."""
    least: dict[str, float] = {}
    for c in comparisons:
        if c.variance_saved is not None:
            least[c.metric] = min(c.variance_saved, least.get(c.metric, 1.0))
    sentences = []
    for metric, saved in least.items():
        if saved < 0.005:
            continue
        # A variance smaller by s is what 1/(1 − s) times the units would have had.
        more = 1.0 / max(1.0 - saved, 1e-9) - 1.0
        sentences.append(
            f"{metric.replace('_', ' ')}: what units did before takes away {saved:.0%} of the "
            f"variance, which is worth {more:,.0%} more units"
        )
    return sentences


def _called(prepared: Prepared, table: Table) -> Metric:
    """The primary metric as it is called: with each unit counted once where some variant moves what
    it divides by."""
    metric = prepared.metrics[prepared.primary]
    moved = any(name == prepared.primary for name, _ in table.instead)
    return per_unit(metric)[0] if moved else metric


def _by_segment(
    prepared: Prepared,
    metric: Metric,
    covariates: Covariates | None,
    segments: Sequence[str],
    rule: Rule,
    adjust: Adjustment,
) -> list[Heterogeneity]:
    primary = prepared.primary
    metrics = {primary: metric}
    covariate = {primary: covariates[primary]} if covariates and primary in covariates else {}
    # A pass a segment: all of them in one would have as many arms as there are combinations.
    results: list[Heterogeneity] = []
    # Of quantiles there are no moments to look into segments by.
    if isinstance(metric, Quantile):
        return results
    for segment in segments:
        for part in prepared.parts:
            moments = part.gather(metrics, covariate, segments=[segment], products=adjust == "lin")
            results += heterogeneity(
                moments,
                primary,
                segment,
                control=prepared.design.control,
                variants=part.variants,
                rule=rule,
                adjust=adjust,
                strata=part.strata,
            )
    is_proportion = is_share(metric, prepared.metrics[primary])
    return [
        msgspec.structs.replace(result, is_proportion=is_proportion)
        for result in with_adjusted(results)
    ]
