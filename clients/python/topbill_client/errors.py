"""What the client raises, and the base of every error that Topbill raises on purpose.

They stand here because the client is installed alone in services; the server's tree
(`topbill.domain.errors`) grows from these same classes, so one `except` serves both.
"""

from __future__ import annotations


class TopbillError(Exception):
    """Base of all errors that callers may want to catch."""


class BadRequest(TopbillError):
    """Input of the wrong form. `path` names the culprit, e.g. `$.context.hour`."""

    def __init__(self, path: str, message: str) -> None:
        self.path = path
        self.message = message
        super().__init__(f"{path}: {message}")


class NotFound(TopbillError):
    """Something named by the caller is not there."""


class Conflict(TopbillError):
    """An id that was used before with another content."""


class Unavailable(TopbillError):
    """A service that was called did not answer as it should."""
