"""Decisions that are made before anybody sees them. They are kept apart, and become decisions of
their experiment when they are shown.

Each stands in the log in a row of its own, under a name that no experiment can have: who learns
from or analyses the experiment does not meet it.
"""

from __future__ import annotations

from collections.abc import Iterable

import msgspec

from topbill.domain.records import Decision
from topbill.log import Entry, Receipt
from topbill.service import telemetry
from topbill.service.backend import Backend

_EVENTS = ".events"
"""What the log calls stored events by, behind the experiment's key; no key has a dot."""


class StoredEvent(msgspec.Struct, frozen=True, omit_defaults=True):
    """An event as it is stored.

    Attributes:
        decisions: By slot, "" for the one of an event without slots.
        active: Whether they are decisions of their experiment from the start.
        shown_by_reward: Whether any reward of it says that it was shown.
    """

    decisions: dict[str, Decision]
    active: bool
    shown_by_reward: bool = False


_encode = msgspec.json.Encoder().encode
_decode = msgspec.json.Decoder(StoredEvent).decode


class DeferredDecisions:
    """Stores events, and makes their decisions count, over a backend."""

    def __init__(self, backend: Backend) -> None:
        self._backend = backend

    async def find(self, event_id: str) -> StoredEvent | None:
        """The stored event of that id, also where the log has let it go. Raises LogError."""
        return (await self._find([event_id])).get(event_id)

    async def _find(self, event_ids: Iterable[str]) -> dict[str, StoredEvent]:
        by_row = {row_id(event_id): event_id for event_id in event_ids}
        rows = await self._backend.find(by_row)
        return {by_row[name]: _decode(row.context) for name, row in rows.items()}

    async def activate(self, event: StoredEvent) -> list[Decision]:
        """Its decisions go into the log now, and the wait for their rewards begins. Returns those
        that are there; twice is as good as once. Raises LogError.
        """
        decisions = list(event.decisions.values())
        ids = frozenset(decision.decision_id for decision in decisions)
        receipt = await self._backend.writer.put(Entry(decisions, keyed_decisions=ids))
        if receipt.let_go is not None:
            return []
        count([one for one in decisions if one.decision_id not in receipt.stored])
        return [receipt.stored.get(one.decision_id, one) for one in decisions]

    async def shown(self, decision_ids: Iterable[str]) -> list[Decision]:
        """Activate those of the ids that wait for a reward to say that they were shown; returns
        their decisions. Raises LogError.
        """
        decisions: list[Decision] = []
        for event in (await self._find(decision_ids)).values():
            if event.shown_by_reward:
                decisions += await self.activate(event)
        return decisions


def row_of(event_id: str, event: StoredEvent, unit: str) -> Decision:
    """The row in which an event stands in the log. `unit` is whom erasing it has to follow."""
    first = next(iter(event.decisions.values()))
    return Decision(
        decision_id=row_id(event_id),
        experiment=first.experiment + _EVENTS,
        revision=first.revision,
        variant=None,
        unit=unit,
        context=msgspec.Raw(_encode(event)),
        policy="",
        reason="not_in_experiment",
    )


def stored_event(receipt: Receipt, event_id: str) -> StoredEvent | None:
    """The event that stood under the id before, where a receipt says that one did."""
    row = receipt.stored.get(row_id(event_id))
    return None if row is None else _decode(row.context)


def row_id(event_id: str) -> str:
    """What the row of an event is called: ids of callers have no such separator."""
    return f"{event_id}\x1f"


def count(decisions: Iterable[Decision]) -> None:
    """Count decisions that have just begun to be decisions of their experiment."""
    for decision in decisions:
        telemetry.decided(decision.experiment, decision.variant, decision.reason).inc()
