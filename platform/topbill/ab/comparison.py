"""`compare`: each variant against the control on each metric, from rows, in one table."""

from __future__ import annotations

from collections.abc import Collection, Mapping, Sequence
from dataclasses import replace
from typing import Any

import msgspec
import numpy as np
import pandas as pd

from topbill.ab import reasons
from topbill.ab.checks.denominators import (
    Doubts,
    denominators,
    doubts,
    is_doubtful,
    shows_something,
    withheld,
)
from topbill.ab.core.effect import (
    Adjustment,
    Effect,
    Pair,
    Rule,
    checked_rule,
    effect_of,
    estimate_pair,
)
from topbill.ab.core.quantile import quantile_pairs
from topbill.ab.core.units import (
    Covariates,
    MomentsByArm,
    UnitRows,
    check_columns,
    covariates_of,
    gather,
    read_rows,
    resolve,
    with_read_times,
)
from topbill.ab.metrics import Metric, Quantile, Sum
from topbill.ab.parts import Columns, Part
from topbill.domain.errors import BadRequest
from topbill.domain.reading import Method
from topbill.lake.frames import relation_of
from topbill.stats import sequential

TABLE = (
    "metric",
    "variant",
    "value",
    "control_value",
    "difference",
    "difference_low",
    "difference_high",
    "relative",
    "relative_low",
    "relative_high",
    "se",
    "p_value",
    "n",
    "reason",
)


def compare(
    data: Any,
    *,
    unit: str | None,
    variant: str,
    control: object,
    metrics: Mapping[str, Metric],
    covariates: Covariates | None = None,
    method: Method = "sequential",
    alpha: float = 0.05,
    adjust: Adjustment = "cuped",
    strata: str | None = None,
    time: str | None = None,
    first_exposure: bool = False,
    variants: Sequence[object] | None = None,
    tuning: float = sequential.TUNING,
    looks: Sequence[float] = (1.0,),
    spending: sequential.Spending = "obrien-fleming",
    prior: float | None = None,
    check_denominators: bool = True,
) -> pd.DataFrame:
    """Each variant against `control` on each metric, a row per metric and variant.

    Args:
        data: rows as a pandas or polars frame, an Arrow table, batch or stream (whatever has
            `__arrow_c_stream__`), a dict of columns, or a DuckDB relation.
        unit: the column of what was randomised; many rows of one unit are aggregated first. None
            makes each row a unit.
        variant: the column that names the variant.
        control: the variant to compare with.
        metrics: `Mean`, `Proportion`, `Sum`, `Ratio` or `Quantile` by the name to show.
        covariates: a column measured before the experiment, or several, by metric: CUPED
            (`adjust="cuped"`, means and ratios; several by least squares on all) or Lin's
            regression with HC2 (`adjust="lin"`, where every unit has one value; elsewhere CUPED).
            Values are then those expected at the arms' common mean of the
            covariate. A unit without a covariate counts as average.
        method: "sequential" (default): asymptotic confidence sequences, valid however often one
            looks; tightest near `tuning` units. "fixed": Welch's t at one planned look.
            "group-sequential": `looks` are the fractions of the planned information at which was
            looked, the last being now, error spent by `spending`. "bayes": credible intervals, with
            two more columns, chance_to_win and expected_loss; `prior` is the standard deviation of
            the relative effect, None for a flat one.
        alpha: the intervals hold with probability 1 − alpha.
        adjust: what covariates are used for, see there.
        strata: a column to post-stratify by. A unit belongs to the stratum of its first row.
        time: the column that says which of a unit's rows is the first; None takes them as they
            stand.
        first_exposure: let units that were seen in several variants count, with all their rows,
            for the one that they were given first (intention to treat); otherwise they are left
            out, and `reason` says so.
        variants: arms that should be there even if no row has them.
        tuning, looks, spending, prior: see `method`.
        check_denominators: whether a metric that divides by rows (or a `Ratio`'s denominator) is
            held back where the variant moves their number per unit: rates then differ by who comes
            how often. `per="unit"` counts each unit once. False compares them all the same. Where
            it may move them, and units counted once do not show the difference, `reason` says so.

    Returns:
        A frame with the columns metric, variant, value, control_value, difference, difference_low,
        difference_high, relative, relative_low, relative_high (lift as a fraction, by Fieller's
        theorem), se (of the difference), p_value, n (units of the variant), reason. A number that
        the data cannot bear is None, and `reason` (a key of `REASONS`, "" when there is nothing to
        remark) says why; never NaN.

    Raises:
        BadRequest: for wrong arguments.
        BadData: for columns that cannot be used. Weak data never raises.

    Examples:
        >>> import pandas as pd
        >>> from topbill.ab import Proportion, compare
        >>> rows = pd.DataFrame({"arm": ["old"] * 400 + ["new"] * 400, "play": [0, 0, 0, 1] * 200})
        >>> rows.loc[rows.arm == "new", "play"] = [0, 1] * 200
        >>> table = compare(
        ...     rows, unit=None, variant="arm", control="old", metrics={"play": Proportion("play")}
        ... )
        >>> print(table.loc[0, ["variant", "value", "control_value", "relative"]].to_dict())
        {'variant': 'new', 'value': 0.5, 'control_value': 0.25, 'relative': 1.0}
        >>> bool(table.difference_low[0] > 0)
        True
    """
    rule = checked_rule(method, alpha, tuning, looks, spending, prior)
    relation = with_read_times(relation_of(data), time)
    columns = Columns(unit, variant, time, first_exposure=first_exposure)
    check_columns(relation.columns, columns.named)
    if isinstance(control, list | dict | set):
        raise BadRequest("control", f"got {control!r}; expected one label of {variant}")
    rows = read_rows(
        columns.exposures(relation).relation,
        unit=unit,
        variant=variant,
        metrics=metrics,
        covariates=covariates,
        adjust=adjust,
        strata=strata,
        time=time,
    )
    effects = effects_of(
        rows,
        metrics,
        covariates,
        control=control,
        rule=rule,
        adjust=adjust,
        strata=strata,
        variants=variants,
        check_denominators=check_denominators,
    )
    return as_table(
        effects, (*TABLE, "chance_to_win", "expected_loss") if method == "bayes" else TABLE
    )


