"""What viewers have seen and played of late, read from the log: for fatigue, and for what is like
what they watched.
"""

from __future__ import annotations

from collections import OrderedDict, deque
from collections.abc import Iterable
from typing import Protocol

from topbill.domain.records import Decision, RewardEvent

MOST_VIEWERS = 100_000
"""Viewers that are remembered: whoever was seen longest ago is forgotten first."""
MOST_PAGES = 200_000
"""Pages whose viewers are remembered, to credit plays on them."""
MOST_PLAYS = 20
"""Last plays of a viewer that are remembered."""
_BATCH = 2_000


class LogReader(Protocol):
    """What the history needs of the log."""

    def matured(
        self, experiment: str, after_seq: int, age: int, barrier: int, limit: int
    ) -> Iterable[tuple[int, Decision, list[RewardEvent]]]: ...
    def read_events(self, after_seq: int, limit: int) -> list[tuple[int, RewardEvent]]: ...


class _ViewerRecord:
    """One viewer.

    Attributes:
        appearances: Title → (pages with it since its last play, seconds since the epoch of the
            last).
        plays: The last plays, newest last.
    """

    __slots__ = ("appearances", "plays")

    def __init__(self) -> None:
        self.appearances: dict[str, tuple[int, float]] = {}
        self.plays: deque[str] = deque(maxlen=MOST_PLAYS)


class ViewingHistory:
    """What the viewers of one page saw and played. It follows the log, so all processes know the
    same, a moment later.

    `begun` says whether it knows what there was before the log that it follows
    (`lake_history.read_lake`).
    """

    def __init__(self, page: str) -> None:
        self.page = page
        self._viewers: OrderedDict[str, _ViewerRecord] = OrderedDict()
        # Page id → its viewer.
        self._pages: OrderedDict[str, str] = OrderedDict()
        # The last rows of the log that were read.
        self._decision_seq = self._event_seq = 0
        self.begun = False

    def follow(self, log: LogReader, now: int) -> int:
        """Take in what the log has got since, up to `now` (µs); returns how many rows were read."""
        rows_read = 0
        # Events first: whoever sees an event then finds its page, which was stored before.
        events = log.read_events(self._event_seq, _BATCH)
        while rows := list(log.matured(self.page, self._decision_seq, 0, now, _BATCH)):
            for seq, page, _ in rows:
                self._decision_seq = seq
                titles = [cell.action for cell in page.slate]
                self.shown(page.decision_id, page.unit, titles, page.decided_at / 1e6)
            rows_read += len(rows)
        for seq, event in events:
            self._event_seq = seq
            if event.event == "play" and event.action is not None:
                self.credited(event.decision_id, event.action)
        return rows_read + len(events)

    def begin_after(self, decision: int, event: int) -> None:
        """Follow the log from after these `seq`s on: what came before is known."""
        self._decision_seq, self._event_seq = decision, event

    def shown(self, page_id: str, unit: str, titles: Iterable[str], at: float) -> None:
        """A page with these titles was served, `at` seconds since the epoch."""
        self._pages[page_id] = unit
        if len(self._pages) > MOST_PAGES:
            self._pages.popitem(last=False)
        appearances = self._record_of(unit).appearances
        for title in titles:
            pages, _ = appearances.get(title, (0, 0.0))
            appearances[title] = (pages + 1, at)

    def credited(self, page_id: str, title: str) -> None:
        """A title on this page was played."""
        if page_id in self._pages:
            self.played(self._pages[page_id], title)

    def played(self, unit: str, title: str) -> None:
        """A title was played: it is fatigued no more."""
        record = self._record_of(unit)
        record.appearances.pop(title, None)
        # Each title is there once, at its last play.
        if title in record.plays:
            record.plays.remove(title)
        record.plays.append(title)

    def watched(self, unit: str) -> tuple[str, ...]:
        """The viewer's last plays, newest last."""
        record = self._viewers.get(unit)
        return () if record is None else tuple(record.plays)

    def fatigued(self, unit: str, most: int, rest: float, now: float) -> list[str]:
        """Titles that were on `most` pages without a play, the last of them less than `rest`
        seconds ago.
        """
        record = self._viewers.get(unit)
        if record is None:
            return []
        # Copied at once: another thread follows the log, and a dictionary that grows under a loop
        # ends it with an error.
        appearances = list(record.appearances.items())
        return [title for title, (pages, at) in appearances if pages >= most and now - at < rest]

    def _record_of(self, unit: str) -> _ViewerRecord:
        """The viewer's record, new where there is none; it becomes the last to be forgotten."""
        record = self._viewers.get(unit)
        if record is None:
            record = self._viewers[unit] = _ViewerRecord()
            if len(self._viewers) > MOST_VIEWERS:
                self._viewers.popitem(last=False)
        else:
            self._viewers.move_to_end(unit)
        return record
