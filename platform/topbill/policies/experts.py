"""The experts of `auto`: Bayesian logistic models that differ in features, priors and memory."""

from __future__ import annotations

import math
from dataclasses import dataclass

import numpy as np

from topbill.policies.gaussian import Blocks, newton, sigmoid
from topbill.policies.linear import Layout
from topbill.records import Floats

WIDE = 10.0
"""Prior variance of the common intercept: base rates from 0.2% to 99.8% lie within two standard deviations."""
_FLOOR = 1e-12
_WIDE_BASIS = 40


@dataclass(frozen=True, slots=True)
class Design:
    """What makes an expert. Prior variances are on the logit scale.

    `fourier`: an action's own weights are over random Fourier features of the context (Rahimi and Recht 2007),
    which make any smooth taste linear; otherwise over the context itself. `signal` is the prior variance of what a
    whole context of unit scale adds to an action's logit, however many features it has; `intercept` and `shared` are
    of one weight. `keep` is the share of older evidence that an update leaves in the directions it informs.
    """

    name: str
    fourier: bool
    signal: float
    intercept: float
    shared: float
    keep: float


class Expert:
    """Own weights per action over a basis of the context, and shared weights over context × action features.

    `norm` is the expected square of the basis but for its intercept. What actions' features explain is no longer
    their own: each feature takes an equal part of the signal away.
    """

    __slots__ = ("_prior", "_shared_prior", "design", "own", "shared")

    def __init__(self, design: Design, basis_size: int, norm: int, context_size: int, features_size: int) -> None:
        self.design = design
        own = np.full(basis_size, design.signal / (max(norm, 1) * features_size), dtype=np.float64)
        own[0] = design.intercept
        shared = np.full(context_size * features_size, design.shared, dtype=np.float64)
        shared[0] = WIDE
        self._prior, self._shared_prior = own, shared
        self.own = Blocks(np.zeros(basis_size), own)
        self.shared = Blocks(np.zeros(shared.size), shared)

    def mean(self, basis: Floats, context: Floats, at: Layout) -> Floats:
        """(K,) the actions' logits."""
        coefficients = context @ self.shared.mean.reshape(len(context), -1)
        return np.asarray(self.own.mean[at.rows] @ basis + at.Z @ coefficients)

    def variance(self, basis: Floats, context: Floats, at: Layout) -> Floats:
        """(K,) their posterior variances, but for what all actions have in common."""
        K, p = len(at.Z), len(basis)
        if isinstance(at.rows, np.ndarray) and p > _WIDE_BASIS:
            # Gathering large scattered covariances costs more than visiting them.
            visited = [float(basis @ (self.own.cov[row] @ basis)) for row in at.rows.tolist()]
            return np.asarray(np.array(visited) + self._common(context, at))
        out = (self.own.cov[at.rows].reshape(K * p, p) @ basis).reshape(K, p) @ basis
        return np.asarray(out + self._common(context, at))

    def rough_variance(self, basis: Floats, context: Floats, at: Layout) -> Floats:
        """(K,) the same without the covariances of own weights: K·p numbers to read instead of K·p²."""
        return np.asarray(self.own.variances[at.rows] @ (basis * basis) + self._common(context, at))

    def _common(self, context: Floats, at: Layout) -> Floats | float:
        r, q = len(context), at.Z.shape[1]
        if q == 1:
            return 0.0
        spread = context @ (context @ self.shared.cov.reshape(r, q * r * q)).reshape(q, r, q)
        return np.asarray(((at.Z @ spread) * at.Z).sum(axis=1))

    def learn(self, row: int, basis: Floats, product: Floats, reward: float) -> float:
        """Fold a reward in [0, 1] of the action at `row` in; the log score of what was predicted for it before."""
        mean, variance, own = self.own.gain(row, basis)
        other_mean, other, shared = self.shared.gain(0, product)
        mean, variance, other = mean + other_mean, max(variance, _FLOOR), max(other, _FLOOR)
        p = sigmoid(mean / math.sqrt(1.0 + math.pi * (variance + other) / 8.0))
        # Directional forgetting (Kulhavý 1987): evidence fades only where new evidence comes in, and
        # only as far as the prior, so that confident predictions don't wind variances up.
        fade, other_fade = self._fade(variance, basis, self._prior), self._fade(other, product, self._shared_prior)
        grown, other_grown = 1.0 + fade, 1.0 + other_fade
        slope, curvature = newton(mean, variance * grown + other * other_grown, reward)
        self.own.absorb(row, own, slope * grown, curvature * grown * grown - fade / variance)
        self.shared.absorb(0, shared, slope * other_grown, curvature * other_grown * other_grown - other_fade / other)
        return reward * math.log(max(p, _FLOOR)) + (1.0 - reward) * math.log(max(1.0 - p, _FLOOR))

    def _fade(self, variance: float, phi: Floats, prior: Floats) -> float:
        """By what share the variance along `phi` grows before an update."""
        keep = self.design.keep
        if keep == 1.0:
            return 0.0
        return (1.0 / keep - 1.0) * max(0.0, 1.0 - variance / float((phi * phi) @ prior))
