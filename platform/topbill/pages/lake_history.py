"""What a history begins with: pages and plays that the log has forgotten and the lake has kept. So a
title that rests goes on resting after a restart."""

from __future__ import annotations

import logging
from pathlib import Path

from topbill import lake
from topbill.domain.errors import LogError, NotFound
from topbill.pages.viewing_history import MOST_PAGES, ViewingHistory

_logger = logging.getLogger("topbill")
_HELD = """SELECT (SELECT coalesce(max(seq), 0) FROM decisions), (SELECT coalesce(max(seq), 0) FROM rewards)"""
_PAGES = """
SELECT epoch_us(decided_at) / 1e6 AS decided_at, decision_id, unit, slate FROM decisions
WHERE experiment = $page AND epoch_us(decided_at) >= $since ORDER BY seq DESC LIMIT $most
"""
_PLAYS = """
SELECT epoch_us(occurred_at) / 1e6 AS occurred_at, decision_id, action FROM rewards
WHERE experiment = $page AND event = 'play' AND action IS NOT NULL AND epoch_us(decided_at) >= $since ORDER BY seq
"""


def read_lake(history: ViewingHistory, data: Path, since: float) -> None:
    """Take in what the lake has of the page since then (seconds since the epoch); the log is
    followed from there on. Without a lake, or with one that can't be read, the log alone is
    followed."""
    history.begun = True
    try:
        connection = lake.connect(data / lake.DATABASE)
    except (NotFound, LogError):
        return
    try:
        ((decisions, events),) = connection.execute(_HELD).fetchall()
        asked = {"page": history.page, "since": round(since * 1e6)}
        pages = connection.execute(_PAGES, {**asked, "most": MOST_PAGES}).fetchall()
        plays = connection.execute(_PLAYS, asked).fetchall()
    except lake.Error as error:
        _logger.warning(
            "page %s: %s; what its viewers saw before is known from the log alone",
            history.page,
            error,
        )
        return
    finally:
        connection.close()
    seen = [(at, decision_id, unit, titles, None) for at, decision_id, unit, titles in pages]
    done = [(at, decision_id, "", (), title) for at, decision_id, title in plays]
    for at, decision_id, unit, titles, played in sorted([*seen, *done], key=lambda row: row[0]):
        if played is None:
            history.shown(decision_id, unit, titles, at)
        else:
            history.credited(decision_id, played)
    history.begin_after(decisions, events)
