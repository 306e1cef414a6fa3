"""One write a response: uvicorn hands head and body to the socket apart, and each system call wakes
the caller.
"""

from __future__ import annotations

import asyncio
from typing import Any

from uvicorn.protocols.http.httptools_impl import HttpToolsProtocol


class BufferedTransport:
    """A transport that gathers what is written in one turn of the loop. Everything else is the
    transport's own.
    """

    def __init__(self, transport: asyncio.Transport, loop: asyncio.AbstractEventLoop) -> None:
        self._transport = transport
        self._loop = loop
        self._parts: list[bytes] = []
        # Asked several times a request, where `__getattr__` would take most of a microsecond.
        self.is_closing = transport.is_closing

    def write(self, data: bytes) -> None:
        """Send soon, together with what else this turn of the loop writes."""
        # The loop calls back when what it is running now is done: head and body, which uvicorn
        # writes one after the other, are both there then.
        if not self._parts:
            self._loop.call_soon(self._flush)
        self._parts.append(data)

    def write_whole(self, data: bytes) -> None:
        """Send an answer of which nothing more is to come, behind what was written before it."""
        if self._parts:
            self._parts.append(data)
        elif not self._transport.is_closing():
            self._transport.write(data)

    def close(self) -> None:
        """Send what was written, then close."""
        self._flush()
        self._transport.close()

    def _flush(self) -> None:
        parts, self._parts = self._parts, []
        # Whoever has gone meanwhile gets nothing; a closed transport would raise.
        if parts and not self._transport.is_closing():
            self._transport.write(b"".join(parts))

    def __getattr__(self, name: str) -> Any:
        return getattr(self._transport, name)


class BufferedProtocol(HttpToolsProtocol):
    """uvicorn's HTTP protocol over a buffered transport."""

    def connection_made(self, transport: asyncio.Transport) -> None:  # type: ignore[override]
        """Start a connection."""
        super().connection_made(BufferedTransport(transport, self.loop))  # type: ignore[arg-type]
