"""Connections are bounded: in how many there are, how long each may take for a request's head and
body, and how large a head may be. So none that is half open, slow or silent keeps others out.

uvicorn has a time-out for idle connections only, and would take as many as there are file
descriptors: then nobody could connect, and the log could not be opened either.
"""

from __future__ import annotations

import asyncio
import resource
from collections.abc import Iterator
from enum import IntEnum, auto
from http import HTTPStatus
from itertools import islice
from typing import Any
from weakref import WeakKeyDictionary

from uvicorn.server import ServerState

from topbill.service import telemetry
from topbill.service.bodies import problem
from topbill.service.direct import DirectProtocol

LARGEST_HEAD = 32_768
"""Bytes of the address and the headers of a request."""
MOST_HEADERS = 100
_MOST_FILES = 65_536
_MOST_CONNECTIONS = 10_000
_LONGEST_BACKLOG = 2_048
_OWN_FILES = 128
"""Files that the log, snapshots and the like may have open in a process."""
_SWEEP_SECONDS = 1.0
_MOST_SWEPT = 50
"""Connections that end in one turn of the loop: thousands that came together end together, and
others have their turns in between."""


class Waiting(IntEnum):
    """What a connection waits for. A number, which is quickly found as a key."""

    HEAD = auto()
    """The rest of a request's head, or its first byte on a new connection."""
    BODY = auto()
    ANSWER = auto()
    """The answer, until all of it is sent."""
    IDLE = auto()
    """The next request."""
    CLOSING = auto()
    """That the last bytes are taken."""


SECONDS = {
    Waiting.HEAD: 10.0,
    Waiting.BODY: 30.0,
    Waiting.ANSWER: 60.0,
    Waiting.IDLE: 5.0,
    Waiting.CLOSING: 15.0,
}
"""How long each may take at most."""
_DROPPED_FIRST = (Waiting.HEAD, Waiting.CLOSING, Waiting.IDLE, Waiting.BODY)
"""Whose oldest connection makes room for a new one, in this order. One that waits for its answer is
never dropped."""


def raise_file_limit() -> None:
    """Allow this process, and those that it starts, as many open files as it may allow itself."""
    soft, hard = resource.getrlimit(resource.RLIMIT_NOFILE)
    wanted = _MOST_FILES if hard == resource.RLIM_INFINITY else min(hard, _MOST_FILES)
    if soft != resource.RLIM_INFINITY and soft < wanted:
        resource.setrlimit(resource.RLIMIT_NOFILE, (wanted, hard))


