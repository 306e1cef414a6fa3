"""Hearing at once of new policy versions: PostgreSQL's LISTEN, over a connection of its own."""

from __future__ import annotations

from topbill.log.postgres_database import PostgresDatabase
from topbill.log.protocol import Listener

CHANNEL = "'topbill_' || md5(current_schema())"
"""As SQL: the log's own, of all that lie in one database."""


class SnapshotListener(Listener):
    """Raises LogError where the server cannot be reached."""

    def __init__(self, url: str) -> None:
        self._database = PostgresDatabase(url, create=False)
        try:
            ((channel,),) = self._database.rows(f"SELECT {CHANNEL}")
            self._database.rows(f"LISTEN {channel}")
        except BaseException:
            self._database.close()
            raise

    def wait(self, seconds: float) -> bool:
        """Whether something was announced, waiting for it for so long."""
        return self._database.is_notified(seconds)

    def close(self) -> None:
        """Hear no more."""
        self._database.close()
