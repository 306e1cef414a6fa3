"""The only way to a log: `open_log`, by a path or a URL, and `open_log_of`, by a data folder.

Adding a kind of log is one entry of `SCHEMES`; the contract test then holds it to what every log
promises.
"""

from __future__ import annotations

import os
import re
from collections.abc import Callable
from pathlib import Path
from typing import TYPE_CHECKING, NamedTuple
from urllib.parse import unquote

from topbill.domain.errors import BadRequest, LogError, NotFound
from topbill.domain.log_url import LOG_VARIABLE, without_secrets
from topbill.log.memory import MemoryLog
from topbill.log.protocol import Clock, Leases, Log, now_micros
from topbill.log.sqlite import SqliteLog

if TYPE_CHECKING:
    from topbill.log.postgres import PostgresLog

LOG_FILE = "log.sqlite"
"""What the embedded log is called in a data folder."""

# Two letters at least: `C:\data` is a path.
_URL = re.compile(r"([a-z][a-z0-9+.-]+):(.*)", re.DOTALL)


class Scheme(NamedTuple):
    """A kind of log: how URLs of it look, and how one is opened. `rest` is what follows the scheme
    and its colon.
    """

    example: str
    durable: bool
    """Whether what is acknowledged outlives the process and a power cut."""
    open: Callable[[str, Clock, bool], Log]
    """The last says whether an empty one is made where there is none; else that is NotFound."""


def _sqlite_path(rest: str) -> Path:
    # As in file URLs: between the second and the third slash is the host, which is this one.
    if not rest.startswith("///"):
        raise LogError(
            f"sqlite:{rest}: names no file of this machine; "
            "expected sqlite:///ABSOLUTE/PATH, or a path alone"
        )
    return Path("/" + unquote(rest).lstrip("/"))


def _postgres() -> type[PostgresLog]:
    # psycopg is an extra, and nobody else needs to wait for its import.
    try:
        from topbill.log.postgres import PostgresLog
    except ImportError as error:
        raise LogError(
            f"a log in PostgreSQL needs psycopg ({error}); install it: pip install "
            "'topbill[postgres]'"
        ) from error
    return PostgresLog


SCHEMES: dict[str, Scheme] = {
    "sqlite": Scheme(
        example="sqlite:///srv/topbill/log.sqlite",
        durable=True,
        open=lambda rest, clock, create: _embedded(_sqlite_path(rest), clock, create),
    ),
    "postgresql": Scheme(
        example="postgresql://USER@HOST:5432/DATABASE",
        durable=True,
        open=lambda rest, clock, create: _postgres()(f"postgresql:{rest}", clock, create=create),
    ),
    "memory": Scheme(
        example="memory:NAME",
        durable=False,
        open=lambda rest, clock, create: _in_memory(rest, clock, create),
    ),
}
"""Every kind of log, by the scheme of its URLs. A path is `sqlite`."""


def _is_postgres(url: str) -> bool:
    return url.startswith("postgresql:")


def open_log(place: str | Path, *, create: bool = True, clock: Clock = now_micros) -> Log:
    """A handle on the log at a path or URL.

    Args:
        place: Path of an embedded log; `sqlite:///ABSOLUTE/PATH` is the same.
            `postgresql://USER@HOST:5432/DATABASE` is a shared one, in the first schema of the
            connection's `search_path`. `memory:` is a log in this process's memory, `memory:NAME`
            one that all handles of that name share.
        create: Whether an empty log is made where there is none.
        clock: Gives the time in microseconds since the epoch; for tests.

    Raises:
        NotFound: There is no log, and `create` is false.
        LogError: The scheme is none that is known, or the log cannot be opened.

    >>> with open_log("memory:") as log:
    ...     log.version("home")
    0
    """
    match = None if isinstance(place, Path) else _URL.fullmatch(place)
    if match is None:
        return _embedded(Path(place), clock, create)
    scheme, rest = match.groups()
    kind = SCHEMES.get(scheme)
    if kind is None:
        examples = ", ".join(each.example for each in SCHEMES.values())
        raise LogError(
            f"{without_secrets(str(place))}: no log is known by {scheme!r}; "
            f"expected a path, or {examples}"
        )
    return kind.open(rest, clock, create)


