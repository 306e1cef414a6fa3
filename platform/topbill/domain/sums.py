"""Sums that are the same bits on every Python."""

from __future__ import annotations

from collections.abc import Iterable


def plain_sum(values: Iterable[float]) -> float:
    """The values added up from left to right.

    `sum` does so up to Python 3.11 and compensates for rounding from 3.12 on (Neumaier 1974). What
    policies learn from must not change with the Python that folds the log.
    """
    total = 0.0
    for value in values:
        total += value
    return total
