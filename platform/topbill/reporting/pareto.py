"""Which variants trade one goal for another and which are simply worse: the Pareto front of several
metrics, and how sure that is.
"""

from __future__ import annotations

from collections.abc import Mapping
from itertools import combinations

from topbill.stats.intervals import normal
from topbill.stats.moments import Moments, ratio

_ALPHA = 0.05
Gap = tuple[float, bool]
"""How much better another is on a goal, and whether its interval leaves 0 out."""


def dominated(
    sums: Mapping[str, Mapping[str, Moments]], goals: Mapping[str, float]
) -> dict[str, dict[str, bool]]:
    """For each variant, the others that are by their means no worse on any goal and better on one,
    and whether that is sure: one of the differences for which they are better lies beyond 0 with
    its whole interval.

    All comparisons of all pairs on all goals hold at once with 95% (Bonferroni 1936).

    Args:
        sums: each variant's moments of (value, pages) by viewer, by metric.
        goals: metric → weight, below 0 where less is better.
    """
    pairs = list(combinations(sums, 2))
    # Each of so many comparisons may err with this chance, so that all hold together with 95%.
    alpha = _ALPHA / max(1, len(pairs) * len(goals))
    better_than: dict[str, dict[str, bool]] = {name: {} for name in sums}
    for one, other in pairs:
        gaps = []
        for goal, weight in goals.items():
            gaps.append(_gap(sums[one][goal], sums[other][goal], weight, alpha))
        if _dominates(gaps):
            better_than[one][other] = _surely(gaps)
        # The other way round, each gap has the opposite sign and the same interval around it.
        opposite = [(-value, sure) for value, sure in gaps]
        if _dominates(opposite):
            better_than[other][one] = _surely(opposite)
    return better_than


def _dominates(gaps: list[Gap]) -> bool:
    values = [value for value, _ in gaps]
    # No worse anywhere, and better somewhere: who is alike in all does not dominate.
    return max(values, default=0.0) > 0.0 and min(values) >= 0.0


def _surely(gaps: list[Gap]) -> bool:
    return any(value > 0.0 and sure for value, sure in gaps)


def _gap(one: Moments, other: Moments, weight: float, alpha: float) -> Gap:
    """How much better `other` is, and whether its interval leaves 0 out."""
    a, b = ratio("value", "pages")(other), ratio("value", "pages")(one)
    gap = (a.value - b.value) * (1.0 if weight > 0.0 else -1.0)
    low, high = normal(gap, (a.variance(other) + b.variance(one)) ** 0.5, alpha)
    return gap, not low <= 0.0 <= high