def room() -> tuple[int, int]:
    """How many connections a process may have under its limit of open files, and how many may wait
    to be accepted: those come in one go, so there must be files for them beside the others."""
    files = resource.getrlimit(resource.RLIMIT_NOFILE)[0]
    if files == resource.RLIM_INFINITY:
        files = _MOST_FILES
    kept = min(_OWN_FILES + _LONGEST_BACKLOG, files // 2)
    return min(files - kept, _MOST_CONNECTIONS), max(16, kept - _OWN_FILES)


class Connections:
    """All connections of a process, by what they wait for, those that have waited longest first."""

    def __init__(self, loop: asyncio.AbstractEventLoop, most: int) -> None:
        self._loop = loop
        self._most = most
        # All of a phase have the same time, so the order of entering is that of the deadlines.
        self._deadlines: dict[Waiting, dict[BoundedProtocol, float]] = {
            phase: {} for phase in Waiting
        }
        self._sweeping = False

    def __len__(self) -> int:
        return sum(len(deadlines) for deadlines in self._deadlines.values())

    def make_room(self) -> bool:
        """Drop a connection where there are too many; whether there is room for a new one."""
        if len(self) < self._most:
            return True
        for phase in _DROPPED_FIRST:
            oldest = next(iter(self._deadlines[phase]), None)
            if oldest is not None:
                self.leave(oldest, phase)
                oldest.transport.abort()
                return True
        return False

    def enter(self, connection: BoundedProtocol, phase: Waiting) -> None:
        """The connection waits for something else from now on."""
        self._deadlines[phase][connection] = self._loop.time() + SECONDS[phase]
        if not self._sweeping:
            self._sweeping = True
            self._loop.call_later(_SWEEP_SECONDS, self._sweep)

    def leave(self, connection: BoundedProtocol, phase: Waiting) -> None:
        """The connection does not wait for this any more."""
        self._deadlines[phase].pop(connection, None)

    def _sweep(self) -> None:
        """End what has waited too long."""
        late = list(islice(self._late(self._loop.time()), _MOST_SWEPT))
        for connection, phase in late:
            connection.expire(phase)
        self._sweeping = len(self) > 0
        if self._sweeping:
            pause = 0.0 if len(late) == _MOST_SWEPT else _SWEEP_SECONDS
            self._loop.call_later(pause, self._sweep)

    def _late(self, now: float) -> Iterator[tuple[BoundedProtocol, Waiting]]:
        for phase, deadlines in self._deadlines.items():
            for connection, deadline in deadlines.items():
                if deadline > now:
                    break
                yield connection, phase


_connections: WeakKeyDictionary[ServerState, Connections] = WeakKeyDictionary()


class BoundedProtocol(DirectProtocol):
    """uvicorn's HTTP protocol, bounded."""

    def __init__(self, *arguments: Any, **options: Any) -> None:
        super().__init__(*arguments, **options)
        connections = _connections.get(self.server_state)
        if connections is None:
            connections = Connections(self.loop, room()[0])
            _connections[self.server_state] = connections
        self._all = connections
        self._phase = Waiting.HEAD
        self._request = 0
        """Which request of the connection, and below, which one the phase belongs to."""
        self._phase_request = 0
        self._in_head = self._in_body = False
        self._received = 0
        """Bytes since the last request whose head was complete."""
        self._too_large = ""
        self._last_words = b""
        """A refusal that waits until the requests before it are answered."""

    def connection_made(self, transport: asyncio.Transport) -> None:  # type: ignore[override]
        """Start a connection; refuse it where there are too many that wait for answers."""
        has_room = self._all.make_room()
        super().connection_made(transport)
        self._all.enter(self, self._phase)
        if not has_room:
            self._refuse(503, "too_many_connections", "all connections are busy; try again", 1)

    def connection_lost(self, exc: Exception | None) -> None:
        """End a connection."""
        self._all.leave(self, self._phase)
        super().connection_lost(exc)

    def data_received(self, data: bytes) -> None:
        """Take what came. A head that is too large is refused when it is, not when it ends."""
        # In parts: of bytes that came together with the end of another request none are counted.
        for start in range(0, len(data), LARGEST_HEAD):
            if self.transport.is_closing() or self._last_words:
                return
            part = data[start : start + LARGEST_HEAD]
            self._received += len(part)
            super().data_received(part)
            if self._in_head and self._received > LARGEST_HEAD:
                self._refuse_head(f"over {LARGEST_HEAD:,} bytes")
            self._note_phase()

    def on_known_head(self) -> None:
        """A request begins whose head was not parsed: it was not too large before."""
        self._request += 1
        self._received = 0

    def on_message_begin(self) -> None:
        """A request begins."""
        self._request += 1
        self._in_head = True
        super().on_message_begin()

    def on_headers_complete(self) -> None:
        """A request's head is there, and its work can begin."""
        self._in_head, self._in_body = False, True
        # Only where much came is it worth adding up.
        if self._received > LARGEST_HEAD:
            size = len(self.url) + sum(len(name) + len(value) for name, value in self.headers)
            if size > LARGEST_HEAD:
                self._too_large = f"over {LARGEST_HEAD:,} bytes"
        if len(self.headers) > MOST_HEADERS:
            self._too_large = f"over {MOST_HEADERS} headers"
        if self._too_large:
            # The parser hands it on as an error of its own, which ends in `send_400_response`.
            raise ValueError(self._too_large)
        self._received = 0
        super().on_headers_complete()

    def on_message_complete(self) -> None:
        """A request is there as a whole."""
        self._in_body = False
        super().on_message_complete()

    def on_response_complete(self) -> None:
        """An answer was handed to the socket."""
        is_last = not self.pipeline
        super().on_response_complete()
        if is_last and self._last_words and not self.transport.is_closing():
            self.transport.write(self._last_words)
            self.transport.close()
        self._note_phase()

    def send_400_response(self, msg: str) -> None:
        """Refuse what is no HTTP."""
        if self._too_large:
            self._refuse_head(self._too_large)
        else:
            self._refuse(400, "malformed", msg)

    def expire(self, phase: Waiting) -> None:
        """End the connection, which has waited too long; tell whoever still sends."""
        waits = phase in (Waiting.HEAD, Waiting.BODY)
        if not waits or self._request == 0 or self.transport.is_closing():
            self._all.leave(self, phase)
            self.transport.abort()
            return
        what = "head" if phase is Waiting.HEAD else "body"
        self._refuse(408, "timeout", f"the {what} took over {SECONDS[phase]:.0f} s; send it faster")
        self._note_phase()

    def _note_phase(self) -> None:
        phase = self._phase_now()
        if phase is self._phase and self._request == self._phase_request:
            return
        self._all.leave(self, self._phase)
        self._phase, self._phase_request = phase, self._request
        # One that is lost already has left for good.
        if self.parser is not None:
            self._all.enter(self, phase)

    def _phase_now(self) -> Waiting:
        if self.transport.is_closing():
            return Waiting.CLOSING
        if self._last_words:
            return Waiting.ANSWER
        if self._in_head:
            return Waiting.HEAD
        if self._in_body:
            return Waiting.BODY
        if self.cycle is not None and not self.cycle.response_complete:
            return Waiting.ANSWER
        return Waiting.IDLE

    def _refuse_head(self, message: str) -> None:
        self._refuse(431, "head_too_large", f"{message} of address and headers; send less")

    def _refuse(self, status: int, code: str, message: str, after: int | None = None) -> None:
        """Answer by hand, since no request has come as far as the application, and close."""
        telemetry.REFUSED.labels(str(status)).inc()
        if self.transport.is_closing():
            return
        body = problem(code, message)
        lines = [
            f"HTTP/1.1 {status} {HTTPStatus(status).phrase}",
            "content-type: application/json",
            f"content-length: {len(body)}",
            "connection: close",
        ]
        if after is not None:
            lines.append(f"retry-after: {after}")
        answer = "\r\n".join([*lines, "", ""]).encode() + body
        if self._others_come_first():
            self._last_words = answer
            return
        if not self._has_begun_to_answer():
            self.transport.write(answer)
        self.transport.close()

    def _others_come_first(self) -> bool:
        """Whether requests that came before the refused one wait for their answers, which they are
        still to get: what is behind them is not their fault. The refused one does not wait with
        them any more."""
        if self._is_refused_in_its_body():
            if self.pipeline:
                self.pipeline.popleft()
                return True
            return False
        return self.cycle is not None and not self.cycle.response_complete

    def _has_begun_to_answer(self) -> bool:
        return self._is_refused_in_its_body() and bool(self.cycle.response_started)

    def _is_refused_in_its_body(self) -> bool:
        """Whether the application was handed the head of the refused request already."""
        begun = self.cycle is not None and self._path is None
        return begun and self._in_body and not self._too_large
