"""The Bayesian view of two rates from counts, exact: what `effect.Gaussian` is for any metric,
where the normal distribution fails.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import numpy as np

from topbill import late
from topbill.ab.core.units import Rate
from topbill.domain.records import Floats

if TYPE_CHECKING:
    from scipy import stats
else:
    stats = late.name("scipy.stats")


@dataclass(frozen=True, slots=True)
class BetaBinomial:
    """Exact comparison of two binomial rates: P(treatment > control) and the expected loss of
    either choice.
    """

    chance_to_win: float
    loss_of_treatment: float
    loss_of_control: float


_PANELS = 40
_NODES, _WEIGHTS = np.polynomial.legendre.leggauss(50)


def beta_binomial(
    control: Rate, treated: Rate, prior: tuple[float, float] = (1.0, 1.0)
) -> BetaBinomial:
    """From the counts of each arm under one Beta prior (flat unless said), by Gauss-Legendre
    quadrature.

    P(B > A) = ∫ f_B F_A;  E[(A − B)⁺] = ∫ (1 − F_A) F_B;  E[(B − A)⁺] = ∫ (1 − F_B) F_A.
    """
    a, b = _beta(control, prior), _beta(treated, prior)
    x, w = _between([a, b])
    cdf_a, cdf_b = a.cdf(x), b.cdf(x)
    # Below the grid both F are 0, above it both are 1, so the losses' integrands vanish there.
    return BetaBinomial(
        chance_to_win=float(np.clip(w @ (b.pdf(x) * cdf_a), 0.0, 1.0)),
        loss_of_treatment=float(w @ (a.sf(x) * cdf_b)),
        loss_of_control=float(w @ (b.sf(x) * cdf_a)),
    )


def _beta(rate: Rate, prior: tuple[float, float]) -> Any:
    return stats.beta(prior[0] + rate.successes, prior[1] + rate.n - rate.successes)


def _between(posteriors: Sequence[Any]) -> tuple[Floats, Floats]:
    # Where no posterior has mass, nothing is to be integrated.
    low = min(float(p.ppf(1e-16)) for p in posteriors)
    high = max(float(p.isf(1e-16)) for p in posteriors)
    edges = np.linspace(low, high, _PANELS + 1)
    half = (high - low) / (2.0 * _PANELS)
    nodes = (edges[:-1, None] + half * (_NODES + 1.0)).ravel()
    return nodes, np.tile(half * _WEIGHTS, _PANELS)
