"""Leases in PostgreSQL: advisory locks of one connection, which the server frees when that ends, at
once where the process does, and some seconds after a cable was cut.
"""

from __future__ import annotations

from collections.abc import Collection, Iterable
from typing import Any

from topbill.domain.errors import Conflict, LogError
from topbill.log.postgres_database import PostgresDatabase
from topbill.log.protocol import Lease, Leases

_LOCK = "hashtextextended(current_schema() || '.lease.' || name, 0)"
_HOLDERS = f"""SELECT name, pid FROM unnest(?::text[]) AS name JOIN pg_locks ON
    (classid::bigint << 32) + objid::bigint = {_LOCK}
    WHERE locktype = 'advisory' AND objsubid = 1 AND granted
    AND database = (SELECT oid FROM pg_database WHERE datname = current_database())
    ORDER BY name, pid"""  # noqa: S608 (our own text)


class AdvisoryLeases(Leases):
    """The leases of one holder on a shared log, over a connection of its own.

    Raises LogError where the server cannot be reached.
    """

    def __init__(self, url: str) -> None:
        self._database = PostgresDatabase(url, create=False)
        self.name = self._database.name
        """How messages call the log."""
        try:
            self.me: int = self._database.rows("SELECT pg_backend_pid()")[0][0]
            """By what `holders` knows this one."""
        except BaseException:
            self._database.close()
            raise
        self._held: dict[str, str] = {}

    def take(self, name: str, *, shared: bool = False) -> bool:
        """Whether it could be taken, or was held already."""
        if name in self._held:
            return True
        kind = "_shared" if shared else ""
        query = f"SELECT pg_try_advisory_lock{kind}({_LOCK}) FROM (VALUES (?)) AS t (name)"  # noqa: S608
        ((is_taken,),) = self._rows(query, (name,))
        if is_taken:
            self._held[name] = kind
        return bool(is_taken)

    def give_back(self, name: str) -> None:
        """Let others have it."""
        kind = self._held.pop(name)
        query = f"SELECT pg_advisory_unlock{kind}({_LOCK}) FROM (VALUES (?)) AS t (name)"  # noqa: S608
        self._rows(query, (name,))

    def holders(self, names: Iterable[str]) -> dict[str, list[int]]:
        """Who holds each of these now; those that nobody does are left out."""
        found: dict[str, list[int]] = {}
        for name, pid in self._rows(_HOLDERS, (list(names),)):
            found.setdefault(name, []).append(pid)
        return found

    def check(self) -> None:
        """Raises LogError where the connection was lost, and all leases with it."""
        self._rows("SELECT", ())

    def _rows(self, query: str, values: Collection[object]) -> list[Any]:
        rows = self._database.rows(query, list(values))
        if self._database.connections != 1:
            names = ", ".join(map(repr, self._held))
            self.close()
            raise LogError(
                f"{self.name}: the connection was lost and {names} with it; another process may "
                "hold it by now"
            )
        return rows

    def close(self) -> None:
        """Give all of them back."""
        self._held = {}
        self._database.close()


class AdvisoryLease(Lease):
    """One lease, over a connection of its own.

    Raises:
        Conflict: Another holder has it, alone or because this one wants it alone.
        LogError: The server cannot be reached.
    """

    def __init__(self, url: str, name: str, *, shared: bool = False) -> None:
        self._leases = AdvisoryLeases(url)
        try:
            if not self._leases.take(name, shared=shared):
                raise Conflict(f"{self._leases.name}: another process holds {name!r}")
        except BaseException:
            self._leases.close()
            raise

    def check(self) -> None:
        """Raises LogError where the connection was lost, and the lock with it."""
        self._leases.check()

    def release(self) -> None:
        """Give it back."""
        self._leases.close()
