"""What every imported row must keep, whichever format it came in: what readers of the lake rely
on.
"""

from __future__ import annotations

import math
from typing import Any

import msgspec

from topbill.domain.errors import BadData
from topbill.domain.records import Decision
from topbill.formats.obp_columns import Row

_MOST_EVENTS = 1 << 16
_LAST = 253_402_300_800_000_000
"""The end of the year 9999, in µs."""


class _Offered(msgspec.Struct):
    id: str
    features: dict[str, Any] = {}


_context = msgspec.json.Decoder(dict[str, msgspec.Raw])
_actions = msgspec.json.Decoder(list[_Offered] | None)


def sound(row: Row, where: str) -> Row:
    """The row itself. Raises BadData, naming `where`, for propensities that are none, actions that
    could not have been shown, times and values that nothing can hold, and a context or actions that
    are not what callers send."""
    decision, events = row
    _check(decision, where)
    for event in events:
        if not math.isfinite(event.value):
            raise BadData(where, f"got an event of value {event.value}; expected a finite number")
        if event.position is not None and not 0 <= event.position < max(1, len(decision.slate)):
            raise BadData(
                where, f"got an event at position {event.position}; expected one of the slate's"
            )
        _time(event.received_at, where)
        _time(event.occurred_at or 0, where)
    if len(events) >= _MOST_EVENTS:
        raise BadData(
            where,
            f"got {len(events):,} events; expected fewer than {_MOST_EVENTS:,} for a decision",
        )
    return row


def _check(decision: Decision, where: str) -> None:
    try:
        _context.decode(decision.context)
        _actions.decode(decision.actions)
    except (msgspec.DecodeError, UnicodeDecodeError, RecursionError) as error:
        raise BadData(where, f"got a context or actions of the wrong form: {error}") from None
    shown = [placed.action for placed in decision.slate]
    if len(set(shown)) < len(shown) or not set(shown) <= set(decision.eligible):
        raise BadData(
            where, f"got the slate {shown}; expected different ones of the eligible actions"
        )
    for k, placed in enumerate(decision.slate):
        if not 0.0 < placed.propensity <= 1.0 or placed.position != k:
            raise BadData(
                where,
                f"got {placed.propensity} at position {k}; expected a propensity in (0, 1], in order",
            )
    if not 0.0 < decision.propensity <= 1.0:
        raise BadData(where, f"got propensity {decision.propensity}; expected one in (0, 1]")
    for row in decision.probabilities or ():
        if len(row) != len(decision.eligible) or not all(0.0 <= p <= 1.0 for p in row):
            raise BadData(
                where,
                "got probabilities that are none; expected one in [0, 1] for each eligible action",
            )
    if not decision.decision_id or not decision.experiment:
        raise BadData(where, "got a decision without an id or an experiment; expected both")
    for number in (decision.policy_version, decision.latency_us):
        if not 0 <= number < 1 << 62:
            raise BadData(where, f"got {number} as a version or duration; expected a number from 0")
    _time(decision.decided_at, where)


def _time(at: int, where: str) -> None:
    if not 0 <= at < _LAST:
        raise BadData(where, f"got {at} µs as a time; expected one from 1970 to 9999")
