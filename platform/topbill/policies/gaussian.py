"""Gaussian weight vectors that learn by rank-one steps, and the Laplace step of a logistic likelihood."""

from __future__ import annotations

import math

import numpy as np
from scipy.linalg.blas import dger

from topbill.records import Floats


class Blocks:
    """Gaussian weight vectors of one shape: `mean` (n × p) and `cov` (n × p × p); row 0 stays the prior.

    `variances` (n × p) repeats the diagonals of `cov`, so that a rough look at many rows reads little memory.
    """

    __slots__ = ("cov", "mean", "prior_cov", "prior_mean", "size", "variances")

    def __init__(self, prior_mean: Floats, prior_variance: Floats, rows: int = 1) -> None:
        self.prior_mean, self.prior_cov = prior_mean, np.diag(prior_variance).astype(np.float64)
        self.size = rows
        self.mean = np.repeat(prior_mean[None], rows, axis=0)
        self.cov = np.repeat(self.prior_cov[None], rows, axis=0)
        self.variances = np.einsum("npp->np", self.cov).copy()

    def add(self) -> int:
        """A new row with the prior; its number."""
        if self.size == len(self.mean):
            grow = max(8, self.size)
            self.mean = np.concatenate([self.mean, np.repeat(self.prior_mean[None], grow, axis=0)])
            self.cov = np.concatenate([self.cov, np.repeat(self.prior_cov[None], grow, axis=0)])
            self.variances = np.concatenate([self.variances, np.repeat(np.diag(self.prior_cov)[None], grow, axis=0)])
        self.size += 1
        return self.size - 1

    def gain(self, row: int, phi: Floats) -> tuple[float, float, Floats]:
        """Mean and variance of phi·w, and cov·phi, of a row."""
        g = self.cov[row] @ phi
        return float(self.mean[row] @ phi), float(phi @ g), g

    def absorb(self, row: int, g: Floats, slope: float, curvature: float) -> None:
        """mean += slope·g and cov −= curvature·g gᵀ (Sherman and Morrison 1950), in place."""
        self.mean[row] += slope * g
        cov = self.cov[row]
        dger(-curvature, g, g, a=cov.T, overwrite_x=0, overwrite_y=0, overwrite_a=1)
        self.variances[row] = cov.diagonal()

    def restore(self, mean: Floats, cov: Floats) -> None:
        """Take over rows that were saved."""
        self.mean, self.cov, self.size = mean, cov, len(mean)
        self.variances = np.einsum("npp->np", cov).copy()

    def forget(self, keep: float) -> None:
        """Stabilised exponential forgetting: precision P ← keep·P + (1 − keep)·P₀, and P·mean likewise."""
        used = slice(0, self.size)
        prior = np.linalg.inv(self.prior_cov)
        precision = np.linalg.inv(self.cov[used])
        natural = keep * np.einsum("npq,nq->np", precision, self.mean[used]) + (1.0 - keep) * (prior @ self.prior_mean)
        cov = np.linalg.inv(keep * precision + (1.0 - keep) * prior)
        self.cov[used] = 0.5 * (cov + cov.transpose(0, 2, 1))
        self.mean[used] = np.einsum("npq,nq->np", self.cov[used], natural)
        self.variances[used] = np.einsum("npp->np", self.cov[used])

    def symmetrise(self) -> None:
        """Undo what rounding did to symmetry."""
        self.cov += self.cov.transpose(0, 2, 1).copy()
        self.cov *= 0.5


def sigmoid(eta: float) -> float:
    """The logistic function, safe for any finite eta."""
    return 1.0 / (1.0 + math.exp(-eta)) if eta >= 0.0 else 1.0 - 1.0 / (1.0 + math.exp(eta))


def newton(mean: float, variance: float, reward: float) -> tuple[float, float]:
    """Slope and curvature of the Laplace step of a logistic likelihood along one direction.

    Solves η = m + v·(r − σ(η)) for the posterior mode; slope = r − σ(η), curvature = h/(1 + h·v) with
    h = σ′(η). Newton's steps are damped by the convexity of the problem; a handful converges.
    """
    eta, p = mean, sigmoid(mean)
    for _ in range(20):
        step = (mean + variance * (reward - p) - eta) / (1.0 + variance * p * (1.0 - p))
        eta += max(-2.0, min(2.0, step))
        p = sigmoid(eta)
        if abs(step) < 1e-6:
            break
    h = p * (1.0 - p)
    return reward - p, h / (1.0 + h * variance)
