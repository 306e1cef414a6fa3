"""The only way to a log: `open_log`, by a path or a URL.

Adding a kind of log is one entry of `SCHEMES`; the contract test then holds it to what every log
promises.
"""

from __future__ import annotations

import re
from collections.abc import Callable
from pathlib import Path
from typing import NamedTuple
from urllib.parse import unquote

from topbill.domain.errors import LogError, NotFound
from topbill.log.memory import MemoryLog
from topbill.log.protocol import Clock, Log, now_micros
from topbill.log.sqlite import SqliteLog

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


SCHEMES: dict[str, Scheme] = {
    "sqlite": Scheme(
        example="sqlite:///srv/topbill/log.sqlite",
        durable=True,
        open=lambda rest, clock: SqliteLog(_sqlite_path(rest), clock),
        exists=lambda rest: _sqlite_path(rest).exists(),
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
        place: Path of an embedded log; `sqlite:///ABSOLUTE/PATH` is the same. `memory:` is a log in
            this process's memory, `memory:NAME` one that all handles of that name share.
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
        raise LogError(f"{place}: no log is known by {scheme!r}; expected a path, or {examples}")
    if not create and not kind.exists(rest):
        raise _no_log(place)
    return kind.open(rest, clock)


def _no_log(place: str | Path) -> NotFound:
    return NotFound(f"{place}: no log there; expected the data folder of `topbill up`")
