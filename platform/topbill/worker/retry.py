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


@dataclass
class _Failure:
    message: str
    pause: float
    due: float


class Stuck:
    """The keys that failed, and when each may be tried again. Iterating gives (key, what is
    wrong).
    """

    def __init__(self) -> None:
        self._held: dict[str, _Failure] = {}

    def __contains__(self, key: str) -> bool:
        return key in self._held

    def __iter__(self) -> Iterator[tuple[str, str]]:
        return ((key, failure.message) for key, failure in self._held.items())

    def rests(self, key: str) -> bool:
        """Whether it is too early to try again."""
        held = self._held.get(key)
        return held is not None and time.monotonic() < held.due

    def failed(self, key: str, error: Exception) -> None:
        """Note the failure; says it unless it is the one that is known. An error of no kind of ours
        comes with its traceback, since it is a defect."""
        expected = isinstance(error, TopbillError)
        message = str(error) if expected else f"{type(error).__name__}: {error}"
        held = self._held.get(key)
        pause = _FIRST_PAUSE if held is None else min(2.0 * held.pause, _LONGEST_PAUSE)
        if held is None or held.message != message:
            trace = None if expected else error
            _logger.warning(
                "%s learns nothing for now: %s; trying again ever later",
                key,
                message,
                exc_info=trace,
            )
        self._held[key] = _Failure(message, pause, time.monotonic() + pause)

    def over(self, key: str) -> None:
        """Note that it works; says so if it didn't."""
        if self._held.pop(key, None) is not None:
            _logger.warning("%s learns again", key)

    def forget(self, key: str) -> None:
        """Try at once, as if nothing had happened: the experiment is another one now, or gone."""
        self._held.pop(key, None)
