"""`estimate`: from arrays of logged decisions to estimates with intervals, diagnostics and
refusals.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from math import sqrt
from typing import Any

import numpy as np

from topbill.domain.errors import BadData
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
    probabilities,
    refuse_misaligned,
    rewards_column,
    row_weights,
    unit_codes,
)
from topbill.ope.intervals import (
    Bettor,
    Bounds,
    Interval,
    Lam,
    Summary,
    assess,
    check_options,
    columns_of,
    in_order,
    plan,
)
from topbill.ope.result import Estimates
from topbill.stats.intervals import (
    BUCKETS,
    betting_lower,
    betting_upper,
    by_bucket,
    by_unit,
    chunks,
)
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
    weights: Any = None,
    facts: Mapping[str, Any] | None = None,
    gates: Gates | None = None,
) -> Estimates:
    """What the target policy would have earned per decision, by each estimator, from one log of n
    decisions.

    All columns are of n rows, in the order of the log, of shape (n,) or (n, 1). Those of pandas
    must have one index.

    Args:
        rewards: finite numbers.
        propensities: (0, 1], of the logged action as it was drawn.
        target_propensities: [0, 1], the target's probability of that same action.
        q_logged: q̂(x, a) of the logged action; dm, dr and kin need both.
        q_target: Σ_a π(a|x) q̂(x, a).
        units: whatever is independent (a viewer, say); standard errors are clustered by it. None:
            every row.
        estimators: names from `ESTIMATORS`.
        lam: a number, "slope" (the default where None) or "mse", or a mapping from estimator to one
            of these.
        alpha: intervals hold with probability 1 − alpha.
        interval: "normal" (linearised), "bootstrap" (buckets of units, `replicates` draws),
            "betting" (finite-sample; rewards in [0, 1]), or "sequence" (valid while one looks:
            betting where it exists, else asymptotic).
        max_weight: a bound on w known in advance, which narrows betting's upper end much.
        replicates: of the bootstrap.
        eligible: number of actions that could have been drawn, to test that propensities are true.
        unsupported: the target's probability on actions with propensity 0.
        embedding_propensities, target_embedding_propensities: of the action's embedding (mips).
        weight_moments: Σ_a π(a)²/p(a) known before the row's own context and action (adaptive-dr).
        weights: how many decisions each row stands for, positive (1/(1 − pdrop) of a log that was
            thinned out); only their ratios matter. There is no betting interval with them.
        facts: fields of `Diagnostics` that only the caller knows (`mature_share`,
            `policy_versions`, …).
        gates: thresholds below which a refusal with a reason code replaces the number.

    Returns:
        An `Estimate` by the name of each estimator, in their order.

    Raises:
        BadData: naming the rows of a column that cannot be used.
        BadRequest: for an unknown name or option.

    Examples:
        >>> import numpy as np
        >>> from topbill.ope import estimate
        >>> rng = np.random.default_rng(7)
        >>> shown = rng.integers(0, 2, size=4000)  # two pictures, evenly
        >>> plays = rng.random(4000) < np.where(shown == 1, 0.3, 0.1)
        >>> half, always_the_second = np.full(4000, 0.5), (shown == 1).astype(float)
        >>> estimates = estimate(plays, half, always_the_second, estimators=("ips", "snips"))
        >>> estimates["snips"].low < 0.3 < estimates["snips"].high
        True
        >>> estimates.to_frame().columns.tolist()[:5]
        ['estimator', 'value', 'se', 'low', 'high']
    """
    env, codes, facts = columns_from(
        rewards,
        propensities,
        target_propensities,
        q_logged=q_logged,
        q_target=q_target,
        units=units,
        eligible=eligible,
        unsupported=unsupported,
        embedding_propensities=embedding_propensities,
        target_embedding_propensities=target_embedding_propensities,
        weight_moments=weight_moments,
        weights=weights,
        facts=facts,
    )
    return from_columns(
        env,
        codes,
        facts,
        estimators=estimators,
        lam=lam,
        alpha=alpha,
        interval=interval,
        max_weight=max_weight,
        replicates=replicates,
        gates=gates,
    )


def columns_from(
    rewards: Any,
    propensities: Any,
    target_propensities: Any,
    *,
    q_logged: Any = None,
    q_target: Any = None,
    units: Any = None,
    eligible: Any = None,
    unsupported: Any = None,
    embedding_propensities: Any = None,
    target_embedding_propensities: Any = None,
    weight_moments: Any = None,
    weights: Any = None,
    facts: Mapping[str, Any] | None = None,
) -> tuple[Env, Indices | None, dict[str, Any]]:
    """What `from_columns` takes, from the arguments of `estimate`, checked: the columns, the codes
    of the units, and what only the log can tell about itself.
    """
    refuse_misaligned(
        rewards=rewards,
        propensities=propensities,
        target_propensities=target_propensities,
        q_logged=q_logged,
        q_target=q_target,
        units=units,
        eligible=eligible,
        unsupported=unsupported,
        embedding_propensities=embedding_propensities,
        target_embedding_propensities=target_embedding_propensities,
        weight_moments=weight_moments,
        weights=weights,
    )
    env = checked(rewards, propensities, target_propensities, q_logged, q_target)
    n = env["r"].size
    if embedding_propensities is not None:
        logged_share = probabilities(
            "embedding_propensities", embedding_propensities, PROPENSITY, n
        )
        target_share = probabilities(
            "target_embedding_propensities", target_embedding_propensities, PROBABILITY, n
        )
        env["we"] = target_share / logged_share
    if weight_moments is not None:
        env["h"] = 1.0 / np.sqrt(column("weight_moments", weight_moments, POSITIVE, n))
    if weights is not None:
        env["weight"] = row_weights(weights, n)
    facts = dict(facts or {})
    if unsupported is not None:
        mass = probabilities("unsupported", unsupported, PROBABILITY, n)
        facts["unsupported"] = float(np.average(mass, weights=env.get("weight")))
    codes = unit_codes(units, n)
    if eligible is not None:
        facts |= _calibration(
            probabilities("propensities", propensities, PROPENSITY),
            column("eligible", eligible, POSITIVE, n),
            codes,
            env.get("weight"),
        )
        # Where large 1/p are rare, those that were drawn show too little of their noise.
        noise = facts.pop("calibration_foreseen", 0.0)
        facts["calibration_se"] = max(facts["calibration_se"], noise)
    return env, codes, facts


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
) -> Estimates:
    """`estimate` on columns already checked: w, r and optionally q, dm, we, h, weight (n each)."""
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
    return in_order(selected, results, missing, diagnostics, alpha)


def summarise(
    env: Env, units: Indices | None, columns: Sequence[Column], *, bootstrap: bool
) -> Summary:
    """Totals of the columns over the arrays of `env`, chunk by chunk so that memory stays small.

    Where it has a `weight`, each row counts so often: in every sum, that of ONE included.
    """
    names = tuple(column.sql for column in columns)
    moments = Moments.of(names, np.zeros((0, len(names))))
    buckets = np.zeros((BUCKETS, len(names))) if bootstrap else None
    for number, (rows, codes) in enumerate(chunks(units, env["r"].size)):
        # Chunks hold whole units only, so that sums by unit never have to be joined again.
        part = {name: values[rows] for name, values in env.items()}
        part["one"] = np.ones(part["r"].size)
        by_row = stack(columns, part, part["r"].size)
        if "weight" in part:
            by_row = by_row * part["weight"]
        sums = by_unit(by_row, codes)
        of_chunk = Moments.of(names, sums.T)
        moments = of_chunk if number == 0 else moments + of_chunk
        if buckets is not None:
            buckets += by_bucket(sums, seed=number)
    w = env["w"]
    # Where rewards go below 0, what no event is worth lies between the ends (`unrewarded`).
    hits = int(np.count_nonzero((env["r"] != env.get("unrewarded", 0.0)) & (w > 0)))
    squares = None
    if "weight" in env:
        # A row that stands for ten is not ten rows: in the effective sample its weight is squared.
        w = w * env["weight"]
        squares = float(w @ w)
    return Summary(moments, w.size, float(w.max()), hits, buckets, squares)


def checked(rewards: Any, propensities: Any, target: Any, q_logged: Any, q_target: Any) -> Env:
    """The columns r, w and, where a model is given, q and dm. Raises BadData naming the rows."""
    r = rewards_column(rewards)
    env = {"r": r}
    p = probabilities("propensities", propensities, PROPENSITY, r.size)
    env["w"] = probabilities("target_propensities", target, PROBABILITY, r.size) / p
    if (q_logged is None) != (q_target is None):
        name = "q_logged" if q_logged is None else "q_target"
        raise BadData(
            name,
            "got nothing; expected it with its other half; give both q_logged and q_target, or "
            "neither",
        )
    if q_logged is not None:
        env["q"] = column("q_logged", q_logged, FINITE, r.size)
        env["dm"] = column("q_target", q_target, FINITE, r.size)
    return env


def _calibration(
    propensities: Floats, eligible: Floats, units: Indices | None, weights: Floats | None
) -> dict[str, float]:
    """Mean of 1/(p·K) and its standard error: E[1/p] is the number of actions that could be
    drawn.
    """
    columns = np.stack([1.0 / (propensities * eligible), np.ones(propensities.size)])
    if weights is not None:
        columns = columns * weights
    moments = Moments.of(("inverse", "count"), by_unit(columns, units).T)
    mean = ratio("inverse", "count")(moments)
    return {"calibration": mean.value, "calibration_se": sqrt(mean.variance(moments))}


def _bettor(
    env: Env, units: Indices | None, alpha: float, max_weight: float | None, *, anytime: bool
) -> Bettor:
    """Betting intervals on these arrays: for means of w·r, r in [0, 1], where E[w] = 1."""
    r, one = env["r"], np.ones(env["r"].size)

    def bounds(estimator: Estimator, formula: Formula) -> Bounds | str:
        # Bets are on rows, each of which must stand for itself.
        if not estimator.betting or r.min() < 0 or r.max() > 1 or "weight" in env:
            return "no_finite_sample_interval"
        summand = formula.ratios[0].numerator
        columns = [
            summand.values({**env, "one": one}),
            summand.values({**env, "r": 1.0 - r, "one": one}),
            one,
        ]
        gains, mirrored, counts = by_unit(np.stack(columns), units)
        low = betting_lower(gains, counts, alpha / 2, anytime=anytime)
        if max_weight is not None and estimator.name == "ips":
            _check_largest(env["w"], max_weight)
            high = betting_upper(gains, counts, max_weight, alpha / 2, anytime=anytime)
            high = min(1.0, high)
        else:
            # Without a bound on w: what 1 − r earns at least, the policy earns at most the rest
            # (Waudby-Smith et al. 2024, §3).
            high = 1.0 - betting_lower(mirrored, counts, alpha / 2, anytime=anytime)
        kind = "confidence sequence" if anytime else "interval"
        return low, high, f"betting {kind}, finite-sample, by unit"

    return bounds


def _check_largest(w: Floats, max_weight: float) -> None:
    row = int(w.argmax())
    if w[row] > max_weight:
        raise BadData(
            "max_weight", f"row {row}: got weight {w[row]:g}; expected at most {max_weight:g}"
        )
