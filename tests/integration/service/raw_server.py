"""A server to which tests speak by the byte."""

from __future__ import annotations

import socket
import threading
import time
from collections.abc import Callable, Iterator
from contextlib import ExitStack, contextmanager
from typing import Any

import uvicorn

from topbill.service.connections import BoundedProtocol

Connect = Callable[[bytes], socket.socket]


@contextmanager
def serving(
    application: Any, *, grace: int, let_go: Callable[[], object] = lambda: None, **options: Any
) -> Iterator[Connect]:
    """Serve an application; gives what opens a connection that has sent something.

    Args:
        application: What is served.
        grace: Seconds for which the server waits for requests when it ends.
        let_go: Called before it ends.
        options: Of uvicorn, more than every server here has.
    """
    config = uvicorn.Config(
        application,
        http=BoundedProtocol,
        loop="uvloop",
        ws="none",
        lifespan="off",
        log_level="critical",
        timeout_graceful_shutdown=grace,
        **options,
    )
    server = uvicorn.Server(config)
    with socket.create_server(("127.0.0.1", 0)) as listening, ExitStack() as stack:
        thread = threading.Thread(target=server.run, kwargs={"sockets": [listening]})
        thread.start()
        until(lambda: server.started)

        def connect(sent: bytes) -> socket.socket:
            address = listening.getsockname()
            opened = stack.enter_context(socket.create_connection(address, timeout=20))
            opened.sendall(sent)
            return opened

        yield connect
        let_go()
        server.should_exit = True
        thread.join()


def until(condition: Callable[[], bool]) -> None:
    """Wait until it is so, for 20 s at most."""
    for _ in range(2_000):
        if condition():
            return
        time.sleep(0.01)
    raise AssertionError("it did not come true")
