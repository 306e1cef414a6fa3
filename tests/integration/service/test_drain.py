"""A service that is told to stop is not ready first, answers on, and then ends in order."""

from __future__ import annotations

import signal
import subprocess
import sys
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path

import httpx
import pytest

from topbill.cli.supervise import free_port

from ...processes import topbill

pytestmark = pytest.mark.end_to_end


@contextmanager
def service(
    folder: Path, data: Path, *more: str
) -> Iterator[tuple[httpx.Client, subprocess.Popen]]:
    """A service in processes of its own, and who calls it, each time over a new connection."""
    port = free_port("127.0.0.1", 0)
    where = ["--experiments", str(folder), "--data", str(data), "--port", str(port)]
    process = subprocess.Popen([sys.executable, "-m", "topbill", "serve", *where, *more])
    fresh = {"connection": "close"}
    try:
        with httpx.Client(base_url=f"http://127.0.0.1:{port}", headers=fresh, timeout=10) as client:
            until(lambda: status(client, "/readyz") == 200)
            yield client, process
    finally:
        process.kill()
        process.wait()


def status(client: httpx.Client, path: str) -> int:
    """0 where nobody listens."""
    try:
        return client.get(path).status_code
    except httpx.TransportError:
        return 0


def until(condition: Callable[[], bool]) -> None:
    for _ in range(3_000):
        if condition():
            return
        time.sleep(0.02)
    raise AssertionError("it did not come true")


@pytest.mark.parametrize("more", [(), ("--processes", "2")], ids=["one process", "two processes"])
def test_it_is_not_ready_and_answers_on_until_it_ends(
    folder: Path, tmp_path: Path, more: tuple[str, ...]
) -> None:
    with service(folder, tmp_path / "data", "--drain", "2s", *more) as (client, process):
        began = time.monotonic()
        process.send_signal(signal.SIGTERM)
        until(lambda: status(client, "/readyz") == 503)
        assert client.get("/readyz").json() == {"status": "draining"}
        process.send_signal(signal.SIGTERM)  # a second one shortens nothing
        decided = client.post("/v1/decide", json={"experiment": "art", "unit": "u"})
        assert decided.status_code == 200
        assert status(client, "/healthz") == 200
        process.wait(20)
        assert time.monotonic() - began >= 2.0
        assert status(client, "/readyz") == 0


def test_sigint_ends_it_at_once_while_it_drains(folder: Path, tmp_path: Path) -> None:
    with service(folder, tmp_path / "data", "--drain", "10m") as (client, process):
        process.send_signal(signal.SIGTERM)
        until(lambda: status(client, "/readyz") == 503)
        process.send_signal(signal.SIGINT)
        process.wait(20)


@pytest.mark.parametrize("drain", ["601s", "soon", "-2s"])
def test_a_time_that_is_none_is_refused(folder: Path, tmp_path: Path, drain: str) -> None:
    where = ["--experiments", folder, "--data", tmp_path / "data"]
    done = topbill("serve", *where, f"--drain={drain}")
    assert done.returncode != 0
    assert "--drain" in done.stdout + done.stderr


def test_processes_whose_parent_is_gone_do_not_keep_the_port(folder: Path, tmp_path: Path) -> None:
    more = ("--drain", "10m", "--processes", "2")
    with service(folder, tmp_path / "data", *more) as (client, process):
        process.kill()
        until(lambda: status(client, "/healthz") == 0)
