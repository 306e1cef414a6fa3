"""Feature drift: the groups of each context feature beside those of the same hours of the day in
the week before, by population stability: Σ (q − p) ln(q / p).

At fault is an index above 0.25, the credit scorers' mark of a changed population, that is also
above what chance gives: of units of one population (1/n + 1/m)⁻¹ times the index is χ² of one
degree less than there are groups (Yurdakul 2018).
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import NamedTuple

import numpy as np
from scipy.special import chdtri

from topbill.alerts.rules.look import LEAST, LEVEL, RecordLook, RuleReading
from topbill.alerts.sums import HourSums, added, shortest_run
from topbill.domain.formatting import percent
from topbill.reporting.queries.drift import MOVED, STEADY, stability

MISSING = "(none)"
"""The group of units whose feature is not there."""
OTHERS = "(others)"
GROUPS = 20
"""Groups of a feature that are told apart: the largest."""
_CAUSED = 0.1
"""A share of units from which on a group explains a drift."""


class _Moved(NamedTuple):
    """How a feature's groups moved: their shares before and now."""

    feature: str
    psi: float
    before: dict[str, float]
    now: dict[str, float]

    @property
    def biggest(self) -> str:
        """The group whose share changed the most."""
        return max(self.now, key=lambda group: abs(self.now[group] - self.before[group]))


def feature_drift(look: RecordLook) -> list[RuleReading]:
    """One reading of all features: which of them have drifted."""
    hours = look.since("feature_drift", "")
    sizes = [_units(hour) for hour in hours]
    run = shortest_run(hours, sizes, LEAST)
    features = sorted({name for hour in run for name in hour.features})
    moved, steady = [], 0
    for feature in features:
        move, chance = _move(look, run, feature)
        if move is None:
            continue
        if move.psi > max(MOVED, chance):
            moved.append(move)
        steady += move.psi < max(STEADY, chance)
    if moved:
        told = "; ".join(_told(move) for move in moved)
        cause = _cause(look, run, moved)
        message = f"In the last {len(run)} h beside the same hours before: {told}."
        return [RuleReading("feature_drift", "", "window", "fault", cause, message)]
    is_sound = features and steady == len(features)
    return [RuleReading("feature_drift", "", "window", "sound" if is_sound else "unknown")]


def _units(hour: HourSums) -> float:
    """Units of an hour: those of the feature that tells most."""
    return max((sum(groups.values()) for groups in hour.features.values()), default=0)


def _move(look: RecordLook, run: Sequence[HourSums], feature: str) -> tuple[_Moved | None, float]:
    """How a feature moved, and what index chance alone may give; None where there is too little to
    compare with."""
    before: dict[str, float] = {}
    now: dict[str, float] = {}
    behind = 0.0
    for hour in run:
        units = hour.features.get(feature, {})
        reference = look.usual.features.get(hour.clock_hour, {}).get(feature, {})
        known = sum(reference.values())
        if known < LEAST / len(run):
            return None, 0.0
        behind += known
        # As many as came now, so that the hours weigh alike on both sides.
        added(before, reference, sum(units.values()) / known)
        added(now, units)
    both = {group: before.get(group, 0.0) + now.get(group, 0.0) for group in {*before, *now}}
    told = sorted(both, key=lambda group: (-both[group], group))[: GROUPS - 1]
    groups = [*told, OTHERS]
    old, new = _shares(before, groups), _shares(now, groups)
    n = sum(now.values())
    chance = (1.0 / n + 1.0 / behind) * float(chdtri(len(groups) - 1, LEVEL))
    move = _Moved(
        feature,
        stability(old, new),
        dict(zip(groups, old.tolist(), strict=True)),
        dict(zip(groups, new.tolist(), strict=True)),
    )
    return move, chance


def _shares(units: Mapping[str, float], groups: Sequence[str]) -> np.ndarray:
    """The shares of groups, those not named together as the last. Half a unit each, so that an
    empty group counts without being infinite."""
    counts = [units.get(group, 0.0) for group in groups[:-1]]
    table = np.array([*counts, sum(units.values()) - sum(counts)])
    return np.asarray((np.maximum(table, 0.0) + 0.5) / (table.sum() + 0.5 * table.size))


def _told(move: _Moved) -> str:
    group = move.biggest
    change = f"{percent(move.before[group])} → {percent(move.now[group])}"
    return f"{move.feature} ({group}: {change}; stability index {move.psi:.2f})"


def _cause(look: RecordLook, run: Sequence[HourSums], moved: Sequence[_Moved]) -> str:
    worst = max(moved, key=lambda move: move.psi)
    gone = worst.now.get(MISSING, 0.0) - worst.before.get(MISSING, 0.0)
    if gone > _CAUSED:
        return "feature_missing"
    seen = {group for hour in run for group in hour.features.get(worst.feature, ())}
    usual: set[str] = set()
    for features in look.usual.features.values():
        usual.update(features.get(worst.feature, ()))
    new = sum(worst.now.get(group, 0.0) for group in seen - usual)
    if new > _CAUSED:
        return "new_values"
    return "file_changed" if look.changed_in(run) is not None else "viewers_changed"
