"""Requests that came whole are answered without a queue of messages and in one write.

Only the application's `paths` go this way, and only where nothing of the request is still to come.
All else is uvicorn's: other routes, bodies in parts, requests behind one that is not answered yet.

Requests that came in one turn of the event loop go on side by side, stage by stage: all are read,
then all are decoded, then all are decided, committed and answered. Each stage finds its code in the
processor's caches; one request after the other, from end to end, takes a third longer.
"""

from __future__ import annotations

import logging
from typing import Any

from uvicorn.protocols.http.httptools_impl import STATUS_LINE

from topbill.service.asgi import Reply, Scope
from topbill.service.bodies import problem
from topbill.service.buffered import BufferedProtocol

_logger = logging.getLogger("topbill")


class _Woken:
    """Stands for the event of uvicorn's cycles: here nobody waits for more of a body."""

    def set(self) -> None:
        """Nothing to do."""


class DirectCycle:
    """A request under way, with what uvicorn asks of its own."""

    __slots__ = ("disconnected", "keep_alive", "response_complete")
    message_event = _Woken()
    response_started = False
    """Nothing of an answer is written before all of it is."""

    def __init__(self, *, keep_alive: bool) -> None:
        self.keep_alive = keep_alive
        self.disconnected = self.response_complete = False


class DirectProtocol(BufferedProtocol):
    """uvicorn's HTTP protocol, past which whole requests for `paths` of the application go to its
    `reply`.
    """

    def __init__(self, *arguments: Any, **options: Any) -> None:
        super().__init__(*arguments, **options)
        app: Any = self.app
        self._paths: frozenset[str] = getattr(app, "paths", frozenset())
        self._path: str | None = None
        """Of the request whose end has not come, where it may be answered directly."""
        self._body = b""

    def data_received(self, data: bytes) -> None:
        """Take what came. A request of which more is to come is uvicorn's from here on."""
        super().data_received(data)
        if self._path is not None and not self.transport.is_closing():
            self._hand_on()

    def on_message_begin(self) -> None:
        """A request begins."""
        self.url = b""
        self.headers = []
        self.expect_100_continue = False

    def on_headers_complete(self) -> None:
        """A request's head is there."""
        path = self.url.decode("latin-1")
        is_first = self.cycle is None or self.cycle.response_complete
        # Who does not read what is answered is answered by uvicorn, which waits for them.
        is_read = not self.flow.write_paused
        is_plain = is_read and not (self.expect_100_continue or self.parser.should_upgrade())
        if path in self._paths and is_first and is_plain and self.parser.get_method() == b"POST":
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
        scope = {
            "type": "http",
            "method": "POST",
            "path": path,
            "headers": self.headers,
            "client": self.client,
        }
        is_new = self.parser.get_http_version() != "1.0"
        keep_alive = is_new and self.parser.should_keep_alive()
        cycle = DirectCycle(keep_alive=keep_alive)
        self.cycle = cycle  # type: ignore[assignment]
        task = self.loop.create_task(self._run(cycle, scope, self._body))
        self.tasks.add(task)
        task.add_done_callback(self.tasks.discard)

    def on_response_complete(self) -> None:
        """An answer was handed to the socket."""
        if self.pipeline or not isinstance(self.cycle, DirectCycle):
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

    async def _run(self, cycle: DirectCycle, scope: Scope, body: bytes) -> None:
        app: Any = self.app
        try:
            reply: Reply = await app.reply(scope, body)
        except BaseException:
            _logger.exception("a request failed")
            reply = Reply(500, problem("internal", "a defect; see the service's log"))
        self._answer(cycle, reply)

    def _answer(self, cycle: DirectCycle, reply: Reply) -> None:
        """Write an answer, in one piece."""
        cycle.response_complete = True
        if cycle.disconnected:
            return
        lines = [STATUS_LINE[reply.status]]
        for name, value in (*self.server_state.default_headers, *reply.headers):
            lines.append(b"%b: %b\r\n" % (name, value))
        if not cycle.keep_alive:
            lines.append(b"connection: close\r\n")
        lines += b"\r\n", reply.body
        self.transport.write(b"".join(lines))
        if not cycle.keep_alive:
            self.transport.close()
        self.on_response_complete()
