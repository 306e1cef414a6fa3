"""What callers hand to the log together, and what it answers.

`admit` is the rule of idempotence, and knows nothing of storage: every log applies this one.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from types import MappingProxyType
from typing import NamedTuple, Protocol

import msgspec

from topbill.domain.page_answer import PageAnswer
from topbill.domain.records import Decision, RewardEvent, UnitEvent
from topbill.log.bundles import bundle_of, is_bundled

_encode = msgspec.json.Encoder().encode

EventKey = tuple[str, str]
"""(decision_id, event_id): an event id need only be unique under its decision."""
UnitEventKey = tuple[str, str, str]
"""(unit_type, unit, event_id): one of a unit's need only be unique under it."""


class Rows(NamedTuple):
    """What is to be stored: decisions as (decision_id, experiment, body), events as (decision_id,
    event_id, body), events of units as (unit_type, unit, event_id, body). A body is the record's
    JSON. Bundles are decisions too: (decision_id, experiment) of each, and what
    `topbill.log.bundles` makes of them.
    """

    decisions: list[tuple[str, str, bytes]]
    events: list[tuple[str, str, bytes]]
    # These have a default, since frames of earlier versions end before them.
    unit_events: list[tuple[str, str, str, bytes]] = []  # noqa: RUF012 (a field; see `none`)
    bundles: list[tuple[list[tuple[str, str]], bytes]] = []  # noqa: RUF012

    @classmethod
    def none(cls) -> Rows:
        """No row yet, in lists of its own."""
        return cls([], [], [], [])

    def __bool__(self) -> bool:
        return any(self)

    @property
    def total(self) -> int:
        """How many rows it is, each of a bundle counted."""
        bundled = sum(len(ids) for ids, _ in self.bundles)
        return len(self.decisions) + len(self.events) + len(self.unit_events) + bundled


class Entry(NamedTuple):
    """Rows that are stored together or not at all.

    `keyed_decisions`, `keyed_events` and `keyed_unit_events` say which ids the callers chose: only
    those can have been used before. Of an entry that is `whole`, nothing is stored where one of its
    keyed decisions was before. `page` is the answer of the page that the decisions of a whole
    entry make together, where they do, which then need not be read from them.
    """

    decisions: Sequence[Decision] = ()
    events: Sequence[RewardEvent] = ()
    keyed_decisions: frozenset[str] = frozenset()
    keyed_events: frozenset[EventKey] = frozenset()
    whole: bool = False
    unit_events: Sequence[UnitEvent] = ()
    keyed_unit_events: frozenset[UnitEventKey] = frozenset()
    page: PageAnswer | None = None


class Receipt(NamedTuple):
    """What the log says of an entry: the decisions that were stored before it, by id; of each
    event, and of each event of a unit, whether it is a duplicate; or the id that was used before
    with another content (then nothing of the entry was stored)."""

    stored: Mapping[str, Decision]
    duplicates: tuple[bool, ...]
    conflict: str | None = None
    unit_duplicates: tuple[bool, ...] = ()
    let_go: str | None = None
    """The id of a decision that was stored before and that the log holds no more: it only remembers
    the id. Nothing of the entry was stored."""


_NOTHING: Mapping[str, Decision] = MappingProxyType({})
_ALL_NEW = Receipt(_NOTHING, ())
"""Of an entry without events, none of whose decisions was stored before."""


def all_keyed(
    decisions: Sequence[Decision],
    events: Sequence[RewardEvent],
    unit_events: Sequence[UnitEvent] = (),
) -> Entry:
    """An entry of which every id is the caller's."""
    return Entry(
        decisions,
        events,
        frozenset(decision.decision_id for decision in decisions),
        frozenset((event.decision_id, event.event_id) for event in events),
        unit_events=unit_events,
        keyed_unit_events=frozenset(event.key for event in unit_events),
    )


class KeyedIds(NamedTuple):
    """Ids that may have been used before: what has to be looked up for a group."""

    decisions: set[str]
    events: set[EventKey]
    unit_events: set[UnitEventKey]

    @classmethod
    def of(cls, entries: Sequence[Entry]) -> KeyedIds:
        """All such ids of a group."""
        ids = cls(set(), set(), set())
        for entry in entries:
            if entry.keyed_decisions:
                ids.decisions.update(entry.keyed_decisions)
            if entry.keyed_events:
                ids.events.update(entry.keyed_events)
            if entry.keyed_unit_events:
                ids.unit_events.update(entry.keyed_unit_events)
        return ids

    def __bool__(self) -> bool:
        return any(self)


