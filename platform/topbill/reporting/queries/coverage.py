"""How much of the catalogue a page shows: different titles, and how much of all places the most
shown ones take.
"""

# ruff: noqa: S608  (names and values enter the SQL only through `quoted`)

from __future__ import annotations

from pathlib import Path

import pandas as pd

from topbill.lake import quoted
from topbill.reporting.queries.database import frame, opened

TOP = 10


def pages(data: Path | str) -> list[str]:
    """The pages that the lake knows, by name."""
    with opened(data) as connection:
        found = frame(
            connection, "SELECT DISTINCT experiment FROM decisions WHERE layer = 'page' ORDER BY 1"
        )
    return [str(page) for page in found["experiment"]]


def coverage(data: Path | str, page: str) -> pd.DataFrame:
    """Per variant of the page's titles: variant, places (titles placed, counting each time), titles
    (different ones), top (the share of places that its ten most shown titles took)."""
    mine = f"layer = 'titles' AND page IN (SELECT page FROM decisions WHERE experiment = {quoted(page)})"
    with opened(data) as connection:
        return frame(
            connection,
            "WITH placed AS (SELECT variant, title, count(*) AS n FROM (SELECT variant, unnest(slate) AS title "
            f"FROM decisions WHERE {mine} AND variant IS NOT NULL) GROUP BY variant, title), ranked AS (SELECT *, "
            "row_number() OVER (PARTITION BY variant ORDER BY n DESC) AS place FROM placed) "
            "SELECT variant, sum(n)::BIGINT AS places, count(*) AS titles, "
            f"sum(n) FILTER (place <= {TOP}) / sum(n) AS top FROM ranked GROUP BY variant ORDER BY variant",
        )
