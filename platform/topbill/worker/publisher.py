"""The publisher: moves what the log has committed into the lake, and lets the log forget what is
safe there.
"""

from __future__ import annotations

import logging
import time
from collections.abc import Callable, Collection, Iterator, Sequence
from concurrent.futures import Future, ThreadPoolExecutor
from typing import Any, TypeVar

import pyarrow as pa

from topbill.domain.decision import decision_rows, reward_rows, unit_event_rows
from topbill.domain.errors import LogError, SpecError
from topbill.domain.metric import longest_window, microseconds
from topbill.domain.origin import Origin
from topbill.domain.records import Decision, QuarantinedRow, RewardEvent
from topbill.lake import Lake, LaunchLine, Problem
from topbill.lake.tables import Table, schemas
from topbill.log import REMEMBERED_FOR, Ends, Log, Revision
from topbill.spec import Experiment, from_audit
from topbill.worker import setting_aside
from topbill.worker.setting_aside import convertible, quarantined, repeated_rows, set_aside

_logger = logging.getLogger("topbill")
_Record = TypeVar("_Record")
BATCH = 20_000
"""Rows of the log per Delta commit."""
CHUNK = 2_000
"""Decisions that are read at once: those of pages take some 20 MB, and memory that was just used is
used again.
"""
LOOKED_UP = 500
"""Decisions of late rewards that are asked for at once where the log is another machine's: each
question takes a round trip.
"""
MINOR, MAJOR = 30, 1_800
"""Steps between compactions of small files and of large ones: a minute and an hour at 2 s a
step.
"""
VACUUM_EVERY = 300.0
"""Seconds between two looks for files that merges replaced long ago: of the clock, since on a busy
machine a step takes several times as long.
"""
CHUNKS = 20
"""Most transactions in which one step lets the log forget."""
RETRIED_WITHIN = 7 * 86_400.0
"""Seconds for which an event of a unit is known by its id. A reward is known by its decision: when
that is forgotten, nothing is stored twice. Here nothing else tells a retry, so the log keeps the
events themselves, which are small, for as long as a client that could not send may reasonably come
back.
"""
MOST_QUARANTINED = 1_000
"""Rows of the quarantine, the last ones, that the analytics database shows. All are counted."""
_MARGIN = 3_600.0
"""Seconds for which the log keeps a decision when nobody should need it any more."""
_ADOPTED_WITHIN = 600_000_000
"""µs within which every service has taken a new version over, or nobody decides from it."""


