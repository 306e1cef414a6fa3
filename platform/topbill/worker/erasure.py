"""Taking one unit, or what is older than is kept, out of a data folder, and saying what is stored
of a unit.

What policies have learned stays: sums over many viewers, in which no id stands. The version that
stood is noted in the log's audit of erasures, and `topbill verify` folds from there.
"""

from __future__ import annotations

import shutil
from collections.abc import Callable, Iterable, Mapping, Sequence
from contextlib import closing
from pathlib import Path
from typing import Any

import msgspec

from topbill.domain.decision import decision_rows, reward_rows, unit_event_rows
from topbill.domain.errors import BadRequest, LogError
from topbill.domain.origin import Origin
from topbill.domain.profile import guests_of
from topbill.domain.records import Decision
from topbill.entities import KeptTables, erase_ids
from topbill.lake import Lake
from topbill.lake.erasing import (
    erase_from_lake,
    find_in_lake,
    lake_rows,
    take_history_away,
    units_in_lake,
)
from topbill.lake.kept import forget
from topbill.lake.kept_tables import forget_tables
from topbill.lake.places import lake_place
from topbill.lake.published import forget_copies
from topbill.log import Log, log_place, now_micros, open_log_of
from topbill.log.erasing import (
    StoredRows,
    aged_rows_in_log,
    erase_from_log,
    find_in_log,
    rows_set_aside,
    units_in_log,
    wipe_log,
)
from topbill.log.protocol import Retention
from topbill.log.tombstones import (
    TOMBSTONES,
    Tombstone,
    add_tombstones,
    new_tombstone,
    read_tombstones,
)
from topbill.log.unit_ids import known_unit_ids
from topbill.spec import Experiment, audited
from topbill.worker.only_worker import only_worker
from topbill.worker.publisher import Publisher
from topbill.worker.retention import check_keep, kept_since, remove_aged

ANSWERS = "answers"
"""Folder of answers that were worked out in advance: made anew from the lake."""
_BATCH = 20_000
_OLD_COPIES = ("backup-*", "log.journal.damaged-*", "lake/*/**/*.damaged")
"""What migrations and repairs keep beside the data: rows of whoever was there then."""


def find_unit(data: Path, unit: str, unit_type: str | None = None) -> StoredRows:
    """What a data folder holds of a unit, and of the guests that were merged into it, in log and
    lake.

    Args:
        data: The data folder.
        unit: The unit.
        unit_type: Only what is of that type: events that say so, and experiments whose file says no
            other `unit`. Default: of every type.

    Raises:
        NotFound: There is no log.
        LogError: Something cannot be read.
    """
    found = StoredRows({}, {}, set(), [])
    for each in _with_guests(data, known_unit_ids(data).stored(unit), unit_type):
        found |= _find(data, each, unit_type)
    return found


def _with_guests(data: Path, unit: str, unit_type: str | None) -> list[str]:
    """The unit, and before it the guests that were merged into it, and into them: they are the same
    person, who asks to be forgotten.
    """
    with closing(_open(data)) as log:
        merges = log.merges()
    merged: dict[str, list[str]] = {}
    for merge in merges:
        if unit_type in (None, merge.unit_type):
            merged.setdefault(merge.unit, []).append(merge.merged)
    return [*reversed(guests_of(unit, merged)), unit]


def _find(data: Path, unit: str, unit_type: str | None) -> StoredRows:
    with closing(_open(data)) as log:
        log.barrier()
        spared = _spared(log, unit_type)
    in_lake = find_in_lake(data, unit, unit_type, spared)
    in_log = find_in_log(log_place(data), unit, unit_type, spared, in_lake.decisions)
    # A reward of the log whose decision only the lake has is of the lake's experiment.
    for key in in_log.rewards:
        if not in_log.rewards[key]:
            in_log.rewards[key] = in_lake.decisions[key[0]]
    tables = frozenset(KeptTables(data).find(unit))
    return (in_lake | in_log)._replace(tables=tables)


