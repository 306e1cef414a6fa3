"""Rows and lengths that the page decides are worth more than fixed ones, net of what they cost."""

from __future__ import annotations

import pytest
from benchmarks import page_length

pytestmark = pytest.mark.slow


def test_lengths_decided_beat_fixed_ones_in_fresh_worlds() -> None:
    """The size of the middle, the smallest and the largest, each with an interval over worlds
    clear of 0: of five, for among three worlds the best fixed size differs too much."""
    worlds = [page_length.simulate(seed, 1_200) for seed in range(70, 75)]
    for size in ("4 × 6", "2 × 3", "8 × 16", "6 × 10"):
        _, low, _ = page_length.gain(worlds, size)
        assert low > 0.0, size
