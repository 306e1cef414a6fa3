"""Each decision of a log once: at-least-once joins and retries write some twice."""

from __future__ import annotations

import sqlite3
from collections.abc import Iterator
from hashlib import blake2b
from pathlib import Path
from types import TracebackType

import msgspec

from topbill.domain.errors import BadData
from topbill.domain.records import RewardEvent
from topbill.formats.rows import ReadNotes, Row

_TABLE = "CREATE TABLE seen (id INTEGER PRIMARY KEY, content INTEGER, number INTEGER)"
_HINT = "; where the id is a viewer's, who came again, import with --unit EventId"
_INSERT = "INSERT OR IGNORE INTO seen VALUES (?, ?, ?)"


class Repeats:
    """The decisions that were read so far, by hash, on disk: a log may have more than memory holds.

    64 bits are enough: among ten million ids two agree by chance once in 400,000 logs, and then an
    error names them.
    """

    def __init__(self, folder: Path, notes: ReadNotes) -> None:
        self._path = folder / "importing.ids"
        self._path.unlink(missing_ok=True)
        self._notes = notes
        # Nothing of it outlives the import, so that nothing has to be safe.
        self._seen = sqlite3.connect(self._path, isolation_level=None)
        self._seen.execute("PRAGMA journal_mode = OFF")
        self._seen.execute("PRAGMA synchronous = OFF")
        self._seen.execute("PRAGMA cache_size = -64000")
        self._seen.execute(_TABLE)
        self._seen.execute("BEGIN")

    def once(self, rows: Iterator[Row]) -> Iterator[Row]:
        """The rows without those that were there already, word for word; these are counted.

        Raises:
            BadData: Naming both, for a decision that is there twice and not alike.
        """
        for place, (decision, events) in enumerate(rows):
            number = self._notes.line or place
            unit = "line" if self._notes.line else "row"
            row = decision, self._events_once(events, f"{unit} {number}")
            content = _hash(msgspec.json.encode(row))
            key = _hash(decision.decision_id.encode())
            if self._seen.execute(_INSERT, (key, content, number)).rowcount:
                yield row
                continue
            query = "SELECT content, number FROM seen WHERE id = ?"
            earlier, first = self._seen.execute(query, (key,)).fetchone()
            if earlier != content:
                hint = _HINT if decision.unit == decision.decision_id else ""
                raise BadData(
                    f"{unit} {number}",
                    f"got decision {decision.decision_id!r} again, unlike that of {unit} {first}; "
                    "expected each id once, or the same again; join rewards to one, or give the "
                    f"other an id of its own{hint}",
                )
            self._notes.left_out["repeated decisions"] += 1

    def _events_once(self, events: list[RewardEvent], where: str) -> list[RewardEvent]:
        """A decision's events, each id once."""
        if len(events) < 2:
            return events
        by_id: dict[str, RewardEvent] = {}
        for event in events:
            first = by_id.setdefault(event.event_id, event)
            if first is event:
                continue
            if first != event:
                raise BadData(
                    where,
                    f"got event {event.event_id!r} of decision {event.decision_id!r} twice, and "
                    "not alike; expected each id once; give the other one of its own",
                )
            self._notes.left_out["repeated events"] += 1
        return list(by_id.values())

    def __enter__(self) -> Repeats:
        return self

    def __exit__(
        self,
        _kind: type[BaseException] | None,
        _error: BaseException | None,
        _trace: TracebackType | None,
    ) -> None:
        self._seen.close()
        self._path.unlink(missing_ok=True)


def _hash(content: bytes) -> int:
    """64 bits with a sign, as SQLite has them."""
    return int.from_bytes(blake2b(content, digest_size=8).digest(), "little", signed=True)
