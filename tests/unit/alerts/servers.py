"""Local servers that keep what they are sent: of HTTP, and of SMTP."""

from __future__ import annotations

import socketserver
import ssl
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from http.server import BaseHTTPRequestHandler, HTTPServer


@dataclass
class Posted:
    """What was posted: path, headers in lower case, body."""

    path: str
    headers: dict[str, str]
    body: bytes


@dataclass
class WebServer:
    """An HTTP server; `status` is what it answers next, `location` where it redirects to."""

    port: int
    status: int = 200
    location: str = ""
    posted: list[Posted] = field(default_factory=list)

    @property
    def url(self) -> str:
        return f"http://127.0.0.1:{self.port}/hook"


@contextmanager
def web_server() -> Iterator[WebServer]:
    kept = WebServer(0)

    class Handler(BaseHTTPRequestHandler):
        def do_POST(self) -> None:
            body = self.rfile.read(int(self.headers["content-length"]))
            headers = {name.lower(): value for name, value in self.headers.items()}
            kept.posted.append(Posted(self.path, headers, body))
            self.send_response(kept.status)
            if kept.location:
                self.send_header("location", kept.location)
            self.end_headers()

        # A followed redirect would come as one of these.
        def do_GET(self) -> None:
            self.do_POST()

        def log_message(self, *_: object) -> None:
            pass

    with HTTPServer(("127.0.0.1", 0), Handler) as server:
        kept.port = server.server_port
        thread = threading.Thread(target=server.serve_forever, args=(0.01,))
        thread.start()
        try:
            yield kept
        finally:
            server.shutdown()
            thread.join()


@dataclass
class MailServer:
    """An SMTP server: what it was sent, by whom, and whether the connection was secret by then."""

    port: int
    refuse: str = ""
    """A command that it refuses."""
    mails: list[str] = field(default_factory=list)
    said: list[str] = field(default_factory=list)
    secret: list[bool] = field(default_factory=list)


@contextmanager
def mail_server(
    context: ssl.SSLContext | None = None, *, from_start: bool = False
) -> Iterator[MailServer]:
    """With a `context`, one that offers STARTTLS, or speaks TLS from the start."""
    kept = MailServer(0)

    class Handler(socketserver.StreamRequestHandler):
        def setup(self) -> None:
            self.is_secret = False
            if from_start and context is not None:
                self.request = context.wrap_socket(self.request, server_side=True)
                self.is_secret = True
            super().setup()

        def finish(self) -> None:
            super().finish()
            self.request.close()

        def say(self, line: str) -> None:
            self.wfile.write(f"{line}\r\n".encode())

        def handle(self) -> None:
            self.say("220 local")
            while line := self.rfile.readline().decode().strip():
                kept.said.append(line)
                verb = line.split()[0].upper()
                if kept.refuse and verb == kept.refuse:
                    self.say("554 no")
                elif verb == "QUIT":
                    self.say("221 bye")
                    return
                else:
                    self.answer(verb)

        def answer(self, verb: str) -> None:
            if verb == "EHLO":
                offers = ["local", "AUTH PLAIN"]
                if context is not None and not self.is_secret:
                    offers.insert(1, "STARTTLS")
                for offer in offers[:-1]:
                    self.say(f"250-{offer}")
                self.say(f"250 {offers[-1]}")
            elif verb == "STARTTLS" and context is not None:
                self.say("220 go")
                self.request = context.wrap_socket(self.request, server_side=True)
                self.rfile = self.request.makefile("rb")
                self.wfile = self.request.makefile("wb", 0)
                self.is_secret = True
            elif verb == "DATA":
                self.say("354 go")
                lines = []
                while (line := self.rfile.readline()) != b".\r\n":
                    lines.append(line.decode())
                kept.mails.append("".join(lines))
                kept.secret.append(self.is_secret)
                self.say("250 taken")
            elif verb == "AUTH":
                self.say("235 known")
            else:
                self.say("250 fine")

    class Server(socketserver.ThreadingTCPServer):
        daemon_threads = True
        allow_reuse_address = True

        def handle_error(self, *_: object) -> None:
            pass  # a client that refuses the certificate

    with Server(("127.0.0.1", 0), Handler) as server:
        kept.port = server.server_address[1]
        thread = threading.Thread(target=server.serve_forever, args=(0.01,))
        thread.start()
        try:
            yield kept
        finally:
            server.shutdown()
            thread.join()
