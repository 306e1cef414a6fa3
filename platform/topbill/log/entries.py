"""What callers hand to the log together, and what it answers."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import NamedTuple

import msgspec

from topbill.domain.records import Decision, RewardEvent
from topbill.log.journal import Rows

_encode = msgspec.json.Encoder().encode


class Entry(NamedTuple):
    """Rows that are stored together or not at all.

    `keyed_decisions` and `keyed_events` say which ids the callers chose: only those can have been
    used before. Of an entry that is `whole`, nothing is stored where one of its keyed decisions was
    before.
    """

    decisions: Sequence[Decision] = ()
    events: Sequence[RewardEvent] = ()
    keyed_decisions: frozenset[str] = frozenset()
    keyed_events: frozenset[tuple[str, str]] = frozenset()
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
    ids = frozenset(d.decision_id for d in decisions)
    return Entry(decisions, events, ids, frozenset((e.decision_id, e.event_id) for e in events))


def admit(
    entry: Entry, at: int, known: dict[str, Decision], seen: set[tuple[str, str]], rows: Rows
) -> Receipt:
    """Add an entry's new rows, stamped `at`, to `rows` and its ids to `known` and `seen`; nothing
    of it when an id has another content."""
    stored: dict[str, Decision] = {}
    for decision_id in entry.keyed_decisions:
        if decision_id in known:
            stored[decision_id] = known[decision_id]
    for decision in entry.decisions:
        held = stored.get(decision.decision_id)
        if held is not None and held.request_hash != decision.request_hash:
            return Receipt({}, (), conflict=decision.decision_id)
    if entry.whole and stored:
        return Receipt(stored, ())
    for decision in entry.decisions:
        if decision.decision_id not in stored:
            rows.decisions.append((decision.decision_id, decision.experiment, _encode(decision)))
            msgspec.structs.force_setattr(decision, "decided_at", at)
            known[decision.decision_id] = decision
    duplicates = []
    for event in entry.events:
        key = (event.decision_id, event.event_id)
        duplicates.append(key in seen)
        if not duplicates[-1]:
            rows.events.append((*key, _encode(event)))
            seen.add(key)
    return Receipt(stored, tuple(duplicates))
