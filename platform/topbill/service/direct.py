"""Requests that came whole are answered without a queue of messages and in one write.

Only requests that the application names a route of (`route_of`) go this way, and only where nothing
of them is still to come.
All else is uvicorn's: other routes, bodies in parts, requests behind one that is not answered yet.

Requests that came in one turn of the event loop are handed to the application together, which takes
them stage by stage: all are decoded, then all are decided, committed and answered. Each stage finds
its code in the processor's caches; one request after the other, from end to end, takes a third
longer. Nor does each need a task of its own.

A client sends the same head again and again, on all its connections. What was read of a head is
kept by its bytes: where they come again, at the start of a request, the parser need not look.
"""

from __future__ import annotations

import asyncio
import logging
from collections.abc import Callable, Coroutine
from typing import Any, Protocol
from weakref import WeakKeyDictionary

from uvicorn.protocols.http.httptools_impl import STATUS_LINE
from uvicorn.server import ServerState

from topbill.service.asgi import Header, Reply, Scope
from topbill.service.bodies import problem
from topbill.service.buffered import BufferedProtocol

_logger = logging.getLogger("topbill")
_END_OF_HEAD = b"\r\n\r\n"
_LONGEST_HEAD = 2_048
"""Bytes of the longest head that is kept,"""
_MOST_HEADS = 256
"""and how many are."""


class Head:
    """What a request's head says.

    Attributes:
        path: Of its address.
        headers: By name.
        length: Of its body.
        read: What the application made of it and keeps, for all requests that have this head.
    """

    __slots__ = ("headers", "length", "path", "read")

    def __init__(self, path: str, headers: list[Header], length: int) -> None:
        self.path, self.headers, self.length = path, headers, length
        self.read: Any = None


class _Woken:
    """Stands for the event of uvicorn's cycles: here nobody waits for more of a body."""

    def set(self) -> None:
        """Nothing to do."""


class DirectRequest:
    """A whole request under way; to uvicorn it is one of its own cycles.

    Attributes:
        head: What it began with.
        body: All of it.
    """

    __slots__ = ("_protocol", "body", "disconnected", "head", "keep_alive", "response_complete")
    message_event = _Woken()
    response_started = False
    """Nothing of an answer is written before all of it is."""

    def __init__(
        self, protocol: DirectProtocol, head: Head, body: bytes, *, keep_alive: bool
    ) -> None:
        self._protocol = protocol
        self.head, self.body = head, body
        self.keep_alive = keep_alive
        self.disconnected = self.response_complete = False

    @property
    def scope(self) -> Scope:
        """What ASGI has of it: type, method, path, headers and client."""
        return {
            "type": "http",
            "method": "POST",
            "path": self.head.path,
            "headers": self.head.headers,
            "client": self._protocol.client,
        }

    def answer(self, reply: Reply) -> None:
        """Answer, once."""
        self._protocol.answer(self, reply)

    def fail(self) -> None:
        """Answer that a defect keeps it from an answer: for who has caught an error of no kind that
        is expected.
        """
        _logger.exception("a request failed")
        self.answer(Reply(500, problem("internal", "a defect; see the service's log")))

    def answer_later(self, reply: Coroutine[Any, Any, Reply]) -> None:
        """Answer when the coroutine has the reply."""
        self._protocol.run(self._answer_with(reply))

    async def _answer_with(self, reply: Coroutine[Any, Any, Reply]) -> None:
        try:
            answer = await reply
        except BaseException:
            self.fail()
        else:
            self.answer(answer)


class DirectApplication(Protocol):
    """An application that whole requests are handed to."""

    def route_of(self, path: str) -> str:
        """What a path is counted as; "" of one whose requests are not for it. They come by POST."""
        ...

    def take(self, requests: list[DirectRequest]) -> None:
        """Answer each of the requests that came in one turn of the event loop, now or later."""
        ...


def _nowhere(_path: str) -> str:
    return ""


class _Server:
    """What all connections of a server have in common."""

    def __init__(self, app: Any, loop: asyncio.AbstractEventLoop) -> None:
        self.route_of: Callable[[str], str] = getattr(app, "route_of", _nowhere)
        self._app = app
        self._loop = loop
        self._turn: list[DirectRequest] = []
        """The requests that came in this turn of the loop."""
        self._heads: dict[bytes, Head] = {}
        self._defaults: list[Header] | None = None
        self._starts: dict[int, bytes] = {}
        """Of answers, by status: up to the headers that all of them have."""

    def add(self, request: DirectRequest) -> None:
        """Hand a request to the application, with all others of this turn."""
        if not self._turn:
            self._loop.call_soon(self._hand_over)
        self._turn.append(request)

    def _hand_over(self) -> None:
        requests, self._turn = self._turn, []
        self._app.take(requests)

    def find_head(self, data: bytes) -> tuple[Head, bytes] | None:
        """Head and body of a whole request, where its head is known."""
        end = data.find(_END_OF_HEAD) + len(_END_OF_HEAD)
        head = self._heads.get(data[:end])
        if head is None or len(data) != end + head.length:
            return None
        return head, data[end:]

    def keep_head(self, data: bytes, head: Head) -> None:
        """Know the head of a request that came as `data`, where these are its head, the length of
        its body in the plainest form, and its body.
        """
        end = data.find(_END_OF_HEAD) + len(_END_OF_HEAD)
        length = b"%d" % (len(data) - end)
        lengths = [value for name, value in head.headers if name == b"content-length"]
        if lengths == [length] and end <= _LONGEST_HEAD:
            if len(self._heads) >= _MOST_HEADS:
                self._heads.clear()
            self._heads[data[:end]] = head

    def start_of_answer(self, status: int, defaults: list[Header]) -> bytes:
        """The first lines of an answer. `defaults` are the server's own headers, another list each
        second.
        """
        if defaults is not self._defaults:
            self._defaults = defaults
            self._starts.clear()
        start = self._starts.get(status)
        if start is None:
            lines = [b"%b: %b\r\n" % header for header in defaults]
            start = self._starts[status] = STATUS_LINE[status] + b"".join(lines)
        return start


