"""Group commit: what came in a turn of the event loop, or while the last group was written, is
written in one go.

    put ──▶ waiting ──▶ gather ──▶ commit ──▶ resolve ──▶ (more waiting? gather again)
              ▲           │ turns of the loop that bring nothing more, or enough callers wait
              └───────────┘

One sync of the disk costs the same for one entry as for 256, so waiting for two turns of the loop,
some ten microseconds, is what makes thousands of durable decisions a second possible.
"""

from __future__ import annotations

import asyncio
import logging
import time
from collections.abc import Callable, Sequence
from queue import SimpleQueue
from threading import Thread

from topbill.domain.errors import LogError
from topbill.log import Entry, Log, Receipt, now_micros
from topbill.service.spool import Spool

_logger = logging.getLogger("topbill")
_LARGEST_GROUP = 256
_LONGEST_QUEUE = 20_000
"""Entries that may wait; whoever comes then is refused at once. At 10,000 a second it is two
seconds of a disk that stands still: callers have their own deadlines, and answers that come after
them are work for nobody.
"""
_LONGEST_WRITE = 2.0
"""Seconds that a group may be under way before whoever comes is refused at once."""
_QUICK = 1e-3
"""Seconds for a group, on average over the last few, up to which the loop itself writes."""
_SMOOTHING = 8
"""Groups over which that average forgets."""

Done = Callable[[Receipt | LogError], None]
"""Gets the receipt of an entry that is durable, or why it is not."""
_QUIET_TURNS = 2
"""Turns of the loop that bring nothing more before a group is written: what is read in one turn is
decided in the next.
"""
_Waiting = tuple[Entry, Done]
_Answers = Sequence[Receipt | LogError]
_LOOK_EVERY = 0.25
"""Seconds between two looks whether a group is under way for too long, where there is a spool."""
_LOOK_STALLED = 0.005
"""The same while one is: so long callers are gathered for one sync of the spool."""


