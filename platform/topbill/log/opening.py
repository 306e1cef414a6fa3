"""The only way to a log: `open_log`, by a path or a URL.

Adding a kind of log is one entry of `SCHEMES`; the contract test then holds it to what every log
promises.
"""

from __future__ import annotations

import re
from collections.abc import Callable
from pathlib import Path
from typing import TYPE_CHECKING, NamedTuple
from urllib.parse import unquote

from topbill.domain.errors import LogError, NotFound
from topbill.log.memory import MemoryLog
from topbill.log.protocol import Clock, Log, now_micros
from topbill.log.sqlite import SqliteLog
from topbill.log.url import without_secrets

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
    open: Callable[[str, Clock], Log]
    exists: Callable[[str], bool]


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
        open=lambda rest, clock: SqliteLog(_sqlite_path(rest), clock),
        exists=lambda rest: _sqlite_path(rest).exists(),
    ),
    "postgresql": Scheme(
        example="postgresql://USER@HOST:5432/DATABASE",
        durable=True,
        open=lambda rest, clock: _postgres()(f"postgresql:{rest}", clock),
        exists=lambda rest: _postgres().exists(f"postgresql:{rest}"),
    ),
    "memory": Scheme(
        example="memory:NAME",
        durable=False,
        open=MemoryLog,
        exists=MemoryLog.exists,
    ),
}
"""Every kind of log, by the scheme of its URLs. A path is `sqlite`."""


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
        path = Path(place)
        if not create and not path.exists():
            raise _no_log(place)
        return SqliteLog(path, clock)
    scheme, rest = match.groups()
    kind = SCHEMES.get(scheme)
    if kind is None:
        examples = ", ".join(each.example for each in SCHEMES.values())
        raise LogError(
            f"{without_secrets(str(place))}: no log is known by {scheme!r}; "
            f"expected a path, or {examples}"
        )
    if not create and not kind.exists(rest):
        raise _no_log(place)
    return kind.open(rest, clock)


def _no_log(place: str | Path) -> NotFound:
    name = without_secrets(str(place))
    return NotFound(f"{name}: no log there; expected the data folder of `topbill up`")
