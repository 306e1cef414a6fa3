"""What a process says of itself on standard error: plain text, or a JSON object a line, with the id
of the request that it was at.

Not the log of decisions (`topbill.log`): these lines are for whoever operates the processes.
"""

from __future__ import annotations

import json
import logging
import os
import sys
from contextvars import ContextVar
from datetime import UTC, datetime
from typing import Any, Literal

LogFormat = Literal["text", "json"]
VARIABLE = "TOPBILL_LOG_FORMAT"
"""The format, for this process and those that it starts."""
REQUEST_ID: ContextVar[str | None] = ContextVar("request_id", default=None)
"""The id of the request that is being answered."""
CHANGES = "topbill.changes"
"""The logger of what came in force: it is nothing to look at, but whoever edits a file waits for
it."""


class JsonFormatter(logging.Formatter):
    """A JSON object a line: `at` (UTC), `level`, `logger`, `process`, `message`; `request_id` where
    a request is being answered, `error` with the traceback where there is one, and what a caller
    gives as `extra={"fields": …}`."""

    def format(self, record: logging.LogRecord) -> str:
        """The line, without its end."""
        at = datetime.fromtimestamp(record.created, UTC).isoformat(timespec="milliseconds")
        line: dict[str, Any] = {
            "at": at.replace("+00:00", "Z"),
            "level": record.levelname.lower(),
            "logger": record.name,
            "process": record.process,
            "message": record.getMessage(),
        }
        request_id = REQUEST_ID.get()
        if request_id is not None:
            line["request_id"] = request_id
        if record.exc_info:
            line["error"] = self.formatException(record.exc_info)
        line |= getattr(record, "fields", {})
        # ASCII, so that text which is no UTF-8 (a file's name) is no trouble either.
        return json.dumps(line, default=str)


class PlainHandler(logging.Handler):
    """Writes messages as they are to whatever standard error is by then."""

    def emit(self, record: logging.LogRecord) -> None:
        """Write one message, a line."""
        sys.stderr.write(f"{self.format(record)}\n")
        sys.stderr.flush()


def configure(log_format: LogFormat) -> None:
    """Say what there is to say in this format from now on, here and in processes started later.

    As text it is warnings and what came in force, without decoration: whatever watches over
    processes adds time and name. As JSON it is what requests were refused for, too.
    """
    os.environ[VARIABLE] = log_format
    if log_format == "text":
        changes = logging.getLogger(CHANGES)
        changes.setLevel(logging.INFO)
        if not changes.handlers:
            changes.addHandler(PlainHandler())
        return
    handler = logging.StreamHandler(sys.stderr)
    handler.setFormatter(JsonFormatter())
    logging.basicConfig(handlers=[handler], level=logging.WARNING, force=True)
    logging.getLogger("topbill").setLevel(logging.INFO)
    logging.captureWarnings(True)


def is_json() -> bool:
    """Whether JSON was asked for, of this process or of the one that started it."""
    return os.environ.get(VARIABLE) == "json"


def configure_from_environment() -> None:
    """As the process that started this one was told."""
    configure("json" if is_json() else "text")
