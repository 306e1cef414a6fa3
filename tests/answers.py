"""Two answers side by side, but for the last digits."""

from __future__ import annotations

from typing import Any


def differences(one: Any, other: Any, where: str = "") -> list[str]:
    """Where two answers differ by more than 1e-9 of what they are."""
    if isinstance(one, dict) and isinstance(other, dict):
        found = [] if one.keys() == other.keys() else [f"{where}: {one.keys() ^ other.keys()}"]
        for name in one.keys() & other.keys():
            found += differences(one[name], other[name], f"{where}.{name}")
        return found
    if isinstance(one, list) and isinstance(other, list):
        if len(one) != len(other):
            return [f"{where}: {len(one)} and {len(other)}"]
        pairs = enumerate(zip(one, other, strict=True))
        return [line for i, pair in pairs for line in differences(*pair, f"{where}[{i}]")]
    if isinstance(one, float) and isinstance(other, float):
        same = abs(one - other) <= 1e-9 * max(1.0, abs(one), abs(other))
        return [] if same else [f"{where}: {one} and {other}"]
    return [] if one == other else [f"{where}: {one} and {other}"]
