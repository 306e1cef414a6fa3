"""The audit log: a JSON line for each request that was refused at the door, and for each look at
what a single viewer was shown."""

from __future__ import annotations

import logging
import os
import time
from collections.abc import Callable
from logging.handlers import WatchedFileHandler
from pathlib import Path

import msgspec

from topbill.domain.errors import TopbillError
from topbill.process_log import REQUEST_ID
from topbill.service.asgi import Scope
from topbill.service.few_a_second import FewASecond

_logger = logging.getLogger("topbill.audit")


class AuditEntry(msgspec.Struct, frozen=True, omit_defaults=True):
    """A line of the audit log. `key` is the caller's name, and null where no key was known;
    `left_out` counts refused requests before this one that have no line."""

    at: str
    key: str | None
    client: str
    method: str
    path: str
    status: int
    code: str
    left_out: int = 0
    request_id: str | None = None


def write_to(file: Path | None) -> None:
    """Append the audit log to `file`, which only its owner can read; on standard error where it is
    None. A file that is renamed or removed is opened anew. Raises TopbillError where it can't be.
    """
    for handler in list(_logger.handlers):
        _logger.removeHandler(handler)
        handler.close()
    _logger.propagate = file is None
    if file is None:
        return
    try:
        os.close(os.open(file, os.O_WRONLY | os.O_CREAT | os.O_APPEND, 0o600))
        _logger.addHandler(WatchedFileHandler(file))
    except OSError as error:
        reason = error.strerror or error
        raise TopbillError(f"{file}: cannot write the audit log: {reason}") from error


class Audit:
    """Writes lines. One for each process; `clock` gives seconds since the epoch."""

    def __init__(self, clock: Callable[[], float] = time.time) -> None:
        self._clock = clock
        self._refused = FewASecond(clock)

    def refused(self, scope: Scope, key: str | None, status: int, code: str) -> None:
        """Note a request that was refused; of very many in one second only the first ones."""
        left_out = self._refused.ask()
        if left_out is not None:
            self._write(scope, key, status, code, left_out)

    def read(self, scope: Scope, key: str) -> None:
        """Note that the caller named `key` looks at what a viewer was shown."""
        self._write(scope, key, 200, "read")

    def _write(
        self, scope: Scope, key: str | None, status: int, code: str, left_out: int = 0
    ) -> None:
        client = scope.get("client")
        now = self._clock()
        line = AuditEntry(
            time.strftime("%Y-%m-%dT%H:%M:%S", time.gmtime(now)) + f".{int(now % 1 * 1000):03d}Z",
            key,
            client[0] if client else "",
            scope["method"],
            scope["path"][:512],
            status,
            code,
            left_out,
            REQUEST_ID.get(),
        )
        fields = {"audit": msgspec.to_builtins(line)}
        _logger.warning("%s", msgspec.json.encode(line).decode(), extra={"fields": fields})
