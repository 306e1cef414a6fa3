"""Brings a data folder to the schema version of this code, or back to that of 0.1.0.

Whoever opens a folder for writing calls `migrate` first. What it changes is copied beside it
before, and every step is whole or not there at all: a folder whose migration was killed opens, and
the next `migrate` goes on where that one stopped.
"""

from __future__ import annotations

import fcntl
from collections.abc import Iterator
from contextlib import contextmanager
from datetime import UTC, datetime
from pathlib import Path
from typing import TYPE_CHECKING, cast

from topbill.domain.errors import LogError, TopbillError
from topbill.domain.schema_version import SCHEMA_VERSION
from topbill.lake.places import DATABASE, LAKE
from topbill.log import LOG_FILE, migrate_log, open_log, schema_stamp
from topbill.log.bundle_table import undo_bundles
from topbill.log.sqlite import SqliteLog

if TYPE_CHECKING:
    from topbill.log.table_log import TableLog

FORMER_LOG = "former-log"
"""The folder in a data folder that has its own log once that has moved."""
_WORKER_LOCK = "keeper.lock"
"""Called so by 0.1.0: whoever holds it publishes into the folder."""


def migrate(data: Path) -> list[str]:
    """Bring the folder to this code's schema version; what was done, in sentences (none where it
    was there already).

    The folder need not be there yet. A worker calls this before it takes the folder's lock.

    Raises:
        LogError: The folder is of a newer version than this code knows, or cannot be changed.
        TopbillError: A worker is at work on it, which would write what is being renamed.
    """
    if not data.is_dir():
        return []
    check(data)
    if not _is_old(data):
        return []
    with _one_at_a_time(data):
        # Another process may have done it while this one waited. Seen before a worker is looked
        # for: the worker that did it is at work by now.
        if not _is_old(data):
            return []
        from topbill.lake import schema_change

        with _no_worker(data):
            done = [_backed_up(data)]
            done += schema_change.upgrade(data)
            # The log's stamp comes last: until then the folder counts as not migrated.
            if schema_stamp.version(data / LOG_FILE) is not None:
                schema_stamp.stamp(data / LOG_FILE, SCHEMA_VERSION)
        done.append(f"{data}: is of schema version {SCHEMA_VERSION} now")
    return done


def migrate_down(data: Path) -> list[str]:
    """Bring the folder back to what 0.1.0 reads; what was done, in sentences.

    Rows that came since are kept. The analytics database is removed: 0.1.0's keeper writes its own
    within seconds. Raises as `migrate` does.
    """
    from topbill.lake import schema_change

    check(data)
    with _one_at_a_time(data), _no_worker(data):
        done = [_backed_up(data)]
        if schema_stamp.version(data / LOG_FILE) is not None:
            _undo_bundles(data / LOG_FILE)
            schema_stamp.stamp(data / LOG_FILE, 0)
        done += schema_change.downgrade(data)
        done.append(f"{data}: is as 0.1.0 reads it; start its keeper to have it published")
    return done


def move_log(data: Path, url: str) -> list[str]:
    """Have the log at a URL go on in the place of a data folder's own: it takes over all that is
    said once (policies, the audit, orders, conclusions, erasures, profiles), and the folder keeps
    its lake, in which the rows are. What was done, in sentences.

    Raises:
        NotFound: The folder has no log of its own.
        Conflict: The log at the URL has experiments of its own already.
        LogError: Some row is not in the lake yet, or one of both logs cannot be used.
        TopbillError: A worker is at work on the folder.
    """
    from topbill.lake import Lake

    path = data / LOG_FILE
    said = [migrate_log(url)]
    with open_log(path, create=False) as log, open_log(url, create=False) as at_url:
        own, shared = cast("TableLog", log), cast("TableLog", at_url)  # both have a database
        with _no_worker(data):
            own.tend()
            lake = Lake(data)
            waiting = [
                *own.read_decisions(lake.position("decisions"), 1),
                *own.read_events(lake.position("rewards"), 1),
                *own.read_unit_events(lake.position("events"), 1),
            ]
            if waiting:
                raise LogError(
                    f"{path}: has rows that are not in the lake; expected none: stop the service, "
                    "let `topbill worker` publish them for some seconds, stop it and try again"
                )
            if shared.go_on_from(own):
                said.append(f"{shared.name}: goes on from {path}")
    former = data / FORMER_LOG
    former.mkdir(exist_ok=True)
    for file in sorted(data.glob("log.*")):
        file.rename(former / file.name)
    said.append(f"{former}: has the folder's own log, which nothing reads any more")
    return said


def _undo_bundles(log: Path) -> None:
    """0.1.0 knows none, neither in the log's file nor in its journal, and takes whatever lies there
    for what the tables do not hold yet.
    """
    with SqliteLog(log) as opened:
        opened.drain(whole=True)
    undo_bundles(log)


def check(data: Path) -> None:
    """Raises LogError where the folder is of a version that this code doesn't know."""
    newest = max(schema_stamp.version(data / LOG_FILE) or 0, _lake_version(data) or 0)
    if newest > SCHEMA_VERSION:
        raise LogError(
            f"{data}: is of schema version {newest}; expected at most {SCHEMA_VERSION}: "
            "a newer Topbill wrote it, install that one"
        )


def _is_old(data: Path) -> bool:
    log = schema_stamp.version(data / LOG_FILE)
    lake = _lake_version(data)
    # A folder of 0.1.0 has at least one of them, and no stamp on it.
    return (log is not None and log < SCHEMA_VERSION) or (
        lake is not None and lake < SCHEMA_VERSION
    )


def _lake_version(data: Path) -> int | None:
    """The schema version of the lake; None where there is none, and nothing is waited for that
    would read one."""
    if not (data / LAKE).exists() and not (data / DATABASE).exists():
        return None
    from topbill.lake import schema_change

    return schema_change.version(data)


def _backed_up(data: Path) -> str:
    from topbill.lake import schema_change

    now = datetime.now(UTC).strftime("%Y%m%dT%H%M%S.%f")
    copy = data / f"backup-{now}"
    schema_change.back_up(data, copy)
    return (
        f"{copy}: is a copy of the lake as it was (links to its files: no space is taken twice); "
        "delete it when you don't need it"
    )


@contextmanager
def _one_at_a_time(data: Path) -> Iterator[None]:
    """Hold the lock of migrations."""
    try:
        with (data / "migration.lock").open("w") as lock:
            # Waits: service and worker start together, and the second goes on when all is done.
            fcntl.flock(lock, fcntl.LOCK_EX)
            yield
    except OSError as error:
        raise LogError(
            f"{data}: cannot be migrated: {error}; expected a folder to write to"
        ) from error


@contextmanager
def _no_worker(data: Path) -> Iterator[None]:
    """Keep workers from the folder; those of 0.1.0 too."""
    with (data / _WORKER_LOCK).open("a") as worker:
        try:
            fcntl.flock(worker, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except OSError as error:
            raise TopbillError(
                f"{data}: a worker is at work on this folder, which is about to change; "
                "stop it first"
            ) from error
        yield
