"""Damage of the rows of a log in PostgreSQL: told, row by row."""

from __future__ import annotations

import zlib
from collections.abc import Iterator, Sequence
from contextlib import closing
from itertools import islice

from topbill.log.bundles import decisions_of
from topbill.log.postgres_database import PostgresDatabase
from topbill.log.postgres_rows import UNREADABLE
from topbill.log.postgres_schema import LOW_BITS, NAMES, PLACE_IN_BUNDLE
from topbill.log.sql_database import CHECKED, ROWS, SNAPSHOTS, checksum

_SOURCES = {
    "decisions": "decision_rows",
    "policy_snapshots": "policy_snapshots JOIN snapshot_checksums USING (experiment, version)",
}
"""Where rows and their checksums are, if not in the table itself."""
_BUNDLED = f"""SELECT d.decision_id, d.body, d.bundle, b.content
    FROM decision_rows d LEFT JOIN bundles b ON b.seq = d.bundle
    WHERE d.bundle IS NOT NULL AND length(d.body) = {PLACE_IN_BUNDLE.size} ORDER BY d.bundle"""  # noqa: S608 (own number)


def rows_damage(url: str) -> list[str]:
    """The rows of the log at a URL that are not as they were stored, at most ten; services and
    workers may be at work. What PostgreSQL reads wrong of its pages it says by itself.

    Raises:
        NotFound: There is no log.
        LogError: It cannot be read.
    """
    with closing(PostgresDatabase(url, create=False)) as database, database.snapshot():
        return list(islice(_damaged(database), 10))


def end(url: str) -> int:
    """The last `seq` that a row can have which any reader has read by now. Raises as `rows_damage`
    does.
    """
    with closing(PostgresDatabase(url, create=False)) as database:
        ((at,),) = database.rows("SELECT at FROM clock")
    return (int(at) + 1 << LOW_BITS) - 1


def _damaged(database: PostgresDatabase) -> Iterator[str]:
    tables: dict[str, Sequence[str]] = {
        # A row has its stamp in its `seq`, and its checksum is without it.
        **{table: ROWS.get(table, columns) for table, columns in CHECKED.items()},
        "policy_snapshots": SNAPSHOTS["policy_snapshots"],
    }
    for table, columns in tables.items():
        source = _SOURCES.get(table, table)
        if source.partition(" ")[0] not in NAMES:
            continue
        query = f"SELECT checksum, {', '.join(columns)} FROM {source}"  # noqa: S608 (own names)
        for expected, *row in database.stream(query):
            if checksum(row) != expected:
                yield f"{database.name}: damaged: {table}, {_name(row)} is not what was stored"
    yield from _damaged_bundles(database)


def _damaged_bundles(database: PostgresDatabase) -> Iterator[str]:
    place, found, count = -1, 0, 0
    for decision_id, body, bundle, content in database.stream(_BUNDLED):
        if bundle != place:
            place, found, count = bundle, zlib.crc32(content or b""), _length(content)
        index, crc = PLACE_IN_BUNDLE.unpack(body)
        if crc != found or index >= count:
            yield (
                f"{database.name}: damaged: the bundle of decision {decision_id} is not what was "
                "stored"
            )


def _length(content: bytes | None) -> int:
    """How many decisions a bundle has; none where it cannot be read, or is missing."""
    try:
        return 0 if content is None else len(decisions_of(content))
    except UNREADABLE:
        return 0


def _name(row: Sequence[object]) -> str:
    """The row by its first two columns."""
    return " ".join(str(value)[:80] for value in row[:2] if not isinstance(value, bytes))
