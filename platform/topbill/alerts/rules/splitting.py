"""Sample-ratio mismatch: new units against the shares that were in force when each came.

The Dirichlet-multinomial Bayes factor of Lindon & Malek (2022) over the units of the window, and
over those of the day: an e-value, exact at any size.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from math import inf

import msgspec
import numpy as np

from topbill.ab.checks.srm import log_bayes_factor
from topbill.alerts.rules.look import CALM_LOG_E, LEAST, LOG_LEVEL, RecordLook, RuleReading
from topbill.alerts.sums import HourSums, VariantSums, merged_units
from topbill.domain.formatting import percent

_FAILING = 0.1
"""More of a variant's decisions fell back than this: then that is why its units are missing."""
_MANY = 50


def sample_ratio(look: RecordLook) -> list[RuleReading]:
    """A reading of each span, of all variants together."""
    readings = []
    for span, hours in look.spans("sample_ratio", "", _new_units).items():
        evidence, units = _evidence(hours)
        if evidence >= LOG_LEVEL:
            cause, message = _explained(look, hours)
            readings.append(RuleReading("sample_ratio", "", span, "fault", cause, message))
        elif units >= LEAST and evidence < CALM_LOG_E:
            readings.append(RuleReading("sample_ratio", "", span, "sound"))
    return readings


def _new_units(hour: HourSums) -> float:
    return sum(sum(variant.units.values()) for variant in hour.variants.values())


def _evidence(hours: Sequence[HourSums]) -> tuple[float, int]:
    """ln of the Bayes factor against the shares, and of how many units."""
    evidence, total = 0.0, 0
    for text, units in merged_units(hours).items():
        shares: dict[str, float] = msgspec.json.decode(text)
        # Variants that the file left out meanwhile have no share to be compared with.
        names = [name for name, share in shares.items() if share > 0.0]
        if any(units[name] for name in shares if shares[name] == 0.0):
            return inf, total
        counts = [units[name] for name in names]
        if len(names) > 1:
            evidence += float(log_bayes_factor([counts], [shares[name] for name in names])[0])
            total += sum(counts)
    return evidence, total


def _explained(look: RecordLook, hours: Sequence[HourSums]) -> tuple[str, str]:
    """The likely cause, and what was seen."""
    got: dict[str, float] = {}
    meant: dict[str, float] = {}
    for text, units in merged_units(hours).items():
        shares: dict[str, float] = msgspec.json.decode(text)
        whole = sum(shares.values())
        arrived = sum(units[name] for name in shares)
        for name, share in shares.items():
            got[name] = got.get(name, 0.0) + units[name]
            meant[name] = meant.get(name, 0.0) + arrived * share / whole
    # Of equal surprises, as of two equal shares, the variant that lacks units.
    variant = max(
        got, key=lambda name: (_surprise(got[name], meant[name]), meant[name] - got[name])
    )
    total = sum(got.values())
    message = (
        f"{variant} got {percent(got[variant] / total)} of {total:,.0f} new units where "
        f"{percent(meant[variant] / total)} were meant."
    )
    return _cause(look, hours, variant, got, meant), message


def _is_missing(hour: HourSums, variant: str) -> bool:
    """Whether it got no unit in an hour in which others got many."""
    own = hour.variants.get(variant, VariantSums())
    return not any(own.units.values()) and _new_units(hour) >= _MANY


def _surprise(got: float, meant: float) -> float:
    return round((got - meant) ** 2 / max(meant, 0.5), 6)


def _cause(
    look: RecordLook,
    hours: Sequence[HourSums],
    variant: str,
    got: Mapping[str, float],
    meant: Mapping[str, float],
) -> str:
    if got[variant] == 0.0 or _is_missing(hours[-1], variant):
        return "variant_missing"
    own = [hour.variants[variant] for hour in hours if variant in hour.variants]
    decisions = sum(sums.decisions for sums in own)
    if sum(sums.fallbacks for sums in own) > _FAILING * decisions:
        return "policy_fails"
    if look.changed_in(hours) is not None:
        return "file_changed"
    # Of two variants both differ by as much: units that others lack came to one, or left the other.
    extra = np.subtract(list(got.values()), list(meant.values()))
    return "units_added" if got[variant] > meant[variant] and extra.size > 2 else "units_lost"
