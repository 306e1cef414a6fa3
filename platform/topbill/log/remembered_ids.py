"""The ids of rows that the log has let go: what was stored once is not stored again, for as long as
the horizon says, though the row itself is in the lake alone.

Of an id a digest is kept, not the text: an entry is as small for a long id as for a short one, and
says nothing of whoever it belonged to.
"""

from __future__ import annotations

from collections.abc import Collection, Iterable, Iterator, Sequence
from hashlib import blake2b
from typing import Any

import msgspec

from topbill.log.entries import EventKey
from topbill.log.sql_database import SqlDatabase

_pack = msgspec.msgpack.Encoder().encode
_CHUNK = 256
"""Keys of one statement."""
_TAKEN_OVER = 20_000
"""Ids that are taken over from another log at a time."""


class RememberedIds:
    """The table of ids let go, in the order in which they were."""

    def __init__(self, database: SqlDatabase) -> None:
        self._database = database

    def add(
        self,
        decisions: Iterable[tuple[str, int, int]],
        events: Iterable[tuple[str, str, int]],
        behind: int = 0,
    ) -> None:
        """Remember decisions as (decision_id, seq, at) and reward events as (decision_id, event_id,
        at), inside of the transaction that deletes them. `behind`: the last decision that was let
        go before these events, for who remembers decisions elsewhere.
        """
        rows = [(digest(decision_id), seq, at) for decision_id, seq, at in decisions]
        rows += [(digest(*key), behind, at) for *key, at in events]
        self._database.insert("remembered_ids", rows, "keep")

    def go_on_from(self, other: SqlDatabase) -> None:
        """Remember the ids of all that another log stores or remembers, inside of a transaction:
        its decisions lie in the lake, at the `seq` that they had there.
        """
        for own in _in_parts(other, "remembered_ids", "place", "key, seq, at"):
            self._database.insert("remembered_ids", own, "keep")
        for decisions in _in_parts(other, "decisions", "seq", "decision_id, seq, at"):
            self.add(decisions, [])
        for events in _in_parts(other, "reward_events", "seq", "decision_id, event_id, at"):
            self.add([], events)

    def places(self, decision_ids: Collection[str]) -> dict[str, int]:
        """The `seq` that those of the decisions had which are remembered, by id."""
        # To look takes less than the digests of two ids.
        if not decision_ids or self._is_empty:
            return {}
        by_key = {digest(decision_id): decision_id for decision_id in decision_ids}
        return {by_key[key]: seq for key, seq in self._rows(list(by_key))}

    def events(self, keys: Collection[EventKey]) -> list[EventKey]:
        """Those of the events that are remembered."""
        if not keys or self._is_empty:
            return []
        by_key = {digest(*key): key for key in keys}
        return [by_key[key] for key, _ in self._rows(list(by_key))]

    def forget(self, older_than: int, limit: int) -> int:
        """Forget the first ones, up to one that is stamped at or after `older_than`; returns how
        many went. Call it inside of a transaction."""
        oldest = self._database.execute(
            "SELECT place, at FROM remembered_ids ORDER BY place LIMIT ?", (limit,)
        )
        through = 0
        for place, at in oldest.fetchall():
            # They stand nearly in the order of their stamps: what comes first is kept a little
            # longer than it must be, never shorter.
            if at >= older_than:
                break
            through = place
        deleted = self._database.execute("DELETE FROM remembered_ids WHERE place <= ?", (through,))
        return deleted.rowcount

    @property
    def _is_empty(self) -> bool:
        """Whether nothing was let go yet, or all of it is forgotten."""
        return not self._database.rows("SELECT 1 FROM remembered_ids LIMIT 1")

    def _rows(self, keys: Sequence[bytes]) -> list[tuple[bytes, int]]:
        rows: list[tuple[bytes, int]] = []
        for start in range(0, len(keys), _CHUNK):
            chunk = keys[start : start + _CHUNK]
            marks = ",".join("?" * len(chunk))
            query = f"SELECT key, seq FROM remembered_ids WHERE key IN ({marks})"  # noqa: S608 (marks only)
            rows += self._database.rows(query, chunk)
        return rows


def _in_parts(database: SqlDatabase, table: str, place: str, columns: str) -> Iterator[list[Any]]:
    """These columns of all rows of a table, in the order of another."""
    after = 0
    while rows := database.rows(
        f"SELECT {place}, {columns} FROM {table} WHERE {place} > ? ORDER BY {place} LIMIT ?",  # noqa: S608
        (after, _TAKEN_OVER),
    ):
        after = rows[-1][0]
        yield [row[1:] for row in rows]


def digest(*parts: str) -> bytes:
    """12 bytes that stand for an id: among a billion ids two are alike once in 10^11."""
    return blake2b(_pack(parts), digest_size=12).digest()
