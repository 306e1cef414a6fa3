"""How scores become probabilities, as compiled calls are told."""

from __future__ import annotations

from typing import NamedTuple

import numpy as np

from topbill.domain.records import Floats

GREEDY, WINS, SHARES = 0, 1, 2
"""How scores become probabilities: the highest but for a share of chance, as `mostly_greedy`; who
wins among independent scores, as `wins`; who wins among joint draws, as `shares`."""
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
        chance: The share of chance (GREEDY).
        normals: (tables × at least q + K × n) what joint draws are made of (SHARES), each table as
            `sampling.sample` wants it; the decision's seed chooses one.
    """

    kind: int
    factor: float
    noise: float = 1.0
    alone: bool = False
    chance: float = 0.0
    normals: Floats = _NO_NORMALS
