"""Where a launch stands: the fold over the orders that the log holds of it."""

from __future__ import annotations

from collections.abc import Callable, Iterable
from typing import Literal

import msgspec
from msgspec.structs import replace

from topbill.log.protocol import Order, OrderKind
from topbill.spec import Status

Stage = Literal["gate", "shadow", "ramp", "over"]
"""Where a launch stands; `gate` until something else began."""
GATE = ("gate",)
HARM = ("harm",)
"""What an approval is about; the step of the ramp otherwise, as a number."""


class LaunchState(msgspec.Struct, frozen=True):
    """Where a launch stands. Times are µs since the epoch.

    Attributes:
        step: The number of its last step; 0 before the first.
        since: When its present stage began, or went on after a halt.
        gate: What the log said, or somebody in its stead.
        shadow_since: When its variants began to decide unseen.
        traffic: None before the ramp's first step.
        traffic_since: When it began.
        launched_at: When the ramp began: what was decided before is no evidence.
        approved: The traffic up to which somebody approved.
        harm: What was told, or paused for, and nobody accepted yet: metric:variant each.
        accepted: The harm that somebody accepted.
        status: What was ordered in place of the file's status.
        over: Why it is over; empty where it is not.
    """

    step: int = 0
    since: int = 0
    gate: Literal["", "passed", "refused"] = ""
    shadow_since: int | None = None
    traffic: float | None = None
    launched_at: int | None = None
    approved: float = 0.0
    harm: tuple[str, ...] = ()
    accepted: tuple[str, ...] = ()
    status: Status | None = None
    is_paused_for_harm: bool = False
    over: str = ""

    @property
    def stage(self) -> Stage:
        """Where it stands, in a word."""
        if self.over:
            return "over"
        if self.traffic is not None:
            return "ramp"
        return "gate" if self.shadow_since is None else "shadow"

    def after(self, order: Order) -> LaunchState:
        """The state once this order was given as well."""
        state = replace(self, step=max(self.step, order.step), status=order.status)
        if self.status is not None and order.status is None:
            # Nobody took part meanwhile: what a step has to last begins anew.
            state = replace(state, since=order.at)
        return _FOLDS[order.kind](state, order)


def state_of(orders: Iterable[Order]) -> LaunchState:
    """The fold over the orders that were given for one state of an experiment's file."""
    state = LaunchState()
    for order in orders:
        state = state.after(order)
    return state


def _status(state: LaunchState, order: Order) -> LaunchState:
    # Whoever lets it go on knows why it was paused.
    if order.status is None and state.is_paused_for_harm:
        return _accept(state)
    return state


def _gate(state: LaunchState, order: Order) -> LaunchState:
    return replace(state, gate="passed", since=order.at)


def _refusal(state: LaunchState, order: Order) -> LaunchState:
    return replace(state, gate="refused", since=order.at)


def _shadow(state: LaunchState, order: Order) -> LaunchState:
    return replace(state, shadow_since=order.at, since=order.at)


def _traffic(state: LaunchState, order: Order) -> LaunchState:
    launched_at = order.at if state.launched_at is None else state.launched_at
    return replace(state, traffic=order.traffic, since=order.at, launched_at=launched_at)


def _tell(state: LaunchState, order: Order) -> LaunchState:
    return replace(state, harm=order.about)


def _pause(state: LaunchState, order: Order) -> LaunchState:
    return replace(state, harm=order.about, is_paused_for_harm=True)


def _rollback(state: LaunchState, order: Order) -> LaunchState:
    return replace(state, harm=order.about, over=order.because or "rolled back")


def _approval(state: LaunchState, order: Order) -> LaunchState:
    if order.about == GATE:
        return _gate(state, order)
    if order.about == HARM:
        return _accept(state)
    return replace(state, approved=float(order.about[0]))


def _accept(state: LaunchState) -> LaunchState:
    accepted = (*state.accepted, *state.harm)
    return replace(state, harm=(), accepted=accepted, is_paused_for_harm=False)


_FOLDS: dict[OrderKind, Callable[[LaunchState, Order], LaunchState]] = {
    "status": _status,
    "gate": _gate,
    "refusal": _refusal,
    "shadow": _shadow,
    "traffic": _traffic,
    "tell": _tell,
    "pause": _pause,
    "rollback": _rollback,
    "approval": _approval,
}
