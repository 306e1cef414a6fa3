"""Gaussian weight vectors, row by row and model by model, and what it means that they forget."""

from __future__ import annotations

import numpy as np

from topbill.domain.records import Floats


class GaussianStack:
    """Rows of E Gaussian weight vectors: `mean` (n × E × p) and `cov` (n × E × p × p); row 0 stays
    the prior.

    `prior` (E × p) holds the prior variances; prior means are 0. The models of a row lie side by
    side, so that one call learns, or scores, them all.
    """

    __slots__ = ("cov", "mean", "prior", "size")

    def __init__(self, prior: Floats) -> None:
        self.prior = np.ascontiguousarray(prior, dtype=np.float64)
        self.size = 1
        self.mean = np.zeros((1, *self.prior.shape))
        self.cov = self._untouched(1)

    def _untouched(self, rows: int) -> Floats:
        """(rows × E × p × p) covariances as the prior has them."""
        diagonal = self.prior[:, :, None] * np.eye(self.prior.shape[1])
        return np.repeat(diagonal[None], rows, axis=0)

    def add(self) -> int:
        """A new row with the prior; its number."""
        if self.size == len(self.mean):
            # Doubling: however many rows come, each is copied twice on average.
            more = max(8, self.size)
            self.mean = np.concatenate([self.mean, np.zeros((more, *self.prior.shape))])
            self.cov = np.concatenate([self.cov, self._untouched(more)])
        self.size += 1
        return self.size - 1

    def differ_by(self, variance: float) -> None:
        """Let the first weights of rows differ by a prior variance; of all rows to come, and of
        those that nothing was learned of."""
        if not self.prior.shape[1]:
            return
        self.prior[:, 0] = variance
        self.cov[0, :, 0, 0] = variance
        self.cov[self.size :, :, 0, 0] = variance

    def used(self) -> tuple[Floats, Floats]:
        """Means and covariances of the rows in use."""
        return self.mean[: self.size], self.cov[: self.size]

    def restore(self, mean: Floats, cov: Floats) -> None:
        """Take over rows that were saved."""
        self.mean = mean
        self.cov = cov
        self.size = len(mean)

    def forget(self, keep: float) -> None:
        """Stabilised exponential forgetting: precision P ← keep·P + (1 − keep)·P₀, and P·mean
        likewise.
        """
        mean, cov = self.used()
        precision = np.linalg.inv(cov)
        natural = keep * np.einsum("nepq,neq->nep", precision, mean)
        precision *= keep
        # The prior takes what evidence gives up, so that variances never grow beyond it.
        diagonal = np.einsum("nepp->nep", precision)
        diagonal += (1.0 - keep) / self.prior
        forgotten = np.linalg.inv(precision)
        # An inverse is symmetric but for rounding; the kernels count on it to the last bit.
        cov[:] = 0.5 * (forgotten + forgotten.swapaxes(2, 3))
        mean[:] = np.einsum("nepq,neq->nep", cov, natural)
