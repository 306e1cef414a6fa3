"""The URL of what answers questions of the record, where that is not DuckDB in this process; and
how much memory DuckDB may take where it does."""

from __future__ import annotations

import os
import re

from topbill.domain.errors import BadRequest

ENGINE_VARIABLE = "TOPBILL_ENGINE"
"""Says, as a URL, which Spark Connect server reads the record for reports, evaluations and
dashboards of this process and of all that it starts. Without it DuckDB does, here.
"""
SCRATCH_VARIABLE = "TOPBILL_ENGINE_SCRATCH"
"""Names a folder, or a URL of one, that the server can write: what several questions are asked of
is kept there while a report is made. Spark can keep it by itself, and Sail cannot.
"""
MEMORY_VARIABLE = "TOPBILL_ENGINE_MEMORY"
"""How much DuckDB may hold in memory, such as `500MB` or `16GB`, in each process that asks it
something. What is more goes to files in the system's folder for temporary ones (`TMPDIR`).
"""
MEMORY = "3GB"
"""Of what a report takes beside it a process has room in four."""
_MEMORY = re.compile(r"\s*\d+(\.\d+)?\s*([KMGT]i?)?B\s*", re.IGNORECASE)
_SCHEME = "sc://"
_PORT = 15002
"""Where Spark Connect listens unless told."""


def engine_url() -> str:
    """The server's URL; empty where there is none.

    Raises:
        BadRequest: the variable says something else.
    """
    url = os.environ.get(ENGINE_VARIABLE, "")
    if url:
        address_of(url)
    return url


def engine_memory() -> str:
    """What DuckDB may hold.

    Raises:
        BadRequest: the variable says something else.
    """
    size = os.environ.get(MEMORY_VARIABLE, "") or MEMORY
    if not _MEMORY.fullmatch(size):
        raise BadRequest(
            MEMORY_VARIABLE, f"got {size!r}; expected a size such as {MEMORY} or 500MB"
        )
    return size


def address_of(url: str) -> tuple[str, int]:
    """Host and port of a server.

    >>> address_of("sc://spark.example:443/;use_ssl=true;token=secret")
    ('spark.example', 443)

    Raises:
        BadRequest: it is no URL of Spark Connect.
    """
    # Behind the first semicolon stand parameters, a token among them: no message shows them.
    place = url.partition(";")[0]
    host, colon, port = place.removeprefix(_SCHEME).rstrip("/").rpartition(":")
    if not colon:
        host, port = port, str(_PORT)
    host = host.removeprefix("[").removesuffix("]")
    if not place.startswith(_SCHEME) or not host or not port.isdigit() or "/" in host:
        raise BadRequest(
            "engine",
            f"got {place}; expected a Spark Connect server, such as {_SCHEME}spark.example:{_PORT}",
        )
    return host, int(port)
