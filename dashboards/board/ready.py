"""What whoever opens the first page would wait for, worked out as the server starts."""

from __future__ import annotations

from contextlib import suppress
from time import monotonic

# Their modules take long to import; nothing else of them is needed here.
from board import charts, data, frame, pieces  # noqa: F401
from topbill.domain.errors import TopbillError
from topbill.reporting import answer_cache
from topbill.reporting.queries import database, series
from topbill.reporting.queries.milestones import milestones

QUERIES = (answer_cache.experiment_report, series.progress, milestones)
"""What Home asks of each experiment and takes long."""
LONGEST = 30.0
"""Seconds after which no further experiment is begun: each takes half a second of CPU."""


def prepare() -> None:
    """Ask what Home asks, and load what Preview draws with. On a large record the worker answers in
    advance; what cannot be read is told by the page that needs it.
    """
    ends = monotonic() + LONGEST
    with suppress(TopbillError):
        experiments = database.experiments(data.folder())
        if experiments:
            data.get_ready(str(data.folder()), experiments[0].key)
        if sum(line.decisions for line in experiments) >= answer_cache.LARGE:
            return
        for line in experiments:
            for query in QUERIES:
                if monotonic() < ends:
                    data.ask_ahead(query, line.key)
