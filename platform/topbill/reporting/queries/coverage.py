"""How much of the catalogue a page shows: different titles, and how much of all places the most
shown ones take.
"""

from __future__ import annotations

from pathlib import Path

import pandas as pd

from topbill.reporting.queries.database import open_database

TOP = 10


def pages(data: Path | str) -> list[str]:
    """The pages that the record knows, by name."""
    with open_database(data) as database:
        rows = database.rows(
            "SELECT DISTINCT experiment AS page FROM decisions WHERE layer = 'page' ORDER BY page"
        )
    return [str(row["page"]) for row in rows]


def coverage(data: Path | str, page: str) -> pd.DataFrame:
    """How widely the variants of a page's titles spread over the catalogue.

    Returns:
        Columns variant, places (titles placed, counting each time), titles (different ones), top
        (the share of places that its ten most shown titles took, 0 to 1).
    """
    # Titles are decided for each row of a page, so a title counts as often as it was placed.
    query = """
        WITH placed AS (
            SELECT variant, title, count(*) AS times
            FROM (
                SELECT variant, unnest(slate) AS title FROM decisions
                WHERE layer = 'titles' AND variant IS NOT NULL
                    AND page IN (SELECT page FROM decisions WHERE experiment = $page)
            ) GROUP BY variant, title
        ), ranked AS (
            SELECT *, row_number() OVER (PARTITION BY variant ORDER BY times DESC, title) AS place
            FROM placed
        )
        SELECT variant, sum(times)::BIGINT AS places, count(*) AS titles,
            sum(times) FILTER (place <= $top) / sum(times) AS top
        FROM ranked GROUP BY variant ORDER BY variant"""
    with open_database(data) as database:
        return database.frame(query, page=page, top=TOP)
