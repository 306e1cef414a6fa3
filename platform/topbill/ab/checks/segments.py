"""Does the effect differ between segments? Effects by segment, shrunken towards each other by
empirical Bayes.
"""

from __future__ import annotations

from collections.abc import Sequence
from math import sqrt

import msgspec
import numpy as np
from scipy import stats

from topbill.ab.core.arms import Adjustment, estimate
from topbill.ab.core.effect import ArmEstimate, Effect, Rule, effect
from topbill.ab.core.gather import Gathered
from topbill.ab.power import textbook
from topbill.ab.results import Heterogeneity, SegmentEffect

LARGEST = 50
"""Only the largest values of a segment are shown; the rest is one value, "(other)"."""


def heterogeneity(
    gathered: Gathered,
    metric: str,
    segment: str,
    *,
    control: str,
    variants: Sequence[str],
    rule: Rule,
    adjust: Adjustment = "cuped",
) -> list[Heterogeneity]:
    """The effects of each variant on `metric` by the values of one segment, from moments gathered
    by it.

    Between-segment variance τ² is DerSimonian & Laird's (1986); an effect d with standard error s
    becomes μ + B(d − μ), B = τ²/(τ² + s²), with variance B s² + (1 − B)² Var μ. p-values are left
    unadjusted here: see `with_adjusted`.
    """
    keys = _values(gathered)
    plan, arms = gathered.plans[metric], gathered.arms[metric]
    found = []
    for variant in variants:
        raw: list[tuple[str, Effect]] = []
        for shown, members in keys.items():
            own = {k: a for k, a in arms.items() if str(k[0]) == variant and k[1] in members}
            reference = {k: a for k, a in arms.items() if str(k[0]) == control and k[1] in members}
            pair = estimate(
                plan,
                {k[1:]: a for k, a in own.items()},
                {k[1:]: a for k, a in reference.items()},
                adjust,
            )
            raw.append(
                (
                    shown,
                    _raw(metric, variant, pair.treated, pair.control, pair.reason, pair.n, rule),
                )
            )
        found.append(_shrunken(segment, variant, raw, rule))
    return found


def _raw(
    metric: str,
    variant: str,
    t: ArmEstimate | None,
    c: ArmEstimate | None,
    reason: str,
    n: int,
    rule: Rule,
) -> Effect:
    if reason or t is None or c is None:
        return Effect(metric=metric, variant=variant, n=n, reason=reason)
    return effect(metric, variant, t, c, rule)


def _values(gathered: Gathered) -> dict[str, set[object]]:
    """The segment's values to show, each with the raw values that it stands for."""
    sizes: dict[object, int] = {}
    for key, n in gathered.units.items():
        sizes[key[1]] = sizes.get(key[1], 0) + n
    ranked = sorted(sizes, key=lambda v: (-sizes[v], str(v)))
    shown = {"(none)" if v is None else str(v): {v} for v in ranked[:LARGEST]}
    if len(ranked) > LARGEST:
        shown["(other)"] = set(ranked[LARGEST:])
    return shown


def _shrunken(
    segment: str, variant: str, raw: list[tuple[str, Effect]], rule: Rule
) -> Heterogeneity:
    usable = [e for _, e in raw if e.se is not None and e.difference is not None]
    d = np.array([e.difference for e in usable], dtype=np.float64)
    s2 = np.square(np.array([e.se for e in usable], dtype=np.float64))
    effects = []
    p = between = None
    if len(usable) >= 2:
        w = 1.0 / s2
        common = float(w @ d / w.sum())
        q = float(w @ np.square(d - common))
        p = float(stats.chi2.sf(q, len(usable) - 1))
        tau2 = max(0.0, (q - (len(usable) - 1)) / float(w.sum() - (w @ w) / w.sum()))
        between = sqrt(tau2)
        weights = 1.0 / (s2 + tau2)
        mu, var_mu = float(weights @ d / weights.sum()), float(1.0 / weights.sum())
    for value, e in raw:
        shown = SegmentEffect(
            segment=segment,
            value=value,
            variant=variant,
            difference=e.difference,
            relative=e.relative,
            p_value=e.p_value,
            n=e.n,
            reason=e.reason,
        )
        if len(usable) >= 2 and e.se is not None and e.difference is not None:
            b = tau2 / (tau2 + e.se**2)
            middle = mu + b * (e.difference - mu)
            half = rule.reach(e.n + e.n_control, float("inf")) * sqrt(
                b * e.se**2 + (1.0 - b) ** 2 * var_mu
            )
            shown = msgspec.structs.replace(
                shown, shrunken=middle, shrunken_low=middle - half, shrunken_high=middle + half
            )
        effects.append(shown)
    return Heterogeneity(
        segment=segment,
        variant=variant,
        p_value=p,
        p_adjusted=p,
        between_sd=between,
        effects=effects,
    )


def with_adjusted(found: Sequence[Heterogeneity]) -> list[Heterogeneity]:
    """p-values adjusted (Benjamini-Hochberg): Q over all segments and variants, effects over all of
    both.
    """
    overall = textbook.adjusted([h.p_value for h in found], "fdr_bh")
    single = iter(textbook.adjusted([e.p_value for h in found for e in h.effects], "fdr_bh"))
    return [
        msgspec.structs.replace(
            h,
            p_adjusted=p,
            effects=[msgspec.structs.replace(e, p_adjusted=next(single)) for e in h.effects],
        )
        for h, p in zip(found, overall, strict=True)
    ]
