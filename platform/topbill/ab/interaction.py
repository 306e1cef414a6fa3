"""Do two experiments get in each other's way? The effect of the one by the variant of the other,
for the units that are in both.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from math import inf, sqrt
from typing import Any, NamedTuple

import msgspec

from topbill.ab import reasons
from topbill.ab.checks.srm import srm
from topbill.ab.core.effect import (
    ArmEstimate,
    Rule,
    adjusted,
    checked_rule,
    effect,
)
from topbill.ab.core.units import check_columns
from topbill.domain.errors import BadRequest
from topbill.domain.reading import Method
from topbill.domain.sql import identifier
from topbill.lake.frames import relation_of

SRM_ALPHA = 0.01
"""The level at which units of both experiments are said not to be split as intended."""


class EffectWithin(msgspec.Struct, frozen=True, kw_only=True):
    """A variant's effect among the units that are in variant `within` of the other experiment."""

    variant: str
    within: str
    n: int = 0
    n_control: int = 0
    value: float | None = None
    control_value: float | None = None
    difference: float | None = None
    difference_low: float | None = None
    difference_high: float | None = None
    relative: float | None = None
    relative_low: float | None = None
    relative_high: float | None = None
    p_value: float | None = None
    reason: str = ""


class InteractionTerm(msgspec.Struct, frozen=True, kw_only=True):
    """By how much a variant's effect differs between the other experiment's variant `within` and
    its control, as a difference of differences. `p_adjusted` (Holm) is over all terms.
    """

    variant: str
    within: str
    difference: float | None = None
    low: float | None = None
    high: float | None = None
    p_value: float | None = None
    p_adjusted: float | None = None
    reason: str = ""


class Interaction(msgspec.Struct, frozen=True, kw_only=True):
    """Two experiments on the units that are in both. `srm_p` is the chi-square p-value that these
    were split by the shares of both at once: where it is small, one experiment changes who comes to
    the other, and effects within tell of other viewers. `is_proportion` as in `Effect`.
    """

    metric: str
    control: str
    other_control: str
    units: dict[str, dict[str, int]]
    effects: list[EffectWithin]
    terms: list[InteractionTerm]
    srm_p: float | None = None
    method: Method = "sequential"
    alpha: float = 0.05
    sentence: str = ""
    is_proportion: bool = False


class _Cell(NamedTuple):
    """Units of one variant of each experiment: the mean, its variance, and how many have a value;
    `all_units` counts those without one too.
    """

    estimate: ArmEstimate | None
    all_units: int


Cells = Mapping[tuple[str, str], _Cell]


def interaction(
    data: Any,
    *,
    unit: str,
    variant: str,
    other: str,
    control: str,
    other_control: str,
    value: str,
    shares: Mapping[str, float] | None = None,
    other_shares: Mapping[str, float] | None = None,
    metric: str = "",
    method: Method = "sequential",
    alpha: float = 0.05,
    looks: Sequence[float] = (1.0,),
) -> Interaction:
    """The effect of one experiment's variants by the variant of another.

    Args:
        data: what `compare` takes: a row per decision of a unit that is in both experiments.
        unit: the column of what was randomised. Units seen in several variants are left out.
        variant: the column of the variant in the experiment whose effect it is.
        other: the column of the variant in the other.
        control: the control of the one, and
        other_control: that of the other.
        value: the column of the metric, NULL where it is not known.
        shares: the intended shares of the one by variant, to test the split; None leaves that out.
        other_shares: those of the other.
        metric: what to call the metric; the column's name unless said.
        method, alpha, looks: those of `compare`.

    Returns:
        The effects within each variant of the other, and how they differ. Weak data never raises:
        numbers are None then, with a reason.

    Raises:
        BadRequest: for columns that are missing and wrong arguments.
    """
    rule = checked_rule(method, alpha, looks=looks)
    relation = relation_of(data)
    check_columns(relation.columns, [unit, variant, other, value])
    if variant == other:
        raise BadRequest("other", f"got {other!r} twice; expected the columns of two experiments")
    cells = _cells(relation, unit, variant, other, value)
    names = _names([v for v, _ in cells], control, shares)
    others = _names([w for _, w in cells], other_control, other_shares)
    name = metric or value
    effects = []
    for v in names[1:]:
        for w in others:
            effects.append(_within(name, v, w, control, cells, rule))
    terms = _terms(names[1:], others, control, cells, rule)
    units = {v: {w: _units(cells, v, w) for w in others} for v in names}
    return Interaction(
        metric=name,
        control=control,
        other_control=other_control,
        units=units,
        effects=effects,
        terms=terms,
        srm_p=_split(units, shares, other_shares),
        method=method,
        alpha=alpha,
    )


def _names(present: Sequence[str], control: str, shares: Mapping[str, float] | None) -> list[str]:
    """The variants, the control first."""
    names = dict.fromkeys([control, *(shares or {}), *sorted(present)])
    return list(names)


