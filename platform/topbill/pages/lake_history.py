"""What a viewing history begins with: pages and plays that the log has forgotten and the lake has
kept. So a title that rests goes on resting after a restart.
"""

from __future__ import annotations

import logging
from pathlib import Path

from topbill import lake
from topbill.domain.errors import LogError
from topbill.lake.viewed import Ended, Sought, Through, ViewedPage, viewed
from topbill.pages.viewing_history import MOST_PAGES, ViewingHistory

_logger = logging.getLogger("topbill")
_PAGES_AT_ONCE = 5_000
"""Pages that are in memory at once: each names some hundred titles."""


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
    except LogError:
        return
    events, unit_types = sorted(history.events), sorted(history.unit_types)
    since_micros = round(since * 1e6)
    sought = Sought(history.page, since_micros, events, unit_types, MOST_PAGES, _PAGES_AT_ONCE)
    for line in viewed(data, sought):
        if isinstance(line, Through):
            history.begin_after(line.decision, line.reward, line.event)
        elif isinstance(line, ViewedPage):
            history.shown(line.page_id, line.unit, line.titles, line.at)
        elif not isinstance(line, Ended):
            history.told(line.unit, line.title, line.event, line.value, line.at)
        elif line.error:
            _logger.warning(
                "page %s: %s; of what its viewers saw before, only part is known",
                history.page,
                line.error,
            )
