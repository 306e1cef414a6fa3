"""What each column of a table is like, in a few numbers, and how far two versions of it are apart.

- numbers, flags, and each number of a vector: the standardised mean difference, the difference of
  the means in pooled standard deviations (Cohen 1988, eq. 2.5.1);
- categories: the population stability index, Σ (q - p) ln(q / p) over the values' shares;
- embeddings besides: the mean cosine between the vectors that an id had and has, as a model that
  was trained anew may turn all of them and leave every mean where it was.
"""

from __future__ import annotations

import math
from collections import Counter
from collections.abc import Mapping, Sequence
from typing import Any

import msgspec
import numpy as np

from topbill.domain.features import Encoder, Feature
from topbill.domain.records import Floats

SHIFTED = 0.2
"""A mean that moved by so many standard deviations, or a stability index of so much, is told."""
TURNED = 0.9
"""Of embeddings: a mean cosine below this is told."""
EMPTIED = 0.05
"""So much more or less of a column that is unknown is told."""
SAMPLE = 2_000
"""Rows, at least, by which means, shares and cosines are estimated: a difference of 0.2 stands out
of ±0.04."""
_LEAST = 1e-4
"""The share that a category's value without rows counts as."""


class FeatureSummary(msgspec.Struct, frozen=True, omit_defaults=True):
    """A column of one version: which share of it is unknown, mean and standard deviation of each
    number that it becomes, and of a category each declared value's share, the rest as "".
    """

    missing: float
    means: list[float] = []
    deviations: list[float] = []
    shares: dict[str, float] = {}


class Drift(msgspec.Struct, frozen=True, omit_defaults=True):
    """How a column differs from the version before; the numbers that its type has none of are null.

    Attributes:
        smd: The largest absolute standardised mean difference of its numbers.
        psi: The population stability index.
        cosine: The mean cosine of the vectors of the same ids.
        missing: The share that is unknown, less what it was.
        told: Whether one of them is beyond its threshold.
    """

    smd: float | None = None
    psi: float | None = None
    cosine: float | None = None
    missing: float = 0.0
    told: bool = False


def summary(feature: Feature, missing: float, sample: Sequence[Any]) -> FeatureSummary:
    """The summary of a column: which share of it is unknown, and some of the values that are
    known, as JSON has them.
    """
    missing = round(missing, 6)
    if feature.kind == "category":
        counts = Counter(value if value in feature.values else "" for value in sample)
        shares = {value: count / len(sample) for value, count in sorted(counts.items())}
        return FeatureSummary(missing, shares=shares)
    if not sample:
        return FeatureSummary(missing)
    if feature.kind == "number":
        # As people know it, neither scaled nor clipped.
        numbers: Floats = np.array(sample, dtype=np.float64).reshape(-1, 1)
    else:
        encoder = Encoder((feature,))
        numbers = np.array([encoder.encode({feature.name: value}) for value in sample])
    means, deviations = numbers.mean(axis=0), numbers.std(axis=0)
    return FeatureSummary(missing, means.round(6).tolist(), deviations.round(6).tolist())


def drift(
    feature: Feature, before: FeatureSummary, after: FeatureSummary, cosine: float | None = None
) -> Drift:
    """How a column moved; `cosine` is that of the ids that both versions have."""
    smd = psi = None
    if feature.kind == "category":
        psi = _psi(before.shares, after.shares)
    elif before.means and after.means:
        smd = _smd(before, after)
    missing = after.missing - before.missing
    shifts = [value for value in (smd, psi) if value is not None]
    told = (
        any(value > SHIFTED for value in shifts)
        or abs(missing) > EMPTIED
        or (cosine is not None and cosine < TURNED)
    )
    return Drift(
        smd=None if smd is None else round(smd, 4),
        psi=None if psi is None else round(psi, 4),
        cosine=None if cosine is None else round(cosine, 4),
        missing=round(missing, 4),
        told=told,
    )


def _psi(before: Mapping[str, float], after: Mapping[str, float]) -> float:
    index = 0.0
    for value in {*before, *after}:
        p, q = max(before.get(value, 0.0), _LEAST), max(after.get(value, 0.0), _LEAST)
        index += (q - p) * math.log(q / p)
    return index


def _smd(before: FeatureSummary, after: FeatureSummary) -> float:
    difference = np.abs(np.array(after.means) - np.array(before.means))
    variance = (np.square(before.deviations) + np.square(after.deviations)) / 2.0
    # Two constants that differ are as far apart as can be told.
    spread = np.sqrt(variance)
    apart = np.where(spread > 0.0, difference / np.where(spread > 0.0, spread, 1.0), 0.0)
    apart[(spread == 0.0) & (difference > 0.0)] = 99.0
    return float(apart.max(initial=0.0))


def mean_cosine(before: Sequence[Any], after: Sequence[Any]) -> float | None:
    """Of pairs of vectors, those where one is unknown or all 0 left out; None without a pair."""
    pairs = [(a, b) for a, b in zip(before, after, strict=True) if a and b and len(a) == len(b)]
    if not pairs:
        return None
    old: Floats = np.array([a for a, _ in pairs], dtype=np.float64)
    new: Floats = np.array([b for _, b in pairs], dtype=np.float64)
    lengths = np.linalg.norm(old, axis=1) * np.linalg.norm(new, axis=1)
    (usable,) = np.nonzero(lengths)
    if not usable.size:
        return None
    return float(((old * new).sum(axis=1)[usable] / lengths[usable]).mean())
