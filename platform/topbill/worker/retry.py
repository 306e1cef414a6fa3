"""Experiments that can't learn for now: what is wrong is said once, and each is tried again, ever
later.
"""

from __future__ import annotations

import logging
import time
from collections.abc import Iterator
from dataclasses import dataclass

from topbill.domain.errors import TopbillError

_logger = logging.getLogger("topbill")
_FIRST_PAUSE, _LONGEST_PAUSE = 1.0, 300.0
"""Seconds. The pause doubles from failure to failure: what mends itself is found soon, and what
doesn't costs nothing."""


@dataclass
class _Failure:
    message: str
    pause: float
    retry_at: float


class RetryTracker:
    """The keys that failed, and when each may be tried again. Iterating gives (key, what is
    wrong).
    """

    def __init__(self) -> None:
        self._failures: dict[str, _Failure] = {}

    def __contains__(self, key: str) -> bool:
        return key in self._failures

    def __iter__(self) -> Iterator[tuple[str, str]]:
        # A copy made at once: the watch for alarms asks from a thread of its own.
        for key, failure in list(self._failures.items()):
            yield key, failure.message

    def is_waiting(self, key: str) -> bool:
        """Whether it is too early to try again."""
        failure = self._failures.get(key)
        return failure is not None and time.monotonic() < failure.retry_at

    def failed(self, key: str, error: Exception) -> None:
        """Note the failure; says it unless it is the one that is known. An error of no kind of ours
        comes with its traceback, since it is a defect."""
        expected = isinstance(error, TopbillError)
        message = str(error) if expected else f"{type(error).__name__}: {error}"
        before = self._failures.get(key)
        pause = _FIRST_PAUSE if before is None else min(2.0 * before.pause, _LONGEST_PAUSE)
        if before is None or before.message != message:
            _logger.warning(
                "%s learns nothing for now: %s; trying again ever later",
                key,
                message,
                exc_info=None if expected else error,
            )
        self._failures[key] = _Failure(message, pause, time.monotonic() + pause)

    def succeeded(self, key: str) -> None:
        """Note that it works; says so if it didn't."""
        if self._failures.pop(key, None) is not None:
            _logger.warning("%s learns again", key)

    def forget(self, key: str) -> None:
        """Try at once, as if nothing had happened: the experiment is another one now, or gone."""
        self._failures.pop(key, None)
