"""An S3 server on loopback in a process of its own, and buckets of it."""

from __future__ import annotations

import atexit
import itertools
import subprocess
import sys
import urllib.request
from functools import cache

import pytest

pytest.importorskip("moto", reason="no moto: pip install -r requirements-dev.lock")
pytest.importorskip("obstore", reason="no obstore: pip install -r requirements-dev.lock")
pytest.importorskip("fsspec", reason="no fsspec: pip install -r requirements-dev.lock")

_numbers = itertools.count(1)
# Not a thread of this process: what makes a Delta table holds Python's lock while it waits. It ends
# with standard input, and so with this process.
_SERVER = """
import logging, sys
from moto.server import ThreadedMotoServer
logging.getLogger("werkzeug").setLevel(logging.ERROR)
server = ThreadedMotoServer(ip_address="127.0.0.1", port=0, verbose=False)
server.start()
print(server.get_host_and_port()[1], flush=True)
sys.stdin.read()
server.stop()
"""


@cache
def _server() -> tuple[subprocess.Popen[str], str]:
    server = subprocess.Popen(
        [sys.executable, "-c", _SERVER], stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True
    )
    assert server.stdout is not None
    atexit.register(server.communicate)
    return server, f"http://127.0.0.1:{int(server.stdout.readline())}"


def address() -> str:
    """The server's, which is started when it is asked for first."""
    return _server()[1]


def environment() -> dict[str, str]:
    """What a process is given to reach it."""
    return {
        "AWS_ACCESS_KEY_ID": "key",
        "AWS_SECRET_ACCESS_KEY": "secret",
        "AWS_REGION": "us-east-1",
        "AWS_ENDPOINT_URL": address(),
        "AWS_ALLOW_HTTP": "true",
    }


def fresh_bucket() -> str:
    """A new bucket's name."""
    bucket = f"lake-{next(_numbers)}"
    request = urllib.request.Request(f"{address()}/{bucket}", method="PUT")  # noqa: S310
    urllib.request.urlopen(request).close()  # noqa: S310
    return bucket
