"""Does the effect differ between segments? Effects by segment, shrunken towards each other by
empirical Bayes.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from math import inf, sqrt
from typing import TYPE_CHECKING, Any, NamedTuple

import msgspec
import numpy as np

from topbill import late
from topbill.ab.core.effect import (
    Adjustment,
    Effect,
    Rule,
    adjusted,
    by_stratum,
    effect_of,
    estimate_pair,
)
from topbill.ab.core.units import ArmMoments, Key, MomentsByArm
from topbill.ab.results import Heterogeneity, SegmentEffect

if TYPE_CHECKING:
    from scipy import stats
else:
    stats = late.name("scipy.stats")

LARGEST = 50
"""Only the largest values of a segment are shown; the rest is one value, "(other)"."""


class Spread(NamedTuple):
    """What the effects of one segment have in common: the common effect with its variance, the
    variance τ² between them, and the p-value that there is none."""

    common: float
    variance: float
    between: float
    p_value: float


def heterogeneity(
    moments: MomentsByArm,
    metric: str,
    segment: str,
    *,
    control: str,
    variants: Sequence[str],
    rule: Rule,
    adjust: Adjustment = "cuped",
    strata: Mapping[int, int] | None = None,
) -> list[Heterogeneity]:
    """The effects of each variant on `metric` by the values of one segment, from moments gathered
    by it.

    Between-segment variance τ² is DerSimonian & Laird's (1986); an effect d with standard error s
    becomes μ + B(d − μ), B = τ²/(τ² + s²), with variance B s² + (1 − B)² Var μ. p-values are left
    unadjusted here: see `with_adjusted`. With `strata` by phase, moments were gathered by phase
    too, and each value's effect is taken within them.
    """
    values = _values(moments)
    terms = moments.terms[metric]
    reference = moments.of_variant(metric, control)
    results = []
    for variant in variants:
        own = moments.of_variant(metric, variant)
        effects: dict[str, Effect] = {}
        for value, members in values.items():
            t, c = _within(own, members), _within(reference, members)
            if strata is not None:
                t, c = by_stratum(t, strata), by_stratum(c, strata)
            pair = estimate_pair(terms, t, c, adjust, phases=strata is not None)
            if pair.reason or pair.treated is None or pair.control is None:
                # A value of one arm alone is not shown here: there is nothing to shrink.
                effects[value] = Effect(
                    metric=metric, variant=variant, n=pair.n, reason=pair.reason
                )
            else:
                effects[value] = effect_of(metric, variant, pair, rule)
        results.append(_shrunken(segment, variant, effects, rule))
    return results


def _within(arms: dict[Key, ArmMoments], members: set[object]) -> dict[Any, ArmMoments]:
    return {key: arm for key, arm in arms.items() if key[0] in members}


def _values(moments: MomentsByArm) -> dict[str, set[object]]:
    """The segment's values to show, each with the raw values that it stands for."""
    sizes: dict[object, int] = {}
    for key, n in moments.units.items():
        sizes[key[1]] = sizes.get(key[1], 0) + n
    ranked = sorted(sizes, key=lambda v: (-sizes[v], str(v)))
    values: dict[str, set[object]] = {}
    for value in ranked[:LARGEST]:
        values["(none)" if value is None else str(value)] = {value}
    if len(ranked) > LARGEST:
        values["(other)"] = set(ranked[LARGEST:])
    return values


def _shrunken(segment: str, variant: str, effects: dict[str, Effect], rule: Rule) -> Heterogeneity:
    spread = _spread(list(effects.values()))
    segment_effects = []
    for value, effect in effects.items():
        result = SegmentEffect(
            segment=segment,
            value=value,
            variant=variant,
            difference=effect.difference,
            relative=effect.relative,
            p_value=effect.p_value,
            n=effect.n,
            reason=effect.reason,
        )
        se, difference = effect.se, effect.difference
        if spread is not None and se is not None and difference is not None and se**2 > 0.0:
            own = spread.between / (spread.between + se**2)
            middle = spread.common + own * (difference - spread.common)
            variance = own * se**2 + (1.0 - own) ** 2 * spread.variance
            half = rule.reach(effect.n + effect.n_control, inf) * sqrt(variance)
            result = msgspec.structs.replace(
                result, shrunken=middle, shrunken_low=middle - half, shrunken_high=middle + half
            )
        segment_effects.append(result)
    return Heterogeneity(
        segment=segment,
        variant=variant,
        p_value=spread.p_value if spread else None,
        p_adjusted=spread.p_value if spread else None,
        between_sd=sqrt(spread.between) if spread else None,
        effects=segment_effects,
    )


def _spread(effects: Sequence[Effect]) -> Spread | None:
    """Cochran's Q and DerSimonian & Laird's τ² of the effects that have numbers; None for fewer
    than two.
    """
    differences: list[float] = []
    errors: list[float] = []
    for e in effects:
        # A variance of less than 1e-308 is 0, and would weigh infinitely.
        if e.se is not None and e.difference is not None and e.se**2 > 0.0:
            differences.append(e.difference)
            errors.append(e.se)
    if len(differences) < 2:
        return None
    d, s2 = np.array(differences), np.square(np.array(errors))
    w = 1.0 / s2
    fixed = float(w @ d / w.sum())
    q = float(w @ np.square(d - fixed))
    df = len(differences) - 1
    # E[Q] = df + τ²·(Σw − Σw²/Σw): the method of moments, cut at 0.
    between = max(0.0, (q - df) / float(w.sum() - (w @ w) / w.sum()))
    weights = 1.0 / (s2 + between)
    return Spread(
        common=float(weights @ d / weights.sum()),
        variance=float(1.0 / weights.sum()),
        between=between,
        p_value=float(stats.chi2.sf(q, df)),
    )


def with_adjusted(results: Sequence[Heterogeneity]) -> list[Heterogeneity]:
    """p-values adjusted (Benjamini-Hochberg): Q over all segments and variants, effects over all of
    both.
    """
    overall = adjusted([h.p_value for h in results], "fdr_bh")
    single = iter(adjusted([e.p_value for h in results for e in h.effects], "fdr_bh"))
    replaced = []
    for h, p in zip(results, overall, strict=True):
        effects = [msgspec.structs.replace(e, p_adjusted=next(single)) for e in h.effects]
        replaced.append(msgspec.structs.replace(h, p_adjusted=p, effects=effects))
    return replaced
