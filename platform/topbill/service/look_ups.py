"""Look-ups in a log that is reached over a network: many callers' at once, and none on the loop.

decisions ──▶ wanted ──▶ one query, in a thread ──▶ every caller's answer
                ▲              │
                └── who comes while it is under way waits for the next
"""

from __future__ import annotations

import asyncio
from collections.abc import Collection
from typing import TypeVar

from topbill.domain.errors import LogError
from topbill.domain.records import Decision
from topbill.log import Log

_LONGEST = 2.0
"""Seconds that a caller waits for what is read: as long as for what is written."""
_Read = TypeVar("_Read")


async def soon(reading: asyncio.Future[_Read], log: Log) -> _Read:
    """What is read of a log, which goes on when nobody waits for it any more: it is in a thread.
    Raises LogError where it takes too long, as of a server that stands still.
    """
    try:
        return await asyncio.wait_for(asyncio.shield(reading), _LONGEST)
    except TimeoutError as error:
        # Whatever becomes of it, nobody asks any more.
        reading.add_done_callback(lambda read: read.cancelled() or read.exception())
        raise LogError(f"{log.name}: has not answered for {_LONGEST:g} s; try later") from error


class LookUps:
    """Looks decisions up for an event loop. All methods are for the loop's own thread.

    Args:
        log: A handle that this has to itself, and closes at its end.
    """

    def __init__(self, log: Log) -> None:
        self._log = log
        self._wanted: set[str] = set()
        self._next: asyncio.Task[dict[str, Decision]] | None = None
        """The query that has not begun, which takes all that are wanted by then."""
        self._one_query = asyncio.Lock()

    async def decisions(self, decision_ids: Collection[str]) -> dict[str, Decision]:
        """The stored decisions of these ids, by id, as `Log.decisions` gives them. Raises LogError,
        also where that takes too long.
        """
        self._wanted.update(decision_ids)
        if self._next is None:
            self._next = asyncio.create_task(self._query())
        # A caller whose connection breaks must not end the look-up of the others.
        found = await soon(self._next, self._log)
        return {each: found[each] for each in decision_ids if each in found}

    async def _query(self) -> dict[str, Decision]:
        async with self._one_query:
            # The rest of this turn of the loop may want some as well.
            await asyncio.sleep(0)
            wanted, self._wanted, self._next = self._wanted, set(), None
            return await asyncio.to_thread(self._log.decisions, wanted)

    def close(self) -> None:
        """Let go of the log."""
        self._log.close()
