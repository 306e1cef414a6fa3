"""Group commit: what came in a turn of the event loop, or while the last group was written, is
written in one go.
"""

from __future__ import annotations

import asyncio
import logging
import time
from pathlib import Path
from queue import SimpleQueue
from threading import Thread

from topbill.domain.errors import LogError
from topbill.log import Entry, Receipt, open_log

_logger = logging.getLogger("topbill")
_LARGEST_GROUP = 256
_LONGEST_QUEUE = 20_000
_QUICK = 1e-3
"""Seconds for a group, on average over the last few, up to which the loop itself writes."""

_Waiting = tuple[Entry, "asyncio.Future[Receipt]"]


class GroupWriter:
    """Takes entries from the event loop, resolves each one's future when it is durable.

    While the disk is quick (0.1 ms is usual) the loop writes by itself: to wake a thread and be
    woken by it takes as long. While it is slow a thread writes, and half of the callers are decided
    for while the other half is written. All methods are for the loop's own thread.
    """

    def __init__(self, path: Path, loop: asyncio.AbstractEventLoop) -> None:
        self._loop = loop
        self._log = open_log(path)
        self.failing = False
        """Whether the last group could not be written."""
        self._waiting: list[_Waiting] = []
        self._under_way = False
        self._gathered = 0
        self._enough = _LARGEST_GROUP
        self._pace = 0.0
        self._groups: SimpleQueue[list[_Waiting] | None] = SimpleQueue()
        self._thread = Thread(target=self._run, name="topbill-writer", daemon=True)
        self._thread.start()

    def put(self, entry: Entry) -> asyncio.Future[Receipt]:
        """A future that is done when `entry` is durable. Raises LogError when too many are
        waiting.
        """
        if len(self._waiting) >= _LONGEST_QUEUE:
            where = f"{self._log.name}: {_LONGEST_QUEUE} writes are waiting"
            raise LogError(f"{where}; the disk doesn't keep up, try later")
        future: asyncio.Future[Receipt] = self._loop.create_future()
        self._waiting.append((entry, future))
        if not self._under_way:
            self._under_way = True
            self._loop.call_soon(self._gather)
        return future

    def close(self) -> None:
        """Write what is waiting, then end. Nobody may wait for these any more: the loop no longer
        turns.
        """
        self._groups.put([item for item in self._waiting if not item[1].cancelled()])
        self._groups.put(None)
        self._thread.join()
        self._log.close()

    def _gather(self) -> None:
        """Write when enough callers wait, or when a turn of the loop brings nothing more."""
        if self._gathered < len(self._waiting) < self._enough:
            self._gathered = len(self._waiting)
            self._loop.call_soon(self._gather)
        else:
            self._hand_over()

    def _hand_over(self) -> None:
        self._gathered = 0
        group = self._waiting[:_LARGEST_GROUP]
        del self._waiting[:_LARGEST_GROUP]
        if self._pace > _QUICK:
            self._groups.put(group)
        else:
            self._resolve(group, self._commit(group))

    def _run(self) -> None:
        while (group := self._groups.get()) is not None:
            receipts = self._commit(group)
            if not self._loop.is_closed():
                self._loop.call_soon_threadsafe(self._resolve, group, receipts)

    def _commit(self, group: list[_Waiting]) -> list[Receipt] | LogError:
        start = time.perf_counter()
        try:
            return self._log.commit([entry for entry, _ in group])
        except LogError as error:
            return error
        except Exception as error:
            _logger.exception("writing a group of %d entries failed", len(group))
            return LogError(
                f"{self._log.name}: cannot write: {error!r}; nothing of this batch was stored"
            )
        finally:
            self._pace += (time.perf_counter() - start - self._pace) / 8

    def _resolve(self, group: list[_Waiting], receipts: list[Receipt] | LogError) -> None:
        callers = len(group) + len(self._waiting)
        self._enough = (
            _LARGEST_GROUP if self._pace <= _QUICK else min(_LARGEST_GROUP, (callers + 1) // 2)
        )
        self._under_way = bool(self._waiting)
        if self._waiting:
            self._loop.call_soon(self._gather)
        self.failing = isinstance(receipts, LogError)
        if isinstance(receipts, LogError):
            for _, future in group:
                if not future.done():
                    future.set_exception(receipts)
            return
        for (_, future), receipt in zip(group, receipts, strict=True):
            if not future.done():
                future.set_result(receipt)