def erase_unit(
    data: Path,
    unit: str,
    unit_type: str | None = None,
    experiments: Callable[[], Sequence[Experiment]] = tuple,
    *,
    drop_backups: bool = False,
) -> StoredRows:
    """Take a unit, and the guests that were merged into it, out of a data folder; returns what was
    there of them. Killed at any moment, run it again.

    The worker must have been stopped; services may run: within a second they drop what they have in
    memory. Arguments as of `find_unit`; `experiments` are those that the analytics database shows,
    those without a file are shown as the audit says; with `drop_backups` copies of old data that
    lie in the folder are deleted.

    Raises:
        BadRequest: Copies of old data lie in the folder, and are to stay.
        NotFound: There is no log.
        TopbillError: A worker is at work.
        DamagedSnapshot: The policy of an experiment cannot be read: repair it first.
        LogError: Something cannot be read or written.
    """
    unit = known_unit_ids(data).stored(unit)
    _open(data).close()
    with only_worker(data):
        drop_old_copies(data) if drop_backups else refuse_old_copies(data)
        *guests, _ = _with_guests(data, unit, unit_type)
        rows = StoredRows({}, {}, set(), [])
        tombstones = []
        # The merges go last, with the unit: killed in between, it is still known who its guests
        # were.
        for guest in guests:
            tombstones.append(new_tombstone(data, guest, unit_type, now_micros()))
            rows |= _delete_rows(data, guest, tombstones[-1], with_merges=False)
        tombstones.append(new_tombstone(data, unit, unit_type, now_micros()))
        rows |= _delete_rows(data, unit, tombstones[-1], rows.merges)
        _leave_no_trace(data, experiments)
        # Last: what is noted here is whole.
        add_tombstones(data, tombstones)
    return rows


def erase_again(
    data: Path,
    tombstones: Iterable[Tombstone],
    experiments: Callable[[], Sequence[Experiment]] = tuple,
) -> int:
    """Take out of a data folder, which was made of a backup, every unit that was erased since;
    returns how many it had. Errors as of `erase_unit`.
    """
    known = {(each.hash, each.unit_type) for each in read_tombstones(data / TOMBSTONES)}
    new = [each for each in tombstones if (each.hash, each.unit_type) not in known]
    if not new:
        return 0
    erased = 0
    with only_worker(data):
        refuse_old_copies(data)
        with closing(_open(data)) as log:
            log.barrier()
        units = units_in_log(log_place(data)) | units_in_lake(data) | KeptTables(data).unit_ids()
        for tombstone in new:
            for unit in filter(tombstone.is_of, units):
                _delete_rows(data, unit, tombstone)
                erased += 1
        # Also where none was left: one who was killed here may have deleted all rows before.
        _leave_no_trace(data, experiments)
        add_tombstones(data, new)
    return erased


def _delete_rows(
    data: Path,
    unit: str,
    tombstone: Tombstone,
    merges: frozenset[tuple[str, str]] = frozenset(),
    *,
    with_merges: bool = True,
) -> StoredRows:
    """Delete a unit's rows from the tables of log and lake, and these `merges` of its guests;
    returns what there was.
    """
    unit_type = tombstone.unit_type
    found = _find(data, unit, unit_type)
    found = found._replace(merges=found.merges | merges)
    rows = found if with_merges else found._replace(merges=frozenset())
    with closing(_open(data)) as log:
        spared = _spared(log, unit_type)
    # The log first: what it still had of them, a worker would publish.
    erase_from_log(log_place(data), rows, tombstone)
    erase_from_lake(data, rows, unit, unit_type, spared)
    # Of whatever type it is: a table does not say, and the row comes from the team's own file.
    erase_ids(data, [unit])
    return found


def retain(
    data: Path, keep: float, experiments: Callable[[], Sequence[Experiment]] = tuple
) -> tuple[Retention, int]:
    """Take out of a data folder what is older than `keep` seconds, with every file of the lake that
    holds it; what went, and how many rows so old the log still has: it lets them go when they are
    learned. Killed at any moment, run it again.

    Arguments and errors as of `erase_unit`. Raises BadRequest also where experiments wait for
    rewards as long as that.
    """
    check_keep(keep, experiments())
    _open(data).close()
    with only_worker(data):
        with closing(_open(data)) as log:
            # First of all: what is published afterwards would bring old rows back.
            Publisher(log, Lake(data), experiments).publish()
            now = log.clock_time(log.barrier())
            retention = remove_aged(data, log, kept_since(log, keep, now))
        _leave_no_trace(data, experiments)
        return retention, aged_rows_in_log(log_place(data), retention.kept_since)


def _leave_no_trace(data: Path, experiments: Callable[[], Sequence[Experiment]]) -> None:
    """Have no file hold what was deleted from the tables."""
    shutil.rmtree(data / ANSWERS, ignore_errors=True)
    forget(data)
    forget_tables(lake_place(data))
    forget_copies(data)
    take_history_away(data)
    # Which titles a sample of viewers has played stands there too; the worker makes them anew.
    for signals in data.glob("pages/*.npz"):
        signals.unlink(missing_ok=True)
    # Also where no worker has published yet: of decisions that the log remembers and does not have,
    # services ask the lake.
    lake = Lake(data)
    with closing(_open(data)) as log:
        Publisher(log, lake, experiments).publish()
    lake.seal()
    wipe_log(log_place(data))


