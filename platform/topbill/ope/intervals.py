"""From sums to estimates: which λ, which interval, and whether a number may be given at all.

Arrays and DuckDB meet here: both deliver a `Summary`, and everything after it is the same code.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping
from dataclasses import dataclass, replace
from math import isfinite, sqrt
from typing import Any, Literal, NamedTuple

import numpy as np

from topbill.domain.errors import BadRequest
from topbill.domain.records import Floats
from topbill.ope.diagnostics import Diagnostics, Gates, effective_sample, few_hits, refusal, warn
from topbill.ope.estimators.assumptions import ASSUMPTIONS
from topbill.ope.estimators.estimator import Estimator
from topbill.ope.estimators.formula import ONE, Column, Formula, Symbols, distinct, mean
from topbill.ope.result import Estimate, Estimates, refused
from topbill.ope.tuning import LambdaEstimate, mse_bound, slope
from topbill.stats import intervals
from topbill.stats.moments import Moments

Interval = Literal["normal", "bootstrap", "betting", "sequence"]
Lam = float | Literal["slope", "mse"] | None
BORNE = 0.25
"""Up to so many of its own standard errors an estimate may be away from what it is checked by."""
WARNS = 3.0
"""Standard errors of the gap from which it is warned of, where no refusal is called for."""
Bounds = tuple[float, float, str]
"""Low, high, and how they were made."""
Bettor = Callable[[Estimator, Formula], Bounds | str]
"""Gives a betting interval of a formula, or the reason code why there is none."""

_NEEDS = {
    "q": "needs_reward_model",
    "dm": "needs_reward_model",
    "we": "needs_embedding_propensities",
    "h": "needs_weight_moment",
}


class Planned(NamedTuple):
    """An estimator, its formula at each λ in question, how one of them is chosen, and the formula
    that it is checked against, where the log has its columns.
    """

    estimator: Estimator
    formulas: dict[float, Formula]
    rule: Lam
    check: Formula | None = None

    @property
    def all_formulas(self) -> list[Formula]:
        """Those at each λ, and what they are checked by."""
        formulas = list(self.formulas.values())
        if self.check is not None:
            # As one, since the check's noise is largely the estimate's own.
            formulas.append(next(iter(self.formulas.values())) - self.check)
        return formulas


@dataclass(frozen=True)
class Summary:
    """All that the estimates need of a log: moments by unit of the planned columns (named by their
    SQL), what the diagnostics show, and for the bootstrap their sums by bucket of units (4096 ×
    k). `squares` is Σ(row weight · w)² where rows have weights of their own."""

    moments: Moments
    rows: int
    largest_weight: float
    hits: int
    buckets: Floats | None = None
    squares: float | None = None

    def evaluate(self, formula: Formula) -> tuple[float, float]:
        """Value and linearised standard error of a formula."""
        # A denominator of 0 gives what is no number, which `assess` refuses as unstable.
        with np.errstate(divide="ignore", invalid="ignore"):
            linear = formula.linear(self.moments)
            return linear.value, sqrt(linear.variance(self.moments))

    def replicate(self, formula: Formula, replicates: int) -> Floats:
        """(replicates,) the formula on buckets of units drawn with replacement."""
        if self.buckets is None:
            raise BadRequest(
                "interval",
                "got 'bootstrap' for a summary without buckets; expected one made for it",
            )
        at = {column: self.moments.columns.index(column.sql) for column in formula.columns}
        with np.errstate(divide="ignore", invalid="ignore"):
            return formula.value(intervals.bootstrap_weights(replicates) @ self.buckets, at)

    def diagnose(self, x: Symbols, facts: Mapping[str, Any]) -> Diagnostics:
        """Diagnostics of the weights w; `facts` adds what only the caller knows about the log."""
        total, squares = self.moments.total(x.w.sql), self.moments.total((x.w * x.w).sql)
        if self.squares is not None:
            squares = self.squares
        value, se = self.evaluate(mean(x.w))
        # Of the weights as they are, whatever an estimator makes of them: gates are about the log.
        d = Diagnostics(
            rows=self.rows,
            units=self.moments.n,
            ess=effective_sample(total, squares),
            mean_weight=value,
            mean_weight_se=se,
            largest_weight=self.largest_weight,
            largest_share=self.largest_weight / total if total > 0 else 0.0,
            hits=self.hits,
            **facts,
        )
        return replace(d, warnings=warn(d))


def plan(
    estimators: Iterable[Estimator],
    lam: Lam | Mapping[str, Lam],
    available: Iterable[str],
    x: Symbols,
) -> tuple[list[Planned], dict[str, str]]:
    """What to compute, and the reason code of each estimator whose columns are not there."""
    planned: list[Planned] = []
    missing: dict[str, str] = {}
    for estimator in estimators:
        lacking = sorted(estimator.needs() - {*available})
        # One thing at a time: who gives the model is told of the next.
        if lacking:
            missing[estimator.name] = _NEEDS[lacking[0]]
            continue
        rule = lam.get(estimator.name) if isinstance(lam, Mapping) else lam
        check = estimator.check(x) if estimator.check is not None else None
        if check is not None and not check.leaves <= {"one", *available}:
            check = None
        planned.append(Planned(estimator, _formulas(estimator, rule, x), rule, check))
    return planned, missing


def _formulas(estimator: Estimator, rule: Lam, x: Symbols) -> dict[float, Formula]:
    if not estimator.lambdas:
        return {0.0: estimator.formula(x, 0.0)}
    # To choose among them, all are summed in the one pass.
    if rule is None or rule in ("slope", "mse"):
        return {value: estimator.formula(x, value) for value in estimator.lambdas}
    top = max(estimator.lambdas)
    if isinstance(rule, str) or not 0 <= rule <= top:
        raise BadRequest(
            "lam",
            f"got {rule!r} for {estimator.name}; expected 'slope', 'mse' or a number from 0 to "
            f"{top:g}",
        )
    return {float(rule): estimator.formula(x, float(rule))}


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


def columns_of(planned: Iterable[Planned], x: Symbols) -> tuple[Column, ...]:
    """The distinct columns to sum: those of the formulas and of the diagnostics."""
    columns = [ONE, x.w, x.w * x.w]
    for each in planned:
        for formula in each.all_formulas:
            columns += formula.columns
    return distinct(columns)


def no_betting(_estimator: Estimator, _formula: Formula) -> Bounds | str:
    """The bettor of what has no rows to bet on."""
    return "no_finite_sample_interval"


def assess(
    planned: Iterable[Planned],
    summary: Summary,
    diagnostics: Diagnostics,
    *,
    alpha: float,
    interval: Interval,
    gates: Gates,
    betting: Bettor = no_betting,
    replicates: int,
) -> dict[str, Estimate]:
    """An estimate, or a refusal, for each planned estimator."""
    warnings = (*few_hits(diagnostics, interval), *diagnostics.warnings)
    diagnostics = replace(diagnostics, warnings=warnings)
    # The gates are about the log and the target, so they are the same for all estimators.
    reason = refusal(diagnostics, gates)
    results = {}
    for each in planned:
        name = each.estimator.name
        if reason:
            results[name] = refused(name, reason, diagnostics, alpha)
            continue
        lam = _choose(each, summary, diagnostics)
        formula = each.formulas[lam]
        value, se = summary.evaluate(formula)
        bounds: Bounds | str = "unstable"
        broken, own = _checked(each, formula, summary, se, diagnostics, gates.drift_z)
        if broken:
            bounds = broken
        elif isfinite(value) and isfinite(se):
            bounds = _bounds(
                each.estimator, formula, summary, value, se, alpha, interval, betting, replicates
            )
        if isinstance(bounds, str):
            results[name] = refused(name, bounds, diagnostics, alpha)
            continue
        low, high, method = bounds
        results[name] = Estimate(
            name,
            value,
            se,
            low,
            high,
            None,
            own,
            method=method,
            lam=lam if each.estimator.lambdas else None,
            alpha=alpha,
        )
    return results


def _checked(
    each: Planned,
    formula: Formula,
    summary: Summary,
    se: float,
    diagnostics: Diagnostics,
    drift_z: float,
) -> tuple[str, Diagnostics]:
    """A reason code where the log contradicts what the estimator assumes, and the diagnostics, with
    a warning where it contradicts what is no reason to refuse.
    """
    if each.check is None:
        return "", diagnostics
    gap, noise = summary.evaluate(formula - each.check)
    if not (isfinite(gap) and isfinite(noise)):
        return "", diagnostics
    estimator = each.estimator
    if estimator.breach:
        # Strictly, as what is let pass shifts the interval by as much: a gap is borne where it is
        # small beside the interval, or likely by chance.
        drifts = abs(gap) > max(drift_z * noise, BORNE * se)
        return estimator.breach if drifts else "", diagnostics
    if abs(gap) <= max(WARNS * noise, se):
        return "", diagnostics
    assumed = ASSUMPTIONS[estimator.assumptions[-1]].sentence
    warning = (
        f"{estimator.name} is {abs(gap):.3g} {'above' if gap > 0 else 'below'} "
        f"{estimator.check_name}, {abs(gap) / noise if noise else float('inf'):.1f} standard "
        f"errors: it assumes that {assumed}, which this log contradicts; prefer "
        f"{estimator.check_name}"
    )
    return "", replace(diagnostics, warnings=(*diagnostics.warnings, warning))


def in_order(
    selected: Iterable[Estimator],
    results: Mapping[str, Estimate],
    missing: Mapping[str, str],
    diagnostics: Diagnostics,
    alpha: float,
) -> Estimates:
    """The results in the order of the estimators, with a refusal for each of those whose columns
    are `missing`.
    """
    estimates = Estimates()
    for estimator in selected:
        name = estimator.name
        if name in missing:
            estimates[name] = refused(name, missing[name], diagnostics, alpha)
        else:
            estimates[name] = results[name]
    return estimates


def _choose(each: Planned, summary: Summary, d: Diagnostics) -> float:
    """The λ by the rule; the only one where there is no choice."""
    if len(each.formulas) == 1:
        return next(iter(each.formulas))
    candidates = []
    for lam, formula in each.formulas.items():
        value, se = summary.evaluate(formula)
        candidates.append(LambdaEstimate(lam, value, se, d.units))
    if each.rule == "mse":
        unbiased = next(c for c in candidates if c.lam == each.estimator.unbounded)
        # Kish's n_eff = (Σw)²/Σw², solved for the mean of w².
        square = d.mean_weight * d.mean_weight * d.rows / d.ess
        return mse_bound(candidates, unbiased, square, d.largest_weight)
    return slope(candidates)


def _bounds(
    estimator: Estimator,
    formula: Formula,
    summary: Summary,
    value: float,
    se: float,
    alpha: float,
    interval: Interval,
    betting: Bettor,
    replicates: int,
) -> Bounds | str:
    if interval == "normal":
        low, high = intervals.normal(value, se, alpha)
        return low, high, "normal, linearised, clustered by unit"
    if interval == "bootstrap":
        low, high = intervals.percentile(summary.replicate(formula, replicates), alpha)
        method = f"percentile bootstrap of {replicates} replicates"
        return low, high, f"{method} over {intervals.BUCKETS} buckets of units"
    bet = betting(estimator, formula)
    # A sequence falls back on the asymptotic one; who asked for betting wants no approximation.
    if interval == "sequence" and isinstance(bet, str):
        low, high = intervals.asymptotic_sequence(value, se, summary.moments.n, alpha)
        return low, high, "asymptotic confidence sequence (Gaussian mixture), clustered by unit"
    return bet
