"""Who may call: nobody needs a key on loopback, everybody needs one elsewhere."""

from __future__ import annotations

import ipaddress
import os
from collections.abc import Iterable
from hmac import compare_digest
from pathlib import Path

from topbill.domain.errors import TopbillError

_SHORTEST_KEY = 16
# Load balancers and orchestrators ask these, and seldom can send a key.
OPEN_PATHS = frozenset({"/healthz", "/readyz"})


def is_loopback(host: str) -> bool:
    """Whether only this machine can reach `host`."""
    if host == "localhost":
        return True
    try:
        return ipaddress.ip_address(host).is_loopback
    except ValueError:
        return False


def load_keys(host: str, file: Path | None) -> tuple[bytes, ...]:
    """The accepted keys: lines of `file`, or TOPBILL_KEYS separated by commas.

    Raises TopbillError where a key is too short to be one, or there is none and `host` is not
    loopback.
    """
    try:
        text = file.read_text() if file else os.environ.get("TOPBILL_KEYS", "").replace(",", "\n")
    except OSError as error:
        raise TopbillError(f"{file}: cannot read the keys: {error}") from error
    keys = tuple(line.strip().encode() for line in text.splitlines() if line.strip())
    if any(len(key) < _SHORTEST_KEY for key in keys):
        raise TopbillError(
            f"a key is shorter than {_SHORTEST_KEY} characters; make one with: openssl rand -hex 24"
        )
    if not keys and not is_loopback(host):
        raise TopbillError(
            f"host {host} can be reached from other machines and no keys are set; "
            "give --keys FILE or TOPBILL_KEYS, or listen on 127.0.0.1"
        )
    return keys


def allowed(headers: Iterable[tuple[bytes, bytes]], keys: tuple[bytes, ...]) -> bool:
    """Whether the headers carry one of `keys`, as `Authorization: Bearer KEY`, `X-Api-Key: KEY` or,
    as Azure's clients do, `Ocp-Apim-Subscription-Key: KEY`."""
    for name, value in headers:
        if name == b"authorization" and value[:7].lower() == b"bearer ":
            value = value[7:]
        elif name not in (b"x-api-key", b"ocp-apim-subscription-key"):
            continue
        # A list, so that all are compared: the time of the answer must not tell which came near.
        if any([compare_digest(value, key) for key in keys]):  # noqa: C419
            return True
    return False
