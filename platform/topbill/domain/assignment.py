"""How units are given to variants, and what changed from one way to another, in a few words."""

from __future__ import annotations

from collections.abc import Mapping
from typing import NamedTuple, Protocol

PLACES = 9
"""Shares that agree to so many decimal places are the same: files say percentages."""
_TRAFFIC = "traffic "


class Assigns(Protocol):
    """What says how units are given to variants: shares by variant in their order, the control, and
    the traffic."""

    @property
    def shares(self) -> Mapping[str, float]: ...
    @property
    def control(self) -> str: ...
    @property
    def traffic(self) -> float: ...


class Assignment(NamedTuple):
    """Shares by variant, empty where unknown; the control; the share of units that take part."""

    shares: Mapping[str, float]
    control: str
    traffic: float


def assignment_changes(before: Assigns, after: Assigns) -> list[str]:
    """What changed, each in a few words (`old 34% → 20%`, `new joined with 5%`); empty where
    nothing did."""
    if not before.shares or not after.shares:
        return ["shares not on record"] if before.shares or after.shares else []
    changed = []
    for name, share in after.shares.items():
        if name not in before.shares:
            changed.append(f"{name} joined with {_percent(share)}")
        elif round(share - before.shares[name], PLACES):
            changed.append(f"{name} {_percent(before.shares[name])} → {_percent(share)}")
    changed += [f"{name} left" for name in before.shares if name not in after.shares]
    if before.control != after.control:
        changed.append(f"control {before.control} → {after.control}")
    if round(before.traffic - after.traffic, PLACES):
        changed.append(f"{_TRAFFIC}{_percent(before.traffic)} → {_percent(after.traffic)}")
    if not changed and list(before.shares) != list(after.shares):
        # Units are given to variants by their places in the file, so those at the ends move.
        changed.append("order of variants")
    return changed


def moves_units(changed: list[str]) -> list[str]:
    """Those of the changes that give units other variants: all but traffic's."""
    return [change for change in changed if not change.startswith(_TRAFFIC)]


def _percent(share: float) -> str:
    return f"{100.0 * share:.4g}%"
