"""Damage of the log's files: told, and of a journal mended as far as it can be read."""

from __future__ import annotations

import fcntl
import os
import shutil
from collections.abc import Iterator
from contextlib import closing, contextmanager
from itertools import chain, islice
from pathlib import Path
from typing import NamedTuple

from topbill.domain.durable import sync
from topbill.domain.errors import LogError
from topbill.log import frames
from topbill.log.bundle_table import BundleTable
from topbill.log.database import LogDatabase
from topbill.log.journal import Journal, reset_state


class MendedJournal(NamedTuple):
    """What was wrong with a journal, and what became of it."""

    damage: str
    groups: int
    """Groups of rows that could be read and were taken over."""
    rows: int
    kept: Path
    """The damaged file as it was."""


def journal_damage(path: Path) -> str:
    """What is wrong with the journal of the log at `path`; empty where nothing is."""
    with closing(LogDatabase(path)) as database:
        try:
            Journal(path.with_suffix(".journal"), database.moved).close()
        except LogError as error:
            return str(error)
    return ""


def log_damage(path: Path) -> list[str]:
    """What is damaged of the log at `path`, file by file; empty where nothing is. Raises LogError
    where it cannot be opened.
    """
    journal = journal_damage(path)
    with closing(LogDatabase(path)) as database:
        found = [*([journal] if journal else []), *database.damage()]
        if not found:
            for seq in islice(BundleTable(database).damaged(), 10):
                found.append(
                    f"{path}: damaged: the bundle of row {seq} of decisions cannot be read"
                )
        return found


def mend_journal(path: Path) -> MendedJournal | None:
    """Put a journal that holds what can be read in the place of a damaged one, which is kept aside.

    Nothing may be at work on the folder. What was read is moved into the tables by whoever opens
    the log next. Killed at any moment, it begins anew. None where nothing is wrong.

    Args:
        path: The log.

    Raises:
        LogError: A file cannot be read or written.
    """
    damage = journal_damage(path)
    if not damage:
        return None
    journal = path.with_suffix(".journal")
    try:
        with _alone(path.with_suffix(".state")) as state, closing(LogDatabase(path)) as database:
            kept = _kept_aside(journal)
            generation, moved = database.moved()
            groups, rows = _rewrite(journal, generation, moved)
            # Only now: until the sound file lies there, the state may be what shows the damage.
            reset_state(state, generation)
    except OSError as error:
        raise LogError(f"{journal}: cannot be mended: {error}; nothing was changed") from error
    return MendedJournal(damage, groups, rows, kept)


@contextmanager
def _alone(path: Path) -> Iterator[int]:
    state = os.open(path, os.O_RDWR | os.O_CREAT | os.O_CLOEXEC, 0o644)
    try:
        fcntl.flock(state, fcntl.LOCK_EX)
        yield state
    finally:
        os.close(state)


def _kept_aside(journal: Path) -> Path:
    number = 1
    while (kept := journal.with_name(f"{journal.name}.damaged-{number}")).exists():
        number += 1
    shutil.copyfile(journal, kept)
    sync(kept)
    return kept


def _rewrite(journal: Path, generation: int, moved: int) -> tuple[int, int]:
    """Write the readable frames one behind the other, from the byte on up to which the tables hold
    what there was; returns how many, and of how many rows.
    """
    mended = journal.with_name(f"{journal.name}.mended")
    groups, rows, end = 0, 0, moved
    with journal.open("rb") as old, mended.open("wb") as new:
        new.seek(moved)
        for frame in _readable(old.fileno(), generation):
            if frame.generation == generation and frame.end <= moved:
                continue
            content = frames.pack(generation, end, frame.at, frame.payload)
            new.write(content)
            end += len(content)
            groups += 1
            rows += frame.rows.total
    sync(mended)
    mended.replace(journal)
    sync(journal.parent)
    return groups, rows


def _readable(file: int, generation: int) -> Iterator[frames.Frame]:
    """The frames that the tables don't hold: of their generation, or where the file belongs to
    other tables, of the first that it has.
    """
    first = frames.frame_at(file, 0, os.fstat(file).st_size)
    if first is not None and first.generation not in (generation, generation - 1):
        generation = first.generation
    at_start = [] if first is None or first.generation != generation else [first]
    behind = frames.frames_behind(file, generation, at_start[0].end if at_start else 0)
    return chain(at_start, behind)
