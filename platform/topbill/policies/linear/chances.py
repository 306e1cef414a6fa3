"""How scores become probabilities, as compiled calls are told."""

from __future__ import annotations

from typing import NamedTuple

import numpy as np

from topbill.domain.records import Floats

GREEDY, WINS, SHARES, GAPS = 0, 1, 2, 3
"""How scores become probabilities: the highest but for a share of chance, as `mostly_greedy`; who
wins among independent scores, as `wins`; who wins among joint draws, as `shares`; the less the
further behind the highest, as `inverse_gap`."""
_NO_NORMALS = np.zeros((0, 0, 0))


class Chances(NamedTuple):
    """How what a model expects of K actions becomes the probabilities of those that remain.

    Attributes:
        kind: One of the above.
        factor: How many standard deviations are added to a mean (GREEDY), or with how many of
            them a score varies (the others).
        noise: What variances are in units of (GREEDY).
        alone: Whether what actions share is left out of their variances: it is the same for all
            of them, and moves no comparison.
        chance: The share of chance (GREEDY), or gamma (GAPS).
        logistic: Whether scores are logits, and gaps between the rewards that they stand for
            (GAPS).
        normals: (tables × at least q + K × n) what joint draws are made of (SHARES), each table as
            `sampling.sample` wants it; the decision's seed chooses one.
    """

    kind: int
    factor: float = 0.0
    noise: float = 1.0
    alone: bool = False
    chance: float = 0.0
    logistic: bool = False
    normals: Floats = _NO_NORMALS


def expected_rewards(eta: Floats, logistic: bool) -> Floats:
    """(K,) the rewards that scores on the link scale stand for."""
    if not logistic:
        return eta
    # Beyond 500 the exponential overflows, and the probability is 0 or 1 anyway.
    return np.asarray(1.0 / (1.0 + np.exp(-np.clip(eta, -500.0, 500.0))))
