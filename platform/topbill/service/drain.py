"""Not ready before it stops: load balancers take a service out while it still answers.

On SIGTERM `/readyz` turns 503 at once. The service goes on answering for the time of `--drain`, in
which whoever asks `/readyz` stops sending to it; then it stops accepting, and requests under way
are finished.
"""

from __future__ import annotations

import asyncio
import multiprocessing
import os
import signal
import threading
from types import FrameType

VARIABLE = "TOPBILL_PROCESS_DRAIN"
"""The seconds of `--drain`, for each process of a service."""


class Drain:
    """The time between SIGTERM and the end. A second SIGTERM changes nothing, SIGINT ends at
    once."""

    def __init__(self, seconds: float) -> None:
        self._seconds = seconds
        self.begun = False
        """Whether the service is about to stop: then it is not ready."""

    @classmethod
    def from_environment(cls) -> Drain:
        """As `topbill serve` was told."""
        return cls(float(os.environ.get(VARIABLE, "0")))

    def install(self, loop: asyncio.AbstractEventLoop) -> None:
        """Put this before the handler of SIGTERM that is there, the server's own, which stops it.
        For the thread of the loop; elsewhere than in the main thread nothing gets signals.
        """
        stop = signal.getsignal(signal.SIGTERM)
        if threading.current_thread() is not threading.main_thread() or not callable(stop):
            return

        def begin() -> None:
            if not self.begun:
                self.begun = True
                # A process whose parent is gone keeps the port from the next service.
                parent = multiprocessing.parent_process()
                orphan = parent is not None and not parent.is_alive()
                loop.call_later(0 if orphan else self._seconds, stop, signal.SIGTERM, None)

        def on_signal(_number: int, _frame: FrameType | None) -> None:
            # Between any two instructions of the loop: it is told, and acts in its own turn.
            loop.call_soon_threadsafe(begin)

        signal.signal(signal.SIGTERM, on_signal)
