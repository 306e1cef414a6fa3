"""Copies of a data folder and its log, taken while everything runs, and what is made of them.

A backup is a folder of its own, named by the moment up to which it holds everything:

    DEST/20261129T101500.123456Z/manifest.json   what lies here: each file's size and SHA-256
                                 log.sqlite      with what the journal held moved in
                                 log/…           in its place the tables of a log in PostgreSQL
                                 lake/…          Delta tables, of a version that the log continues
                                 …               what else lies in the data folder

The log is copied first, and of each table the newest version that holds nothing which the copy of
the log lacks: so whatever the worker publishes, merges or lets the log forget meanwhile, each row
is in one of the two. A backup gets its name when it is whole and on the disk.
"""

from __future__ import annotations

import os
import shutil
import sqlite3
from collections.abc import Callable, Iterator
from contextlib import closing
from datetime import UTC, datetime
from pathlib import Path
from typing import NamedTuple

import msgspec

from topbill.domain.durable import size_and_hash, sync, with_checksum, without_checksum
from topbill.domain.errors import BadRequest, LogError, NotFound
from topbill.domain.log_url import LOG_VARIABLE
from topbill.domain.schema_version import SCHEMA_VERSION
from topbill.lake import DATABASE, copies, shared_files
from topbill.lake.delta import TablePlace
from topbill.lake.home import check_home
from topbill.lake.kept import SUMS
from topbill.lake.places import CACHE, lake_place
from topbill.log import LOG_FILE, copy_log, embedded_log, log_place, open_log, restore_log
from topbill.log.sql_database import LATER, WITHOUT_SNAPSHOT
from topbill.log.tombstones import TOMBSTONES, Tombstone, read_tombstones
from topbill.migration import check

MANIFEST = "manifest.json"
LOG_TABLES = "log"
"""The folder of a backup that has the tables of a log in PostgreSQL."""
_NAME = "%Y%m%dT%H%M%S.%fZ"
_UNFINISHED = ".unfinished"
_NOT_COPIED = {
    DATABASE,
    "lake",
    CACHE,
    "metrics",
    "answers",
    SUMS,
    "keeper.lock",
    "migration.lock",
}
"""Made anew, or of a process at work; the lake is copied by its tables. So is the log, whose files
begin with `log.`; and copies that migrations made begin with `backup-`.
"""
_ROWS = {"decisions": "decisions", "rewards": "reward_events", "events": "unit_events"}
"""The tables of the lake, and what the embedded log calls their rows."""
_ROWS_LATER = tuple(f"DELETE FROM {rows} WHERE at > ?" for rows in _ROWS.values())  # noqa: S608


class BackedUpFile(msgspec.Struct, frozen=True):
    """One file of a backup: its path in it, its bytes, and their hash in hexadecimal digits."""

    path: str
    size: int
    sha256: str


class Manifest(msgspec.Struct, frozen=True):
    """What a backup holds: everything stamped up to `at` (µs since the epoch)."""

    at: int
    schema_version: int
    files: list[BackedUpFile]


def back_up(data: Path, destination: Path) -> Path:
    """Copy a data folder with its log, wherever that and the lake lie, into a new folder of
    `destination`, which is returned.

    Service and worker may be at work. What the newest backup there has of the lake already is
    linked and takes no space again.

    Raises:
        NotFound: There is no log in `data`.
        LogError: Something cannot be read or written; then no backup is left.
    """
    place = embedded_log(data, "a backup")
    if place is None:
        if not lake_place(data).is_store and not data.is_dir():
            raise NotFound(
                f"{data}: no such folder; expected the one that the log's processes share"
            )
        # Of another folder than its own the lake would be another's too.
        check_home(data)
        # What other machines have written lies here then.
        shared_files.sync(data)
    elif not place.exists():
        raise NotFound(f"{data}: no log there; expected the data folder of `topbill up`")
    check(data)
    unfinished = destination / _UNFINISHED
    try:
        destination.mkdir(parents=True, exist_ok=True)
        shutil.rmtree(unfinished, ignore_errors=True)
        unfinished.mkdir()
        at, through = _copy_log(log_place(data), unfinished)
        before = backups(destination)[-1:]
        known = {file.path: file for file in _manifest(before[0]).files} if before else {}
        files = []
        for source in _sources(data, through):
            file = None
            if source.name.startswith("lake/") and source.name in known:
                file = _linked(before[0], known[source.name], unfinished, source.size)
            files.append(file or _copied(source, unfinished))
        files += [_measured(unfinished, name) for name in _log_files(unfinished)]
        manifest = msgspec.json.encode(Manifest(at, SCHEMA_VERSION, files))
        (unfinished / MANIFEST).write_bytes(with_checksum(manifest))
        _sync_all(unfinished)
        finished = destination / datetime.fromtimestamp(at / 1e6, UTC).strftime(_NAME)
        unfinished.rename(finished)
        sync(destination)
    except (OSError, sqlite3.Error) as error:
        raise LogError(f"{destination}: cannot back up {data}: {error}; run it again") from error
    return finished


