"""The URL of what answers questions of the record, where that is not DuckDB in this process."""

from __future__ import annotations

import os

from topbill.domain.errors import BadRequest

ENGINE_VARIABLE = "TOPBILL_ENGINE"
"""Says, as a URL, which Spark Connect server reads the record for reports, evaluations and
dashboards of this process and of all that it starts. Without it DuckDB does, here.
"""
SCRATCH_VARIABLE = "TOPBILL_ENGINE_SCRATCH"
"""Names a folder, or a URL of one, that the server can write: what several questions are asked of
is kept there while a report is made. Spark can keep it by itself, and Sail cannot.
"""
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
