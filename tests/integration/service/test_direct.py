"""Requests that came whole are answered as those that came in parts are, in their order, each in
one write."""

from __future__ import annotations

import asyncio
import re
import socket
import time
from collections.abc import Iterator
from itertools import accumulate, pairwise
from pathlib import Path

import pytest
import uvicorn
from hypothesis import given, settings
from hypothesis import strategies as st

from topbill.process_log import REQUEST_ID
from topbill.service import connections
from topbill.service.app import create_app
from topbill.service.asgi import Receive, Reply, Scope, Send, read_body, send_reply
from topbill.service.connections import BoundedProtocol, Waiting
from topbill.service.direct import DirectRequest
from topbill.service.settings import Settings

from .raw_server import Connect, serving, until


class Application:
    """Answers with what it was sent, and says which way that came."""

    paths = frozenset(("/echo", "/slow", "/broken", "/id"))

    def route_of(self, path: str) -> str:
        return path if path in self.paths else ""

    def __init__(self) -> None:
        self.ways: list[str] = []
        self.together: list[int] = []

    def take(self, requests: list[DirectRequest]) -> None:
        self.together.append(len(requests))
        for request in requests:
            self.ways.append("direct")
            request.answer_later(self.answer(request.scope, request.body))

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        raw = await read_body(receive)
        self.ways.append("asgi")
        await send_reply(send, await self.answer(scope, raw or b""))

    async def answer(self, scope: Scope, raw: bytes) -> Reply:
        if scope["path"] == "/broken":
            raise ValueError("a defect")
        if scope["path"] == "/slow":
            await asyncio.sleep(0)
            await asyncio.to_thread(time.sleep, 0.1)
        if scope["path"] == "/id":
            REQUEST_ID.set("of-this-request")
        return Reply(200, raw, ((b"x-more", b"1"),))


@pytest.fixture
def application() -> Application:
    return Application()


@pytest.fixture
def connect(application: Application, monkeypatch: pytest.MonkeyPatch) -> Iterator[Connect]:
    """Opens connections to a server, each of which has sent something."""
    monkeypatch.setattr(connections, "_SWEEP_SECONDS", 0.05)
    for phase in (Waiting.HEAD, Waiting.BODY):
        monkeypatch.setitem(connections.SECONDS, phase, 0.5)
    with serving(application, grace=2, proxy_headers=False) as connect:
        yield connect


def request(path: str, body: bytes = b"hello", *headers: str, version: str = "1.1") -> bytes:
    lines = [f"POST {path} HTTP/{version}", "Host: x", f"Content-Length: {len(body)}", *headers]
    return "\r\n".join([*lines, "", ""]).encode() + body


def last(path: str = "/echo", body: bytes = b"hello") -> bytes:
    return request(path, body, "Connection: close")


def rest(opened: socket.socket) -> bytes:
    """All that comes until the other side closes."""
    parts = []
    while part := opened.recv(65_536):
        parts.append(part)
    return b"".join(parts)


def undated(answer: bytes) -> list[bytes]:
    lines = re.sub(rb"date: [^\r]*", b"date", answer).split(b"\r\n")
    return sorted(lines)


def test_a_whole_request_is_answered_as_one_in_parts_is(
    connect: Connect, application: Application
) -> None:
    whole = rest(connect(last()))
    in_parts = connect(last()[:-2])
    time.sleep(0.1)
    in_parts.sendall(last()[-2:])
    assert undated(whole) == undated(rest(in_parts))
    assert application.ways == ["direct", "asgi"]
    assert whole.endswith(b"\r\n\r\nhello")


def test_who_does_not_read_the_answers_is_waited_for(
    connect: Connect, application: Application, monkeypatch: pytest.MonkeyPatch
) -> None:
    made: list[BoundedProtocol] = []
    begin = BoundedProtocol.connection_made

    def noted(self: BoundedProtocol, transport: asyncio.Transport) -> None:
        made.append(self)
        begin(self, transport)

    monkeypatch.setattr(BoundedProtocol, "connection_made", noted)
    opened = connect(request("/echo"))
    assert opened.recv(65_536).endswith(b"hello")
    # As the loop does once more is unread than it holds.
    made[0].flow.pause_writing()
    opened.sendall(last())
    until(lambda: len(application.ways) == 2)
    opened.settimeout(0.1)
    with pytest.raises(TimeoutError):
        opened.recv(1)
    assert application.ways == ["direct", "asgi"]
    made[0].loop.call_soon_threadsafe(made[0].flow.resume_writing)
    opened.settimeout(20)
    assert rest(opened).endswith(b"hello")


