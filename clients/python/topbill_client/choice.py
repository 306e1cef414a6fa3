"""What a caller gets for a decide: the service's decision, or the caller's own default order,
flagged.
"""

from __future__ import annotations

import os
import time
from collections.abc import Sequence
from typing import Any, Literal

import msgspec


class Item(msgspec.Struct, frozen=True, gc=False):
    """What to show at a position (0 is the first), and the propensity with which it was drawn
    there.
    """

    position: int
    action: str
    payload: Any = None
    propensity: float = 1.0


class Choice(msgspec.Struct, frozen=True, kw_only=True, gc=False):
    """A decision. With `fallback` the service did not make it: the slate is the caller's default
    order, nothing was logged, and `problem` says why. (`reason: fallback` is something else: the
    service served its control's order.)"""

    decision_id: str
    slate: tuple[Item, ...] = ()
    variant: str | None = None
    propensity: float = 1.0
    policy: str = ""
    policy_version: int = 0
    reason: Literal[
        "policy",
        "fallback",
        "not_in_experiment",
        "holdout",
        "excluded_unit",
        "excluded_context",
        "not_in_audience",
        "override",
        "no_exploration",
        "",
    ] = ""
    fallback: bool = False
    problem: str | None = None

    @property
    def actions(self) -> list[str]:
        """The ids to show, first position first."""
        return [item.action for item in self.slate]

    @property
    def action(self) -> str | None:
        """The id at the first position; None where there is nothing to show."""
        return self.slate[0].action if self.slate else None


def default_choice(
    decision_id: str, default: Sequence[str], slots: int | None, problem: str
) -> Choice:
    """The caller's default order as a choice."""
    shown = tuple(Item(position, action) for position, action in enumerate(default[:slots]))
    return Choice(decision_id=decision_id, slate=shown, fallback=True, problem=problem)


def new_id() -> str:
    """A fresh id, 32 hex digits: milliseconds first, so that the log's indexes grow at their end,
    then chance.
    """
    return f"{time.time_ns() // 1_000_000:012x}{os.urandom(10).hex()}"
