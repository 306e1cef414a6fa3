"""How scores become probabilities, as compiled calls are told."""

from __future__ import annotations

from typing import NamedTuple

import numpy as np

from topbill.domain.records import Floats

GREEDY, WINS, SHARES = 0, 1, 2
"""How scores become probabilities: the highest but for a share of chance, as `mostly_greedy`; who
wins among independent scores, as `wins`; who wins among joint draws, as `shares`."""
_NO_SPREAD, _NO_DRAWS = np.zeros(0), np.zeros((0, 0))


class Chances(NamedTuple):
    """How the `scores` (K,) of all actions become the probabilities of those that remain.

    `spread` (K,) are their standard deviations, for WINS; `draws` (K × n) joint samples, for
    SHARES; `chance` the share of chance, for GREEDY.
    """

    kind: int
    scores: Floats
    spread: Floats = _NO_SPREAD
    draws: Floats = _NO_DRAWS
    chance: float = 0.0