class Stored(Protocol):
    """What is known to be stored: at least what is of a group's keyed ids."""

    decisions: dict[str, Decision]
    """By id."""
    events: set[EventKey]
    unit_events: set[UnitEventKey]
    let_go: set[str]
    """Ids of decisions that were stored before and are only remembered."""


def admit(entry: Entry, at: int, stored: Stored, rows: Rows) -> Receipt:
    """Decide what of an entry is new, and what its caller is told.

    New rows, stamped `at`, are added to `rows`, and the ids that callers chose to the collections
    of what is stored, so that a later entry of the same group meets them. On a conflict nothing is
    added.

    Args:
        entry: What a caller handed in.
        at: The stamp of the group, µs.
        stored: At least what is stored of the entry's keyed ids.
        rows: What the group is going to write.
    """
    before: Mapping[str, Decision] = _NOTHING
    new = entry.decisions
    if entry.keyed_decisions:
        # All of them are looked at before the first row is added: an entry is stored whole or not
        # at all.
        found = _found(entry, stored)
        if isinstance(found, Receipt):
            return found
        if found:
            before = found
            if entry.whole:
                return Receipt(before, ())
            new = [decision for decision in new if decision.decision_id not in before]
        for decision in new:
            if decision.decision_id in entry.keyed_decisions:
                stored.decisions[decision.decision_id] = decision
    _admit_decisions(new, entry.page, at, rows)
    if not (entry.events or entry.unit_events):
        return Receipt(before, ()) if before else _ALL_NEW
    duplicates = _admit_events(entry.events, stored.events, rows)
    unit_duplicates = _admit_unit_events(entry.unit_events, stored.unit_events, rows)
    return Receipt(before, duplicates, unit_duplicates=unit_duplicates)


def _found(entry: Entry, stored: Stored) -> dict[str, Decision] | Receipt:
    """The decisions of an entry that are stored, by id; or the receipt of one that uses an id of
    the log's past in another way.
    """
    found: dict[str, Decision] = {}
    for decision in entry.decisions:
        decision_id = decision.decision_id
        if decision_id not in entry.keyed_decisions:
            continue
        if decision_id in stored.let_go:
            return Receipt({}, (), let_go=decision_id)
        earlier = stored.decisions.get(decision_id)
        if earlier is None:
            continue
        if earlier.request_hash != decision.request_hash:
            return Receipt({}, (), conflict=decision_id)
        found[decision_id] = earlier
    return found


def _admit_decisions(new: Sequence[Decision], page: PageAnswer | None, at: int, rows: Rows) -> None:
    """Add decisions that are new."""
    # Bodies go out without a stamp, which readers take from the row: draining may still have to
    # move it past the newest one of the tables.
    if is_bundled(new):
        ids = [(decision.decision_id, decision.experiment) for decision in new]
        rows.bundles.append((ids, bundle_of(new, page)))
    else:
        for decision in new:
            rows.decisions.append((decision.decision_id, decision.experiment, _encode(decision)))
    for decision in new:
        msgspec.structs.force_setattr(decision, "decided_at", at)


def _admit_events(
    events: Sequence[RewardEvent], stored: set[EventKey], rows: Rows
) -> tuple[bool, ...]:
    """Add the events of decisions that are new; of each, whether it is a duplicate."""
    duplicates = []
    for event in events:
        key = (event.decision_id, event.event_id)
        duplicates.append(key in stored)
        if key not in stored:
            rows.events.append((*key, _encode(event)))
            stored.add(key)
    return tuple(duplicates)


def _admit_unit_events(
    events: Sequence[UnitEvent], stored: set[UnitEventKey], rows: Rows
) -> tuple[bool, ...]:
    """Add the events of units that are new; of each, whether it is a duplicate."""
    duplicates = []
    for event in events:
        key = event.key
        duplicates.append(key in stored)
        if key not in stored:
            rows.unit_events.append((*key, _encode(event)))
            stored.add(key)
    return tuple(duplicates)
