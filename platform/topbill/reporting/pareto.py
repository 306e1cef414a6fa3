"""Which variants trade one goal for another and which are simply worse: the Pareto front of several
metrics, and how sure that is."""

from __future__ import annotations

from collections.abc import Mapping
from itertools import combinations

from topbill.stats.intervals import normal
from topbill.stats.moments import Moments, ratio

_ALPHA = 0.05


def dominated(
    sums: Mapping[str, Mapping[str, Moments]], goals: Mapping[str, float]
) -> dict[str, dict[str, bool]]:
    """For each variant, the others that are by their means no worse on any goal and better on one,
    and whether that is
    sure: one of the differences for which they are better lies beyond 0 with its whole interval.

    `sums`: each variant's moments of (value, pages) by viewer, by metric; `goals`: metric → weight,
    below 0 where less is better. All comparisons of all pairs on all goals hold at once with 95%
    (Bonferroni 1936).
    """
    pairs = list(combinations(sums, 2))
    alpha = _ALPHA / max(1, len(pairs) * len(goals))
    found: dict[str, dict[str, bool]] = {name: {} for name in sums}
    for one, other in pairs:
        gaps = [
            _gap(sums[one][goal], sums[other][goal], weight, alpha)
            for goal, weight in goals.items()
        ]
        for worse, better, sign in ((one, other, 1.0), (other, one, -1.0)):
            values = [sign * gap for gap, _ in gaps]
            if max(values, default=0.0) > 0.0 and min(values) >= 0.0:
                found[worse][better] = any(
                    value > 0.0 and sure for value, (_, sure) in zip(values, gaps, strict=True)
                )
    return found


def _gap(one: Moments, other: Moments, weight: float, alpha: float) -> tuple[float, bool]:
    """How much better `other` is, and whether its interval leaves 0 out."""
    a, b = ratio("value", "pages")(other), ratio("value", "pages")(one)
    gap = (a.value - b.value) * (1.0 if weight > 0.0 else -1.0)
    low, high = normal(gap, (a.variance(other) + b.variance(one)) ** 0.5, alpha)
    return gap, not low <= 0.0 <= high
