"""How an experiment's result is read: the method of its intervals, and the looks that it plans."""

from __future__ import annotations

from collections.abc import Sequence
from itertools import pairwise
from typing import Literal

Method = Literal["sequential", "fixed", "group-sequential", "bayes"]
METHODS: tuple[Method, ...] = ("sequential", "fixed", "group-sequential", "bayes")
ONE_LOOK = (1.0,)
"""Looked once, at the planned end."""


def are_looks(fractions: Sequence[float]) -> bool:
    """Whether these are information fractions to look at: increasing within (0, 1]."""
    within = bool(fractions) and fractions[0] > 0.0 and fractions[-1] <= 1.0
    return within and all(later > earlier for earlier, later in pairwise(fractions))
