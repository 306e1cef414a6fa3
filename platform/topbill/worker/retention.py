"""Removing what is older than is to be kept: decisions with their rewards, events of units, and
rows that were set aside.

By whole days, UTC, so that it is done once a day at most. Killed anywhere, the next run does the
rest: what is noted in the log's audit as removed is whole.
"""

from __future__ import annotations

from collections.abc import Sequence
from contextlib import closing
from datetime import UTC, datetime, timedelta
from pathlib import Path

from topbill.domain.errors import BadRequest, LogError
from topbill.domain.formatting import window
from topbill.domain.metric import longest_window, microseconds
from topbill.lake.erasing import AgedRows, aged_rows, delete_aged, has_newer_decisions
from topbill.lake.kept import forget_until
from topbill.lake.kept_tables import forget_tables_until
from topbill.lake.places import lake_place
from topbill.log import Log, log_place, open_log_of
from topbill.log.erasing import aged_quarantine, end_retention, note_aged
from topbill.log.protocol import Retention
from topbill.spec import Experiment
from topbill.worker.publisher import RETRIED_WITHIN

DAY = 86_400_000_000
"""Microseconds."""


def kept_since(log: Log, keep: float, now: int) -> int:
    """The day (µs since the epoch) from whose beginning on rows are kept for `keep` seconds up to
    `now`; never before the one from which rows were removed already.

    Raises LogError while the machine's clock is not to be trusted: nothing comes back.
    """
    trouble = log.clock_trouble(DAY)
    if trouble is not None:
        raise LogError(f"{log.name}: nothing is removed because of its age: {trouble}")
    day = (now - microseconds(keep)) // DAY * DAY
    last = log.retention()
    return day if last is None else max(day, last.kept_since)


def check_keep(keep: float, experiments: Sequence[Experiment]) -> None:
    """Raises BadRequest where rows would go that the log still needs, or whose metrics are not
    final.
    """
    least, why = RETRIED_WITHIN + 86_400.0, "so long the log keeps events of units"
    for experiment in experiments:
        longest = max(experiment.reward_delay, longest_window(experiment.metrics))
        # As long as the log keeps its rows, and a day.
        if longest + 90_000.0 > least:
            least = longest + 90_000.0
            why = f"{experiment.key} waits {window(longest)} for rewards, and rows go by whole days"
    if keep < least:
        got = timedelta(seconds=keep)
        raise BadRequest("--keep", f"got {got}; expected {window(least)} at least: {why}")


def refuse_to_empty(data: Path, since: int) -> None:
    """Raises LogError where no decision would be left: what looks as old as that, where nobody
    looks on, may be a clock that is years ahead.
    """
    if aged_rows(data, since).decisions and not has_newer_decisions(data, since):
        raise LogError(
            f"{data}: every decision is older than is kept, and the worker removes none of them by "
            "itself; look at the machine's clock, and if it is right run `topbill retain`"
        )


def remove_aged(data: Path, log: Log, since: int) -> Retention:
    """Remove what is older from lake and quarantine; how many rows went. Nothing else may write to
    the lake meanwhile.

    The log's own rows are not touched: it lets them go when they are learned and published. Raises
    LogError.
    """
    at = log.clock_time(log.barrier())
    aged = aged_rows(data, since)
    # Before anything goes, so that whoever is killed below leaves a version to verify from.
    note_aged(log_place(data), aged.by_experiment, at)
    delete_aged(data, since)
    # Of whatever time zone days are, they hold nothing from before then that is left.
    last = datetime.fromtimestamp(since / 1e6, UTC).date() + timedelta(days=1)
    forget_until(data, last)
    forget_tables_until(lake_place(data), last)
    retention = _counted(data, aged, since, at)
    end_retention(log_place(data), retention)
    return retention


def find_aged(data: Path, keep: float) -> Retention:
    """What would be removed now. Raises NotFound where there is no log."""
    with closing(open_log_of(data, create=False)) as log:
        at = log.clock_time(log.barrier())
        since = kept_since(log, keep, at)
    return _counted(data, aged_rows(data, since), since, at)


def sentence(retention: Retention) -> str:
    """What was removed, or would be, in words."""
    since = datetime.fromtimestamp(retention.kept_since / 1e6, UTC)
    return (
        f"from before {since:%Y-%m-%d} (UTC): {retention.decisions:,} decisions, "
        f"{retention.rewards:,} rewards, {retention.events:,} events and "
        f"{retention.quarantined:,} rows set aside"
    )


def _counted(data: Path, aged: AgedRows, since: int, at: int) -> Retention:
    quarantined = aged_quarantine(log_place(data), since)
    return Retention(at, since, aged.decisions, aged.rewards, aged.events, quarantined)
