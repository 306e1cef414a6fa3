"""Group commit: one thread per API process that writes, in one transaction, all that came while the last one ran."""

from __future__ import annotations

import asyncio
import logging
from pathlib import Path
from queue import Empty, SimpleQueue
from threading import Thread

from topbill.errors import LogError
from topbill.log.sqlite import Entry, Receipt, SqliteLog

_logger = logging.getLogger("topbill")
_LARGEST_GROUP = 1_024
_LONGEST_QUEUE = 20_000

_Waiting = tuple[Entry, "asyncio.Future[Receipt]"]


class GroupWriter:
    """Takes entries from the event loop, resolves each one's future when it is durable."""

    def __init__(self, path: Path, loop: asyncio.AbstractEventLoop) -> None:
        self._loop = loop
        self._log = SqliteLog(path)
        self._queue: SimpleQueue[_Waiting | None] = SimpleQueue()
        self._thread = Thread(target=self._run, name="topbill-writer", daemon=True)
        self._thread.start()

    def put(self, entry: Entry) -> asyncio.Future[Receipt]:
        """A future that is done when `entry` is durable. Raises LogError when the queue is over its limit."""
        if self._queue.qsize() > _LONGEST_QUEUE:
            where = f"{self._log.path}: {_LONGEST_QUEUE} writes are waiting"
            raise LogError(f"{where}; the disk doesn't keep up, try later")
        future: asyncio.Future[Receipt] = self._loop.create_future()
        self._queue.put((entry, future))
        return future

    def close(self) -> None:
        """Write what is waiting, then end."""
        self._queue.put(None)
        self._thread.join()
        self._log.close()

    def _run(self) -> None:
        last = False
        while not last:
            head = self._queue.get()
            group = [] if head is None else [head]
            last = head is None
            while not last and len(group) < _LARGEST_GROUP:
                try:
                    item = self._queue.get_nowait()
                except Empty:
                    break
                if item is None:
                    last = True
                else:
                    group.append(item)
            if group:
                self._commit(group)

    def _commit(self, group: list[_Waiting]) -> None:
        receipts: list[Receipt] | LogError
        try:
            receipts = self._log.commit([entry for entry, _ in group])
        except LogError as error:
            receipts = error
        except Exception as error:
            _logger.exception("writing a group of %d entries failed", len(group))
            receipts = LogError(f"{self._log.path}: cannot write: {error!r}; nothing of this batch was stored")
        self._loop.call_soon_threadsafe(_resolve, group, receipts)


def _resolve(group: list[_Waiting], receipts: list[Receipt] | LogError) -> None:
    """One callback a group, on the event loop: a wake-up per request would cost more than the commit."""
    if isinstance(receipts, LogError):
        for _, future in group:
            if not future.done():
                future.set_exception(receipts)
        return
    for (_, future), receipt in zip(group, receipts, strict=True):
        if not future.done():
            future.set_result(receipt)
