"""The audit in a log's database: what each experiment was, from when on, and by whom."""

from __future__ import annotations

from topbill.log.protocol import Clock, Revision
from topbill.log.sql_database import SqlDatabase


class RevisionTable:
    """The table `revisions` of a database. Its methods are those of `Log`."""

    def __init__(self, database: SqlDatabase, clock: Clock) -> None:
        self._database = database
        self._clock = clock

    def note(self, experiment: str, revision: str, who: str, spec: str) -> bool:
        """Add a line unless the newest one says the same; returns whether it did."""
        # Every process of a service says at its start what it read. Nearly always all is noted
        # already, so the first look needs no write lock; the second one is what counts.
        if self._newest(experiment) == revision:
            return False
        with self._database.transaction():
            if self._newest(experiment) == revision:
                return False
            row = (experiment, revision, self._clock(), who, spec)
            self._database.insert("revisions", [row])
        return True

    def read(self, experiment: str | None) -> list[Revision]:
        """The lines of one experiment, or of all, oldest first."""
        rows = self._database.rows(
            """SELECT experiment, revision, at, who, spec FROM revisions
               WHERE CAST(? AS TEXT) IS NULL OR experiment = ? ORDER BY seq""",
            (experiment, experiment),
        )
        return [Revision(*row) for row in rows]

    def newest(self) -> dict[str, str]:
        """The newest revision of every experiment."""
        rows = self._database.rows(
            "SELECT experiment, revision FROM revisions "
            "WHERE seq IN (SELECT max(seq) FROM revisions GROUP BY experiment)"
        )
        return dict(rows)

    def _newest(self, experiment: str) -> str | None:
        query = "SELECT revision FROM revisions WHERE experiment = ? ORDER BY seq DESC LIMIT 1"
        rows = self._database.rows(query, (experiment,))
        return rows[0][0] if rows else None
