"""Connections that are half open, slow or silent end by themselves, and keep nobody else out."""

from __future__ import annotations

import asyncio
import json
import re
import resource
import socket
import subprocess
import sys
import threading
import time
from collections.abc import Iterator
from contextlib import suppress

import pytest

from topbill.service import connections
from topbill.service.asgi import Receive, Scope, Send, read_body, respond
from topbill.service.buffered import BufferedTransport
from topbill.service.connections import LARGEST_HEAD, MOST_HEADERS, Waiting, room

from .raw_server import Connect, serving, until

MOST = 20
HALF_HEAD = b"POST /v1/decide HTTP/1.1\r\nHost: x\r\nX-A: "
HALF_BODY = b"POST / HTTP/1.1\r\nHost: x\r\nContent-Length: 10\r\n\r\n123"
WHOLE = b"GET / HTTP/1.1\r\nHost: x\r\n\r\n"


class Application:
    """Answers with the length of the body; requests for /held when it is let go."""

    def __init__(self) -> None:
        self.held = threading.Event()
        self.holding = 0

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        body = await read_body(receive)
        if scope["path"] == "/held":
            self.holding += 1
            await asyncio.to_thread(self.held.wait, 60)
        await respond(send, 200, str(len(body or b"")).encode())


@pytest.fixture
def application() -> Application:
    return Application()


@pytest.fixture
def connect(application: Application, monkeypatch: pytest.MonkeyPatch) -> Iterator[Connect]:
    """Opens connections to a server of 20, each of which has sent something."""
    monkeypatch.setattr(connections, "_SWEEP_SECONDS", 0.05)
    monkeypatch.setattr(connections, "room", lambda: (MOST, 16))
    for phase, seconds in {Waiting.HEAD: 0.3, Waiting.BODY: 0.3, Waiting.ANSWER: 30.0}.items():
        monkeypatch.setitem(connections.SECONDS, phase, seconds)
    with serving(application, grace=1, let_go=application.held.set) as connect:
        yield connect


def rest(opened: socket.socket) -> bytes:
    """All that comes until the other side closes."""
    parts = []
    try:
        while part := opened.recv(65_536):
            parts.append(part)
    except ConnectionResetError:
        pass
    return b"".join(parts)


def answered(opened: socket.socket) -> bytes:
    """The status line of the next answer."""
    return opened.recv(65_536).partition(b"\r\n")[0]


def statuses(answers: bytes) -> list[int]:
    return [int(text) for text in re.findall(rb"HTTP/1\.1 (\d{3}) ", answers)]


def refusal(answer: bytes) -> tuple[int, str]:
    head, _, body = answer.partition(b"\r\n\r\n")
    return int(head.split()[1]), json.loads(body)["error"]["code"]


def test_half_a_request_ends_by_itself_and_is_told_why(connect: Connect) -> None:
    for sent in (HALF_HEAD, HALF_BODY, WHOLE + HALF_HEAD):
        answer = rest(connect(sent))
        last = answer[answer.rindex(b"HTTP/1.1 ") :]
        assert refusal(last) == (408, "timeout")


def test_who_sends_a_byte_now_and_then_is_not_waited_for_longer(connect: Connect) -> None:
    slow = connect(HALF_HEAD)
    closed = threading.Event()

    def drip() -> None:
        try:
            while not closed.wait(0.02):
                slow.sendall(b"x")
        except OSError:
            pass

    dripping = threading.Thread(target=drip)
    dripping.start()
    assert b" 408 " in rest(slow).partition(b"\r\n")[0]
    closed.set()
    dripping.join()


def test_who_says_nothing_is_let_go(connect: Connect) -> None:
    assert rest(connect(b"")) == b""


@pytest.mark.parametrize("sent", [b"", HALF_HEAD, HALF_BODY, WHOLE])
def test_however_many_are_half_open_others_are_answered(
    connect: Connect, monkeypatch: pytest.MonkeyPatch, sent: bytes
) -> None:
    for phase in (Waiting.HEAD, Waiting.BODY):
        monkeypatch.setitem(connections.SECONDS, phase, 60.0)
    opened = [connect(sent) for _ in range(5 * MOST)]
    for _ in range(10):
        assert answered(connect(WHOLE)) == b"HTTP/1.1 200 OK"
    assert len(opened) == 5 * MOST


def test_who_waits_for_an_answer_is_never_dropped(
    connect: Connect, application: Application
) -> None:
    waiting = [connect(b"GET /held HTTP/1.1\r\nHost: x\r\n\r\n") for _ in range(MOST)]
    until(lambda: application.holding == MOST)
    late = rest(connect(WHOLE))
    assert refusal(late) == (503, "too_many_connections")
    assert b"retry-after: 1" in late
    application.held.set()
    assert {answered(opened) for opened in waiting} == {b"HTTP/1.1 200 OK"}