def _embedded(path: Path, clock: Clock, create: bool) -> SqliteLog:
    if not create and not path.exists():
        raise NotFound(f"{path}: no log there; expected the data folder of `topbill up`")
    return SqliteLog(path, clock)


def _in_memory(name: str, clock: Clock, create: bool) -> MemoryLog:
    if not create and not MemoryLog.exists(name):
        raise NotFound(f"memory:{name}: no log there")
    return MemoryLog(name, clock)


def log_place(data: Path) -> str | Path:
    """Where the log of a data folder is: at the URL that `TOPBILL_LOG` says, or in the folder.

    Raises LogError where both are there: which of them has the folder's rows?
    """
    url = os.environ.get(LOG_VARIABLE, "")
    own = data / LOG_FILE
    if url and own.exists():
        raise LogError(
            f"{own}: the folder has a log of its own, beside {without_secrets(url)} which "
            f"{LOG_VARIABLE} or --log says; expected one of them: choose another data folder, or "
            "leave the URL out"
        )
    return url or own


def is_shared(data: Path) -> bool:
    """Whether the log of a data folder is at a URL. Raises LogError as `log_place`."""
    return not isinstance(log_place(data), Path)


def open_log_of(data: Path, *, create: bool = True) -> Log:
    """A handle on the log of a data folder; see `log_place`.

    Args:
        data: The data folder.
        create: Whether an empty log is made in a folder that has none. At a URL none is ever made:
            `topbill migrate --log URL` does that, once, so that a wrong URL is not a new log.

    Raises:
        NotFound: There is no log, and none is made.
        LogError: The log cannot be opened, or there are two.
    """
    place = log_place(data)
    return open_log(place, create=create and isinstance(place, Path))


def leases_of(data: Path) -> Leases | None:
    """Several leases on a log that machines share; None where the log lies in its data folder, of
    which one worker does everything.

    Raises LogError where the log cannot be reached.
    """
    place = log_place(data)
    if isinstance(place, Path):
        return None
    _postgres()
    from topbill.log.postgres_leases import AdvisoryLeases

    return AdvisoryLeases(place)


def migrate_log(url: str) -> str:
    """Make the log at a URL, or bring it to this version; what was done, in a sentence. Services
    and workers may be at work.

    Raises LogError where it cannot be, and BadRequest where it is none that needs to be.
    """
    if not _is_postgres(url):
        raise BadRequest("--log", f"got {without_secrets(url)}; expected a postgresql:// URL")
    _postgres()
    from topbill.log.postgres import migrate

    return migrate(url)


def has_log(data: Path) -> bool:
    """Whether a data folder has a log. Raises LogError where it cannot be opened."""
    place = log_place(data)
    if isinstance(place, Path):
        return place.exists()
    try:
        open_log(place, create=False).close()
    except NotFound:
        return False
    return True


def embedded_log(data: Path, what: str) -> Path | None:
    """The file of a data folder's own log; None where the log lies in PostgreSQL. Raises LogError,
    which says that it is `what`, where it is neither.
    """
    place = log_place(data)
    if isinstance(place, Path):
        return place
    if _is_postgres(place):
        return None
    raise LogError(
        f"{without_secrets(place)}: {what} is only for the log in a data folder, and for one in "
        "PostgreSQL"
    )


def copy_log(url: str, into: Path) -> tuple[int, int]:
    """Write a log in PostgreSQL into a new folder; see `postgres_copy.copy_tables`."""
    _postgres()
    from topbill.log.postgres_copy import copy_tables

    return copy_tables(url, into)


def restore_log(url: str, source: Path, at: int | None = None) -> None:
    """Fill an empty log in PostgreSQL with what was copied; see `postgres_copy.restore_tables`."""
    _postgres()
    from topbill.log.postgres_copy import restore_tables

    restore_tables(url, source, at)


def shared_log_damage(url: str) -> list[str]:
    """What is damaged of the rows of a log in PostgreSQL; see `postgres_damage.rows_damage`."""
    _postgres()
    from topbill.log.postgres_damage import rows_damage

    return rows_damage(url)


def shared_log_end(url: str) -> int:
    """The last `seq` that can be read of a log in PostgreSQL; see `postgres_damage.end`."""
    _postgres()
    from topbill.log.postgres_damage import end

    return end(url)
