"""A server before the S3 server of `object_store`, that may refuse what it is asked for."""

from __future__ import annotations

import subprocess
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

from tests import object_store

# In a process of its own for the same reason as the server behind it.
PASSING_ON = """
import sys, urllib.error, urllib.request
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer

class PassingOn(BaseHTTPRequestHandler):
    protocol_version = "HTTP/1.1"

    def ask(self, url, headers, body):
        # Without a type urllib says that of a form, and the server reads one.
        headers = {"content-type": "application/octet-stream"} | headers
        request = urllib.request.Request(url, body or None, headers, method=self.command)
        try:
            with urllib.request.urlopen(request) as reply:
                self.answer(reply.status, dict(reply.headers), reply.read())
        except urllib.error.HTTPError as reply:
            self.answer(reply.code, dict(reply.headers), reply.read())

    def body(self):
        if self.headers.get("transfer-encoding", "") != "chunked":
            return self.rfile.read(int(self.headers.get("content-length", 0)))
        body = b""
        while length := int(self.rfile.readline(), 16):
            body += self.rfile.read(length)
            self.rfile.readline()
        self.rfile.readline()
        return body

    def answer(self, status, headers, body):
        self.send_response(status)
        for name, value in headers.items():
            if name.lower() not in ("connection", "content-length", "date", "server",
                                    "transfer-encoding"):
                self.send_header(name, value)
        length = len(body)
        if self.command == "HEAD":
            length = headers.get("Content-Length", 0)
        self.send_header("content-length", str(length))
        self.end_headers()
        if self.command != "HEAD":
            self.wfile.write(body)

    def log_message(self, *_):
        pass

    def do_GET(self):
        self.pass_on()

    do_HEAD = do_PUT = do_POST = do_DELETE = do_GET

def serve(handler):
    server = ThreadingHTTPServer(("127.0.0.1", 0), handler)
    print(server.server_port, flush=True)
    server.serve_forever()
"""
"""What a process begins with that stands before a server: a subclass says what `pass_on` does with
a request, and `serve` prints the port."""
_GATE = """
from pathlib import Path

behind, refusals = sys.argv[1], Path(sys.argv[2])

class Gate(PassingOn):
    def pass_on(self):
        body = self.body()
        methods, status, code = refusals.read_text().split()
        if self.command in methods.split(","):
            said = f"<Error><Code>{code}</Code><Message>refused</Message></Error>".encode()
            return self.answer(int(status), {}, said)
        headers = {n: v for n, v in self.headers.items() if n.lower() != "transfer-encoding"}
        self.ask(behind + self.path, headers, body)

serve(Gate)
"""
EVERYTHING = "GET,HEAD,PUT,POST,DELETE"
WRITES = "PUT,POST,DELETE"


class Gate:
    """Where it is, and what it refuses."""

    def __init__(self, address: str, refusals: Path) -> None:
        self.address = address
        self._refusals = refusals

    def refuse(self, methods: str, status: int, code: str) -> None:
        """Answer these methods with an error of S3's from now on."""
        self._refusals.write_text(f"{methods} {status} {code}")

    def open(self) -> None:
        """Pass everything on."""
        self._refusals.write_text("- 0 -")


@contextmanager
def gate(folder: Path) -> Iterator[Gate]:
    """A gate that passes everything on until it is told otherwise."""
    refusals = folder / "refusals"
    line = [sys.executable, "-c", PASSING_ON + _GATE, object_store.address(), str(refusals)]
    with subprocess.Popen(line, stdout=subprocess.PIPE, text=True) as process:
        assert process.stdout is not None
        made = Gate(f"http://127.0.0.1:{int(process.stdout.readline())}", refusals)
        made.open()
        try:
            yield made
        finally:
            process.kill()