def _cells(relation: Any, unit: str, variant: str, other: str, value: str) -> Cells:
    """Moments over units of each pair of variants."""
    u, v, w, x = (identifier(name) for name in (unit, variant, other, value))
    rows = relation.query(
        "unit_rows",
        f"""SELECT v, w, count(*), count(*) FILTER (n > 0), sum(x), sum(n)::DOUBLE,
            sum(x * x), sum(x * n), sum(n * n)::DOUBLE
        FROM (
            SELECT CAST(min({v}) AS VARCHAR) AS v, CAST(min({w}) AS VARCHAR) AS w,
                coalesce(sum(CAST({x} AS DOUBLE)), 0.0) AS x, count({x}) AS n
            FROM unit_rows WHERE {v} IS NOT NULL AND {w} IS NOT NULL
            GROUP BY {u} HAVING min({v}) = max({v}) AND min({w}) = max({w})
        ) GROUP BY ALL ORDER BY ALL""",  # noqa: S608  (identifiers are quoted)
    ).fetchall()
    return {(row[0], row[1]): _Cell(_estimate(*row[3:]), int(row[2])) for row in rows}


def _estimate(
    units: int, x: float, n: float, xx: float, xn: float, nn: float
) -> ArmEstimate | None:
    """Σx/Σn with its variance by the delta method over units; None for fewer than two of them."""
    if units < 2:
        return None
    mean = x / n
    # Residuals x − mean·n sum to 0, so that their squares are the scatter.
    squares = max(0.0, xx - 2.0 * mean * xn + mean * mean * nn)
    if squares <= 1e-14 * max(xx, 1e-300):
        squares = 0.0
    return ArmEstimate(mean, squares * units / (units - 1) / (n * n), units)


def _units(cells: Cells, variant: str, within: str) -> int:
    cell = cells.get((variant, within))
    return 0 if cell is None else cell.all_units


def _of(cells: Cells, variant: str, within: str) -> ArmEstimate | None:
    cell = cells.get((variant, within))
    return None if cell is None else cell.estimate


def _within(
    metric: str, variant: str, within: str, control: str, cells: Cells, rule: Rule
) -> EffectWithin:
    t, c = _of(cells, variant, within), _of(cells, control, within)
    result = EffectWithin(
        variant=variant, within=within, n=0 if t is None else t.n, n_control=0 if c is None else c.n
    )
    if t is None or c is None:
        return msgspec.structs.replace(result, reason=reasons.TOO_FEW_UNITS)
    measured = effect(metric, variant, t, c, rule)
    numbers = {name: getattr(measured, name) for name in _SHARED}
    return msgspec.structs.replace(result, value=t.value, control_value=c.value, **numbers)


_SHARED = (
    *("difference", "difference_low", "difference_high"),
    *("relative", "relative_low", "relative_high", "p_value", "reason"),
)


def _terms(
    variants: Sequence[str], others: Sequence[str], control: str, cells: Cells, rule: Rule
) -> list[InteractionTerm]:
    """Each variant and each of the other's, against both controls."""
    terms = []
    for v in variants:
        for w in others[1:]:
            terms.append(_term(v, w, control, others[0], cells, rule))
    p_values = adjusted([term.p_value for term in terms], "holm")
    return [
        msgspec.structs.replace(term, p_adjusted=p) for term, p in zip(terms, p_values, strict=True)
    ]


def _term(
    variant: str, within: str, control: str, other_control: str, cells: Cells, rule: Rule
) -> InteractionTerm:
    """(t_w − c_w) − (t_0 − c_0): four groups of different units, so that variances add up."""
    term = InteractionTerm(variant=variant, within=within)
    signs = {
        (variant, within): 1.0,
        (control, within): -1.0,
        (variant, other_control): -1.0,
        (control, other_control): 1.0,
    }
    difference = variance = 0.0
    units = 0
    for (v, w), sign in signs.items():
        estimate = _of(cells, v, w)
        if estimate is None:
            return msgspec.structs.replace(term, reason=reasons.TOO_FEW_UNITS)
        difference += sign * estimate.value
        variance += estimate.variance
        units += estimate.n
    if not variance > 0.0:
        return msgspec.structs.replace(term, reason=reasons.CONSTANT_METRIC)
    se = sqrt(variance)
    half = rule.reach(units, inf) * se
    p_value = rule.p_value(difference / se, units, inf)
    return msgspec.structs.replace(
        term,
        difference=difference,
        low=difference - half,
        high=difference + half,
        p_value=p_value,
    )


def _split(
    units: Mapping[str, Mapping[str, int]],
    shares: Mapping[str, float] | None,
    other_shares: Mapping[str, float] | None,
) -> float | None:
    """The p-value that units of both were split by the product of both shares."""
    if shares is None or other_shares is None:
        return None
    counts, weights = [], []
    for v, by_other in units.items():
        for w, n in by_other.items():
            counts.append(n)
            weights.append(shares.get(v, 0.0) * other_shares.get(w, 0.0))
    return srm(counts, weights)
