"""How far exploration widens with what has been learned.

What an action might yet turn out to be is worth trying as far as there is time to earn it back.
Learning p weights costs some p·√n of n examples, by whatever policy (Dani, Hayes and Kakade 2008):
before p² of them there is nothing to be gained by it, and contexts that differ are exploration
enough (Bastani, Bayati and Khosravi 2021). To draw from so wide a posterior, or to go to its edge,
then costs most of what can be earned. After many times p² examples it costs next to nothing, and
without it early luck decides for good. How many are yet to come nobody says: as many as came. So
exploration begins as narrow as the parameter of each policy has it, and widens with the `evidence`
to what theory asks for, whatever the base rate, the number of actions and of features.
"""

from __future__ import annotations

import math
from statistics import NormalDist

from topbill.domain.records import Floats

POSTERIOR_AT = 3.0
"""Evidence at which draws are half way from the parameter to the posterior itself."""
QUANTILE_RATE = 4.0
"""How fast the quantile of an upper bound rises with the evidence."""
GAPS_AT = 0.75
"""Evidence at which inverse gap weighting begins to widen."""
_NORMAL = NormalDist()


def effective_number(variances: Floats) -> float:
    """How many equal weights vary as much as weights of these prior variances: (Σv)²/Σv², the
    participation ratio. 0 of none.
    """
    total, squares = float(variances.sum()), float((variances**2).sum())
    return total * total / squares if squares > 0.0 else 0.0


def evidence(examples: float, variance: float, actions: int, own: float, shared: float) -> float:
    """How many examples there were, in units of what it takes to learn the weights: n/(K·p² + q²).

    Args:
        examples: n, counted as fair coins: one of
        variance: μ(1 − μ) tells 4μ(1 − μ) as much as one at a base rate μ of one half (Fisher's
            information in a logit).
        actions: K.
        own: p, how many weights each has of its own,
        shared: q, and how many of those that all share tell them apart.
    """
    told = max(examples, 0.0) * min(1.0, 4.0 * variance)
    return told / max(actions * own**2 + shared**2, 1.0)


def of_posterior(least: float, evidence: float) -> float:
    """What posterior standard deviations are multiplied with before a draw: from `least` at first
    to 1, which is Thompson's (1933).
    """
    if least >= 1.0:
        return least
    return least + (1.0 - least) / (1.0 + (POSTERIOR_AT / max(evidence, 1e-9)) ** 4)


def of_quantile(least: float, evidence: float) -> float:
    """How many standard deviations above the mean an upper bound is: the quantile 1 − 1/(2 + 4m)
    after evidence m, and not below `least` (Bayes-UCB: Kaufmann, Cappé and Garivier 2012, algorithm
    1, with evidence in place of rounds).
    """
    return max(least, -_NORMAL.inv_cdf(1.0 / (2.0 + QUANTILE_RATE * evidence)))


def of_gaps(most: float, evidence: float) -> float:
    """What the root of n/variance is multiplied with for inverse gap weighting: `most` at first,
    and less with the root of the `evidence`: γ ∝ √(K·n/regret) (Foster and Rakhlin 2020, theorem
    1), where the regret is that of the regression, of which there is less to come the more is
    known.
    """
    return most / math.sqrt(1.0 + evidence / GAPS_AT)
