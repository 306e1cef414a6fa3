"""Importance-weighted estimators without a reward model. They assume true propensities, and p > 0
where π > 0.
"""

from __future__ import annotations

from math import isinf

from topbill.ope.estimators.estimator import Estimator
from topbill.ope.estimators.formula import Column, Formula, Symbols, mean, ratio


def _ips(x: Symbols, _: float) -> Formula:
    return mean(x.w * x.r)


def _snips(x: Symbols, _: float) -> Formula:
    return ratio(x.w * x.r, x.w)


def _clipped(x: Symbols, lam: float) -> Formula:
    # At λ = ∞ the very column of ips, which is then summed only once.
    return mean((x.w if isinf(lam) else x.w.clipped(lam)) * x.r)


def _sub_gaussian(x: Symbols, lam: float) -> Formula:
    return mean(shrunk_sub_gaussian(x.w, lam) * x.r)


def shrunk_sub_gaussian(w: Column, lam: float) -> Column:
    """w / (1 − λ + λw): between w (λ = 0) and 1 (λ = 1)."""
    # The weighted harmonic mean of w and 1: for λ > 0 never above 1/λ, so tails are sub-Gaussian.
    return w / (w * lam + (1.0 - lam)) if lam > 0 else w


IPS = Estimator(
    name="ips",
    title="Inverse propensity score",
    paper="Horvitz & Thompson 1952; Strehl et al. 2010: mean(w r)",
    assumes="propensities as drawn; support",
    formula=_ips,
    betting=True,
)
SNIPS = Estimator(
    name="snips",
    title="Self-normalised inverse propensity score",
    paper="Swaminathan & Joachims 2015: Σ w r / Σ w",
    assumes="as ips; biased by O(1/n), invariant to a shift of rewards",
    formula=_snips,
)
CLIPPED = Estimator(
    name="clipped-ips",
    title="Clipped inverse propensity score",
    paper="Ionides 2008; Bottou et al. 2013: mean(min(w, λ) r)",
    assumes="as ips; biased downwards for rewards ≥ 0 where w > λ",
    formula=_clipped,
    assumptions=("propensities", "positivity", "light_tails"),
    lambdas=(10.0, 50.0, 100.0, 500.0, 1000.0, 5000.0, 10000.0, float("inf")),
    betting=True,
)
SG_IPS = Estimator(
    name="sg-ips",
    title="Sub-Gaussian inverse propensity score",
    paper="Metelli, Russo & Restelli 2021 (s = −1): mean(w r / (1 − λ + λw))",
    assumes="as ips; the weights shrink towards 1",
    formula=_sub_gaussian,
    assumptions=("propensities", "positivity", "light_tails"),
    lambdas=(0.0, 0.001, 0.01, 0.05, 0.1, 0.25, 0.5, 1.0),
    unbounded=0.0,
)
FAMILY = (IPS, SNIPS, CLIPPED, SG_IPS)
