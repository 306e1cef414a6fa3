"""What the first stage needs of the log: trending, popular and watched-together titles of each
page, learned from the plays that the lake holds and left where the serving processes find them."""

from __future__ import annotations

import logging
from collections.abc import Sequence
from pathlib import Path

from topbill import lake, pages
from topbill.candidates import Play, Signals, learn, signals_path
from topbill.domain.errors import SpecError, TopbillError
from topbill.spec import Experiment

EVERY = 30.0
"""Seconds between two refreshes."""
RECENT = 90 * 86_400.0
"""Seconds back from now that plays are read for."""
MOST = 1_000_000
"""Plays that are read, the most recent ones."""
# The viewer's region stands in the context of the page's own decision; a reward carries the rest.
_PLAYS = """
SELECT r.unit, r.item, epoch(r.occurred_at), coalesce(d.context::JSON ->> '$.region', '')
FROM rewards r JOIN decisions d USING (decision_id)
WHERE r.experiment = $page AND r.event = 'play' AND r.item IS NOT NULL
    AND r.occurred_at > to_timestamp($since)::TIMESTAMP
ORDER BY r.seq DESC LIMIT $most
"""
_logger = logging.getLogger("topbill")


def plays(data: Path, page: str, now: float) -> list[Play]:
    """A page's plays of the last 90 days, newest first; `now` in seconds since the epoch.

    Raises:
        NotFound: Nothing was published yet.
    """
    connection = lake.connect(data / lake.DATABASE)
    parameters = {"page": page, "since": now - RECENT, "most": MOST}
    try:
        rows = connection.execute(_PLAYS, parameters).fetchall()
    finally:
        connection.close()
    return [Play(unit, title, at, region) for unit, title, at, region in rows]


def refresh(
    experiments: Path, data: Path, running: Sequence[Experiment], now: float
) -> dict[str, Signals]:
    """Learn and leave the signals of every page that has plays; what goes wrong with one is
    logged.
    """
    signals: dict[str, Signals] = {}
    try:
        files = pages.load_all(experiments, running)
    except SpecError:
        return {}  # what is wrong was said when the files were read
    for file in files:
        try:
            recent = plays(data, file.key, now)
            if recent:
                # The catalogue is read anew: titles come and go while the worker runs.
                catalog = file.read_catalog()
                signals[file.key] = learn(recent, catalog, now)
                signals[file.key].save(signals_path(data, file.key))
        except (TopbillError, lake.Error, OSError) as error:
            _logger.warning("signals of page %s stay as they were: %s", file.key, error)
    return signals
