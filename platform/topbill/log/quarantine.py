"""What a log keeps of rows that were set aside, and of the worker's life."""

from __future__ import annotations

from collections.abc import Sequence

from topbill.domain.records import QuarantinedRow, QuarantineStage, RowKind
from topbill.log.protocol import Clock, Heartbeat
from topbill.log.sql_database import SqlDatabase

_LONGEST_REASON = 500


class QuarantineTable:
    """The table `quarantine` of a database. Its methods are those of `Log`."""

    def __init__(self, database: SqlDatabase, clock: Clock) -> None:
        self._database = database
        self._clock = clock

    def add(self, rows: Sequence[QuarantinedRow]) -> int:
        """Note rows, each once for each stage; returns how many are new."""
        before = sum(self.counts().values())
        with self._database.transaction():
            values = [(*row[:6], short_reason(row.reason), row.body, self._clock()) for row in rows]
            self._database.insert("quarantine", values, "keep")
        return sum(self.counts().values()) - before

    def read(self, experiment: str | None, limit: int) -> list[QuarantinedRow]:
        """The last rows of one experiment, or of all, oldest first, without bodies."""
        rows = self._database.rows(
            """SELECT kind, stage, experiment, id, belongs_to, seq, reason, at
               FROM quarantine WHERE CAST(? AS TEXT) IS NULL OR experiment = ?
               ORDER BY place DESC LIMIT ?""",
            (experiment, experiment, limit),
        )
        quarantined = []
        for *row, at in reversed(rows):
            quarantined.append(QuarantinedRow(*row)._replace(quarantined_at=at))
        return quarantined

    def counts(self) -> dict[tuple[RowKind, QuarantineStage], int]:
        """How many there are, by kind and stage."""
        query = "SELECT kind, stage, count(*) FROM quarantine GROUP BY kind, stage"
        return {(kind, stage): count for kind, stage, count in self._database.rows(query)}


class HeartbeatTable:
    """The table `heartbeat` of a database. Its methods are those of `Log`."""

    def __init__(self, database: SqlDatabase, clock: Clock) -> None:
        self._database = database
        self._clock = clock

    def beat(self, published_at: int) -> None:
        """Note that the worker is at work now."""
        with self._database.transaction():
            row = (0, self._clock(), published_at)
            self._database.insert("heartbeat", [row], "replace")

    def read(self) -> Heartbeat | None:
        """The last sign of life."""
        rows = self._database.rows("SELECT at, published_at FROM heartbeat")
        return Heartbeat(*rows[0]) if rows else None


def short_reason(reason: str) -> str:
    """A reason that every table can hold: no half characters, and not a whole body."""
    return reason.encode(errors="backslashreplace").decode()[:_LONGEST_REASON]
