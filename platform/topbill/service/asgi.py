"""The few lines of ASGI that the fast path and the Personalizer endpoints have in common."""

from __future__ import annotations

from collections.abc import Awaitable, Callable, MutableMapping
from typing import Any

Scope = MutableMapping[str, Any]
Receive = Callable[[], Awaitable[MutableMapping[str, Any]]]
Send = Callable[[MutableMapping[str, Any]], Awaitable[None]]
App = Callable[[Scope, Receive, Send], Awaitable[None]]
Header = tuple[bytes, bytes]

LARGEST_BODY = 1_000_000
"""Bytes of the largest body that is read."""
JSON: Header = (b"content-type", b"application/json")
SOON: Header = (b"retry-after", b"1")
"""Of every 503: what is over now may be gone in a second."""


async def read_body(receive: Receive) -> bytes | None:
    """The whole body; None where it is over the limit."""
    message = await receive()
    body: bytes = message.get("body", b"")
    while message.get("more_body"):
        # Asked before the next part is taken, so that no more than one part over it is in memory.
        if len(body) > LARGEST_BODY:
            return None
        message = await receive()
        body += message.get("body", b"")
    return None if len(body) > LARGEST_BODY else body


async def respond(send: Send, status: int, body: bytes, *headers: Header) -> None:
    """Send a whole JSON response."""
    if status == 503:
        headers = (*headers, SOON)
    length = (b"content-length", str(len(body)).encode())
    await send(
        {"type": "http.response.start", "status": status, "headers": [JSON, length, *headers]}
    )
    await send({"type": "http.response.body", "body": body})
