"""The event loop's turns in the work of one request: others are served between them."""

from __future__ import annotations

import asyncio
import time

LONGEST = 2e-3
"""Seconds for which a batch holds the event loop before others have their turn."""


class Turn:
    """Begins when it is made, and anew each time that it ends."""

    def __init__(self) -> None:
        self._began = time.perf_counter()

    async def end_if_long(self) -> None:
        """Let others have their turn where this one has taken long."""
        if time.perf_counter() - self._began > LONGEST:
            await asyncio.sleep(0)
            self._began = time.perf_counter()
