"""What variants in the shadow of a launch would have done: how fast, how often not at all, and how
like what was shown.
"""

from __future__ import annotations

from datetime import datetime
from pathlib import Path

import msgspec

from topbill.reporting.experiment.phases import Excerpt
from topbill.reporting.queries.database import open_database

_OF_EACH = """
WITH asked AS (
    SELECT unnest(shadows) AS shadow FROM decisions
    WHERE experiment = $key AND ($since::TIMESTAMP IS NULL OR decided_at >= $since::TIMESTAMP)
), errors AS (
    SELECT shadow.variant AS variant, shadow.failure AS error, count(*) AS n FROM asked
    WHERE shadow.failure NOT IN ('', 'late', 'resting') GROUP BY ALL
), worst AS (
    SELECT variant, error FROM (
        SELECT *, row_number() OVER (PARTITION BY variant ORDER BY n DESC, error) AS place
        FROM errors
    ) WHERE place = 1
)
SELECT shadow.variant AS variant, count(*) AS decisions,
    count(*) FILTER (shadow.failure IN ('late', 'resting')) AS late,
    count(*) FILTER (shadow.failure NOT IN ('', 'late', 'resting')) AS failed,
    any_value(worst.error) AS error,
    quantile_cont(shadow.latency_us, 0.5) FILTER (shadow.failure = '') / 1000 AS median_ms,
    quantile_cont(shadow.latency_us, 0.99) FILTER (shadow.failure = '') / 1000 AS p99_ms,
    avg(list_product(shadow.propensities)) FILTER (shadow.failure = '') AS shows_the_same
FROM asked LEFT JOIN worst ON worst.variant = shadow.variant
GROUP BY ALL ORDER BY variant
"""


class ShadowSummary(msgspec.Struct, frozen=True, kw_only=True):
    """What the record has of a variant in shadow.

    Attributes:
        decisions: How often it was asked, or should have been.
        late: How often it had no answer in time; `failed`, for an error of its own.
        error: The most frequent error; None where there was none.
        median_ms, p99_ms: Its own time, where it had an answer.
        shows_the_same: The mean probability with which it would have shown what was shown.
    """

    variant: str
    decisions: int
    late: int
    failed: int
    error: str | None
    median_ms: float | None
    p99_ms: float | None
    shows_the_same: float | None

    @property
    def unanswered(self) -> float:
        """The share of decisions for which it had no answer, or none within `budget_ms`: viewers
        would have got the control's order instead."""
        return (self.late + self.failed) / self.decisions


def shadows(data: Path | str, key: str, since: datetime | None = None) -> list[ShadowSummary]:
    """Of each variant that ever was in shadow, by name; empty where none was.

    Args:
        data: The data folder.
        key: The experiment's key.
        since: What was decided before does not count. Without a zone: UTC.
    """
    moment = Excerpt.of(since).since
    with open_database(data) as database:
        rows = database.rows(_OF_EACH, key=key, since=moment)
        return [ShadowSummary(**row) for row in rows]