def backups(destination: Path) -> list[Path]:
    """The whole backups in a folder, oldest first."""
    return sorted(path.parent for path in destination.glob(f"*Z/{MANIFEST}"))


def known_tombstones(source: Path) -> list[Tombstone]:
    """Of every unit that a backup in `source`, or `source` itself, knows to be erased."""
    tombstones = {}
    for backup in backups(source) or [source]:
        for tombstone in read_tombstones(backup / TOMBSTONES):
            tombstones[tombstone.hash, tombstone.unit_type] = tombstone
    return list(tombstones.values())


def restore(source: Path, data: Path, at: datetime | None = None) -> Manifest:
    """Make a data folder of a backup: of the newest in `source`, or of `source` itself.

    Every file is compared with the manifest while it is copied. A restore that was killed leaves no
    data folder.

    Args:
        source: A backup, or a folder of backups.
        data: Where to; nothing may lie there. A log in PostgreSQL goes to the one that
            `TOPBILL_LOG` says, which must be empty.
        at: The moment up to which what was stored is kept, by its stamp; the first backup after it
            is taken. Default: everything that the backup holds.

    Raises:
        NotFound: There is no backup, or none after `at`.
        BadRequest: Something lies in `data`, or where the log of `TOPBILL_LOG` is.
        LogError: The backup is damaged, or something cannot be written.
    """
    chosen = _chosen(source, at)
    manifest = _manifest(chosen)
    if data.exists() and any(data.iterdir()):
        raise BadRequest(str(data), "is not empty; expected a new folder to restore into")
    url = _url_for(manifest, data)
    copies.refuse_filled(data)
    draft = data.with_name(f".{data.name}.restoring")
    try:
        shutil.rmtree(draft, ignore_errors=True)
        draft.mkdir(parents=True)
        for file in manifest.files:
            _put(file, chosen, draft)
        until = None if at is None else int(at.timestamp() * 1e6)
        if until is not None:
            _forget_after(draft, until, has_log=url is None)
        copies.put_in_place(draft, data)
        if url is not None:
            restore_log(url, chosen / LOG_TABLES, until)
        _sync_all(draft)
        if data.exists():
            data.rmdir()
        draft.rename(data)
        sync(data.parent)
    except (OSError, sqlite3.Error) as error:
        raise LogError(f"{data}: cannot restore {chosen}: {error}") from error
    return manifest


def _url_for(manifest: Manifest, data: Path) -> str | None:
    """Where the log of a backup goes: to a URL, or None, into the data folder.

    Raises BadRequest where the one is said, and the backup is of the other.
    """
    place = log_place(data)
    url = None if isinstance(place, Path) else place
    is_of_postgres = any(file.path.startswith(f"{LOG_TABLES}/") for file in manifest.files)
    if is_of_postgres and url is None:
        raise BadRequest(
            "--log",
            "the backup is of a log in PostgreSQL; expected the URL of an empty database, there or "
            f"in {LOG_VARIABLE}",
        )
    if url is not None and not is_of_postgres:
        raise BadRequest(
            "--log",
            f"the backup is of a log in its data folder; expected no URL, there or in "
            f"{LOG_VARIABLE}: `topbill migrate --from DATA --log URL` moves it afterwards",
        )
    return url


def _put(file: BackedUpFile, backup: Path, into: Path) -> None:
    """Copy a file of a backup, or only look whether it is what was written: tables go to the
    database from where they are. Raises LogError where it is not."""
    is_table = file.path.startswith(f"{LOG_TABLES}/")
    found = (
        _measured(backup, file.path)
        if is_table
        else _copied(_local(backup / file.path, file.path), into)
    )
    if found != file:
        raise LogError(f"{backup / file.path}: damaged; it is not what was backed up")


def _copy_log(place: str | Path, into: Path) -> tuple[int, dict[str, int]]:
    """Copy the log; the moment up to which it holds everything, and the last `seq` of each table of
    the lake that was given by then.
    """
    if not isinstance(place, Path):
        at, last = copy_log(place, into / LOG_TABLES)
        return at, dict.fromkeys(_ROWS, last)
    with open_log(place) as log:
        at = log.barrier()
    with (
        closing(sqlite3.connect(place)) as source,
        closing(sqlite3.connect(into / LOG_FILE)) as copy,
    ):
        # In one step, so that it is of one moment.
        source.backup(copy)
        given = dict(copy.execute("SELECT name, seq FROM sqlite_sequence"))
        # One file, without a log of its own.
        copy.execute("PRAGMA journal_mode=DELETE")
    return at, {table: given.get(rows, 0) for table, rows in _ROWS.items()}


