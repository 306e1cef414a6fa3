"""What a viewing history begins with: pages and plays that the log has forgotten and the lake has
kept. So a title that rests goes on resting after a restart.
"""

from __future__ import annotations

import logging
from collections.abc import Iterable, Iterator
from heapq import merge
from operator import itemgetter
from pathlib import Path
from typing import Any

from topbill import lake
from topbill.domain.errors import LogError, NotFound
from topbill.pages.viewing_history import MOST_PAGES, ViewingHistory

_logger = logging.getLogger("topbill")
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
_PAGES_AT_ONCE = 5_000
"""Pages that are: each names some hundred titles."""


def read_lake(history: ViewingHistory, data: Path, since: float) -> None:
    """Take in the page's pages since then (seconds since the epoch), and what its viewers ever did
    with titles, as the lake has them; the log is followed from there on. Without a lake, or with
    one that can't be read, the log alone is followed.
    """
    # Whatever comes of it, it is tried once: a lake that can't be read would be asked again at
    # every step.
    history.begun = True
    try:
        if not lake.is_published(data):
            return  # and nothing is waited for that would read it
        connection = lake.connect(lake.database_of(data))
    except (NotFound, LogError):
        return
    try:
        (last_seqs,) = connection.execute(_LAST_SEQS).fetchall()
        page = {"page": history.page}
        # Of its own, since the events are not read to their end when the first pages are.
        pages = _pages(connection.cursor(), history.page, round(since * 1e6))
        names = {"events": sorted(history.events), "unit_types": sorted(history.unit_types)}
        events = connection.execute(_EVENTS, {**page, **names, "most": MOST_EVENTS})
        # First: where reading ends with an error, nothing that was taken in is taken in again.
        history.begin_after(*last_seqs)
        _take_in(history, pages, events)
    except lake.Error as error:
        _logger.warning(
            "page %s: %s; of what its viewers saw before, only part is known",
            history.page,
            error,
        )
        return
    finally:
        connection.close()


def _take_in(history: ViewingHistory, pages: Iterable[tuple[Any, ...]], events: Any) -> None:
    """Pages, and events of a connection, in the order in which they happened: a play ends the
    fatigue of the pages before it only. At one time a page comes before a play.
    """
    for kind, at, *rest in merge(pages, _told(events), key=itemgetter(1)):
        if kind == "page":
            page_id, unit, titles = rest
            history.shown(page_id, unit, titles, at)
        else:
            unit, title, event, value = rest
            history.told(unit, title, event, value, at)


def _pages(connection: Any, page: str, since: int) -> Iterator[tuple[Any, ...]]:
    """The latest pages since then (µs since the epoch), in the order in which they were made."""
    first = {"page": page, "since": since, "most": MOST_PAGES}
    ((from_seq,),) = connection.execute(_FIRST_PAGE, first).fetchall()
    while from_seq is not None:
        batch = {"page": page, "from_seq": from_seq, "most": _PAGES_AT_ONCE}
        rows = connection.execute(_PAGES, batch).fetchall()
        for _, *row in rows:
            yield ("page", *row)
        from_seq = rows[-1][0] + 1 if len(rows) == _PAGES_AT_ONCE else None


def _told(events: Any) -> Iterator[tuple[Any, ...]]:
    while rows := events.fetchmany(_BATCH):
        for row in rows:
            yield ("event", *row)
