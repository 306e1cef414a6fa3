"""Damage of a data folder's files: told file by file, and repaired as far as another one has the
rows.
"""

from __future__ import annotations

from contextlib import closing
from pathlib import Path

from topbill.domain.errors import LogError
from topbill.domain.log_url import without_secrets
from topbill.lake import Lake
from topbill.lake.kept import SUMS, DamagedSumsError, check, forget, kept_files
from topbill.lake.places import lake_place
from topbill.lake.tables import Table
from topbill.log import (
    embedded_log,
    log_place,
    open_log_of,
    shared_log_damage,
    shared_log_end,
)
from topbill.log.database import LogDatabase
from topbill.log.mending import journal_damage, log_damage, mend_journal
from topbill.worker.only_worker import only_worker
from topbill.worker.publisher import Publisher

_ROWS: dict[Table, str] = {
    "decisions": "decisions",
    "rewards": "reward_events",
    "events": "unit_events",
}
"""The tables of the lake, and what the log calls their rows."""


def damage(data: Path) -> list[str]:
    """What is damaged of the log and the lake in a data folder, a sentence a file. Reads all of
    both.
    """
    path = _embedded(data)
    try:
        found = shared_log_damage(str(log_place(data))) if path is None else log_damage(path)
    except LogError as error:
        found = [str(error)]
    if lake_place(data).is_there():
        try:
            lake = Lake(data)
            found += lake.damage()
            found += [] if found else _counted_twice(data, lake)
        except LogError as error:
            found.append(str(error))
    return found + _damaged_sums(data)


def _damaged_sums(data: Path) -> list[str]:
    """What reports keep and would find damaged; they make it anew by themselves."""
    found = []
    for path in kept_files(data):
        try:
            check(path)
        except (DamagedSumsError, OSError) as error:
            found.append(str(error))
    return found


def _counted_twice(data: Path, lake: Lake) -> list[str]:
    """Where the log would give rows numbers that rows of the lake have: they would be taken for
    published ones.
    """
    # Before the log is looked at: a worker may be publishing.
    positions = {table: lake.position(table) for table in _ROWS}
    place = _embedded(data)
    if place is None:
        url = str(log_place(data))
        name, last_seqs = without_secrets(url), dict.fromkeys(_ROWS.values(), shared_log_end(url))
    else:
        name = str(place)
        with closing(LogDatabase(place)) as database:
            last_seqs = database.last_seqs()
    found = []
    for table, rows in _ROWS.items():
        last, position = last_seqs[rows], positions[table]
        if position > last:
            found.append(
                f"{name}: damaged, or another log than the lake's: {rows} count to {last:,}, and "
                f"the lake holds them up to {position:,}"
            )
    return found


def repair(data: Path) -> list[str]:
    """Take over what can be read of a damaged journal, and write files of the lake anew from the
    log; returns what was done, sentence by sentence.

    Nothing else may be at work on the folder. Raises LogError where the log has let go of rows that
    a damaged file held, and where a worker is at work.
    """
    done = []
    path = _embedded(data)
    if _damaged_sums(data):
        forget(data)
        done.append(f"{data / SUMS}: deleted; reports make it anew")
    with only_worker(data):
        mended = None if path is None else mend_journal(path)
        if mended is not None:
            done += [
                mended.damage,
                f"taken over: {mended.rows:,} rows in {mended.groups:,} groups; the damaged file "
                f"is kept as {mended.kept}",
            ]
        is_readable = path is None or not journal_damage(path)
        if is_readable and lake_place(data).is_there():
            with closing(open_log_of(data)) as log:
                healed = Publisher(log, lake := Lake(data), tuple).heal(lake.damaged())
            if healed:
                where = lake_place(data).root
                done.append(f"{where}: {healed:,} rows were written anew from the log")
    return done


def _embedded(data: Path) -> Path | None:
    return embedded_log(data, "looking for damage of files")
