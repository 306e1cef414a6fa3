"""What workers do and how they get on with it, in a log's database: what one of them knows of an
experiment, all others have to know.
"""

from __future__ import annotations

from collections.abc import Sequence

import msgspec

from topbill.log.protocol import Clock, Duty
from topbill.log.sql_database import SqlDatabase

_decode = msgspec.json.Decoder(Duty).decode


class DutyTable:
    """The table `duties` of a database. Its methods are those of `Log`."""

    def __init__(self, database: SqlDatabase, clock: Clock) -> None:
        self._database = database
        self._clock = clock

    def note(self, duties: Sequence[Duty]) -> None:
        """Note them in one transaction."""
        at = self._clock()
        rows = [(duty.name, at, msgspec.json.encode(duty)) for duty in duties]
        with self._database.transaction():
            self._database.insert("duties", rows, "replace")

    def read(self) -> dict[str, Duty]:
        """All that can be read."""
        duties = {}
        for name, at, body in self._database.rows("SELECT name, at, body FROM duties"):
            try:
                duties[name] = msgspec.structs.replace(_decode(body), at=at)
            except msgspec.MsgspecError:
                continue  # another version wrote it otherwise
        return duties
