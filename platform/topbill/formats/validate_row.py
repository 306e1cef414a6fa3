"""What every imported row must keep, whichever format it came in: what readers of the lake rely
on.
"""

from __future__ import annotations

import math
from typing import Any

import msgspec

from topbill.domain.chance import at_most_one
from topbill.domain.errors import BadData, BadRequest
from topbill.domain.json_text import check_json
from topbill.domain.records import Decision, Placement, RewardEvent
from topbill.formats.rows import Row

MOST_EVENTS = 1 << 16
"""Events of a decision, at most one fewer: a row's events are numbered from its own number on
(`lake_import`), and must not run into the next row's."""
# The end of the year 9999, in µs: what databases hold.
_END_OF_TIME = 253_402_300_800_000_000


class _OfferedAction(msgspec.Struct):
    id: str
    features: dict[str, Any] = {}


_context = msgspec.json.Decoder(dict[str, msgspec.Raw])
_actions = msgspec.json.Decoder(list[_OfferedAction] | None)


def validate_row(row: Row, where: str) -> Row:
    """The row itself, its probabilities 1 where rounding took them past it.

    Raises:
        BadData: Naming `where`, for propensities that are none, actions that could not have been
            shown, times and values that nothing can hold, and a context or actions that are not
            what callers send.
    """
    decision, events = row
    decision = _without_rounding(decision)
    _check_json(decision, where)
    _check_slate(decision, where)
    _check_probabilities(decision, where)
    _check_fields(decision, where)
    for event in events:
        _check_event(event, len(decision.slate), where)
    if len(events) >= MOST_EVENTS:
        raise BadData(
            where,
            f"got {len(events):,} events; expected fewer than {MOST_EVENTS:,} for a decision",
        )
    return decision, events


def _without_rounding(decision: Decision) -> Decision:
    """The decision; another one only where some probability is a hair past 1."""
    numbers = [placed.propensity for placed in decision.slate]
    for row in decision.probabilities or ():
        numbers += row
    if max(numbers, default=0.0) <= 1.0 and decision.propensity <= 1.0:
        return decision
    slate = []
    for placed in decision.slate:
        slate.append(Placement(placed.position, placed.action, at_most_one(placed.propensity)))
    matrix = None
    if decision.probabilities is not None:
        matrix = tuple(tuple(map(at_most_one, row)) for row in decision.probabilities)
    return msgspec.structs.replace(
        decision,
        slate=tuple(slate),
        propensity=at_most_one(decision.propensity),
        probabilities=matrix,
    )


def _check_json(decision: Decision, where: str) -> None:
    try:
        # What stays text in the lake must be what the service takes too.
        check_json(bytes(decision.context), "context")
        check_json(bytes(decision.actions), "actions")
        _context.decode(decision.context)
        _actions.decode(decision.actions)
    except (msgspec.DecodeError, BadRequest) as error:
        raise BadData(where, f"got a context or actions of the wrong form: {error}") from None


def _check_slate(decision: Decision, where: str) -> None:
    if len(set(decision.eligible)) < len(decision.eligible):
        twice = next(name for name in decision.eligible if decision.eligible.count(name) > 1)
        raise BadData(where, f"got action {twice!r} twice; expected each of its actions once")
    actions = [placed.action for placed in decision.slate]
    if len(set(actions)) < len(actions) or not set(actions) <= set(decision.eligible):
        raise BadData(
            where, f"got the slate {actions}; expected different ones of the eligible actions"
        )
    for position, placed in enumerate(decision.slate):
        if not 0.0 < placed.propensity <= 1.0 or placed.position != position:
            raise BadData(
                where,
                f"got {placed.propensity} at position {position}; "
                "expected a propensity in (0, 1], in order",
            )


def _check_probabilities(decision: Decision, where: str) -> None:
    if not 0.0 < decision.propensity <= 1.0:
        raise BadData(where, f"got propensity {decision.propensity}; expected one in (0, 1]")
    # NaN fails every comparison, so what is no number is refused too.
    for row in decision.probabilities or ():
        if len(row) != len(decision.eligible) or not all(0.0 <= p <= 1.0 for p in row):
            raise BadData(
                where,
                "got probabilities that are none; expected one in [0, 1] for each eligible action",
            )


def _check_fields(decision: Decision, where: str) -> None:
    if not decision.decision_id or not decision.experiment:
        raise BadData(where, "got a decision without an id or an experiment; expected both")
    # The lake holds them in 64 bits with a sign.
    for number in (decision.policy_version, decision.latency_us):
        if not 0 <= number < 1 << 62:
            raise BadData(where, f"got {number} as a version or duration; expected a number from 0")
    _check_time(decision.decided_at, where)
    weight = decision.row_weight
    if weight is not None and not (0.0 < weight < math.inf):
        raise BadData(where, f"got row_weight {weight}; expected a positive number")


def _check_event(event: RewardEvent, positions: int, where: str) -> None:
    if not math.isfinite(event.value):
        raise BadData(where, f"got an event of value {event.value}; expected a finite number")
    # A decision that showed nothing may have events at position 0.
    if event.position is not None and not 0 <= event.position < max(1, positions):
        raise BadData(
            where, f"got an event at position {event.position}; expected one of the slate's"
        )
    _check_time(event.received_at, where)
    _check_time(event.occurred_at or 0, where)


def _check_time(microseconds: int, where: str) -> None:
    if not 0 <= microseconds < _END_OF_TIME:
        raise BadData(where, f"got {microseconds} µs as a time; expected one from 1970 to 9999")
