"""`compare`: each variant against the control on each metric, from rows, in one table."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from itertools import pairwise
from typing import Any

import msgspec
import numpy as np
import pandas as pd

from topbill.ab import reasons
from topbill.ab.core.arms import Adjustment, Pair, estimate
from topbill.ab.core.effect import METHODS, ArmEstimate, Effect, Method, Rule, effect
from topbill.ab.core.gather import Gathered, gather
from topbill.ab.core.quantile import quantiles
from topbill.ab.core.rows import Rows, read
from topbill.ab.metrics import Metric, Proportion, Quantile, Ratio, columns_of
from topbill.domain.errors import BadRequest
from topbill.stats import sequential

TABLE = (
    *(
        "metric",
        "variant",
        "value",
        "control_value",
        "difference",
        "difference_low",
        "difference_high",
    ),
    *("relative", "relative_low", "relative_high", "se", "p_value", "n", "reason"),
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
    variants: Sequence[object] | None = None,
    tuning: float = sequential.TUNING,
    looks: Sequence[float] = (1.0,),
    spending: sequential.Spending = "obrien-fleming",
    prior: float | None = None,
) -> pd.DataFrame:
    """Each variant against `control` on each metric, a row per metric and variant.

    `data` is a pandas DataFrame, an Arrow table or a DuckDB relation of rows; many rows of one
    `unit` (what was randomised) are aggregated first, and `unit=None` makes each row a unit.
    Columns of the answer: metric, variant, value, control_value, difference, difference_low,
    difference_high, relative, relative_low, relative_high (lift as a fraction, by Fieller's
    theorem), se (of the difference), p_value, n (units of the variant), reason. A number that the
    data cannot bear is None, and `reason` (a key of `reasons.REASONS`, "" when there is nothing to
    remark) says why; never NaN.

    - method "sequential" (default): asymptotic confidence sequences, valid however often one looks; tightest
      near `tuning` units. "fixed": Welch's t at one planned look. "group-sequential": `looks` are
      the fractions of the planned information at which was looked, the last being now, error spent
      by `spending`. "bayes": credible intervals, with two more columns, chance_to_win and
      expected_loss; `prior` is the standard deviation of the relative effect, None for a flat one.
    - `covariates` maps a metric to a column measured before the experiment: CUPED (`adjust="cuped"`, means and
      ratios) or Lin's regression with HC2 (`adjust="lin"`, where every unit has one value;
      elsewhere CUPED). Values are then those expected at the arms' common mean of the covariate. A
      unit without a covariate counts as average.
    - `strata` post-stratifies by a column; `variants` names arms that should be there even if no row has them.

    Raises BadRequest for wrong arguments and BadData for columns that cannot be used. Weak data
    never raises.
    """
    rule = checked_rule(method, alpha, tuning, looks, spending, prior)
    check_metrics(metrics, covariates, adjust, strata)
    rows = read_rows(
        data,
        unit=unit,
        variant=variant,
        metrics=metrics,
        covariates=covariates,
        labels=[strata] if strata else [],
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


def checked_rule(
    method: Method,
    alpha: float,
    tuning: float = sequential.TUNING,
    looks: Sequence[float] = (1.0,),
    spending: sequential.Spending = "obrien-fleming",
    prior: float | None = None,
) -> Rule:
    """The arguments as a Rule. Raises BadRequest for what cannot be meant."""
    if method not in METHODS:
        raise BadRequest("method", f"got {method!r}; expected one of {', '.join(METHODS)}")
    if not 0.0 < alpha < 0.5:
        raise BadRequest(
            "alpha", f"got {alpha!r}; expected a number between 0 and 0.5, such as 0.05"
        )
    if not tuning > 0.0:
        raise BadRequest("tuning", f"got {tuning!r}; expected a positive number of units")
    times = tuple(float(t) for t in looks)
    if not times or times[0] <= 0.0 or times[-1] > 1.0 or any(b <= a for a, b in pairwise(times)):
        raise BadRequest(
            "looks", f"got {times}; expected information fractions that increase within (0, 1]"
        )
    if spending not in sequential.SPENDING:
        raise BadRequest(
            "spending", f"got {spending!r}; expected one of {', '.join(sequential.SPENDING)}"
        )
    if prior is not None and not prior > 0.0:
        raise BadRequest(
            "prior",
            f"got {prior!r}; expected a positive standard deviation, or None for a flat prior",
        )
    return Rule(method, alpha, tuning, times, spending, prior)


def check_metrics(
    metrics: Mapping[str, Metric],
    covariates: Mapping[str, str] | None,
    adjust: str,
    strata: str | None = None,
) -> None:
    """Raises BadRequest for metrics, covariates and adjustments that do not go together."""
    if not metrics:
        raise BadRequest(
            "metrics",
            "got none; expected a dict of name to Mean, Proportion, Sum, Ratio or Quantile",
        )
    for name, metric in metrics.items():
        if not isinstance(metric, Metric):
            raise BadRequest(
                f"metrics.{name}",
                f"got {metric!r}; expected Mean, Proportion, Sum, Ratio or Quantile",
            )
        if isinstance(metric, Quantile) and strata is not None:
            raise BadRequest(
                f"metrics.{name}",
                "a Quantile cannot be post-stratified; compare it without `strata`",
            )
    if adjust not in ("cuped", "lin"):
        raise BadRequest("adjust", f"got {adjust!r}; expected cuped or lin")
    for name in covariates or {}:
        if name not in metrics:
            raise BadRequest(
                f"covariates.{name}", f"no such metric; the metrics are {', '.join(metrics)}"
            )
        if adjust == "lin" and isinstance(metrics[name], Ratio):
            raise BadRequest(
                "adjust", "lin adjusts one value a unit, not a Ratio; use adjust='cuped'"
            )
        if isinstance(metrics[name], Quantile):
            raise BadRequest(f"covariates.{name}", "a Quantile takes no covariate; leave it out")


def read_rows(
    data: Any,
    *,
    unit: str | None,
    variant: str,
    metrics: Mapping[str, Metric],
    covariates: Mapping[str, str] | None,
    labels: Sequence[str],
) -> Rows:
    """The data with the columns that `metrics` and `covariates` read, checked."""
    return read(
        data,
        unit=unit,
        variant=variant,
        numeric=[
            *(c for m in metrics.values() for c in columns_of(m)),
            *(covariates or {}).values(),
        ],
        binary=[m.column for m in metrics.values() if isinstance(m, Proportion)],
        labels=labels,
    )


def effects_of(
    rows: Rows,
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
    gathered = gather(
        rows, plain, covariates, segments=[strata] if strata else [], products=adjust == "lin"
    )
    arms = present(gathered, control, variants)
    found: dict[str, list[Effect]] = effects_from(gathered, control, arms, rule, adjust)
    for name, metric in metrics.items():
        if isinstance(metric, Quantile):
            found[name] = _quantile_effects(name, metric, rows, gathered, control, arms, rule)
    return [e for name in metrics for e in found[name]]


def present(gathered: Gathered, control: object, variants: Sequence[object] | None) -> list[object]:
    """The variants to compare with control: those with units and those that are expected, control
    left out.
    """
    names = {str(key[0]): key[0] for key in gathered.units}
    for expected in variants or ():
        names.setdefault(str(expected), expected)
    names.pop(str(control), None)
    return [names[name] for name in sorted(names)] or [None]


def effects_from(
    gathered: Gathered, control: object, variants: Sequence[object], rule: Rule, adjust: Adjustment
) -> dict[str, list[Effect]]:
    """Effects of the gathered metrics, by metric, one per variant."""
    found: dict[str, list[Effect]] = {}
    for name, plan in gathered.plans.items():
        arms = gathered.arms[name]
        reference = {key[1:]: arm for key, arm in arms.items() if str(key[0]) == str(control)}
        found[name] = []
        for variant in variants:
            own = {key[1:]: arm for key, arm in arms.items() if str(key[0]) == str(variant)}
            pair = estimate(plan, own, reference, adjust)
            found[name].append(noted(effect_of(name, variant, pair, rule), gathered.mixed))
    return found


def effect_of(name: str, variant: object, pair: Pair, rule: Rule) -> Effect:
    """The effect of a pair, or what there is of it with the reason."""
    t, c = pair.treated, pair.control
    if pair.reason or t is None or c is None:
        return Effect(
            metric=name,
            variant=variant,
            value=t.value if t else None,
            control_value=c.value if c else None,
            difference=t.value - c.value if t and c else None,
            n=pair.n,
            n_control=pair.n_control,
            reason=pair.reason,
        )
    return effect(name, variant, t, c, rule)


def _quantile_effects(
    name: str,
    metric: Quantile,
    rows: Rows,
    gathered: Gathered,
    control: object,
    variants: Sequence[object],
    rule: Rule,
) -> list[Effect]:
    found = {str(v): e for v, e in quantiles(rows, metric).items()}
    units = {str(key[0]): n for key, n in gathered.over_segments().units.items()}
    infinite = rows.columns[metric.column].infinite > 0
    effects = []
    for variant in variants:
        t, c = (None if infinite else found.get(str(v)) for v in (variant, control))
        reason = _quantile_reason(
            t, c, units.get(str(variant), 0), units.get(str(control), 0), infinite
        )
        pair = Pair(t, c, reason, t.n if t else 0, c.n if c else 0)
        e = effect_of(name, variant, pair, rule)
        if e.reason == reasons.CONSTANT_METRIC:
            e = msgspec.structs.replace(e, reason=reasons.TIED_QUANTILE)
        effects.append(noted(e, gathered.mixed))
    return effects


def _quantile_reason(
    t: ArmEstimate | None, c: ArmEstimate | None, units_t: int, units_c: int, infinite: bool
) -> str:
    if infinite:
        return reasons.INFINITE_VALUES
    if c is None and not units_c:
        return reasons.MISSING_CONTROL if units_t else reasons.NO_TRAFFIC
    if t is None and not units_t:
        return reasons.NO_TRAFFIC
    if t is None or c is None:
        return reasons.NO_VALUES
    if min(t.n, c.n) < 2:
        return reasons.TOO_FEW_UNITS
    if 0.0 in (t.variance, c.variance):
        return reasons.ALL_ZERO if t.value == c.value == 0.0 else reasons.TIED_QUANTILE
    return reasons.OK


def noted(e: Effect, mixed: int) -> Effect:
    """The effect with the remark that `mixed` units were left out, unless it has a reason
    already.
    """
    return (
        msgspec.structs.replace(e, reason=reasons.CROSSOVER_UNITS) if mixed and not e.reason else e
    )


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
