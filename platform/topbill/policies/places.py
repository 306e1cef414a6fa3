"""What an item earns at each place of a slate, beside what a policy expects of it at the first:
learned where slates have no fixed length, since there a place is worth its cost or not.
"""

from __future__ import annotations

import math

import numpy as np

from topbill.domain.errors import PolicyError
from topbill.domain.records import Floats
from topbill.policies import codec

MOST = 40
"""Places that are told apart; further down all are as the last."""
LEVELS = 10
"""Octaves of what was expected that are told apart, from 1 downwards."""
PRIOR = 5.0
"""Reward that a place must have earned before that says as much as the place above does: few plays
come far down, and a place that had none by bad luck would never be tried again.
"""
POWERS = np.linspace(0.3, 1.2, 19)
"""How what is earned may grow with what was expected: scores that were fitted to little differ more
than what they score, and a power below 1 takes that back."""
CAUTION = 50.0
"""How strongly the power is held to 1: a squared deviation counts so much log likelihood."""
SUMS = "places"
"""What the sums are called in a policy's state; a state without them has learned of no place."""


class Places:
    """What items earn, by the place at which they stood and by what was expected of them there:

        E[reward] = share(place) · expected ^ power,

    with the shares as Poisson rates under a Gamma prior around that of the place above, and the
    power by its likelihood. All sums fade as a policy's memory does.
    """

    def __init__(self) -> None:
        # By place and level: how many items, what was expected of them were they the first, and
        # what they earned.
        self._sums: Floats = np.zeros((3, MOST, LEVELS))
        self._fit: tuple[float, list[float]] | None = None

    def note(self, position: int, expected: float, reward: float) -> None:
        """An item at `position` earned `reward`, and `expected` was its mean at the first."""
        expected = min(max(expected, 2.0**-LEVELS), 1.0)
        level = min(int(-math.log2(expected)), LEVELS - 1)
        self._sums[:, min(position, MOST - 1), level] += 1.0, expected, reward
        self._fit = None

    def worth(self, position: int, expected: float) -> float:
        """What an item is worth there of which `expected` is the mean at the first place; as much
        at every place before anything was learned.
        """
        if self._fit is None:
            self._fit = _fitted(self._sums)
        power, shares = self._fit
        return float(shares[min(position, MOST - 1)] * max(expected, 0.0) ** power)

    @property
    def typical(self) -> float:
        """What an item earns, whatever its place; 0 before anything was learned."""
        count, _, earned = self._sums.sum(axis=(1, 2)).tolist()
        return earned / count if count > 0.0 else 0.0

    @property
    def length(self) -> float:
        """How many items a slate has on average; 0 before anything was learned."""
        counts = self._sums[0].sum(axis=1)
        return float(counts.sum() / counts[0]) if counts[0] > 0.0 else 0.0

    def forget(self, keep: float) -> None:
        """Keep that share of all that was seen."""
        self._sums *= keep
        self._fit = None

    def arrays(self) -> dict[str, Floats]:
        """What was learned, for a policy's state; nothing where it is nothing, so that states of
        policies whose slates have a fixed length are what they were.
        """
        return {SUMS: self._sums} if self._sums.any() else {}

    def restore(self, state: codec.PolicyState) -> None:
        """Take over what `arrays` gave. Raises PolicyError for sums that can be none."""
        sums = state.arrays.get(SUMS)
        if sums is not None and sums.min() < 0.0:
            raise PolicyError(f"state: {SUMS} holds sums below 0; {codec.LEARN_ANEW}")
        self._sums = np.zeros((3, MOST, LEVELS)) if sums is None else sums
        self._fit = None


OPTIONAL: dict[str, tuple[int | None, ...]] = {SUMS: (3, MOST, LEVELS)}
"""What a state may hold of places, as `codec.load` wants it."""


def _fitted(sums: Floats) -> tuple[float, list[float]]:
    """The likeliest power, and with it what share is earned at each place."""
    count, expected, earned = sums
    if not count.any():
        return 1.0, [1.0] * MOST
    # Of a cell without items the mean is of no account, but its logarithm must be a number.
    mean = np.where(count > 0.0, expected / np.maximum(count, 1e-12), 1.0)
    best, found = -math.inf, (1.0, [1.0] * MOST)
    for power in POWERS.tolist():
        due = count * mean**power
        shares = _shares(due.sum(axis=1), earned.sum(axis=1))
        rates = due * np.array(shares)[:, None]
        likelihood = float((earned * np.log(np.maximum(rates, 1e-300)) - rates).sum())
        likelihood -= CAUTION * (power - 1.0) ** 2
        if likelihood > best:
            best, found = likelihood, (power, shares)
    return found


def _shares(due: Floats, earned: Floats) -> list[float]:
    """What share of what is due to each place it earns, from the first one downwards."""
    above = (float(earned.sum()) + PRIOR) / (float(due.sum()) + PRIOR)
    shares: list[float] = []
    for of_place, own in zip(due.tolist(), earned.tolist(), strict=True):
        above = (own + PRIOR) / (of_place + PRIOR / above)
        shares.append(above)
    return shares
