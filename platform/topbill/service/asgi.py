"""The few lines of ASGI that the fast path and the Personalizer endpoints have in common."""

from __future__ import annotations

from collections.abc import Awaitable, Callable, MutableMapping
from typing import Any

import msgspec

Scope = MutableMapping[str, Any]
Receive = Callable[[], Awaitable[MutableMapping[str, Any]]]
Send = Callable[[MutableMapping[str, Any]], Awaitable[None]]
App = Callable[[Scope, Receive, Send], Awaitable[None]]
Header = tuple[bytes, bytes]

LARGEST_BODY = 1_000_000
"""Bytes of the largest body that is read."""
JSON: Header = (b"content-type", b"application/json")
_PLAIN = b"content-type: application/json\r\ncontent-length: %d\r\n%b: %b\r\n"
"""The headers of most answers, with one more."""
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


class Reply(msgspec.Struct, frozen=True, gc=False):
    """A whole answer, in JSON. `more` are headers beside those that follow from status and body."""

    status: int
    body: bytes
    more: tuple[Header, ...] = ()

    @property
    def headers(self) -> list[Header]:
        """All of them."""
        if self.status == 304:
            return [*self.more]
        headers = [JSON, (b"content-length", b"%d" % len(self.body)), *self.more]
        return [*headers, SOON] if self.status == 503 else headers

    @property
    def head(self) -> bytes:
        """The same as HTTP/1.1 has them, a line each."""
        if self.status == 200 and len(self.more) == 1:
            return _PLAIN % (len(self.body), *self.more[0])
        return b"".join([b"%b: %b\r\n" % header for header in self.headers])

    def with_header(self, header: Header) -> Reply:
        """The same with one more header."""
        return Reply(self.status, self.body, (*self.more, header))


async def respond(send: Send, status: int, body: bytes, *headers: Header) -> None:
    """Send a whole JSON response."""
    await send_reply(send, Reply(status, body, headers))


async def send_reply(send: Send, reply: Reply) -> None:
    """Send an answer."""
    start = {"type": "http.response.start", "status": reply.status, "headers": reply.headers}
    await send(start)
    await send({"type": "http.response.body", "body": reply.body})
