"""Which decisions and events a commit need not ask the tables for.

What was acknowledged lies in the journal until it is drained, and the journal can only be read from
its start: so each handle keeps an index of the ids in it. The handle's own rows come in with each
commit; those of other handles are read from the journal when somebody asks for an id.
"""

from __future__ import annotations

from collections import deque

import msgspec

from topbill.domain.records import Decision
from topbill.log.bundles import decisions_of
from topbill.log.entries import EventKey, Rows, UnitEventKey
from topbill.log.journal import Position

_decode = msgspec.json.Decoder(Decision).decode


class RecentIds:
    """The ids of what the tables do not hold of the journal, and those looked up in the tables
    meanwhile.

    What was moved into the tables is let go of with the next look. That bounds it by the journal's
    size.
    """

    def __init__(self) -> None:
        self.decisions: dict[str, Decision] = {}
        """By id; `decision` also finds those that are still encoded."""
        self.events: set[EventKey] = set()
        self.unit_events: set[UnitEventKey] = set()
        self.let_go: set[str] = set()
        """Decisions that the tables hold no more, and whose ids they remember."""
        self.drained: Position
        """Up to where the tables held the journal at the last look."""
        self.indexed_to: Position
        """Up to where in the journal the index is complete, from there on."""
        self._encoded: dict[str, tuple[int, bytes]] = {}
        """Stamp and body of each."""
        self._bundled: dict[str, tuple[int, bytes]] = {}
        """Stamp of each, and the bundle that it is in."""
        self._frames: deque[tuple[int, int, Rows]] = deque()
        """What is indexed: where each frame ends, its stamp, its rows."""
        self.restart()

    def restart(self, drained: Position = (0, 0)) -> None:
        """Know nothing, where the tables hold the journal up to there. By default up to nowhere,
        from where whoever follows the journal begins again.
        """
        self._frames.clear()
        self._empty()
        self.drained = self.indexed_to = drained

    def _empty(self) -> None:
        self.decisions, self.events, self.unit_events = {}, set(), set()
        self.let_go, self._encoded, self._bundled = set(), {}, {}

    def follow(self, drained: Position) -> None:
        """Let go of what the tables hold up to there, and of what was looked up in them. What lies
        behind that in the journal is not read again.
        """
        if drained == self.drained:
            return
        generation, byte = self.indexed_to
        if drained[0] != generation or drained[1] > byte:
            self.restart(drained)
            return
        while self._frames and self._frames[0][0] <= drained[1]:
            self._frames.popleft()
        self._empty()
        for _, at, rows in self._frames:
            self._index(rows, at)
        self.drained = drained

    def add(self, rows: Rows, at: int, to: Position) -> None:
        """Take in a frame that was written up to there, the next one of the journal. Bodies stay
        encoded until somebody asks for one: most are never asked for, decoding costs ten times as
        much, and so many objects more to keep.
        """
        self._frames.append((to[1], at, rows))
        self._index(rows, at)
        self.indexed_to = to

    def _index(self, rows: Rows, at: int) -> None:
        # Of rows with the same id the first one counts, as in the tables.
        for decision_id, _, body in rows.decisions:
            self._encoded.setdefault(decision_id, (at, body))
        for ids, bundle in rows.bundles:
            for decision_id, _ in ids:
                self._bundled.setdefault(decision_id, (at, bundle))
        for decision_id, event_id, _ in rows.events:
            self.events.add((decision_id, event_id))
        for unit_type, unit, event_id, _ in rows.unit_events:
            self.unit_events.add((unit_type, unit, event_id))

    def written(self, rows: Rows, at: int, to: Position) -> None:
        """The same of the handle's own rows: decisions that `admit` noted as objects, so that later
        entries of their group meet them, are kept encoded from here on.
        """
        for decision_id, _, _ in rows.decisions:
            self.decisions.pop(decision_id, None)
        self.add(rows, at, to)

    def decision(self, decision_id: str) -> Decision | None:
        """What is known of it without the tables."""
        known = self.decisions.get(decision_id)
        if known is not None:
            return known
        encoded = self._encoded.get(decision_id)
        if encoded is not None:
            at, body = encoded
            self.decisions[decision_id] = msgspec.structs.replace(_decode(body), decided_at=at)
        elif decision_id in self._bundled:
            at, bundle = self._bundled[decision_id]
            for decision in decisions_of(bundle):
                stamped = msgspec.structs.replace(decision, decided_at=at)
                self.decisions[decision.decision_id] = stamped
        else:
            return None
        return self.decisions[decision_id]
