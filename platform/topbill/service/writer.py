"""Group commit: all that came in a turn of the event loop becomes durable with one write."""

from __future__ import annotations

import asyncio
import logging

from topbill.errors import LogError
from topbill.log.entries import Entry, Receipt
from topbill.log.sqlite import SqliteLog

_logger = logging.getLogger("topbill")
_LARGEST_GROUP = 256

_Waiting = tuple[Entry, "asyncio.Future[Receipt]"]


class GroupWriter:
    """Takes entries, resolves each one's future when it is durable. All methods are for the loop's own thread.

    The write happens on that thread: handing a group to another and hearing back costs more than the 0.1 ms that the
    disk takes, and while it takes longer the group that gathers in the sockets grows.
    """

    def __init__(self, log: SqliteLog, loop: asyncio.AbstractEventLoop) -> None:
        self._log = log
        self._loop = loop
        self.failing = False
        """Whether the last group could not be written."""
        self._waiting: list[_Waiting] = []
        self._gathered = 0

    def put(self, entry: Entry) -> asyncio.Future[Receipt]:
        """A future that is done when `entry` is durable."""
        future: asyncio.Future[Receipt] = self._loop.create_future()
        if not self._waiting:
            self._loop.call_soon(self._gather)
        self._waiting.append((entry, future))
        return future

    def close(self) -> None:
        """Write what is waiting. Nobody may wait for it any more: the loop no longer turns."""
        self._commit([item for item in self._waiting if not item[1].cancelled()])

    def _gather(self) -> None:
        """Write when a turn of the loop brought nothing more."""
        if self._gathered < len(self._waiting) < _LARGEST_GROUP:
            self._gathered = len(self._waiting)
            self._loop.call_soon(self._gather)
            return
        group, self._waiting, self._gathered = self._waiting, [], 0
        self._commit(group)

    def _commit(self, group: list[_Waiting]) -> None:
        try:
            receipts = self._log.commit([entry for entry, _ in group])
        except Exception as error:
            if not isinstance(error, LogError):
                _logger.exception("writing a group of %d entries failed", len(group))
                error = LogError(f"{self._log.path}: cannot write: {error!r}; nothing of this batch was stored")
            self.failing = True
            for _, future in group:
                if not future.done():
                    future.set_exception(error)
            return
        self.failing = False
        for (_, future), receipt in zip(group, receipts, strict=True):
            if not future.done():
                future.set_result(receipt)