@pytest.mark.parametrize("path", ["/other", "/echo?a=1", "/ech%6f"])
def test_other_paths_are_asked_for_as_ever(
    connect: Connect, application: Application, path: str
) -> None:
    assert rest(connect(last(path))).endswith(b"hello")
    assert application.ways == ["asgi"]


def test_a_chunked_body_that_is_whole_is_joined(connect: Connect, application: Application) -> None:
    head = b"POST /echo HTTP/1.1\r\nHost: x\r\nConnection: close\r\nTransfer-Encoding: chunked\r\n"
    answer = rest(connect(head + b"\r\n2\r\nhe\r\n3\r\nllo\r\n0\r\n\r\n"))
    assert answer.endswith(b"hello")
    assert application.ways == ["direct"]


def test_who_waits_to_be_asked_for_the_body_is_asked(
    connect: Connect, application: Application
) -> None:
    opened = connect(request("/echo", b"hello", "Expect: 100-continue")[:-5])
    assert opened.recv(65_536) == b"HTTP/1.1 100 Continue\r\n\r\n"
    opened.sendall(b"hello")
    assert opened.recv(65_536).endswith(b"hello")
    assert application.ways == ["asgi"]


def test_answers_come_in_the_order_of_the_requests(connect: Connect) -> None:
    paths = ["/slow", "/echo", "/other", "/echo", "/slow", "/echo"]
    sent = b"".join(request(path, b"<%d>" % n) for n, path in enumerate(paths))
    answer = rest(connect(sent + last("/echo", b"<6>")))
    assert re.findall(rb"<(\d)>", answer) == [b"0", b"1", b"2", b"3", b"4", b"5", b"6"]


def test_a_connection_stays_open_as_long_as_its_caller_wants(connect: Connect) -> None:
    opened = connect(request("/echo"))
    for _ in range(3):
        assert b"connection: close" not in opened.recv(65_536)
        opened.sendall(request("/echo"))
    opened.recv(65_536)
    opened.sendall(request("/echo", version="1.0"))
    assert b"connection: close" in rest(opened)


