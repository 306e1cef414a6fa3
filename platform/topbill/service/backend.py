"""What all handlers of one API process share."""

from __future__ import annotations

import asyncio
import logging
from collections import Counter, OrderedDict
from collections.abc import AsyncIterator, Callable, Collection
from contextlib import ExitStack, asynccontextmanager, closing
from typing import TypeVar

from topbill import lake
from topbill.domain.errors import AlreadyDecided, LogError
from topbill.domain.metric import microseconds
from topbill.domain.origin import Origin
from topbill.domain.records import Decision
from topbill.engine import Engine, made_at
from topbill.log import Log, now_micros
from topbill.log.horizon import Horizon
from topbill.log.unit_ids import unit_ids
from topbill.service.look_ups import LookUps, soon
from topbill.service.settings import Settings
from topbill.service.spool import Spool
from topbill.service.writer import GroupWriter

_logger = logging.getLogger("topbill")
_RECALLED = 1_000
"""Decisions of the lake that are kept at hand: those of the largest batch."""
_Read = TypeVar("_Read")


class Backend:
    """The engine that decides, a log to look things up in, and the writer that makes them durable.

    The engine is there from the start, so that whatever is wrong with the files is said before
    anything is served; likewise what is wrong with the data folder's settings (LogError). `log`,
    `writer` and `read` exist between `open` and `close`: the writer belongs to an event loop.
    """

    def __init__(self, settings: Settings, engine: Engine) -> None:
        self.settings = settings
        self.unit_ids = unit_ids(settings.data)
        self.engine = engine
        self.log: Log
        self.writer: GroupWriter
        self._reader: Log
        self.spool: Spool | None = None
        """Takes what comes while the log is away, if anything does."""
        self._one_reader = asyncio.Lock()
        self._look_ups: LookUps | None = None
        """None where the log is on this machine: then to look up takes less than to wait."""
        self._at_hand: dict[str, Decision | None] = {}
        self._holders: Counter[str] = Counter()
        """How many requests have need of what is at hand, by id."""
        self._recalled: OrderedDict[str, Decision] = OrderedDict()
        self._horizon = Horizon(settings.data, settings.remember)
        self.on_erasure: list[Callable[[], None]] = [self._recalled.clear]
        """What drops memory of viewers, each called on the loop's thread."""

    def open(self, loop: asyncio.AbstractEventLoop) -> None:
        """Open the log three times: the writer's handle is at work in another thread while the loop
        looks things up in one, and other threads in the third. A fourth time where it is reached
        over a network. Raises LogError.
        """
        with ExitStack() as opened:
            self.log = opened.enter_context(closing(self.settings.open_log()))
            self._reader = opened.enter_context(closing(self.settings.open_log()))
            if self.log.is_remote:
                self._look_ups = LookUps(self.settings.open_log())
                opened.enter_context(closing(self._look_ups))
            if self.settings.spool is not None:
                self.spool = Spool(self.settings.spool, self.settings.open_log)
                opened.enter_context(closing(self.spool))
            self.writer = GroupWriter(self.settings.open_log(), loop, self.spool)
            opened.pop_all()  # all of them stay open, or none

    async def read(self, reading: Callable[[Log], _Read]) -> _Read:
        """What `reading` reads from the log, in another thread: for what may take long. One at a
        time, on a handle that is open already: to open one takes longer than to read."""
        async with self._one_reader:
            return await asyncio.to_thread(reading, self._reader)

    async def quick(self, reading: Callable[[Log], _Read]) -> _Read:
        """As `read`, for what is quick where the log is on this machine."""
        if self._look_ups is None:
            return reading(self.log)
        return await soon(asyncio.ensure_future(self.read(reading)), self.log)

    @property
    def is_remote(self) -> bool:
        """Whether the log is reached over a network."""
        return self._look_ups is not None

    @asynccontextmanager
    async def at_hand(self, decision_ids: Collection[str]) -> AsyncIterator[None]:
        """Within it `decision` knows these without a look into the log."""
        found = await self.stored(decision_ids)
        for each in decision_ids:
            self._at_hand[each] = found.get(each)
        self._holders.update(list(decision_ids))  # of a mapping it would add the values
        try:
            yield
        finally:
            self._holders.subtract(list(decision_ids))
            for each in decision_ids:
                if not self._holders[each]:
                    del self._holders[each], self._at_hand[each]

    async def stored(self, decision_ids: Collection[str]) -> dict[str, Decision]:
        """The decisions of these ids that the log holds, by id. Raises LogError."""
        if self._look_ups is not None:
            waiting = {} if self.spool is None else self.spool.decisions(decision_ids)
            missing = [each for each in decision_ids if each not in waiting]
            return waiting | (await self._look_ups.decisions(missing) if missing else {})
        return _known(self.log.decision, decision_ids)

    def decision(self, decision_id: str) -> Decision | None:
        """The stored decision: at hand, of the log, or one that was recalled a moment ago."""
        if decision_id in self._at_hand:
            decision = self._at_hand[decision_id]
        else:
            decision = self.log.decision(decision_id)
        if decision is not None:
            return decision
        recalled = self._recalled.get(decision_id)
        # What is known here and forgotten there must not be rewarded a second time.
        if recalled is None or not self.is_remembered(recalled.decided_at):
            return None
        return recalled

    def is_remembered(self, decided_at: int) -> bool:
        """Whether the log knows the ids of a decision and of its rewards for certain."""
        return decided_at >= now_micros() - microseconds(self._horizon.seconds)

    def refuse_old(self, name: str, unused_id: str) -> None:
        """Raises AlreadyDecided for an id, from the field `name`, that is not known and says of
        itself that it was made before the horizon: nobody can tell whether it was used then.
        """
        made = made_at(unused_id)
        if made is not None and not self.is_remembered(made):
            raise AlreadyDecided(
                f"{name} {unused_id!r} was made longer ago than ids are remembered "
                f"({self._horizon.seconds / 3_600:g} h): it may have been decided then; "
                "use a new id"
            )

    async def find(self, decision_ids: Collection[str]) -> dict[str, Decision]:
        """The decisions of these ids that are stored, by id: of the log, and of the lake those that
        the log has let go and remembers. Raises LogError where the lake can't be read.
        """
        if self._look_ups is None:
            found = _known(self.decision, decision_ids)
        else:
            async with self.at_hand(decision_ids):
                found = _known(self.decision, decision_ids)
        unknown = [each for each in decision_ids if each not in found]
        return found | await self.recall(unknown) if unknown else found

    async def origins(self, decision_ids: Collection[str]) -> dict[str, Origin]:
        """What is known, without the lake, of those of the decisions that the log has let go."""
        if not self.log.keeps_origins:
            return {}
        found = await self.quick(lambda log: log.origins(decision_ids))
        return {i: each for i, each in found.items() if self.is_remembered(each.decided_at)}

    async def recall(self, decision_ids: Collection[str]) -> dict[str, Decision]:
        """Those of the decisions that the log has let go and remembers, read from the lake; they
        are at hand in `decision` then. Raises LogError where the lake can't be read.
        """
        places = await self.quick(lambda log: log.places(decision_ids))
        if not places:
            return {}
        # In the thread, what reads the lake is imported, too: the first time it takes 0.2 s.
        found = await asyncio.to_thread(lambda: lake.find_decisions(self.settings.data, places))
        found = {i: d for i, d in found.items() if self.is_remembered(d.decided_at)}
        self._recalled |= found
        while len(self._recalled) > _RECALLED:
            self._recalled.popitem(last=False)
        return found

    async def forget_viewers(self) -> None:
        """Drop what this process has in memory of any viewer: one of them was erased. What is
        needed of the others is read again.
        """
        for forget in self.on_erasure:
            forget()
        self.log.forget_recent()
        self.writer.forget_recent()
        await self.read(lambda log: log.forget_recent())

    def close(self) -> None:
        """Write what is waiting, tidy up, and let go of the log."""
        self.writer.close()
        if self.spool is not None:
            self.spool.close()
        try:
            self.log.tend()
        except LogError as error:
            _logger.warning(
                "%s; the journal keeps what waits, and the next to open the log moves it", error
            )
        if self._look_ups is not None:
            self._look_ups.close()
        self._reader.close()
        self.log.close()


def _known(
    decision: Callable[[str], Decision | None], decision_ids: Collection[str]
) -> dict[str, Decision]:
    """Those of the decisions that there are, by id."""
    found = {}
    for decision_id in decision_ids:
        stored = decision(decision_id)
        if stored is not None:
            found[decision_id] = stored
    return found
