"""What the first stage needs of the log: trending, popular and watched-together titles of each
page, learned from the plays that the lake holds, on pages and elsewhere, and left where the serving
processes find them.
"""

from __future__ import annotations

import logging
from collections.abc import Collection, Sequence
from pathlib import Path

from topbill import lake, pages
from topbill.candidates import Play, Signals, signals_path
from topbill.candidates.fitting import learn
from topbill.domain.errors import SpecError, TopbillError
from topbill.domain.profile import Merge, viewers_of
from topbill.pages import PageFile
from topbill.spec import Experiment

EVERY = 30.0
"""Seconds between two refreshes, at least."""
SHARE = 0.1
"""Of the worker's time, that refreshes may take: what is large is refreshed more rarely."""
MOST = 2_000_000
"""Plays that are read, the most recent ones."""
LEAST = 1e-6
"""What a play is worth at least, in plays: one of 1e-300 is none, and left no sum to divide by."""
# On pages, where the viewer's region stands in the context of the page's own decision, and anywhere
# else, where it is that of the viewer's last page. What a viewer's events say against a title takes
# from what they say for it, down to nothing: each of the latter then counts that much less.
_PLAYS = """
WITH elsewhere AS (
    SELECT unit, action, event, value, occurred_at FROM events
    WHERE list_contains($unit_types, unit_type)
), last_seen AS (
    SELECT unit, max_by(context::JSON ->> '$.region', decided_at) AS region FROM decisions
    WHERE experiment = $page AND unit IN (SELECT unit FROM elsewhere) GROUP BY unit
), told AS (
    SELECT r.unit, r.item AS title, r.event, r.value, r.occurred_at,
        coalesce(d.context::JSON ->> '$.region', '') AS region
    FROM rewards r JOIN decisions d USING (decision_id) WHERE r.experiment = $page
    UNION ALL
    SELECT e.unit, e.action, e.event, e.value, e.occurred_at, coalesce(s.region, '')
    FROM elsewhere e LEFT JOIN last_seen s ON s.unit = e.unit
), weighed AS (
    -- A guest who signed in is the profile.
    SELECT coalesce(viewer, unit) AS unit, title, occurred_at, region,
        weight * least(abs(value), 1) AS opinion
    FROM told JOIN (SELECT unnest($events) AS event, unnest($weights) AS weight) USING (event)
        LEFT JOIN (SELECT unnest($guests) AS unit, unnest($viewers) AS viewer) USING (unit)
    WHERE title IS NOT NULL
)
SELECT unit, title, epoch(occurred_at), region,
    opinion * sum(opinion) OVER same / sum(greatest(opinion, 0)) OVER same AS worth
FROM weighed WINDOW same AS (PARTITION BY unit, title)
QUALIFY opinion > 0 AND sum(opinion) OVER same > 0 AND worth >= $least
ORDER BY occurred_at DESC LIMIT $most
"""
_BATCH = 10_000
_logger = logging.getLogger("topbill")


def plays(
    data: Path, file: PageFile, unit_types: Collection[str], merges: Sequence[Merge] = ()
) -> list[Play]:
    """What speaks for titles to a page's viewers, newest first: plays and whatever else its
    `signals` say, on the page and in events of units of these types; those of a guest who was
    merged into a profile are the profile's.

    Raises:
        NotFound: Nothing was published yet.
    """
    connection = lake.connect(lake.database_of(data))
    viewers = viewers_of(merge for merge in merges if merge.unit_type in unit_types)
    parameters = {
        "page": file.key,
        "unit_types": sorted(unit_types),
        "events": list(file.signals),
        "weights": list(file.signals.values()),
        "guests": list(viewers),
        "viewers": list(viewers.values()),
        "most": MOST,
        "least": LEAST,
    }
    found = []
    # Each text once: there are some thousands of them, in millions of plays.
    texts: dict[str, str] = {}
    try:
        rows = connection.execute(_PLAYS, parameters)
        while batch := rows.fetchmany(_BATCH):
            for unit, title, at, region, weight in batch:
                names = [texts.setdefault(text, text) for text in (unit, title, region)]
                found.append(Play(names[0], names[1], at, names[2], weight))
    finally:
        connection.close()
    return found


def refresh(
    experiments: Path,
    data: Path,
    running: Sequence[Experiment],
    now: float,
    merges: Sequence[Merge] = (),
) -> dict[str, Signals]:
    """Learn and leave the signals of every page that has plays; what goes wrong with one is
    logged. `merges`: of which guests profiles know.
    """
    signals: dict[str, Signals] = {}
    try:
        files = pages.load_all(experiments, running)
    except SpecError:
        return {}  # what is wrong was said when the files were read
    for file in files:
        try:
            known = plays(data, file, file.unit_types(running), merges)
            if known:
                # The catalogue is read anew: titles come and go while the worker runs.
                catalog = file.read_catalog()
                signals[file.key] = learn(known, catalog, now)
                signals[file.key].save(signals_path(data, file.key))
        except (TopbillError, lake.Error, OSError, ValueError, ArithmeticError) as error:
            _logger.warning("signals of page %s stay as they were: %s", file.key, error)
    return signals