def old_copies(data: Path) -> list[Path]:
    """The copies in a data folder that migrations and repairs made of what lay there then."""
    return [path for pattern in _OLD_COPIES for path in sorted(data.glob(pattern))]


def drop_old_copies(data: Path) -> None:
    """Delete them. Raises LogError where one stays."""
    for path in old_copies(data):
        try:
            shutil.rmtree(path) if path.is_dir() else path.unlink()
        except OSError as error:
            raise LogError(f"{path}: cannot be deleted: {error}; run it again") from error


def refuse_old_copies(data: Path) -> None:
    """Raises BadRequest where copies lie in the folder that may hold whoever is to be erased."""
    copies = old_copies(data)
    if copies:
        raise BadRequest(
            str(copies[0]),
            "is a copy of old data, which may hold the unit (as may "
            f"{len(copies) - 1:,} others); expected none: say --drop-backups to have all of them "
            "deleted, or move them out of the folder and keep them as you keep backups",
        )


def unit_data(data: Path, unit: str, unit_type: str | None = None) -> dict[str, Any]:
    """All that a data folder holds of a unit, row by row what `find_unit` counts: `decisions`,
    `rewards` and `events` with the lake's columns, times in UTC, `quarantined`, what was set aside,
    `features`, what tables say of it by id, `profiles`, its limits as a profile where any were set,
    and `merges`, each guest that was merged into a profile, of which it is one. Arguments and
    errors as of `find_unit`.
    """
    asked, unit = unit, known_unit_ids(data).stored(unit)
    with closing(_open(data)) as log:
        log.barrier()
        spared = _spared(log, unit_type)
        rows = lake_rows(data, unit, unit_type, spared)
        published = {row["decision_id"] for row in rows["decisions"]}
        in_log = find_in_log(log_place(data), unit, unit_type, spared, published)
        # What the lake does not have yet, in the columns that it will have there.
        stored = log.decisions(in_log.decisions)
        fresh = [(0, decision) for i, decision in stored.items() if i not in published]
        rows["decisions"] += _plain(decision_rows(fresh))
        rows["rewards"] += _fresh_rewards(log, in_log, stored, rows["rewards"])
        rows["events"] += _fresh_events(log, in_log, rows["events"])
        profiles = [log.profile(profile) for profile in sorted(in_log.profiles)]
    rows["quarantined"] = rows_set_aside(log_place(data), in_log.quarantined)
    rows["merges"] = [
        {"profile": profile, "merged": merged} for profile, merged in sorted(in_log.merges)
    ]
    rows["profiles"] = [msgspec.structs.asdict(limits) for limits in profiles if limits]
    features = KeptTables(data).find(unit)
    return {"unit": asked, "unit_type": unit_type, **rows, "features": features}


def _fresh_rewards(
    log: Log, in_log: StoredRows, stored: Mapping[str, Decision], published: list[dict[str, Any]]
) -> list[dict[str, Any]]:
    known = {(row["decision_id"], row["event_id"]) for row in published}
    fresh = []
    for decision_id in dict.fromkeys(decision_id for decision_id, _ in in_log.rewards):
        decision = stored.get(decision_id)
        for event in log.events(decision_id):
            if (decision_id, event.event_id) not in known:
                origin = (
                    Origin(decided_at=event.received_at)
                    if decision is None
                    else Origin.of(decision)
                )
                fresh.append((0, event, origin))
    return _plain(reward_rows(fresh))


def _fresh_events(
    log: Log, in_log: StoredRows, published: list[dict[str, Any]]
) -> list[dict[str, Any]]:
    known = {(row["unit_type"], row["unit"], row["event_id"]) for row in published}
    missing = in_log.events - known
    fresh: list[dict[str, Any]] = []
    after = 0
    while len(fresh) < len(missing) and (batch := log.read_unit_events(after, _BATCH)):
        fresh += _plain(unit_event_rows([row for row in batch if row[1].key in missing]))
        after = batch[-1][0]
    return fresh


def _plain(table: Any) -> list[dict[str, Any]]:
    rows = table.to_pylist()
    for row in rows:
        row.pop("seq")
    return list(rows)


def _open(data: Path) -> Log:
    return open_log_of(data, create=False)


def _spared(log: Log, unit_type: str | None) -> set[str]:
    """The experiments whose units are said to be of another type."""
    spared = set()
    if unit_type is not None:
        # Oldest first, so that an experiment's last revision has the last word.
        types = {
            line.experiment: audited(line.spec, f"{line.experiment} (audit)").get("unit")
            for line in log.revisions()
        }
        spared = {key for key, own in types.items() if own not in (None, unit_type)}
    return spared
