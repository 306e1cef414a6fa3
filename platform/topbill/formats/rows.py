"""What travels between formats: a decision with its events, and what several formats share in
writing one down.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable, Mapping
from datetime import UTC, datetime, timedelta
from typing import Any, TypeAlias

import msgspec

from topbill.domain.errors import BadData
from topbill.domain.records import Decision, Placement, RewardEvent

Row: TypeAlias = tuple[Decision, list[RewardEvent]]
"""A decision and the events that it got."""
ActionFeatures: TypeAlias = Mapping[str, Mapping[str, Any]]
"""Action id → its raw features, as the experiment's file has them."""
Progress: TypeAlias = Callable[[int, int | None], None]
"""Called with how much is done, and of how much (None: unknown): bytes or rows."""
_EPOCH = datetime(1970, 1, 1, tzinfo=UTC)
_MICROSECOND = timedelta(microseconds=1)


class ReadNotes:
    """What a reader tells beside its rows.

    Attributes:
        left_out: How many lines gave no row, by reason.
        line: The number of the last row's line, 0 where a format has no lines.
        content: That line, empty where a format has no lines.
    """

    def __init__(self, skip_bad: int = 0) -> None:
        """`skip_bad`: how many rows that cannot be read may be left out."""
        self.left_out: Counter[str] = Counter()
        self.line = 0
        self.content = b""
        self._may_skip = skip_bad

    def leave_out(self, reason: str, error: BadData) -> None:
        """Count a row that cannot be read. Raises `error` where no more of them may be left out."""
        if not self._may_skip:
            raise error
        self._may_skip -= 1
        self.left_out[reason] += 1


class WholeRow(msgspec.Struct):
    """A row with all its fields: what our own lines keep beside what their format has a place for.
    Readers of other makers ignore it.
    """

    decision: Decision
    events: list[RewardEvent]


def quiet(done: int, total: int | None) -> None:
    """Progress that nobody watches."""


def name_of(*ids: Any, default: str) -> str:
    """The first id that is there, as text; `default` where none is.

    An id is absent only where it is missing or null: 0, false and an empty text are ids.
    """
    for name in ids:
        if name is not None:
            return text_of(name)
    return default


def text_of(name: Any) -> str:
    """An id as text. A float column's 7.0 is the 7 that it was before some row had none."""
    if isinstance(name, float) and name.is_integer():
        return str(int(name))
    return str(name)


def only_placement(decision: Decision, expected: str) -> Placement:
    """The placement of a slate of one. Raises BadData for a slate of several."""
    if len(decision.slate) != 1:
        got = f"got a slate of {len(decision.slate)}"
        raise BadData(decision.decision_id, f"{got}; {expected}")
    return decision.slate[0]


def own_features(decision: Decision) -> dict[str, Any]:
    """The features of the actions that the decision brought along; none for the experiment's."""
    offered = msgspec.json.decode(decision.actions) or []
    return {action["id"]: action.get("features", {}) for action in offered}


def eligible_features(decision: Decision, features: ActionFeatures) -> list[Any]:
    """The features of each eligible action, in order: its own, else those of `features`.

    Raises BadData for an action without any.
    """
    own = own_features(decision)
    per_action: list[Any] = []
    for name in decision.eligible:
        if name not in own and name not in features:
            raise BadData(
                decision.decision_id,
                f"got action {name!r} without features; expected all, from the experiment's file",
            )
        per_action.append(own[name] if name in own else features[name])
    return per_action


def timestamp(microseconds: int) -> str:
    """µs since the epoch as ISO 8601 in UTC."""
    moment = _EPOCH + timedelta(microseconds=microseconds)
    return moment.strftime("%Y-%m-%dT%H:%M:%S.%fZ")


def microseconds(timestamp: Any, where: str) -> int:
    """ISO 8601 as µs since the epoch; UTC where no zone is said, 0 where there is no timestamp.

    Raises BadData, naming `where`.
    """
    if timestamp is None:
        return 0
    try:
        moment = datetime.fromisoformat(timestamp.strip().upper())
    except (AttributeError, TypeError, ValueError):
        raise BadData(
            where, f"got Timestamp {timestamp!r}; expected ISO 8601, as 2026-01-31T12:00:00Z"
        ) from None
    if moment.tzinfo is None:
        moment = moment.replace(tzinfo=UTC)
    return (moment - _EPOCH) // _MICROSECOND
