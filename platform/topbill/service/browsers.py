"""What keeps web pages out of a service that asks for no keys.

Any page in a browser on this machine may send requests to 127.0.0.1, and a page whose name was
made to point there (DNS rebinding) may read the answers too. What a browser cannot help saying
tells them from callers of ours: `Host`, `Origin`, and a content type that no plain form can send.
"""

from __future__ import annotations

import ipaddress
from collections.abc import Iterable
from functools import lru_cache

from topbill.service.asgi import Scope


class ForeignRequests:
    """Tells requests that a web page from elsewhere may have sent. `host_names` are names under
    which this service is called, beside those of loopback.
    """

    def __init__(self, host_names: Iterable[str] = ()) -> None:
        self._names = frozenset(name.lower().rstrip(".") for name in host_names)

    def why(self, scope: Scope) -> tuple[int, str, str] | None:
        """Status, code and sentence for a request that may be a foreign page's; None for others."""
        is_json = has_body = False
        for name, value in scope["headers"]:
            if name == b"host":
                if not self._is_ours(_host(value)):
                    return _unknown_host(_host(value))
            elif name == b"origin":
                if not self._is_ours(_origin(value)):
                    return _foreign_origin(value)
            elif name == b"content-type":
                is_json = value.partition(b";")[0].strip().lower() == b"application/json"
            elif name == b"content-length":
                has_body = has_body or value.strip(b"0 ") != b""
            elif name == b"transfer-encoding":
                has_body = True
        if has_body and not is_json:
            message = "a body without content-type: application/json; send that header"
            return 415, "unsupported_media_type", message
        return None

    def _is_ours(self, host: str) -> bool:
        return host in self._names or is_loopback(host)


@lru_cache(maxsize=1024)
def is_loopback(host: str) -> bool:
    """Whether only this machine can reach `host`."""
    if host == "localhost":
        return True
    try:
        return ipaddress.ip_address(host).is_loopback
    except ValueError:
        return False


@lru_cache(maxsize=1024)
def _host(value: bytes) -> str:
    """The name of a `Host` header, without its port."""
    text = value.decode("latin-1").strip().lower()
    if text.startswith("["):
        return text[1:].partition("]")[0]
    return text.partition(":")[0].rstrip(".")


def _origin(value: bytes) -> str:
    """The name of an `Origin` header; empty for one that is no web address (`null`)."""
    scheme, separator, rest = value.partition(b"://")
    return _host(rest) if separator and scheme in (b"http", b"https") else ""


def _unknown_host(host: str) -> tuple[int, str, str]:
    return (
        421,
        "misdirected",
        f"host {host[:100]!r} is not a name of this service; call 127.0.0.1 or localhost, "
        "or start it with --host-names NAME",
    )


def _foreign_origin(value: bytes) -> tuple[int, str, str]:
    origin = value[:100].decode("latin-1")
    return (
        403,
        "foreign_origin",
        f"a web page of {origin!r} may not call a service without keys; call it from your "
        "own server, or start it with --host-names NAME",
    )
