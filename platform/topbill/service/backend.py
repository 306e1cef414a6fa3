"""What all handlers of one API process share."""

from __future__ import annotations

import asyncio
import logging

from topbill.domain.errors import LogError
from topbill.engine import Engine
from topbill.log import Log
from topbill.service.settings import Settings
from topbill.service.writer import GroupWriter

_logger = logging.getLogger("topbill")


class Backend:
    """The engine that decides, a log to look things up in, and the writer that makes them durable.

    The engine is there from the start, so that whatever is wrong with the files is said before
    anything is served. `log` and `writer` exist between `open` and `close`: the writer belongs to
    an event loop.
    """

    def __init__(self, settings: Settings, engine: Engine) -> None:
        self.settings = settings
        self.engine = engine
        self.log: Log
        self.writer: GroupWriter

    def open(self, loop: asyncio.AbstractEventLoop) -> None:
        """Open the log twice: the writer's handle is at work in another thread while the loop looks
        things up in the other one. Raises LogError.
        """
        self.log = self.settings.open_log()
        try:
            self.writer = GroupWriter(self.settings.open_log(), loop)
        except LogError:
            self.log.close()
            raise

    def close(self) -> None:
        """Write what is waiting, tidy up, and let go of the log."""
        self.writer.close()
        try:
            self.log.tend()
        except LogError as error:
            _logger.warning(
                "%s; the journal keeps what waits, and the next to open the log moves it", error
            )
        self.log.close()
