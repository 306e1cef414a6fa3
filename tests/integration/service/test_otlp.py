"""A service that is told where to sends its spans and counts there, at the latest when it ends."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
import threading
import time
from collections.abc import Iterator
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path

import httpx
import pytest

from topbill.cli.supervise import free_port


class Collector(ThreadingHTTPServer):
    """Takes what is sent by OTLP over HTTP."""

    def __init__(self) -> None:
        self.received: dict[str, bytes] = {}
        collector = self

        class Handler(BaseHTTPRequestHandler):
            def do_POST(self) -> None:
                body = self.rfile.read(int(self.headers["content-length"]))
                before = collector.received.get(self.path, b"")
                collector.received[self.path] = before + body
                self.send_response(200)
                self.send_header("content-length", "0")
                self.end_headers()

            def log_message(self, *_: object) -> None:
                pass

        super().__init__(("127.0.0.1", 0), Handler)


@pytest.fixture
def collector() -> Iterator[Collector]:
    with Collector() as collector:
        threading.Thread(target=collector.serve_forever, daemon=True).start()
        yield collector
        collector.shutdown()


@pytest.mark.parametrize("processes", ["1", pytest.param("2", marks=pytest.mark.slow)])
def test_what_a_request_was_is_sent(
    folder: Path, tmp_path: Path, collector: Collector, processes: str
) -> None:
    pytest.importorskip("opentelemetry.exporter.otlp.proto.http")
    port = free_port("127.0.0.1", 0)
    where = ["--experiments", str(folder), "--data", str(tmp_path / "data"), "--port", str(port)]
    command = [sys.executable, "-m", "topbill", "serve", *where, "--processes", processes]
    address = {
        "OTEL_EXPORTER_OTLP_ENDPOINT": f"http://127.0.0.1:{collector.server_port}",
        "OTEL_EXPORTER_OTLP_COMPRESSION": "none",
        "NO_PROXY": "127.0.0.1",
    }
    process = subprocess.Popen(command, env={**os.environ, **address})
    try:
        with httpx.Client(base_url=f"http://127.0.0.1:{port}", timeout=10) as client:
            for _ in range(15_000):
                try:
                    client.get("/healthz")
                    break
                except httpx.TransportError:
                    time.sleep(0.02)
            asked = {"experiment": "art", "unit": "u-of-nobody"}
            assert client.post("/v1/decide", json=asked).status_code == 200
        process.send_signal(signal.SIGTERM)
        process.wait(30)
    finally:
        process.kill()
        process.wait()
    spans, metrics = collector.received["/v1/traces"], collector.received["/v1/metrics"]
    assert b"POST /v1/decide" in spans
    assert b"topbill-service" in spans
    assert b"topbill_decisions" in metrics
    assert b"u-of-nobody" not in spans + metrics
