"""`estimate`: from arrays of logged decisions to estimates with intervals, diagnostics and
refusals.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping, Sequence
from math import sqrt
from typing import Any

import numpy as np

from topbill.domain.errors import BadData, BadRequest
from topbill.domain.records import Floats, Indices
from topbill.ope.diagnostics import Gates
from topbill.ope.estimators import DEFAULT, chosen
from topbill.ope.estimators.estimator import Estimator
from topbill.ope.estimators.formula import Column, Env, Formula, Symbols, stack
from topbill.ope.inputs import (
    FINITE,
    POSITIVE,
    PROBABILITY,
    PROPENSITY,
    column,
    rewards_column,
    unit_codes,
)
from topbill.ope.intervals import Bounds, Interval, Lam, Summary, assess, columns_of, plan
from topbill.ope.result import Estimate, refused
from topbill.stats import intervals
from topbill.stats.moments import Moments, ratio


def estimate(
    rewards: Any,
    propensities: Any,
    target_propensities: Any,
    *,
    q_logged: Any = None,
    q_target: Any = None,
    units: Any = None,
    estimators: Sequence[str] = DEFAULT,
    lam: Lam | Mapping[str, Lam] = None,
    alpha: float = 0.05,
    interval: Interval = "normal",
    max_weight: float | None = None,
    replicates: int = 1000,
    eligible: Any = None,
    unsupported: Any = None,
    embedding_propensities: Any = None,
    target_embedding_propensities: Any = None,
    weight_moments: Any = None,
    facts: Mapping[str, Any] | None = None,
    gates: Gates | None = None,
) -> dict[str, Estimate]:
    """What the target policy would have earned per decision, by each estimator, from one log of n
    decisions.

    All columns are one-dimensional of n rows, in the order of the log.

    - `rewards`: finite; `propensities`: (0, 1], of the logged action as it was drawn; `target_propensities`: [0, 1],
      the target's probability of that same action.
    - `q_logged` = q̂(x, a) of the logged action, `q_target` = Σ_a π(a|x) q̂(x, a): needed by dm, dr and kin.
    - `units`: whatever is independent (a viewer, say); standard errors are clustered by it. None: every row.
    - `estimators`: names from `ESTIMATORS`. `lam`: a number, "slope" (the default where None) or "mse", or a mapping
      from estimator to one of these.
    - `interval`: "normal" (linearised), "bootstrap" (buckets of units, `replicates` draws), "betting" (finite-sample;
      rewards in [0, 1]; `max_weight`, a bound on w known in advance, narrows its upper end much),
      or "sequence" (valid while one looks: betting where it exists, else asymptotic).
    - `eligible`: number of actions that could have been drawn, to test that propensities are true. `unsupported`:
      the target's probability on actions with propensity 0. `embedding_propensities` and
      `target_embedding_propensities` (mips); `weight_moments` = Σ_a π(a)²/p(a) known before the
      row's own context and action (adaptive-dr).
    - `facts`: fields of `Diagnostics` that only the caller knows (`mature_share`, `policy_versions`, …).
    - `gates`: thresholds below which a refusal with a reason code replaces the number.

    Raises BadData naming the rows for a column that cannot be used, BadRequest for an unknown name
    or option.
    """
    env = checked(rewards, propensities, target_propensities, q_logged, q_target)
    n = env["r"].size
    if embedding_propensities is not None:
        marginal = column("embedding_propensities", embedding_propensities, PROPENSITY, n)
        env["we"] = (
            column("target_embedding_propensities", target_embedding_propensities, PROBABILITY, n)
            / marginal
        )
    if weight_moments is not None:
        env["h"] = 1.0 / np.sqrt(column("weight_moments", weight_moments, POSITIVE, n))
    known = dict(facts or {})
    if unsupported is not None:
        known["unsupported"] = float(column("unsupported", unsupported, PROBABILITY, n).mean())
    codes = unit_codes(units, n)
    if eligible is not None:
        known |= _calibration(
            column("propensities", propensities, PROPENSITY),
            column("eligible", eligible, POSITIVE, n),
            codes,
        )
    return from_columns(
        env, codes, known, estimators=estimators, lam=lam, alpha=alpha, interval=interval, max_weight=max_weight,
        replicates=replicates, gates=gates,
    )  # fmt: skip


def from_columns(
    env: Env,
    units: Indices | None,
    facts: Mapping[str, Any],
    *,
    estimators: Iterable[str] = DEFAULT,
    lam: Lam | Mapping[str, Lam] = None,
    alpha: float = 0.05,
    interval: Interval = "normal",
    max_weight: float | None = None,
    replicates: int = 1000,
    gates: Gates | None = None,
) -> dict[str, Estimate]:
    """`estimate` on columns already checked: w, r and optionally q, dm, we, h (n each)."""
    check_options(alpha, interval)
    x = Symbols()
    selected = chosen(estimators)
    planned, missing = plan(selected, lam, env, x)
    summary = summarise(env, units, columns_of(planned, x), bootstrap=interval == "bootstrap")
    diagnostics = summary.diagnose(x, facts)
    results = assess(
        planned,
        summary,
        diagnostics,
        alpha=alpha,
        interval=interval,
        gates=gates or Gates(),
        betting=_bettor(env, units, alpha, max_weight, anytime=interval == "sequence"),
        replicates=replicates,
    )
    results |= {name: refused(name, reason, diagnostics, alpha) for name, reason in missing.items()}
    return {estimator.name: results[estimator.name] for estimator in selected}


def check_options(alpha: float, interval: str) -> None:
    """Raises BadRequest for a level outside (0, 1) or an interval that is none."""
    if not 0 < alpha < 1:
        raise BadRequest(
            "alpha", f"got {alpha}; expected a number between 0 and 1; 0.05 gives 95% intervals"
        )
    if interval not in ("normal", "bootstrap", "betting", "sequence"):
        raise BadRequest(
            "interval", f"got {interval!r}; expected 'normal', 'bootstrap', 'betting' or 'sequence'"
        )


def summarise(
    env: Env, units: Indices | None, columns: Sequence[Column], *, bootstrap: bool
) -> Summary:
    """Totals of the columns over the arrays of `env`, chunk by chunk so that memory stays small."""
    names = tuple(column.sql for column in columns)
    moments: Moments | None = None
    buckets = np.zeros((intervals.BUCKETS, len(names))) if bootstrap else None
    for number, (rows, codes) in enumerate(intervals.chunks(units, env["r"].size)):
        part = {name: values[rows] for name, values in env.items()}
        part["one"] = np.ones(part["r"].size)
        sums = intervals.by_unit(stack(columns, part, part["r"].size), codes)
        moments = (
            Moments.of(names, sums.T) if moments is None else moments + Moments.of(names, sums.T)
        )
        if buckets is not None:
            buckets += intervals.by_bucket(sums, seed=number)
    assert moments is not None  # noqa: S101  (rewards_column refuses an empty log)
    w = env["w"]
    hits = int(np.count_nonzero((env["r"] != 0) & (w > 0)))
    return Summary(moments, w.size, float(w.max()), hits, buckets)


def checked(rewards: Any, propensities: Any, target: Any, q_logged: Any, q_target: Any) -> Env:
    """The columns r, w and, where a model is given, q and dm. Raises BadData naming the rows."""
    r = rewards_column(rewards)
    env = {"r": r}
    p = column("propensities", propensities, PROPENSITY, r.size)
    env["w"] = column("target_propensities", target, PROBABILITY, r.size) / p
    if (q_logged is None) != (q_target is None):
        name = "q_logged" if q_logged is None else "q_target"
        raise BadData(
            name,
            "got nothing; expected it with its other half; give both q_logged and q_target, or neither",
        )
    if q_logged is not None:
        env["q"] = column("q_logged", q_logged, FINITE, r.size)
        env["dm"] = column("q_target", q_target, FINITE, r.size)
    return env


def _calibration(propensities: Floats, eligible: Floats, units: Indices | None) -> dict[str, float]:
    """Mean of 1/(p·K) and its standard error: E[1/p] is the number of actions that could be
    drawn.
    """
    columns = np.stack([1.0 / (propensities * eligible), np.ones(propensities.size)])
    moments = Moments.of(("inverse", "count"), intervals.by_unit(columns, units).T)
    found = ratio("inverse", "count")(moments)
    return {"calibration": found.value, "calibration_se": sqrt(found.variance(moments))}


def _bettor(
    env: Env, units: Indices | None, alpha: float, max_weight: float | None, *, anytime: bool
) -> Callable[[Estimator, Formula], Bounds | str]:
    """Betting intervals on these arrays: for means of w·r, r in [0, 1], where E[w] = 1."""
    r, one = env["r"], np.ones(env["r"].size)

    def bounds(estimator: Estimator, formula: Formula) -> Bounds | str:
        if not estimator.betting or r.min() < 0 or r.max() > 1:
            return "no_finite_sample_interval"
        column = formula.ratios[0].numerator
        each = [
            column.values({**env, "one": one}),
            column.values({**env, "r": 1.0 - r, "one": one}),
            one,
        ]
        gains, mirrored, counts = intervals.by_unit(np.stack(each), units)
        low = intervals.betting_lower(gains, counts, alpha / 2, anytime=anytime)
        if max_weight is not None and estimator.name == "ips":
            if env["w"].max() > max_weight:
                row = int(env["w"].argmax())
                raise BadData(
                    "max_weight",
                    f"row {row}: got weight {env['w'].max():g}; expected at most {max_weight:g}",
                )
            high = min(
                1.0, intervals.betting_upper(gains, counts, max_weight, alpha / 2, anytime=anytime)
            )
        else:
            high = 1.0 - intervals.betting_lower(mirrored, counts, alpha / 2, anytime=anytime)
        kind = "confidence sequence" if anytime else "interval"
        return low, high, f"betting {kind}, finite-sample, by unit"

    return bounds
