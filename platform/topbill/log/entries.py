"""What callers hand to the log together, and what it answers.

`admit` is the rule of idempotence, and knows nothing of storage: every log applies this one.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import NamedTuple

import msgspec

from topbill.domain.records import Decision, RewardEvent

_encode = msgspec.json.Encoder().encode

EventKey = tuple[str, str]
"""(decision_id, event_id): an event id need only be unique under its decision."""


class Rows(NamedTuple):
    """What is to be stored: decisions as (decision_id, experiment, body), events as (decision_id,
    event_id, body). A body is the record's JSON.
    """

    decisions: list[tuple[str, str, bytes]]
    events: list[tuple[str, str, bytes]]


class Entry(NamedTuple):
    """Rows that are stored together or not at all.

    `keyed_decisions` and `keyed_events` say which ids the callers chose: only those can have been
    used before. Of an entry that is `whole`, nothing is stored where one of its keyed decisions was
    before.
    """

    decisions: Sequence[Decision] = ()
    events: Sequence[RewardEvent] = ()
    keyed_decisions: frozenset[str] = frozenset()
    keyed_events: frozenset[EventKey] = frozenset()
    whole: bool = False


class Receipt(NamedTuple):
    """What the log says of an entry: the decisions that were stored before it, by id; of each
    event, whether it is a duplicate; or the id that was used before with another content (then
    nothing of the entry was stored)."""

    stored: Mapping[str, Decision]
    duplicates: tuple[bool, ...]
    conflict: str | None = None


def all_keyed(decisions: Sequence[Decision], events: Sequence[RewardEvent]) -> Entry:
    """An entry of which every id is the caller's."""
    decision_ids = frozenset(decision.decision_id for decision in decisions)
    event_keys = frozenset((event.decision_id, event.event_id) for event in events)
    return Entry(decisions, events, decision_ids, event_keys)


def keyed_ids(entries: Sequence[Entry]) -> tuple[set[str], set[EventKey]]:
    """All ids of a group that may have been used before: what has to be looked up for it."""
    decision_ids: set[str] = set()
    event_keys: set[EventKey] = set()
    for _, _, keyed_decisions, keyed_events, _ in entries:
        if keyed_decisions:
            decision_ids |= keyed_decisions
        if keyed_events:
            event_keys |= keyed_events
    return decision_ids, event_keys


def admit(
    entry: Entry,
    at: int,
    stored_decisions: dict[str, Decision],
    stored_events: set[EventKey],
    rows: Rows,
) -> Receipt:
    """Decide what of an entry is new, and what its caller is told.

    New rows, stamped `at`, are added to `rows`, and their ids to the two collections of what is
    stored, so that a later entry of the same group meets them. On a conflict nothing is added.

    Args:
        entry: What a caller handed in.
        at: The stamp of the group, µs.
        stored_decisions: At least the stored decisions among the entry's keyed ones, by id.
        stored_events: At least the stored events among the entry's keyed ones.
        rows: What the group is going to write.
    """
    before: dict[str, Decision] = {}
    for decision_id in entry.keyed_decisions:
        if decision_id in stored_decisions:
            before[decision_id] = stored_decisions[decision_id]
    if before:
        # All conflicts come before the first row: an entry is stored whole or not at all.
        for decision in entry.decisions:
            earlier = before.get(decision.decision_id)
            if earlier is not None and earlier.request_hash != decision.request_hash:
                return Receipt({}, (), conflict=decision.decision_id)
        if entry.whole:
            return Receipt(before, ())

    for decision in entry.decisions:
        decision_id = decision.decision_id
        if decision_id not in before:
            # The body goes out without a stamp, which readers take from the row: draining may still
            # have to move it past the newest one of the tables.
            rows.decisions.append((decision_id, decision.experiment, _encode(decision)))
            msgspec.structs.force_setattr(decision, "decided_at", at)
            stored_decisions[decision_id] = decision

    if not entry.events:
        return Receipt(before, ())
    return Receipt(before, _admit_events(entry.events, stored_events, rows))


def _admit_events(
    events: Sequence[RewardEvent], stored: set[EventKey], rows: Rows
) -> tuple[bool, ...]:
    """Add the events that are new; of each, whether it is a duplicate."""
    duplicates = []
    for event in events:
        key = (event.decision_id, event.event_id)
        duplicate = key in stored
        duplicates.append(duplicate)
        if not duplicate:
            rows.events.append((*key, _encode(event)))
            stored.add(key)
    return tuple(duplicates)
