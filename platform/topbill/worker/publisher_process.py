"""The process that publishes beside a worker: started with it, started again where it ends by
itself, ended with it.
"""

from __future__ import annotations

import logging
import subprocess
import time
from collections.abc import Sequence
from typing import Self

_logger = logging.getLogger("topbill")
_FIRST_PAUSE, _LONGEST_PAUSE = 1.0, 60.0
"""Seconds until it is started again, doubled each time."""
_STEADY = 60.0
"""Seconds that it must have run for the next pause to be the first again."""


class PublisherProcess:
    """A child process, which ends when this one does, however it ends.

    Args:
        command: Its command line; empty where there is to be none.
        lease: A descriptor that it holds as well, so that nobody takes the data folder while it
            lives.
    """

    def __init__(self, command: Sequence[str], lease: int) -> None:
        self._command, self._lease = command, lease
        self._process: subprocess.Popen[bytes] | None = None
        self._pause = _FIRST_PAUSE
        self._started = self._due = 0.0
        self.tend()

    def tend(self) -> None:
        """Start it where it does not run, and is due."""
        if not self._command:
            return
        now = time.monotonic()
        if self._process is not None and self._process.poll() is not None:
            if now - self._started >= _STEADY:
                self._pause = _FIRST_PAUSE
            _logger.warning(
                "the process that publishes ended with status %d; starting it again in %g s",
                self._process.returncode,
                self._pause,
            )
            self._process.communicate()
            self._process, self._due = None, now + self._pause
            self._pause = min(2.0 * self._pause, _LONGEST_PAUSE)
        if self._process is None and now >= self._due:
            # A session of its own: the terminal's Ctrl-C reaches the worker alone, which ends this
            # in turn.
            self._process = subprocess.Popen(  # noqa: S603
                self._command,
                # Closed by the system when the worker ends: that is how the other one knows.
                stdin=subprocess.PIPE,
                pass_fds=(self._lease,),
                start_new_session=True,
            )
            self._started = now

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_problem: object) -> None:
        """Let it publish what is committed, and end."""
        if self._process is not None:
            self._process.terminate()
            # Not by closing its input first, which would end it at once.
            self._process.wait()
            self._process.communicate()
