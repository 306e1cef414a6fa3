"""What viewers of a page saw and did, read from the lake by a process of its own: with it ends what
DuckDB takes of memory, a fifth of what a service has.

    python -m topbill.lake.viewed DATA SOUGHT

It is told what is `Sought` as JSON, and writes a line of JSON for each thing that it finds: first
`Through`, then pages and events in the order in which they happened, and at the end
`Ended`.
"""

from __future__ import annotations

import signal
import subprocess
import sys
from collections.abc import Iterator
from heapq import merge
from operator import attrgetter
from pathlib import Path
from typing import Any

import msgspec

from topbill.domain.errors import LogError, NotFound

_LAST_SEQS = """
SELECT (SELECT coalesce(max(seq), 0) FROM decisions), (SELECT coalesce(max(seq), 0) FROM rewards),
    (SELECT greatest(coalesce(max(seq), 0), 0) FROM events)
"""
_FIRST_PAGE = """
SELECT min(seq) FROM (SELECT seq FROM lake.decisions
WHERE experiment = $page AND epoch_us(decided_at) >= $since ORDER BY seq DESC LIMIT $most)
"""
_PAGES = """
SELECT seq, epoch_us(decided_at) / 1e6 AS decided_at, decision_id, unit, slate FROM lake.decisions
WHERE experiment = $page AND seq >= $from_seq ORDER BY seq LIMIT $most
"""
_EVENTS = """
FROM (SELECT epoch_us(occurred_at) / 1e6 AS occurred_at, unit, action, event, value FROM (
    SELECT occurred_at, unit, action, event, value FROM rewards WHERE experiment = $page
    UNION ALL
    SELECT occurred_at, unit, action, event, value FROM events
    WHERE list_contains($unit_types, unit_type)
) WHERE list_contains($events, event) AND action IS NOT NULL
ORDER BY occurred_at DESC LIMIT $most) ORDER BY occurred_at
"""
MOST_EVENTS = 1_000_000
"""Events that are read, the latest ones: no more titles of viewers are remembered."""
_BATCH = 10_000
"""Events that are in memory at once."""


class Sought(msgspec.Struct, frozen=True):
    """The pages of `page` since then (µs since the epoch), the last ones up to `most_pages`, of
    which `at_once` are in memory, and these events of its viewers, which are units of these types.
    """

    page: str
    since: int
    events: list[str]
    unit_types: list[str]
    most_pages: int
    at_once: int = 5_000


class Through(msgspec.Struct, frozen=True, tag=True, array_like=True):
    """The last `seq` of decisions, rewards and events that the lake has."""

    decision: int
    reward: int
    event: int


class ViewedPage(msgspec.Struct, frozen=True, tag=True, array_like=True):
    """A page, `at` seconds since the epoch, and the titles on it."""

    at: float
    page_id: str
    unit: str
    titles: list[str]


class ViewerEvent(msgspec.Struct, frozen=True, tag=True, array_like=True):
    """Something that happened with a title."""

    at: float
    unit: str
    title: str
    event: str
    value: float


class Ended(msgspec.Struct, frozen=True, tag=True, array_like=True):
    """That nothing more comes; `error` says why, where reading did not get to its end."""

    error: str = ""


Line = Through | ViewedPage | ViewerEvent | Ended
_decode = msgspec.json.Decoder(Line).decode
_encode = msgspec.json.Encoder().encode


def viewed(data: Path, sought: Sought) -> Iterator[Line]:
    """The lines of such a process; where there is no lake that can be read, that it ended."""
    command = [sys.executable, "-m", __name__, str(data), _encode(sought).decode()]
    with subprocess.Popen(command, stdout=subprocess.PIPE) as reader:  # noqa: S603 (our own)
        if reader.stdout is None:  # it was asked for
            return
        line: Line | None = None
        for text in reader.stdout:
            line = _decode(text)
            yield line
    if not isinstance(line, Ended):
        yield Ended(f"the process that reads the lake ended with {reader.returncode}")


def _read(data: Path, sought: Sought) -> Iterator[Line]:
    from topbill import lake

    try:
        connection = lake.connect(lake.database_of(data))
    except (NotFound, LogError):
        yield Ended()
        return
    with connection:
        try:
            ((decision, reward, event),) = connection.execute(_LAST_SEQS).fetchall()
            # Of its own, since the events are not read to their end when the first pages are.
            pages = _pages(connection.cursor(), sought)
            names = {"events": sought.events, "unit_types": sought.unit_types}
            values = {"page": sought.page, **names, "most": MOST_EVENTS}
            events = _events(connection.execute(_EVENTS, values))
            # First: where reading ends with an error, nothing that was taken in is again.
            yield Through(decision, reward, event)
            # A play ends the fatigue of the pages before it only: at one time a page comes first.
            yield from merge(pages, events, key=attrgetter("at"))
        except lake.Error as error:
            yield Ended(str(error))
            return
    yield Ended()


def _pages(connection: Any, sought: Sought) -> Iterator[ViewedPage | ViewerEvent]:
    """The latest pages, in the order in which they were made."""
    first = {"page": sought.page, "since": sought.since, "most": sought.most_pages}
    ((from_seq,),) = connection.execute(_FIRST_PAGE, first).fetchall()
    while from_seq is not None:
        batch = {"page": sought.page, "from_seq": from_seq, "most": sought.at_once}
        rows = connection.execute(_PAGES, batch).fetchall()
        for _, at, page_id, unit, titles in rows:
            yield ViewedPage(at, page_id, unit, titles)
        from_seq = rows[-1][0] + 1 if len(rows) == sought.at_once else None


def _events(found: Any) -> Iterator[ViewedPage | ViewerEvent]:
    while rows := found.fetchmany(_BATCH):
        for row in rows:
            yield ViewerEvent(*row)


def main() -> None:
    """Read and write."""
    # Where whoever asked is gone, there is nobody to tell.
    signal.signal(signal.SIGPIPE, signal.SIG_DFL)
    sought = msgspec.json.decode(sys.argv[2], type=Sought)
    for line in _read(Path(sys.argv[1]), sought):
        sys.stdout.buffer.write(_encode(line) + b"\n")


if __name__ == "__main__":
    main()
