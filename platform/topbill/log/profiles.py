"""The limits of profiles, and which guests they were, in a log's database."""

from __future__ import annotations

from collections.abc import Iterable

from topbill.domain.errors import LogError
from topbill.domain.profile import Merge, MergedProfile, ProfileChange, ProfileLimits
from topbill.log.protocol import Clock
from topbill.log.sql_database import CHECKED, SqlDatabase, Value, checksum

_COLUMNS = ", ".join(CHECKED["profiles"])
_READ = f"SELECT checksum, {_COLUMNS} FROM profiles WHERE unit = ?"  # noqa: S608 (names of ours)
_IS_MERGED = "SELECT 1 FROM merges WHERE unit = ? AND merged = ?"
_MERGES = "SELECT place, unit, unit_type, merged FROM merges WHERE place > ? ORDER BY place LIMIT ?"
_NO_AGE = -1
"""What stands for no age limit, as an empty text does for no region: a checksum is of values."""


class ProfileTable:
    """The tables `profiles` and `merges` of a database. Its methods are those of `Log`."""

    def __init__(self, database: SqlDatabase, clock: Clock) -> None:
        self._database = database
        self._clock = clock

    def read(self, unit: str) -> ProfileLimits | None:
        """A profile's limits; None where it has none. Raises LogError for a damaged row: nobody
        may be shown more because of it.
        """
        rows = self._database.rows(_READ, (unit,))
        if not rows:
            return None
        expected, *row = rows[0]
        if None in row or checksum(row) != expected:
            raise LogError(
                f"{self._database.name}: the limits of a profile are not what was stored; set them "
                "again, or put the file back from a backup"
            )
        _, _, kids, maturity, region, _ = row
        return ProfileLimits(bool(kids), None if maturity == _NO_AGE else maturity, region or None)

    def change(self, unit: str, unit_type: str, change: ProfileChange) -> ProfileLimits:
        """Change them, and return what they are then."""
        with self._database.transaction():
            limits = change.applied_to(self._before(unit, change))
            self._write(unit, unit_type, limits)
        return limits

    def _write(self, unit: str, unit_type: str, limits: ProfileLimits) -> None:
        age = _NO_AGE if limits.maturity is None else limits.maturity
        row: tuple[Value, ...] = (
            unit,
            unit_type,
            int(limits.kids),
            age,
            limits.region or "",
            self._clock(),
        )
        self._database.insert("profiles", [row], "replace")

    def merge(
        self, unit: str, unit_type: str, merged: str, limited_by: Iterable[str]
    ) -> MergedProfile:
        """Note a merge once, and what the profile may see from then on."""
        with self._database.transaction():
            limits = self.read(unit)
            if self._database.rows(_IS_MERGED, (unit, merged)):
                return MergedProfile(limits, is_new=False)
            row = (unit, unit_type, merged, self._clock())
            self._database.insert("merges", [row])
            before = limits
            for name in limited_by:
                other = self.read(name)
                if other is not None:
                    limits = (limits or ProfileLimits()).stricter(other)
            if limits is not None and limits != before:
                self._write(unit, unit_type, limits)
        return MergedProfile(limits, is_new=True)

    def merges(self, after: int, limit: int) -> list[Merge]:
        """The next merges after a place."""
        return [Merge(*row) for row in self._database.rows(_MERGES, (after, limit))]

    def _before(self, unit: str, change: ProfileChange) -> ProfileLimits:
        try:
            return self.read(unit) or ProfileLimits()
        except LogError:
            # A change that says everything leaves nothing of what is damaged.
            if change.is_whole:
                return ProfileLimits()
            raise

    def remove(self, unit: str) -> bool:
        """Remove them; returns whether there were any."""
        with self._database.transaction():
            removed = self._database.execute("DELETE FROM profiles WHERE unit = ?", (unit,))
        return removed.rowcount > 0
