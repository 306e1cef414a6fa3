"""A Spark Connect server on a free port: Sail, which needs no JVM."""

from __future__ import annotations

import os
import socket
import subprocess
import sys
import time
from collections.abc import Iterator
from contextlib import contextmanager

_WAIT = 60.0


@contextmanager
def running() -> Iterator[str]:
    """Its URL, while it runs. A process of its own: it runs Python too, and would wait for us."""
    with socket.socket() as free:
        free.bind(("127.0.0.1", 0))
        port = free.getsockname()[1]
    command = [sys.executable, "-m", "pysail", "spark", "server", "--port", str(port)]
    server = subprocess.Popen(command, env={**os.environ, "RUST_LOG": "error"})
    try:
        wait_for(port, server, _WAIT)
        yield f"sc://127.0.0.1:{port}"
    finally:
        server.terminate()
        server.wait(_WAIT)


def wait_for(port: int, server: subprocess.Popen[bytes], longest: float) -> None:
    """Until a server listens on loopback; raises RuntimeError where it ends or takes longer than so
    many seconds.
    """
    until = time.monotonic() + longest
    while time.monotonic() < until and server.poll() is None:
        try:
            socket.create_connection(("127.0.0.1", port), timeout=1.0).close()
        except OSError:
            time.sleep(0.05)
        else:
            return
    raise RuntimeError(f"{server.args} does not listen on port {port}")