class Publisher:
    """Publishes a log to a lake, step by step. It keeps no position of its own, so it may die at
    any moment.

    `experiments` gives the experiments as they are now, `problems` what is wrong now, `launches`
    where launches stand. `learned` gives the last `seq` of decisions that no learner needs any
    more; without it the log forgets by age alone. `keep_log` (seconds) is how long rows stay in the
    log; default: the longest metric window and an hour, and `RETRIED_WITHIN` at least for events of
    units. `remember` (seconds) is how long the ids of decisions and rewards are known, whether
    their rows are still there or not. `progressed` is called after each part of a step that may
    take long.
    """

    def __init__(
        self,
        log: Log,
        lake: Lake,
        experiments: Callable[[], Sequence[Experiment]],
        *,
        learned: Callable[[], int] | None = None,
        problems: Callable[[], Sequence[Problem]] = tuple,
        launches: Callable[[], Sequence[LaunchLine]] = tuple,
        keep_log: float | None = None,
        progressed: Callable[[], None] = lambda: None,
        remember: float = REMEMBERED_FOR,
    ) -> None:
        self._log = log
        self._lake = lake
        self._experiments = experiments
        self._learned = learned
        self._problems = problems
        self._launches = launches
        self._keep_log = keep_log
        self._progressed = progressed
        self._remember = remember
        self._steps = 0
        self._vacuumed_at = time.monotonic()
        self._sealed: dict[Table, int] = dict.fromkeys(schemas(), 0)
        """Up to which `seq` each table is on the disk; see `Lake.seal`."""
        self._compactor = ThreadPoolExecutor(1, "compactor")
        self._compaction: Future[None] | None = None
        self._origins: dict[str, Origin] = {}
        """Of the rewards that are being published, by the id of their decision."""
        self.published_at = 0
        """µs since the epoch: what was stamped up to then is in the lake; 0 before the first
        step."""
        self._removed_once: dict[Revision, Experiment | None] = {}

    def step(self) -> int:
        """Publish all that is committed by now, show it, and tidy up; returns how many rows went to
        the lake. What is committed meanwhile is left to the next step: a log that is written faster
        than it can be published would keep this one for ever, and nothing would be shown.

        Raises LogError where log or lake fail; the next step then goes on from where the lake
        stands.
        """
        # Taken before anything is read: the database says of itself that it is as of this time, and
        # what is committed later may or may not be in it.
        barrier = self._log.barrier()
        ends = self._log.ends()
        if self._steps % MINOR == 0:
            self.heal()
        published = self._publish(ends)
        if published:
            self._lake.note()
        self._compact()
        experiments = self._experiments()
        self._show(experiments, barrier)
        self._forget(experiments, barrier)
        return published

    def publish(self) -> int:
        """Publish all that is committed and show it, and nothing else; returns how many rows went
        to the lake.
        """
        barrier = self._log.barrier()
        published = self._publish(self._log.ends())
        self._show(self._experiments(), barrier)
        return published

    def _show(self, experiments: Sequence[Experiment], barrier: int) -> None:
        """Write the analytics database: the lake as it is now, which holds all up to `barrier`."""
        # Of the first moment after it: at the barrier itself the clock may have been set.
        as_of = self._log.clock_time(barrier + 1) - 1
        revisions = self._log.revisions()
        removed = self._removed({e.key for e in experiments}, revisions)
        tables = self._lake.distinct_tables(lambda rows: set_aside(self._log, repeated_rows(rows)))
        quarantine = self._log.quarantine(limit=MOST_QUARANTINED)
        self._lake.write_database(
            [*experiments, *removed],
            as_of,
            revisions,
            [*self._problems(), *setting_aside.problems(self._log, quarantine)],
            {experiment.key for experiment in removed},
            quarantine,
            self._log.retention(),
            self._log.conclusions(),
            self._log.orders(),
            self._launches(),
            self._log.alarms(),
            tables,
        )
        self.published_at = as_of

    def heal(self, damaged: Collection[str] = ()) -> int:
        """Write again, from the log, the rows of files of the lake that are missing or cut, and of
        those that are said to be damaged; returns how many rows that were.

        Raises LogError where the log does not have them any more.
        """
        healed = 0
        for name in schemas():
            broken = self._lake.broken(name, damaged)
            if broken:
                first, last = min(file.first for file in broken), max(file.last for file in broken)
                rows = self._lake.heal(name, broken, self._rows_between(name, first, last))
                _logger.warning(
                    "%s: %d files were missing or damaged; %d rows were written anew from the log",
                    name,
                    len(broken),
                    rows,
                )
                healed += rows
        return healed

    def _rows_between(self, name: Table, first: int, last: int) -> pa.Table:
        """The log's rows of a span of `seq`, as those of a table of the lake."""
        reads: dict[Table, Callable[[int, int], Sequence[tuple[int, Any]]]] = {
            "decisions": self._log.read_decisions,
            "rewards": self._log.read_events,
            "events": self._log.read_unit_events,
        }
        read = reads[name]
        records: list[tuple[int, Any]] = []
        after = first - 1
        while after < last and (batch := read(after, BATCH)):
            records += [(seq, record) for seq, record in batch if seq <= last]
            after = batch[-1][0]
        # What cannot be converted was set aside when it came, and is in no file.
        if name == "decisions":
            return convertible(records, decision_rows)[0]
        if name == "events":
            return convertible(records, unit_event_rows)[0]
        self._look_up([event.decision_id for _, event in records])
        rows = [(seq, event, self._origin(event)) for seq, event in records]
        return convertible(rows, reward_rows)[0]

    def _removed(self, with_file: set[str], revisions: Sequence[Revision]) -> list[Experiment]:
        """Experiments without a file that decided something once, as their last file said: they are
        still reported.
        """
        newest: dict[str, Revision] = {}
        for revision in revisions:
            if revision.experiment not in with_file:
                newest[revision.experiment] = revision
        if not newest:
            return []  # without asking the lake, which costs a look at its files
        removed = []
        for key in sorted(newest.keys() & self._lake.experiments()):
            revision = newest[key]
            # Read once, not every two seconds: what the audit says doesn't change, and what is
            # wrong with it is said once too.
            if revision not in self._removed_once:
                self._removed_once[revision] = _as_it_was(revision)
            experiment = self._removed_once[revision]
            if experiment is not None:
                removed.append(experiment)
        return removed

    def _compact(self) -> None:
        """Start a compaction when one is due, in a thread: publishing and learning go on
        meanwhile.
        """
        self._steps += 1
        if self._compaction is not None and self._compaction.done():
            # Taken off first: where it failed, its error is raised once and the next one starts.
            compaction, self._compaction = self._compaction, None
            compaction.result()
        if self._compaction is None and self._steps % MINOR == 0:
            self._compaction = self._compactor.submit(self._tidy, self._steps)

    @property
    def is_compacting(self) -> bool:
        """Whether files are being merged in the other thread: a delete beside it would fail."""
        return self._compaction is not None and not self._compaction.done()

    def _tidy(self, steps: int) -> None:
        is_major = steps % MAJOR == 0
        self._lake.compact(thorough=is_major)
        if is_major or time.monotonic() - self._vacuumed_at >= VACUUM_EVERY:
            self._lake.vacuum(thorough=is_major)
            self._vacuumed_at = time.monotonic()

    def _publish(self, ends: Ends) -> int:
        """Publish the rows up to these.

        Events are read before the decisions that they belong to, and appended after them: so
        whoever sees a reward in the lake finds its decision there.

        Each append writes rows and position in one Delta commit, and the position is read back
        from the lake before the next: a publisher that dies between any two lines leaves each row
        in the lake exactly once.
        """
        published = self._publish_unit_events(ends.unit_events)
        while True:
            after = self._lake.position("rewards")
            events = _next_rows(self._log.read_events, after, ends.events, BATCH)
            # Most events follow soon on their decision, which need not be looked for then.
            rewarded = {event.decision_id for _, event in events}
            published += self._publish_decisions(rewarded, ends.decisions)
            if events:
                published += self._publish_rewards(events)
            self._origins.clear()
            if len(events) < BATCH:
                return published

    def _publish_rewards(self, events: Sequence[tuple[int, RewardEvent]]) -> int:
        self._look_up([event.decision_id for _, event in events])
        rows = [(seq, event, self._origin(event)) for seq, event in events]
        table, refused = convertible(rows, reward_rows)
        aside = []
        for (seq, event, origin), error in refused:
            experiment = origin.experiment or ""
            aside.append(quarantined(seq, event, "publish", error, experiment))
        return self._append("rewards", table, aside, events[-1][0])

    def _append(
        self, name: Table, table: pa.Table, aside: Sequence[QuarantinedRow], through: int
    ) -> int:
        """Append what could be converted, the rest being set aside first: the lake's position then
        says that all rows through it are in one of the two.
        """
        set_aside(self._log, aside)
        self._lake.append(name, table, through)
        self._progressed()
        return len(table)

    def _publish_unit_events(self, end: int) -> int:
        """They belong to no decision, so they need not wait for one."""
        published = 0
        while True:
            after = self._lake.position("events")
            events = _next_rows(self._log.read_unit_events, after, end, BATCH)
            if events:
                table, refused = convertible(events, unit_event_rows)
                aside = [quarantined(*row, "publish", error) for row, error in refused]
                published += self._append("events", table, aside, events[-1][0])
            if len(events) < BATCH:
                return published

    def _publish_decisions(self, rewarded: Collection[str], end: int) -> int:
        """Publish the decisions up to a `seq`, and have the origins of those that are `rewarded` at
        hand.
        """
        published = 0
        while True:
            through, count = self._lake.position("decisions"), 0
            tables: list[pa.Table] = []
            aside: list[QuarantinedRow] = []
            while count < BATCH:
                rows = _next_rows(self._log.read_decisions, through, end, CHUNK)
                if not rows:
                    break
                # Of an experiment together, as they are stored: so nobody copies them once more.
                together = sorted(rows, key=_experiment_of)
                table, refused = convertible(together, decision_rows)
                tables.append(table)
                aside += [quarantined(*row, "publish", error) for row, error in refused]
                for _, decision in rows:
                    if decision.decision_id in rewarded:
                        self._origins[decision.decision_id] = Origin.of(decision)
                through = rows[-1][0]
                count += len(rows)
                if len(rows) < CHUNK:
                    break
            if tables:
                published += self._append("decisions", pa.concat_tables(tables), aside, through)
            if count < BATCH:
                return published

    def _look_up(self, decision_ids: Sequence[str]) -> None:
        """Have the origins of these decisions at hand: from the log, or from the lake where the log
        has let them go before their reward came.
        """
        unknown = {i for i in decision_ids if i not in self._origins}
        # The ids of a page begin alike, and its decisions lie in one bundle: in their order it is
        # opened once, and not for each of them.
        for decision in self._stored(sorted(unknown)):
            self._origins[decision.decision_id] = Origin.of(decision)
        self._origins.update(self._log.origins(unknown - self._origins.keys()))
        places = self._log.places(unknown - self._origins.keys())
        if not places:
            return
        try:
            for decision_id, decision in self._lake.find_decisions(places).items():
                self._origins[decision_id] = Origin.of(decision)
        except LogError as error:
            # A damaged file of the past must not keep what comes today from being published.
            _logger.warning(
                "%s; %d late rewards are published without their experiment", error, len(places)
            )

    def _stored(self, decision_ids: Sequence[str]) -> Iterator[Decision]:
        """Those of the decisions that the log has."""
        if self._log.is_remote:
            for start in range(0, len(decision_ids), LOOKED_UP):
                part = decision_ids[start : start + LOOKED_UP]
                yield from self._log.decisions(part).values()
            return
        # One by one: to look up many holds the journal, and with it every viewer, meanwhile.
        for decision_id in decision_ids:
            decision = self._log.decision(decision_id)
            if decision is not None:
                yield decision

    def _origin(self, event: RewardEvent) -> Origin:
        # A reward for a decision that nobody knows is kept all the same: under no experiment, at
        # its own time.
        return self._origins.get(event.decision_id) or Origin(decided_at=event.received_at)

    def _forget(self, experiments: Sequence[Experiment], barrier: int) -> None:
        """Delete in small transactions, so that no request waits long for the write lock."""
        keep = self._keep_log
        if keep is None:
            # Until no reward comes any more that counts, a decision must be found by its id.
            needed = [_awaited(experiment) for experiment in experiments]
            if self._learned is not None and self._log.keeps_origins:
                # It is, though it is no longer whole: only what learns it once more needs that.
                needed = [
                    _awaited(each) if each.refit == "daily" else each.reward_delay
                    for each in experiments
                ]
            keep = max(needed, default=0.0) + _MARGIN
        # Of what is old enough, only what the lake has on the disk and no learner needs.
        older = barrier - microseconds(keep)
        if self._steps % MINOR == 0 or self._is_due(older):
            self._sealed = self._lake.seal()
        through = self._sealed["decisions"]
        if self._learned is not None:
            through = min(through, self._learned())
        if self._steps % MINOR == 0:
            self._log.forget_snapshots(self._log.clock_time(older) - _ADOPTED_WITHIN)
        for _ in range(CHUNKS):
            if self._log.forget(through, self._sealed["rewards"], older) == 0:
                break
        known = barrier - microseconds(max(keep, self.known_for(experiments)))
        for _ in range(CHUNKS):
            if self._log.forget_ids(known) == 0:
                break
        older = min(older, known)
        if self._keep_log is None:
            older = min(older, barrier - microseconds(RETRIED_WITHIN))
        for _ in range(CHUNKS):
            if self._log.forget_unit_events(self._sealed["events"], older) == 0:
                break

    def known_for(self, experiments: Sequence[Experiment]) -> float:
        """Seconds for which the ids of decisions and rewards are known in any case."""
        if self._keep_log is None and self._log.keeps_origins:
            longest = max([_awaited(experiment) for experiment in experiments], default=0.0)
            return max(longest + _MARGIN, self._remember)
        return self._remember

    def _is_due(self, older: int) -> bool:
        """Whether something is old enough to be forgotten that is not sealed yet."""
        decisions = self._log.read_decisions(self._sealed["decisions"], 1)
        events = self._log.read_events(self._sealed["rewards"], 1)
        unit_events = self._log.read_unit_events(self._sealed["events"], 1)
        return (
            any(decision.decided_at < older for _, decision in decisions)
            or any(event.received_at < older for _, event in events)
            or any(event.received_at < older for _, event in unit_events)
        )


def _next_rows(
    read: Callable[[int, int], Sequence[tuple[int, _Record]]], after: int, end: int, limit: int
) -> Sequence[tuple[int, _Record]]:
    """The next rows of the log after a `seq` up to another, at most `limit`."""
    # There are no more rows than numbers between the two.
    limit = min(limit, end - after)
    if limit <= 0:
        return ()
    rows = read(after, limit)
    if rows and rows[-1][0] > end:
        rows = [row for row in rows if row[0] <= end]
    return rows


def _experiment_of(row: tuple[int, Decision]) -> str:
    return row[1].experiment


def _awaited(experiment: Experiment) -> float:
    """Seconds for which a reward may come that counts."""
    return max(experiment.reward_delay, longest_window(experiment.metrics))


def _as_it_was(revision: Revision) -> Experiment | None:
    """The experiment of the audit; None where this version can't read it any more, which is
    said.
    """
    try:
        return from_audit(revision.spec, f"{revision.experiment} (removed)", revision.revision)
    except SpecError as error:
        _logger.warning("%s has no file and is no longer reported: %s", revision.experiment, error)
        return None