@pytest.mark.parametrize(
    "head",
    [
        b"GET / HTTP/1.1\r\nHost: x\r\nX-A: " + b"a" * LARGEST_HEAD + b"\r\n\r\n",
        b"GET / HTTP/1.1\r\nHost: x\r\nX-A: " + b"a" * (LARGEST_HEAD + 1),
        b"GET /" + b"a" * LARGEST_HEAD + b" HTTP/1.1\r\nHost: x\r\n\r\n",
        b"GET / HTTP/1.1\r\n" + b"X-A: b\r\n" * (MOST_HEADERS + 1) + b"\r\n",
        b"GET / HTTP/1.1\r\n" + b"X-A: b\r\n" * 200_000,
    ],
    ids=["long", "long, unended", "address", "many", "very many, unended"],
)
def test_a_head_that_is_too_large_is_refused(connect: Connect, head: bytes) -> None:
    opened = connect(b"")

    def send() -> None:
        with suppress(OSError):  # it was told before all of it was sent
            opened.sendall(head)

    sending = threading.Thread(target=send)
    sending.start()
    answer = rest(opened)
    sending.join()
    # Where much more was on its way, the system may throw the answer away with the connection.
    assert not answer or refusal(answer) == (431, "head_too_large")


def test_what_is_no_http_is_told_as_all_else_is(connect: Connect) -> None:
    assert refusal(rest(connect(b"\x16\x03\x01\x02\x00\x01\x00\r\n\r\n"))) == (400, "malformed")


BAD_CHUNK = b"POST / HTTP/1.1\r\nHost: x\r\nTransfer-Encoding: chunked\r\n\r\nzz\r\n"


@pytest.mark.parametrize(
    ("behind", "status"),
    [(b"\x00\r\n\r\n", 400), (BAD_CHUNK, 400), (b"GET /" + b"a" * 120_000, 431), (HALF_BODY, 408)],
    ids=["no HTTP", "a bad chunk", "a large head", "half a body"],
)
def test_what_is_wrong_behind_whole_requests_is_told_after_their_answers(
    connect: Connect, application: Application, behind: bytes, status: int
) -> None:
    assert statuses(rest(connect(WHOLE * 3 + behind))) == [200, 200, 200, status]
    held = connect(WHOLE.replace(b"/ ", b"/held ") + behind)
    until(lambda: application.holding == 1)
    time.sleep(0.5)  # longer than a half body may take
    application.held.set()
    assert statuses(rest(held)) == [200, status]


def test_requests_one_after_the_other_and_large_bodies_are_served(connect: Connect) -> None:
    opened = connect(b"")
    for size in (0, 10, 200_000):
        head = f"POST / HTTP/1.1\r\nHost: x\r\nContent-Length: {size}\r\n\r\n".encode()
        opened.sendall(head + b"a" * size)
        answer = opened.recv(65_536)
        assert answer.endswith(b"\r\n\r\n" + str(size).encode())
    opened.sendall(WHOLE * 50)
    got = b""
    while got.count(b"HTTP/1.1 200 OK") < 50:
        got += opened.recv(65_536)


@pytest.mark.parametrize("files", [64, 256, 1024, 4096, 65_536, 10**6])
def test_there_are_files_for_all_that_may_come_at_once(
    monkeypatch: pytest.MonkeyPatch, files: int
) -> None:
    monkeypatch.setattr(resource, "getrlimit", lambda _: (files, files))
    most, backlog = room()
    assert most >= min(files // 2, 10_000) - 1
    assert most + backlog + 128 <= max(files, 300)


def test_the_limit_of_open_files_is_raised_to_what_is_allowed() -> None:
    program = (
        "import resource; from topbill.service.connections import raise_file_limit;"
        "hard = resource.getrlimit(resource.RLIMIT_NOFILE)[1];"
        "wanted = min(hard, 512) if hard > 0 else 512;"
        "resource.setrlimit(resource.RLIMIT_NOFILE, (64, wanted)); raise_file_limit();"
        "assert resource.getrlimit(resource.RLIMIT_NOFILE) == (wanted, wanted)"
    )
    subprocess.run([sys.executable, "-c", program], check=True)


def test_nothing_is_written_to_who_has_gone() -> None:
    written = []

    class Gone:
        closing = False

        def is_closing(self) -> bool:
            return self.closing

        def write(self, data: bytes) -> None:
            written.append(data)

    async def answer() -> None:
        gone = Gone()
        transport = BufferedTransport(gone, asyncio.get_running_loop())  # type: ignore[arg-type]
        transport.write(b"here")
        await asyncio.sleep(0)
        transport.write(b"gone")
        gone.closing = True  # before the turn of the loop ends
        await asyncio.sleep(0)

    asyncio.run(answer())
    assert written == [b"here"]
