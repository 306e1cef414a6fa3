"""Policy snapshots in a log's database: versions that count up by one, each written once.

Held by the log rather than part of it: snapshots share the database and its transactions with the
rows, and nothing else. They are never journaled, for a version is written every few seconds at
most.
"""

from __future__ import annotations

import msgspec

from topbill.domain.errors import Conflict, DamagedSnapshot
from topbill.domain.records import Snapshot, SnapshotHead
from topbill.log.protocol import Clock
from topbill.log.sql_database import WITHOUT_SNAPSHOT, SqlDatabase, checksum

_CHECKSUM = """SELECT checksum FROM snapshot_checksums c
    WHERE c.experiment = s.experiment AND c.version = s.version"""
_ENGINES = "SELECT variant, engine FROM policy_engines WHERE experiment = ? AND version = ?"


class SnapshotTable:
    """The table `policy_snapshots` of a database, and beside it `policy_engines`. Its methods are
    those of `Log`.
    """

    def __init__(self, database: SqlDatabase, clock: Clock) -> None:
        self._database = database
        self._clock = clock

    def versions(self) -> dict[str, int]:
        """The newest version of every experiment that has one."""
        query = "SELECT experiment, max(version) FROM policy_snapshots GROUP BY experiment"
        return dict(self._database.rows(query))

    def version(self, experiment: str) -> int:
        """The newest version of an experiment, or 0."""
        query = "SELECT coalesce(max(version), 0) FROM policy_snapshots WHERE experiment = ?"
        return int(self._database.rows(query, (experiment,))[0][0])

    def read(self, experiment: str, version: int | None) -> Snapshot | None:
        """The snapshot of a version, or the newest one."""
        rows = self._database.rows(
            f"""SELECT version, watermark, fingerprint, blob, at, start, refit_at, ({_CHECKSUM})
               FROM policy_snapshots s
               WHERE experiment = ? AND version = coalesce(?,
                   (SELECT max(version) FROM policy_snapshots WHERE experiment = ?))""",  # noqa: S608
            (experiment, version, experiment),
        )
        if not rows:
            return None
        version, watermark, fingerprint, blob, at, start, refit_at, expected = rows[0]
        row = (experiment, version, watermark, at, fingerprint, start, refit_at, blob)
        try:
            if expected not in (None, checksum(row)):
                raise ValueError("it is not what was stored")
            states = msgspec.msgpack.decode(blob, type=dict[str, bytes])
        except (msgspec.DecodeError, ValueError, TypeError) as error:
            raise DamagedSnapshot(
                f"{self._database.name}: snapshot {experiment} v{version} cannot be read: {error}; "
                f"write it again: topbill verify {experiment} --repair"
            ) from error
        return Snapshot(
            experiment=experiment,
            version=version,
            watermark=watermark,
            fingerprint=fingerprint,
            states=states,
            start=start,
            refit_at=refit_at,
            at=at,
            engines=dict(self._database.rows(_ENGINES, (experiment, version))),
        )

    def heads(self, experiment: str) -> list[SnapshotHead]:
        """What stands beside the states of an experiment's snapshots, newest first."""
        rows = self._database.rows(
            """SELECT version, watermark, fingerprint, start, refit_at FROM policy_snapshots
               WHERE experiment = ? ORDER BY version DESC""",
            (experiment,),
        )
        return [SnapshotHead(*row) for row in rows]

    def write(self, snapshot: Snapshot) -> None:
        """Add the successor of the newest version; raises Conflict for any other."""
        blob = msgspec.msgpack.encode(snapshot.states)
        with self._database.transaction():
            # The comparison stands inside of the write lock: of two learners that fold the same
            # version, the second one finds the first one's row here.
            newest = self.version(snapshot.experiment)
            if snapshot.version != newest + 1:
                raise not_the_successor(snapshot, newest)
            row = (
                snapshot.experiment,
                snapshot.version,
                snapshot.watermark,
                self._clock(),
                snapshot.fingerprint,
                snapshot.start,
                snapshot.refit_at,
                blob,
            )
            self._database.execute(
                "INSERT INTO policy_snapshots VALUES (?, ?, ?, ?, ?, ?, ?, ?)", row
            )
            self._database.execute(
                "INSERT INTO snapshot_checksums VALUES (?, ?, ?) "
                "ON CONFLICT (experiment, version) DO UPDATE SET checksum = excluded.checksum",
                (*row[:2], checksum(row)),
            )
            engines = [(*row[:2], *each) for each in snapshot.engines.items()]
            self._database.insert("policy_engines", engines)

    def forget(self, before: int) -> int:
        """Delete those that had a successor by `before` (µs), but for those from which the fold is
        verified after an erasure; returns how many went.
        """
        with self._database.transaction():
            cursor = self._database.execute(
                """DELETE FROM policy_snapshots WHERE version < (
                       SELECT max(s.version) FROM policy_snapshots s
                       WHERE s.experiment = policy_snapshots.experiment AND s.at < ?)
                   AND (experiment, version) NOT IN (
                       SELECT experiment, max(version) FROM erasures GROUP BY experiment)""",
                (before,),
            )
            for statement in WITHOUT_SNAPSHOT:
                self._database.execute(statement)
        return cursor.rowcount


def not_the_successor(snapshot: Snapshot, newest: int) -> Conflict:
    """The refusal of a snapshot, for every log in the same words."""
    return Conflict(
        f"snapshot {snapshot.experiment} v{snapshot.version}: the log holds v{newest} already; "
        "another worker is busy with this data folder: stop one of them"
    )