class GroupWriter:
    """Takes entries from the event loop, and tells the caller of each when it is durable.

    While the disk is quick (0.1 ms is usual) the loop writes by itself: to wake a thread and be
    woken by it takes as long. While it is slow, and always over a network, a thread writes, and
    half of the callers are decided for while the other half is written. All methods are for the
    loop's own thread.

    Args:
        log: A handle that the writer has to itself, and closes at its end. The loop's thread and
            the writer's never use it at once: one group is under way at a time.
        loop: The loop that calls.
        spool: Takes groups while the log does not; None where nothing does.
    """

    def __init__(
        self, log: Log, loop: asyncio.AbstractEventLoop, spool: Spool | None = None
    ) -> None:
        self._loop = loop
        self._log = log
        self._spool = spool
        self.failing = False
        """Whether the last group could not be written."""
        self._waiting: list[_Waiting] = []
        self._busy = False
        """Whether a group is being gathered or written: then nobody needs to start one."""
        self._waiting_before = 0
        """How many waited in the last turn of the loop."""
        self._quiet_turns = 0
        """How many turns have brought nothing more."""
        self._enough = _LARGEST_GROUP
        """How many are not made to wait for another turn of the loop."""
        self._busy_since = 0.0
        """When the group that is being gathered or written was begun."""
        self._seconds = 0.0
        """Seconds that a group takes to write, averaged."""
        self._is_to_forget = False
        self._groups: SimpleQueue[list[_Waiting] | None] = SimpleQueue()
        self._thread = Thread(target=self._run, name="topbill-writer", daemon=True)
        self._thread.start()
        self._under_way: list[_Waiting] = []
        """The group that is written, until its callers are told."""
        self._look: asyncio.TimerHandle | None = None
        if spool is not None:
            self._look = loop.call_later(_LOOK_EVERY, self._spool_what_waits, spool)

    def put(self, entry: Entry) -> asyncio.Future[Receipt]:
        """A future that is done when `entry` is durable. Raises LogError as `submit`."""
        future: asyncio.Future[Receipt] = self._loop.create_future()

        def done(receipt: Receipt | LogError) -> None:
            # A caller whose connection broke has cancelled its future. Its entry is stored all the
            # same: it comes again with the same id, or not at all.
            if future.done():
                return
            if isinstance(receipt, LogError):
                future.set_exception(receipt)
            else:
                future.set_result(receipt)

        self.submit(entry, done)
        return future

    def submit(self, entry: Entry, done: Done) -> None:
        """Have `done` called when `entry` is durable, or could not be made so.

        Raises:
            LogError: Too many are waiting already, or for too long. `done` is not called then.
        """
        if self._stands_still and self._spool is None:
            raise self._no_write()
        if len(self._waiting) >= _LONGEST_QUEUE:
            raise LogError(
                f"{self._log.name}: {_LONGEST_QUEUE} writes are waiting; "
                "the log doesn't keep up, try later"
            )
        self._waiting.append((entry, done))
        if not self._busy:
            self._busy = True
            self._busy_since = time.monotonic()
            self._loop.call_soon(self._gather)

    @property
    def _stands_still(self) -> bool:
        return self._busy and time.monotonic() - self._busy_since > _LONGEST_WRITE

    def _no_write(self) -> LogError:
        return LogError(
            f"{self._log.name}: has not taken a write for {_LONGEST_WRITE:g} s; try later"
        )

    def _spool_what_waits(self, spool: Spool) -> None:
        """Where the log stands still, give the spool what waits, and what the log may never take:
        should it all the same, it gets the same rows twice and stores them once.
        """
        if self._stands_still:
            group, self._under_way, self._waiting = [*self._under_way, *self._waiting], [], []
            if group:
                _tell(group, spool.take([entry for entry, _ in group], self._no_write()))
        wait = _LOOK_STALLED if self._stands_still else _LOOK_EVERY
        self._look = self._loop.call_later(wait, self._spool_what_waits, spool)

    def forget_recent(self) -> None:
        """Have the log's handle keep no row in memory; with the next group where one is under way,
        since the handle is the writing thread's then.
        """
        if self._busy:
            self._is_to_forget = True
        else:
            self._log.forget_recent()

    def close(self) -> None:
        """Write what is waiting, then end. Nobody may wait for these any more: the loop no longer
        turns.
        """
        if self._look is not None:
            self._look.cancel()
        self._groups.put(self._waiting)
        self._groups.put(None)
        self._thread.join()
        self._log.close()

    def _gather(self) -> None:
        """Write when enough callers wait, or when turns of the loop bring nothing more."""
        if len(self._waiting) > self._waiting_before:
            self._quiet_turns = 0
        else:
            self._quiet_turns += 1
        self._waiting_before = len(self._waiting)
        if self._quiet_turns < _QUIET_TURNS and len(self._waiting) < self._enough:
            self._loop.call_soon(self._gather)
        else:
            self._hand_over()

    def _hand_over(self) -> None:
        self._waiting_before = 0
        group = self._waiting[:_LARGEST_GROUP]
        del self._waiting[:_LARGEST_GROUP]
        self._under_way = group
        # Over a network it may be quick, and stand still in the next moment.
        if self._log.is_remote or self._seconds > _QUICK:
            self._groups.put(group)
        else:
            self._resolve(group, self._commit(group))

    def _run(self) -> None:
        """The writer's thread: a group after another, until None."""
        while (group := self._groups.get()) is not None:
            receipts = self._commit(group)
            # At the very end the loop may be closed, and whoever waited is gone with it.
            if not self._loop.is_closed():
                self._loop.call_soon_threadsafe(self._resolve, group, receipts)

    def _commit(self, group: list[_Waiting]) -> _Answers | LogError:
        """Write a group. An error is returned, not raised: it is the callers', who get it through
        their futures, and must end neither the loop nor the thread.
        """
        start = time.perf_counter()
        if self._is_to_forget:
            self._is_to_forget = False
            self._log.forget_recent()
        entries = [entry for entry, _ in group]
        if self._spool is not None and not self._spool.is_empty:
            # What came before goes first, and the spool's own thread finds out when it can.
            return self._spool.take(entries, LogError(f"{self._log.name}: is away; try later"))
        try:
            begun_at = now_micros()
            receipts = self._log.commit(entries)
            if self._spool is not None:
                self._spool.log_took_a_group(begun_at)
            return receipts
        except LogError as error:
            return error if self._spool is None else self._spool.take(entries, error)
        except Exception as error:
            _logger.exception("writing a group of %d entries failed", len(group))
            return LogError(
                f"{self._log.name}: cannot write: {error!r}; nothing of this batch was stored"
            )
        finally:
            # An exponential average: one slow sync does not bring the thread in, a slow disk does.
            self._seconds += (time.perf_counter() - start - self._seconds) / _SMOOTHING

    def _resolve(self, group: list[_Waiting], receipts: _Answers | LogError) -> None:
        """Tell the callers, and begin the next group if somebody waits."""
        if self._seconds <= _QUICK:
            self._enough = _LARGEST_GROUP
        else:
            # Half of those at work now: so one half is decided for while the other is written, and
            # neither the processor nor the disk waits for the other.
            callers = len(group) + len(self._waiting)
            self._enough = min(_LARGEST_GROUP, (callers + 1) // 2)
        self._busy = bool(self._waiting)
        self._busy_since = time.monotonic()
        if self._waiting:
            self._loop.call_soon(self._gather)
        self.failing = isinstance(receipts, LogError)
        # Where it took too long, they were told already.
        if self._under_way is group:
            self._under_way = []
            _tell(group, [receipts] * len(group) if isinstance(receipts, LogError) else receipts)


def _tell(group: Sequence[_Waiting], answers: _Answers) -> None:
    for (_, done), answer in zip(group, answers, strict=True):
        done(answer)
