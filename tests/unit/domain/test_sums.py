"""Sums that a policy learns from are the same bits on every Python."""

from __future__ import annotations

from topbill.domain.sums import plain_sum


def test_values_are_added_from_left_to_right_without_compensation():
    values = [0.1] * 10
    assert plain_sum(values) == 0.9999999999999999  # what `sum` gives up to Python 3.11
    assert plain_sum([1e16, 1.0, -1e16]) == 0.0
    assert plain_sum([]) == 0.0