def test_an_idle_connection_is_closed(connect: Connect, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(connections.SECONDS, Waiting.IDLE, 0.2)
    assert rest(connect(request("/echo"))).endswith(b"hello")


def test_a_defect_is_an_answer_and_the_connection_goes_on(connect: Connect) -> None:
    opened = connect(request("/broken"))
    answer = opened.recv(65_536)
    assert answer.startswith(b"HTTP/1.1 500 ")
    assert b'"code":"internal"' in answer
    opened.sendall(last())
    assert rest(opened).endswith(b"hello")


def test_what_one_request_sets_no_other_one_sees(connect: Connect) -> None:
    opened = connect(request("/id"))
    assert opened.recv(65_536).startswith(b"HTTP/1.1 200 ")
    opened.sendall(b"POST /echo HTTP/1.1\r\nHost")
    refused = rest(opened)
    assert b" 408 " in refused
    assert b"of-this-request" not in refused


def test_a_bad_chunk_is_told_and_nobody_is_asked(
    connect: Connect, application: Application
) -> None:
    bad = b"POST /echo HTTP/1.1\r\nHost: x\r\nTransfer-Encoding: chunked\r\n\r\nzz\r\n"
    opened = connect(request("/echo"))
    assert opened.recv(65_536).endswith(b"hello")
    opened.sendall(bad)
    assert rest(opened).startswith(b"HTTP/1.1 400 ")
    assert application.ways == ["direct"]


def test_who_has_gone_is_not_answered(connect: Connect, application: Application) -> None:
    for _ in range(5):
        connect(request("/slow")).close()
    until(lambda: len(application.ways) == 5)
    time.sleep(0.3)
    assert rest(connect(last())).endswith(b"hello")


def test_the_service_is_asked_directly(folder: Path, tmp_path: Path) -> None:
    app = create_app(Settings(folder, tmp_path / "data"))
    config = uvicorn.Config(app, http=BoundedProtocol, proxy_headers=False)
    config.load()
    flag = "/ofrep/v1/evaluate/flags/art"
    routes = [config.loaded_app.route_of(path) for path in ("/v1/decide", flag, "/readyz")]
    assert routes == ["/v1/decide", "/ofrep/v1/evaluate/flags/{key}", ""]


class Transport:
    """Keeps what is written."""

    def __init__(self) -> None:
        self.written: list[bytes] = []

    def get_extra_info(self, _name: str) -> None:
        return None

    def is_closing(self) -> bool:
        return False

    def write(self, data: bytes) -> None:
        self.written.append(data)

    def pause_reading(self) -> None:
        pass

    def resume_reading(self) -> None:
        pass


def connected(application: Application, count: int = 1) -> list[tuple[BoundedProtocol, Transport]]:
    """Connections of one server, without sockets."""
    config = uvicorn.Config(application, http=BoundedProtocol, lifespan="off", proxy_headers=False)
    config.load()
    state = uvicorn.Server(config).server_state
    made = []
    for _ in range(count):
        protocol = BoundedProtocol(config=config, server_state=state, app_state={})
        transport = Transport()
        protocol.connection_made(transport)  # type: ignore[arg-type]
        made.append((protocol, transport))
    return made


def test_an_answer_is_one_write(application: Application) -> None:
    async def ask() -> list[bytes]:
        ((protocol, transport),) = connected(application)
        for path in ("/echo", "/slow", "/other"):
            protocol.data_received(request(path))
            await asyncio.sleep(0.3)
        return transport.written

    written = asyncio.run(ask())
    assert [data.count(b"HTTP/1.1 200 OK") for data in written] == [1, 1, 1]
    assert all(data.endswith(b"hello") for data in written)


def test_what_comes_in_one_turn_is_handed_on_together(application: Application) -> None:
    async def ask() -> None:
        made = connected(application, 3)
        for _ in range(2):
            for protocol, _transport in made:
                protocol.data_received(request("/echo"))
            await asyncio.sleep(0.01)

    asyncio.run(ask())
    assert application.together == [3, 3]


def test_a_head_that_came_before_is_not_parsed_again(
    application: Application, monkeypatch: pytest.MonkeyPatch
) -> None:
    parsed: list[bytes] = []
    complete = BoundedProtocol.on_headers_complete

    def noted(self: BoundedProtocol) -> None:
        parsed.append(self.url)
        complete(self)

    monkeypatch.setattr(BoundedProtocol, "on_headers_complete", noted)

    async def ask() -> list[bytes]:
        (first, transport), (second, other) = connected(application, 2)
        for protocol in (first, first, second):
            protocol.data_received(request("/echo", b"again"))
            await asyncio.sleep(0.01)
        first.data_received(request("/echo", b"longer body"))
        await asyncio.sleep(0.01)
        return transport.written + other.written

    written = asyncio.run(ask())
    assert parsed == [b"/echo"] * 2
    assert [data.rpartition(b"\r\n")[2] for data in written] == [
        b"again", b"again", b"longer body", b"again",
    ]  # fmt: skip


def chunked(body: bytes) -> bytes:
    head = b"POST /echo HTTP/1.1\r\nHost: x\r\nTransfer-Encoding: chunked\r\n\r\n"
    return b"%b%x\r\n%b\r\n0\r\n\r\n" % (head, len(body), body)


def sent(body: bytes, form: str) -> bytes:
    """A request for the echo of a body, in one of several forms."""
    if form == "chunked":
        return chunked(body)
    if form == "blank":
        return b"\r\n" + request("/echo", body)
    return request(form, body)


@given(
    asked=st.lists(
        st.tuples(
            st.sampled_from([b"a", b"b", b"POST /echo HTTP/1.1\r\n\r\n", b"12\r\n\r\n34"]),
            st.sampled_from(["/echo", "/echo", "/other", "chunked", "blank"]),
        ),
        min_size=1,
        max_size=8,
    ),
    cuts=st.lists(st.integers(0, 600), max_size=6),
    at_ends=st.booleans(),
)
@settings(max_examples=60, deadline=None)
def test_however_requests_come_each_is_answered_in_its_order(
    asked: list[tuple[bytes, str]], cuts: list[int], at_ends: bool
) -> None:
    texts = [sent(body, form) for body, form in asked]
    stream = b"".join(texts)
    ends = list(accumulate(map(len, texts))) if at_ends else []
    places = sorted({0, len(stream), *ends, *[cut for cut in cuts if cut < len(stream)]})

    async def ask() -> bytes:
        ((protocol, transport),) = connected(Application())
        for start, stop in pairwise(places):
            protocol.data_received(stream[start:stop])
            for _ in range(8):
                await asyncio.sleep(0)
        for _ in range(20 * len(asked)):
            await asyncio.sleep(0)
        return b"".join(transport.written)

    answers = asyncio.run(ask()).split(b"HTTP/1.1 200 OK\r\n")[1:]
    assert [answer.partition(b"\r\n\r\n")[2] for answer in answers] == [body for body, _ in asked]
