"""The tables of the shared log's rows, looked through whole; see `row_tables`."""

from __future__ import annotations

import struct
from collections.abc import Collection, Iterator
from contextlib import suppress

import msgspec

from topbill.domain.records import Decision
from topbill.log.bundles import decisions_of
from topbill.log.entries import EventKey
from topbill.log.postgres_database import PostgresDatabase
from topbill.log.postgres_schema import LOW_BITS, PLACE_IN_BUNDLE
from topbill.log.sql_database import checksum
from topbill.log.stubs import LET_GO, unpacked_origin

_BODIES = """SELECT seq, body FROM decisions WHERE bundle IS NULL AND seq > ?
    ORDER BY seq LIMIT 10000"""
_NEXT_BUNDLE = "SELECT seq, content FROM bundles WHERE seq > ? ORDER BY seq LIMIT 1"
UNREADABLE = (ValueError, msgspec.DecodeError, struct.error)


class PostgresRowTables:
    """Those of the log at a URL."""

    def __init__(self, url: str) -> None:
        self.database = PostgresDatabase(url, create=False)

    def bodies_with(self, text: bytes) -> list[tuple[str, str, bytes]]:
        """See `RowTables`."""
        return self.database.rows(
            "SELECT decision_id, experiment, body FROM decisions "
            "WHERE bundle IS NULL AND position(?::bytea IN body) > 0",
            (text,),
        )

    def bodies(self) -> Iterator[bytes]:
        """See `RowTables`."""
        after = 0
        while True:
            with self.database.snapshot():
                rows = self.database.rows(_BODIES, (after,))
            if not rows:
                break
            for _, body in rows:
                yield body
            after = rows[-1][0]

    def bundles(self) -> Iterator[tuple[int, list[Decision]]]:
        """See `RowTables`."""
        place = 0
        while rows := self.database.rows(_NEXT_BUNDLE, (place,)):
            place, content = rows[0]
            with suppress(*UNREADABLE):
                yield place, decisions_of(content)

    def undo_bundles(self, places: Collection[int]) -> None:
        """See `RowTables`."""
        query = "SELECT seq, content FROM bundles WHERE seq = ANY(?)"
        for place, content in self.database.rows(query, (list(places),)):
            decisions = decisions_of(content)
            rows = self.database.rows(
                "SELECT seq, decision_id, experiment, body FROM decisions WHERE bundle = ?",
                (place,),
            )
            for seq, decision_id, experiment, reference in rows:
                index, _ = PLACE_IN_BUNDLE.unpack(reference)
                body = msgspec.json.encode(decisions[index])
                self.database.execute(
                    "UPDATE decisions SET bundle = NULL, body = ?, checksum = ? WHERE seq = ?",
                    (body, checksum((decision_id, experiment, body)), seq),
                )
            self.database.execute("DELETE FROM bundles WHERE seq = ?", (place,))

    def let_go_of(self, unit: str) -> list[tuple[str, str]]:
        """See `RowTables`."""
        query = f"SELECT decision_id, origin {LET_GO} AND position(?::bytea IN origin) > 0"
        found = []
        for decision_id, packed in self.database.rows(query, (msgspec.json.encode(unit),)):
            origin = unpacked_origin(packed)
            # One that cannot be read but has the id in it is the unit's.
            if origin is None or origin.unit == unit:
                found.append((decision_id, "" if origin is None else origin.experiment or ""))
        return found

    def units_let_go(self) -> set[str]:
        """See `RowTables`."""
        units: set[str] = set()
        after = 0
        query = "SELECT seq, origin FROM stubs WHERE seq > ? ORDER BY seq LIMIT 10000"
        while rows := self.database.rows(query, (after,)):
            origins = [unpacked_origin(packed) for _, packed in rows]
            units.update(origin.unit for origin in origins if origin is not None and origin.unit)
            after = rows[-1][0]
        return units

    def delete_decisions(self, decision_ids: Collection[str]) -> None:
        """See `RowTables`."""
        for decision_id in decision_ids:
            # By its place: ids have an index in the stubs alone.
            of_it = "= (SELECT seq FROM stubs WHERE decision_id = ?)"
            self.database.execute(f"DELETE FROM decision_rows WHERE seq {of_it}", (decision_id,))  # noqa: S608 (own names)
            self.database.execute("DELETE FROM stubs WHERE decision_id = ?", (decision_id,))

    def stamped_decision(self, decision_id: str) -> list[tuple[str, int, int]]:
        """See `RowTables`."""
        query = "SELECT decision_id, seq FROM stubs WHERE decision_id = ?"
        return [(name, seq, _stamp(seq)) for name, seq in self.database.rows(query, (decision_id,))]

    def stamped_event(self, key: EventKey) -> list[tuple[str, str, int]]:
        """See `RowTables`."""
        rows = self.database.rows(
            "SELECT decision_id, event_id, seq FROM reward_events "
            "WHERE decision_id = ? AND event_id = ?",
            key,
        )
        return [(decision_id, event_id, _stamp(seq)) for decision_id, event_id, seq in rows]

    def count_before(self, table: str, before: int) -> int:
        """See `RowTables`."""
        query = f"SELECT count(*) FROM {table} WHERE seq < ?"  # noqa: S608 (own names)
        ((count,),) = self.database.rows(query, (-(-before // 1_000) << LOW_BITS,))
        return int(count)

    def wipe(self) -> None:
        """Have the server overwrite the place of what was deleted. What its write-ahead log, its
        standbys and its backups hold is theirs to let go.
        """
        # What is let go lies in its hour's table until all of that is.
        self.database.rows("DELETE FROM decision_rows WHERE seq <= (SELECT through FROM forgotten)")
        # Of tables that this role does not own the server only says that it leaves them.
        self.database.rows(
            "VACUUM decision_rows, stubs, bundles, reward_events, unit_events, quarantine"
        )

    def close(self) -> None:
        """Let go of the database."""
        self.database.close()


def _stamp(seq: int) -> int:
    return (seq >> LOW_BITS) * 1_000