_servers: WeakKeyDictionary[ServerState, _Server] = WeakKeyDictionary()


class DirectProtocol(BufferedProtocol):
    """uvicorn's HTTP protocol, past which whole requests that a DirectApplication names a
    route of go there.
    """

    def __init__(self, *arguments: Any, **options: Any) -> None:
        super().__init__(*arguments, **options)
        server = _servers.get(self.server_state)
        if server is None:
            server = _servers[self.server_state] = _Server(self.app, self.loop)
        self._server = server
        self._path: str | None = None
        """Of the request whose end has not come, where it may be answered directly."""
        self._body = b""
        self._is_between = True
        """Whether the parser has seen whole requests only, all of which were answered directly."""

    def data_received(self, data: bytes) -> None:
        """Take what came. A request of which more is to come is uvicorn's from here on."""
        is_start = self._is_between and self._is_first and not self.flow.write_paused
        known = self._server.find_head(data) if is_start else None
        if known is not None:
            head, body = known
            self.on_known_head()
            self._begin(head, body, keep_alive=True)
            return
        super().data_received(data)
        if self._path is not None and not self.transport.is_closing():
            self._hand_on()
        if is_start and self._is_between and isinstance(self.cycle, DirectRequest):
            self._server.keep_head(data, self.cycle.head)

    def on_known_head(self) -> None:
        """A request begins whose head was not parsed."""

    @property
    def _is_first(self) -> bool:
        """Whether no request waits for its answer."""
        return self.cycle is None or self.cycle.response_complete

    def on_message_begin(self) -> None:
        """A request begins."""
        self._is_between = False
        self.url = b""
        self.headers = []
        self.expect_100_continue = False

    def on_headers_complete(self) -> None:
        """A request's head is there."""
        path = self.url.decode("latin-1")
        # Who does not read what is answered is answered by uvicorn, which waits for them.
        is_free = self._is_first and not self.flow.write_paused
        is_plain = not (self.expect_100_continue or self.parser.should_upgrade())
        is_post = self.parser.get_method() == b"POST"
        if is_post and is_free and is_plain and self._server.route_of(path):
            self._path, self._body = path, b""
        else:
            self._begin_cycle()

    def on_body(self, body: bytes) -> None:
        """A part of a request's body is there."""
        if self._path is None:
            super().on_body(body)
        elif self._body:
            self._body += body
        else:
            self._body = body

    def on_message_complete(self) -> None:
        """A request is there as a whole."""
        if self._path is None:
            super().on_message_complete()
            return
        path, self._path = self._path, None
        is_new = self.parser.get_http_version() != "1.0"
        keep_alive = is_new and self.parser.should_keep_alive()
        self._is_between = keep_alive
        head = Head(path, self.headers, len(self._body))
        self._begin(head, self._body, keep_alive=keep_alive)

    def _begin(self, head: Head, body: bytes, *, keep_alive: bool) -> None:
        """Hand a whole request over."""
        request = DirectRequest(self, head, body, keep_alive=keep_alive)
        self.cycle = request  # type: ignore[assignment]
        self._server.add(request)

    def on_response_complete(self) -> None:
        """An answer was handed to the socket."""
        if self.pipeline or not isinstance(self.cycle, DirectRequest):
            super().on_response_complete()
        else:
            # uvicorn would start a timer for the idle connection, and cancel it right after.
            self.server_state.total_requests += 1

    def _hand_on(self) -> None:
        """Let uvicorn go on with a request that has begun."""
        self._path, body = None, self._body
        self._begin_cycle()
        if body:
            super().on_body(body)

    def _begin_cycle(self) -> None:
        url, headers, expects = self.url, self.headers, self.expect_100_continue
        super().on_message_begin()
        self.url, self.expect_100_continue = url, expects
        self.headers.extend(headers)
        super().on_headers_complete()

    def run(self, coroutine: Coroutine[Any, Any, None]) -> None:
        """Run it as a task that the server waits for before it ends."""
        task = self.loop.create_task(coroutine)
        self.tasks.add(task)
        task.add_done_callback(self.tasks.discard)

    def answer(self, request: DirectRequest, reply: Reply) -> None:
        """Write an answer, in one piece."""
        request.response_complete = True
        if request.disconnected:
            return
        start = self._server.start_of_answer(reply.status, self.server_state.default_headers)
        close = b"" if request.keep_alive else b"connection: close\r\n"
        transport: Any = self.transport
        transport.write_whole(b"%b%b%b\r\n%b" % (start, reply.head, close, reply.body))
        if not request.keep_alive:
            self.transport.close()
        self.on_response_complete()
