"""Hearing of new policy versions as soon as there are any, where the log can tell: on a thread of
its own, since it waits all the time.
"""

from __future__ import annotations

import logging
import threading
from collections.abc import Callable
from contextlib import closing

from topbill.domain.errors import TopbillError
from topbill.log import Log
from topbill.log.protocol import Listener

_logger = logging.getLogger("topbill")
_LONGEST_WAIT = 0.25
"""Seconds within which the thread sees that it is to end."""
_TRY_EVERY = 1.0
"""Seconds until a connection that was lost is made anew."""


class Announcements:
    """Calls `heard` for each announcement, and where some may have been missed.

    `open_log` gives a handle of its own.
    """

    def __init__(self, open_log: Callable[[], Log], heard: Callable[[], None]) -> None:
        self._open_log, self._heard = open_log, heard
        self._stop = threading.Event()
        self.are_heard = False
        """Whether every new version is announced as things are: else somebody must look for it."""
        self._thread = threading.Thread(target=self._run, name="announcements", daemon=True)

    def start(self) -> None:
        """Begin to listen."""
        self._thread.start()

    def close(self) -> None:
        """Hear no more."""
        self._stop.set()
        self._thread.join()

    def _run(self) -> None:
        while not self._stop.is_set():
            try:
                with self._open_log() as log:
                    listener = log.listen()
                if listener is None:
                    return
                with closing(listener):
                    self._listen(listener)
            except TopbillError as error:
                # Whatever is wrong with the log, who uses it says.
                _logger.info("new versions are looked for: %s", error)
            finally:
                self.are_heard = False
            self._stop.wait(_TRY_EVERY)

    def _listen(self, listener: Listener) -> None:
        self.are_heard = True
        # What was announced before is not heard again.
        self._heard()
        while not self._stop.is_set():
            if listener.wait(_LONGEST_WAIT):
                self._heard()
