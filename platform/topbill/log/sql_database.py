"""What a log's tables need of a database, be it SQLite or PostgreSQL, and how their rows are
checked.

The SQL of the tables beside the rows (snapshots, the audit, orders, alarms, profiles, …) is written
once, in what both databases understand, with `?` for each value.
"""

from __future__ import annotations

import zlib
from collections.abc import Iterable, Sequence
from contextlib import AbstractContextManager
from typing import Any, Literal, Protocol

Value = str | bytes | int


def checksum(values: Sequence[Value]) -> int:
    """The CRC-32 of a row's values, by which `damage` knows it."""
    parts: list[bytes] = []
    for value in values:
        content = value if isinstance(value, bytes) else str(value).encode()
        parts += (len(content).to_bytes(4, "little"), content)
    return zlib.crc32(b"".join(parts))


ROWS = {
    "decisions": ("decision_id", "experiment", "body"),
    "reward_events": ("decision_id", "event_id", "body"),
    "unit_events": ("unit_type", "unit", "event_id", "body"),
}
"""The tables of what is stored, and of what each row is made beside its stamp and its checksum."""

CHECKED = {table: (*columns, "at") for table, columns in ROWS.items()} | {
    "policy_engines": ("experiment", "version", "variant", "engine"),
    "revisions": ("experiment", "revision", "at", "who", "spec"),
    "orders": (
        *("experiment", "revision", "made", "at", "who", "status", "because", "conclusion"),
        *("kind", "step", "traffic", "about"),
    ),
    "conclusions": (
        *("experiment", "revision", "made", "at", "who", "winner", "because", "report"),
    ),
    "alarms": ("alarm", "state", "kind", "experiment", "subject", "cause", "message", "at"),
    "alarm_messages": ("alarm", "state", "channel", "at"),
    "alarm_watches": ("experiment", "through", "memory"),
    "quarantine": (
        "kind",
        "stage",
        "experiment",
        "id",
        "belongs_to",
        "seq",
        "reason",
        "body",
        "at",
    ),
    "heartbeat": ("id", "at", "published_at"),
    "duties": ("name", "at", "body"),
    "remembered_ids": ("key", "seq", "at"),
    "erasures": ("at", "unit_hash", "experiment", "version", "decisions", "rewards"),
    "retentions": ("at", "kept_since", "decisions", "rewards", "events", "quarantined"),
    "profiles": ("unit", "unit_type", "kids", "maturity", "region", "at"),
    "merges": ("unit", "unit_type", "merged", "at"),
    "clock_steps": ("at", '"offset"', "decisions", "events"),
}
"""The tables whose rows have a checksum in a column of that name, and of what columns it is. What
is left out of a row is its place, which an index knows too.

Not here: `policy_snapshots`, whose checksums lie in a table of their own, since 0.1.0 writes that
one without naming columns; `bundles`, whose checksum their decisions have; `clock` and `journal`,
which 0.1.0 writes likewise, and which the rows and the journal's file contradict where they are
damaged. A row of PostgreSQL has its stamp in its `seq`: its checksum is without it.
"""

COPIED = {
    "revisions": "seq",
    "orders": "place",
    "conclusions": "place",
    "alarms": "place",
    "alarm_messages": "place",
    "alarm_watches": "experiment",
    "quarantine": "place",
    "erasures": "place",
    "retentions": "place",
    "profiles": "unit",
    "merges": "place",
}
"""What another log is told when it goes on in the place of one: all that is said once and holds
from then on; and the column that says in which order. Beside these its snapshots.
"""
SNAPSHOTS = {
    "policy_snapshots": (
        *("experiment", "version", "watermark", "at", "fingerprint", "start", "refit_at", "blob"),
    ),
    "snapshot_checksums": ("experiment", "version", "checksum"),
    "policy_engines": (*CHECKED["policy_engines"], "checksum"),
}
"""The tables of policies, and their columns."""

LATER = (
    "DELETE FROM policy_snapshots WHERE at > ?",
    "DELETE FROM revisions WHERE at > ?",
    "DELETE FROM orders WHERE at > ?",
    "DELETE FROM conclusions WHERE at > ?",
    "DELETE FROM alarms WHERE at > ?",
    "DELETE FROM alarm_messages WHERE at > ?",
    "DELETE FROM alarm_watches WHERE through > ?",
    "DELETE FROM quarantine WHERE at > ?",
    "DELETE FROM duties WHERE at > ?",
)
"""What takes out of the tables beside the rows what was said or learned after a moment."""
WITHOUT_SNAPSHOT = tuple(
    f"DELETE FROM {table} WHERE (experiment, version) NOT IN "  # noqa: S608 (own names)
    "(SELECT experiment, version FROM policy_snapshots)"
    for table in ("policy_engines", "snapshot_checksums")
)
"""What takes out what belongs to snapshots that are not there."""

Existing = Literal["refuse", "keep", "replace"]
"""What becomes of a row that is there already when it is inserted once more: an error, nothing, or
the new one takes its place. Replaced is by a table's first column.
"""


def insert_statement(table: str, existing: Existing) -> str:
    """The INSERT of a row of a table in `CHECKED` with its checksum."""
    columns = (*CHECKED[table], "checksum")
    marks = ", ".join("?" * len(columns))
    insert = f"INSERT INTO {table} ({', '.join(columns)}) VALUES ({marks})"  # noqa: S608 (own names)
    if existing == "keep":
        return f"{insert} ON CONFLICT DO NOTHING"
    if existing == "replace":
        values = ", ".join([f"{column} = excluded.{column}" for column in columns])
        return f"{insert} ON CONFLICT ({columns[0]}) DO UPDATE SET {values}"
    return insert


class SqlCursor(Protocol):
    """What a statement did."""

    @property
    def rowcount(self) -> int:
        """How many rows it changed."""

    def fetchall(self) -> list[Any]:
        """The rows that it gives."""


class SqlDatabase(Protocol):
    """A connection to a database. Not for several threads at once: a thread opens its own."""

    name: str
    """How messages call it."""

    def transaction(self) -> AbstractContextManager[None]:
        """Keep all others from writing to the tables beside the rows; commit durably or not at
        all. Raises LogError.
        """

    def rows(self, query: str, values: Sequence[Any] = ()) -> list[Any]:
        """All rows of a query. Raises LogError where the database can't be read."""

    def execute(self, statement: str, values: Sequence[Any] = ()) -> SqlCursor:
        """Run a statement inside of a transaction, which names what goes wrong."""

    def insert(
        self, table: str, rows: Iterable[Sequence[Value]], existing: Existing = "refuse"
    ) -> None:
        """Insert rows, each the values of the table's columns in `CHECKED`, with their checksums,
        inside of a transaction.
        """
