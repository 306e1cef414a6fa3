"""For how long ids are remembered in a data folder: its worker forgets them, says when in the file
`remember`, and its services go by that, whatever they were started with.
"""

from __future__ import annotations

import logging
import math
import time
from pathlib import Path

from topbill.domain.durable import sync
from topbill.domain.errors import LogError

HORIZON = "remember"
"""The file: seconds, as text."""
_EVERY = 1.0
"""Seconds between two looks at it."""
_logger = logging.getLogger("topbill")


def note_horizon(data: Path, seconds: float) -> None:
    """Say that ids are remembered for so many seconds. Raises LogError."""
    path = data / HORIZON
    try:
        draft = path.with_suffix(".new")
        draft.write_text(f"{seconds!r}\n")
        sync(draft)
        draft.replace(path)
        sync(data)
    except OSError as error:
        raise LogError(f"{path}: cannot be written: {error}") from error


def read_horizon(data: Path) -> float | None:
    """Seconds for which ids are remembered; None where no worker has said so yet. Raises LogError
    where the file says no such thing.
    """
    path = data / HORIZON
    try:
        seconds = float(path.read_text())
    except FileNotFoundError:
        return None
    except (OSError, ValueError) as error:
        raise LogError(f"{path}: {error}; expected seconds: start the worker again") from error
    if not 0.0 <= seconds < math.inf:
        raise LogError(f"{path}: {seconds!r}; expected seconds: start the worker again")
    return seconds


class Horizon:
    """The horizon as a service knows it: what the worker says, looked at once a second; until one
    has, what the service was started with.
    """

    def __init__(self, data: Path, seconds: float) -> None:
        self._data = data
        self._own = self._seconds = seconds
        self._looked_at = -math.inf
        self._told = seconds

    @property
    def seconds(self) -> float:
        """Seconds, counted from when a row was stored, for which its id is known in any case."""
        now = time.monotonic()
        if now - self._looked_at >= _EVERY:
            self._looked_at = now
            self._look()
        return self._seconds

    def _look(self) -> None:
        try:
            said = read_horizon(self._data)
        except LogError as error:
            # What was known before goes on: it is as likely to hold as anything.
            _logger.warning("%s", error)
            return
        self._seconds = self._own if said is None else said
        if self._seconds == self._told:
            return
        self._told = self._seconds
        # A shared log knows ids for as long as rewards count, if that is longer.
        if self._seconds < self._own:
            _logger.warning(
                "ids are remembered for %g h, as the worker says, not for %g h; start both with "
                "the same --remember",
                self._seconds / 3_600,
                self._own / 3_600,
            )
