"""Estimators that join a reward model q̂ with importance weights: right when either the weights or
the model are.

q̂ must not have been fitted on the rows it scores (see `reward_model`: fitted on the past only).
"""

from __future__ import annotations

from math import isinf

from topbill.ope.estimators.estimator import Estimator
from topbill.ope.estimators.formula import Column, Formula, Symbols, mean, ratio
from topbill.ope.estimators.ips import shrunk_sub_gaussian

_LAMBDAS = (10.0, 50.0, 100.0, 500.0, 1000.0, 5000.0, 10000.0, float("inf"))


def _corrected(x: Symbols, weight: Column) -> Formula:
    """mean(dm + weight·(r − q̂)): the model's value, corrected by its weighted residuals."""
    return mean(x.dm + weight * (x.r - x.q))


def _dm(x: Symbols, _: float) -> Formula:
    return mean(x.dm)


def _dr(x: Symbols, _: float) -> Formula:
    return _corrected(x, x.w)


def _sndr(x: Symbols, _: float) -> Formula:
    # Only the correction is normalised: the model's own part has no weights to normalise.
    return mean(x.dm) + ratio(x.w * (x.r - x.q), x.w)


def _switch(x: Symbols, lam: float) -> Formula:
    # A weight above λ is dropped, not cut: there the model is believed alone.
    return _corrected(x, x.w if isinf(lam) else x.w * x.w.at_most(lam))


def _optimistic_shrinkage(x: Symbols, lam: float) -> Formula:
    # Small weights stay, large ones fall like λ/w: what minimises a bound of the squared error.
    return _corrected(x, x.w if isinf(lam) else x.w * lam / (x.w * x.w + lam))


def _sub_gaussian(x: Symbols, lam: float) -> Formula:
    return _corrected(x, shrunk_sub_gaussian(x.w, lam))


DM = Estimator(
    name="dm",
    title="Direct method",
    paper="Beygelzimer & Langford 2009: mean(Σ_a π(a|x) q̂(x, a))",
    assumes="the model is right; the interval ignores the model's own error",
    formula=_dm,
    assumptions=("own_past", "model"),
    check=lambda x: _dr(x, 0.0),
    check_name="dr",
)
DR = Estimator(
    name="dr",
    title="Doubly robust",
    paper="Dudík, Langford & Li 2011: mean(dm + w(r − q̂))",
    assumes="true propensities and support; a good model narrows it",
    formula=_dr,
    assumptions=("propensities", "positivity", "own_past"),
)
SNDR = Estimator(
    name="sndr",
    title="Self-normalised doubly robust",
    paper="Thomas & Brunskill 2016 (WDR, one step): mean(dm) + Σ w(r − q̂) / Σ w",
    assumes="as dr; biased by O(1/n)",
    formula=_sndr,
    assumptions=("propensities", "positivity", "own_past"),
)
SWITCH_DR = Estimator(
    name="switch-dr",
    title="Switch doubly robust",
    paper="Wang, Agarwal & Dudík 2017, with DR below λ: mean(dm + w·1[w ≤ λ](r − q̂))",
    assumes="as dr where w ≤ λ; as dm elsewhere",
    formula=_switch,
    assumptions=("propensities", "positivity", "own_past", "light_tails"),
    lambdas=_LAMBDAS,
)
DROS = Estimator(
    name="dros",
    title="Doubly robust with optimistic shrinkage",
    paper="Su, Dimakopoulou, Krishnamurthy & Dudík 2020: mean(dm + λw/(w² + λ)·(r − q̂))",
    assumes="as dr; between dm (λ = 0) and dr (λ = ∞)",
    formula=_optimistic_shrinkage,
    assumptions=("propensities", "positivity", "own_past", "light_tails"),
    lambdas=_LAMBDAS,
)
SG_DR = Estimator(
    name="sg-dr",
    title="Sub-Gaussian doubly robust",
    paper="Metelli, Russo & Restelli 2021, around DR: mean(dm + w/(1 − λ + λw)·(r − q̂))",
    assumes="as dr; the weights shrink towards 1",
    formula=_sub_gaussian,
    assumptions=("propensities", "positivity", "own_past", "light_tails"),
    lambdas=(0.0, 0.001, 0.01, 0.05, 0.1, 0.25, 0.5, 1.0),
    unbounded=0.0,
)
FAMILY = (DM, DR, SNDR, SWITCH_DR, DROS, SG_DR)
