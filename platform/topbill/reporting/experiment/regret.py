"""What an experiment cost: how much the variants earned less than the best of them."""

from __future__ import annotations

import pandas as pd

from topbill.reporting.experiment.model import Report


def regret(report: Report) -> pd.DataFrame:
    """Per variant: what its mature decisions earned less than the best variant's mean would have
    brought.

    Returns:
        Columns variant, decisions, per_decision, regret with low and high (95%, in units of the
        objective). The best is the one with the highest mean so far, which flatters it a little.
        No rows where variants are not compared: with one of them, or of a sub-sampled log.
    """
    columns = ["variant", "decisions", "per_decision", "regret", "low", "high"]
    variants = [v for v in report.variants if v.reward.se is not None]
    if len(variants) < 2 or any(note.code == "sub_sampled" for note in report.notes):
        return pd.DataFrame(columns=columns)
    best = max(variants, key=lambda v: v.reward.value or 0.0).reward
    lines = []
    for variant in variants:
        reward = variant.reward
        gap = (best.value or 0.0) - (reward.value or 0.0)
        # The best one's own gap is 0 for certain; of others both means are uncertain.
        half = 0.0
        if reward is not best:
            half = 1.96 * float(((best.se or 0.0) ** 2 + (reward.se or 0.0) ** 2) ** 0.5)
        n = reward.decisions
        # Nobody can have lost less than nothing against the best.
        low, high = max(0.0, gap - half), gap + half
        lines.append((variant.variant, n, gap, n * gap, n * low, n * high))
    return pd.DataFrame(lines, columns=columns)
