"""Each request has an id, the caller's own where it sends one, by which answer, error and log lines
are found again."""

from __future__ import annotations

import re
from collections.abc import Awaitable, Iterable, MutableMapping
from typing import Any

from topbill.engine import new_id
from topbill.process_log import REQUEST_ID
from topbill.service.asgi import Header, Send

_HEADER = b"x-request-id"
_is_sane = re.compile(rb"[A-Za-z0-9][A-Za-z0-9._:/+=@-]{0,127}").fullmatch
"""No spaces, quotes or line ends: an id goes into headers and log lines as it came."""


def identify(headers: Iterable[Header]) -> Header:
    """Give the request that is being answered its id; returns the header of the answer that says
    it."""
    request_id = presented(headers) or new_id()
    REQUEST_ID.set(request_id)
    return _HEADER, request_id.encode()


def header_of(presented_id: str | None) -> Header:
    """The header that says the id of a request with this one, or without."""
    return _HEADER, (presented_id or new_id()).encode()


def with_header(send: Send, header: Header) -> Send:
    """`send` with one more header in the answer."""

    def send_with_header(message: MutableMapping[str, Any]) -> Awaitable[None]:
        if message["type"] == "http.response.start":
            message["headers"] = [*message["headers"], header]
        return send(message)

    return send_with_header


def presented(headers: Iterable[Header]) -> str | None:
    """The caller's id; None where there is none, or one that could be mistaken for more."""
    for name, value in headers:
        if name == _HEADER:
            return value.decode() if _is_sane(value) else None
    return None