def _log_files(folder: Path) -> list[str]:
    """The files that hold the log in a folder."""
    if (folder / LOG_TABLES).is_dir():
        return sorted(f"{LOG_TABLES}/{file.name}" for file in (folder / LOG_TABLES).iterdir())
    return [LOG_FILE]


class _Source(NamedTuple):
    """What is copied: its path in the backup, its bytes, and what writes it to a path."""

    name: str
    size: int
    write: Callable[[Path], None]


def _local(path: Path, name: str) -> _Source:
    status = path.stat()

    def write(target: Path) -> None:
        # As little for others to read as it was, from the first byte on: one may be a secret.
        target.touch(mode=status.st_mode & 0o777)
        shutil.copyfile(path, target)

    return _Source(name, status.st_size, write)


def _of_lake(place: TablePlace, path: str, size: int) -> _Source:
    def write(target: Path) -> None:
        target.write_bytes(place.files.read(path))

    return _Source(f"lake/{path}", size, write)


def _sources(data: Path, through: dict[str, int]) -> Iterator[_Source]:
    """What is copied beside the log."""
    for table, seq in through.items():
        place = copies.table_in(data, table)
        for name, size in copies.files_through(place, seq).items():
            yield _of_lake(place, name, size)
    for path in sorted(data.iterdir()):
        if path.name in _NOT_COPIED or path.name.startswith(("log.", "backup-", ".")):
            continue
        for file in sorted(path.rglob("*")) if path.is_dir() else [path]:
            if file.is_file():
                yield _local(file, str(file.relative_to(data)))


def _linked(backup: Path, file: BackedUpFile, into: Path, size: int) -> BackedUpFile | None:
    """Link a file of an earlier backup, since the lake's never change; None where it is not the
    same, or not as it was.
    """
    target = into / file.path
    if file.size != size or _measured(backup, file.path) != file:
        return None
    target.parent.mkdir(parents=True, exist_ok=True)
    os.link(backup / file.path, target)
    return file


def _copied(source: _Source, into: Path) -> BackedUpFile:
    """Copy a file to its path in a folder."""
    target = into / source.name
    target.parent.mkdir(parents=True, exist_ok=True)
    source.write(target)
    return _measured(into, source.name)


def _measured(folder: Path, name: str) -> BackedUpFile:
    return BackedUpFile(name, *size_and_hash(folder / name))


def _manifest(backup: Path) -> Manifest:
    path = backup / MANIFEST
    try:
        manifest = msgspec.json.decode(without_checksum(path.read_bytes()), type=Manifest)
    except (OSError, msgspec.DecodeError, ValueError) as error:
        raise LogError(f"{path}: cannot be read: {error}; expected a backup's manifest") from error
    if manifest.schema_version > SCHEMA_VERSION:
        raise LogError(
            f"{path}: is of schema version {manifest.schema_version}; expected at most "
            f"{SCHEMA_VERSION}: a newer Topbill wrote it, install that one"
        )
    return manifest


def _chosen(source: Path, at: datetime | None) -> Path:
    if source.name == _UNFINISHED:
        # It may look whole, and not be on the disk.
        raise NotFound(f"{source}: is what a backup left that was killed; expected a whole one")
    there = [source] if (source / MANIFEST).exists() else backups(source)
    if not there:
        raise NotFound(f"{source}: no backup there; expected what `topbill backup` has written")
    if at is None:
        return there[-1]
    for backup in there:
        if _manifest(backup).at >= at.timestamp() * 1e6:
            return backup
    newest = datetime.fromtimestamp(_manifest(there[-1]).at / 1e6, UTC)
    raise NotFound(
        f"{source}: no backup after {at.isoformat()}; the last holds what came up to "
        f"{newest.isoformat()}"
    )


def _forget_after(data: Path, at: int, *, has_log: bool) -> None:
    """Take out of a restored folder what came after a moment."""
    if has_log:
        _forget_in_log(data / LOG_FILE, at)
    for table in _ROWS:
        copies.forget_after(data, table, at)


def _forget_in_log(path: Path, at: int) -> None:
    # A backup of an earlier version gets the tables that it lacks.
    open_log(path).close()
    with closing(sqlite3.connect(path, isolation_level=None)) as log:
        log.execute("BEGIN")
        for statement in (*_ROWS_LATER, *LATER):
            log.execute(statement, (at,))
        for statement in WITHOUT_SNAPSHOT:
            log.execute(statement)
        log.execute("COMMIT")


def _sync_all(folder: Path) -> None:
    for path in [folder, *folder.rglob("*")]:
        sync(path)
