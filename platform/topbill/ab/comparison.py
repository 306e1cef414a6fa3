"""`compare`: each variant against the control on each metric, from rows, in one table."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import replace
from typing import Any

import msgspec
import numpy as np
import pandas as pd

from topbill.ab import reasons
from topbill.ab.core.effect import (
    Adjustment,
    ArmEstimate,
    Effect,
    Method,
    Pair,
    Rule,
    checked_rule,
    effect_of,
    estimate_pair,
    units_of,
)
from topbill.ab.core.quantile import quantiles, variance_of_ties
from topbill.ab.core.units import MomentsByArm, UnitRows, gather, read_rows, resolve
from topbill.ab.metrics import Metric, Quantile
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
    covariates: Mapping[str, str] | None = None,
    method: Method = "sequential",
    alpha: float = 0.05,
    adjust: Adjustment = "cuped",
    strata: str | None = None,
    time: str | None = None,
    variants: Sequence[object] | None = None,
    tuning: float = sequential.TUNING,
    looks: Sequence[float] = (1.0,),
    spending: sequential.Spending = "obrien-fleming",
    prior: float | None = None,
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
        covariates: a column measured before the experiment by metric: CUPED (`adjust="cuped"`,
            means and ratios) or Lin's regression with HC2 (`adjust="lin"`, where every unit has one
            value; elsewhere CUPED). Values are then those expected at the arms' common mean of the
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
        variants: arms that should be there even if no row has them.
        tuning, looks, spending, prior: see `method`.

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
    rows = read_rows(
        data,
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
    )
    return as_table(
        effects, (*TABLE, "chance_to_win", "expected_loss") if method == "bayes" else TABLE
    )


def effects_of(
    rows: UnitRows,
    metrics: Mapping[str, Metric],
    covariates: Mapping[str, str] | None,
    *,
    control: object,
    rule: Rule,
    adjust: Adjustment = "cuped",
    strata: str | None = None,
    variants: Sequence[object] | None = None,
) -> list[Effect]:
    """The effects of all metrics, in the order of `metrics` and then of variants."""
    plain = {name: m for name, m in metrics.items() if not isinstance(m, Quantile)}
    # Even without any plain metric this pass counts the units, which reasons are told by.
    moments = gather(
        rows, plain, covariates, segments=[strata] if strata else [], products=adjust == "lin"
    )
    control = resolve(control, moments.variants)
    arms = _arms(moments, control, variants)
    effects: list[Effect] = []
    for name, metric in metrics.items():
        if isinstance(metric, Quantile):
            effects += _quantile_effects(name, metric, rows, moments, control, arms, rule)
            continue
        reference = moments.of_variant(name, control)
        for variant in arms:
            own = moments.of_variant(name, variant)
            pair = estimate_pair(moments.terms[name], own, reference, adjust)
            effects.append(effect_of(name, variant, pair, rule, moments.mixed))
    return effects


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


def _quantile_effects(
    name: str,
    metric: Quantile,
    rows: UnitRows,
    moments: MomentsByArm,
    control: object,
    variants: Sequence[object],
    rule: Rule,
) -> list[Effect]:
    units = moments.units_of_variants()
    infinite = rows.columns[metric.column].infinite > 0
    # An infinite value has a rank but no distance, so a quantile of them has no standard error.
    estimates = {} if infinite else quantiles(rows, metric)
    steps = variance_of_ties(rows, metric, estimates, control) if estimates else {}
    reference = estimates.get(control)
    effects = []
    units_c = units.get(control, 0)
    for variant in variants:
        t, c = _with_steps(estimates.get(variant), reference, steps.get(variant, 0.0))
        reason = _quantile_reason(t, c, units.get(variant, 0), units_c)
        if infinite:
            reason = reasons.INFINITE_VALUES
        pair = Pair(t, c, reason, units_of(t), units_of(c))
        result = effect_of(name, variant, pair, rule, moments.mixed)
        # A quantile that does not vary is one that ties hide: the metric itself does vary.
        if result.reason == reasons.CONSTANT_METRIC:
            result = msgspec.structs.replace(result, reason=reasons.TIED_QUANTILE)
        effects.append(result)
    return effects


def _with_steps(
    t: ArmEstimate | None, c: ArmEstimate | None, least: float
) -> tuple[ArmEstimate | None, ArmEstimate | None]:
    """Both estimates, their variances raised so that the difference has the least it must have."""
    if t is None or c is None or t.variance + c.variance >= least:
        return t, c
    more = (least - t.variance - c.variance) / 2.0
    return replace(t, variance=t.variance + more), replace(c, variance=c.variance + more)


def _quantile_reason(
    t: ArmEstimate | None, c: ArmEstimate | None, units_t: int, units_c: int
) -> str:
    """Why two quantiles cannot be compared; "" where they can."""
    if t is None or c is None:
        if not units_t:
            return reasons.NO_TRAFFIC
        # Units without any value of the metric have no quantile; no units have no control.
        return reasons.NO_VALUES if units_c else reasons.MISSING_CONTROL
    if min(t.n, c.n) < 2:
        return reasons.TOO_FEW_UNITS
    if t.variance > 0.0 and c.variance > 0.0:
        return reasons.OK
    # No width around the quantile: all values there are the same one.
    return reasons.ALL_ZERO if t.value == c.value == 0.0 else reasons.TIED_QUANTILE


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