def effects_of(
    rows: UnitRows,
    metrics: Mapping[str, Metric],
    covariates: Covariates | None,
    *,
    control: object,
    rule: Rule,
    adjust: Adjustment = "cuped",
    strata: str | None = None,
    variants: Sequence[object] | None = None,
    check_denominators: bool = True,
) -> list[Effect]:
    """The effects of all metrics, in the order of `metrics` and then of variants."""
    plain = {name: m for name, m in metrics.items() if not isinstance(m, Quantile)}
    # Even without any plain metric this pass counts the units, which reasons are told by.
    moments = gather(
        rows, plain, covariates, segments=[strata] if strata else [], products=adjust == "lin"
    )
    control = resolve(control, moments.variants)
    arms = _arms(moments, control, variants)
    pairs: dict[str, dict[object, Pair]] = {}
    for name, metric in metrics.items():
        if isinstance(metric, Quantile):
            pairs[name] = quantile_pairs(rows, metric, moments, control, arms)
            continue
        pairs[name] = _pairs(name, moments, control, arms, adjust)
        if any(rows.columns[column].infinite for column in covariates_of(covariates, name)):
            pairs[name] = {arm: _with_infinite_covariate(p) for arm, p in pairs[name].items()}
    effects = {
        (name, variant): effect_of(name, variant, pair, rule, moments.mixed)
        for name, by_variant in pairs.items()
        for variant, pair in by_variant.items()
    }
    if check_denominators:
        of_rows = [name for name, m in metrics.items() if not isinstance(m, Sum)]
        part = Part(tuple(arms), rows)
        checks = denominators(part, moments, metrics, of_rows, control, rule)
        shown = [check for check in checks if shows_something(pairs[check.metric], rule)]
        in_doubt = doubts(part, metrics, pairs, shown, covariates, control, adjust)
        moved = {(check.metric, check.variant) for check in checks if check.alarm}
        effects = _doubted(effects, moved, in_doubt, rule)
    return list(effects.values())


def _doubted(
    effects: Mapping[tuple[str, object], Effect],
    moved: Collection[tuple[str, object]],
    in_doubt: Doubts,
    rule: Rule,
) -> dict[tuple[str, object], Effect]:
    """The effects, withheld where their denominators moved, and not called where that is in
    doubt.
    """
    doubted = {}
    for key, effect in effects.items():
        others = [effect_of(*key, pair, rule) for pair in in_doubt.get(key, ())]
        if key in moved:
            effect = withheld(effect)
        elif is_doubtful(effect, others):
            effect = msgspec.structs.replace(effect, reason=reasons.DENOMINATOR_DOUBTFUL)
        doubted[key] = effect
    return doubted


def _with_infinite_covariate(pair: Pair) -> Pair:
    """The pair, which says so unless it has more to say."""
    return replace(pair, remark=pair.remark or reasons.COVARIATE_INFINITE)


def _pairs(
    name: str,
    moments: MomentsByArm,
    control: object,
    variants: Sequence[object],
    adjust: Adjustment,
) -> dict[object, Pair]:
    """Each variant beside the control on a metric of moments."""
    reference, terms = moments.of_variant(name, control), moments.terms[name]
    return {
        variant: estimate_pair(terms, moments.of_variant(name, variant), reference, adjust)
        for variant in variants
    }


def _arms(
    moments: MomentsByArm, control: object, variants: Sequence[object] | None
) -> list[object]:
    """The variants to compare with control: those with units and those that are expected, control
    left out. `[None]` where there is none, so that the table still says why.
    """
    present = moments.variants
    arms = dict.fromkeys([*present, *(resolve(label, present) for label in variants or ())])
    arms.pop(control, None)
    return sorted(arms, key=str) or [None]


def as_table(effects: Sequence[msgspec.Struct], columns: Sequence[str]) -> pd.DataFrame:
    """Structs as a table. A column with a None is of objects, for pandas would make a float
    column's None a NaN.
    """
    table = {}
    for name in columns:
        values = [getattr(e, name) for e in effects]
        mixed = any(v is None for v in values) or name in ("variant", "reason", "metric")
        table[name] = np.empty(len(values), dtype=object) if mixed else np.array(values)
        table[name][:] = values
    return pd.DataFrame(table)
