"""What viewers have seen and played of late, read from the log: for fatigue, and for what is like
what they watched.
"""

from __future__ import annotations

from collections import OrderedDict, deque
from collections.abc import Iterable
from typing import Protocol

from topbill.domain.records import Decision, RewardEvent

MOST_VIEWERS = 100_000
MOST_PAGES = 200_000
MOST_PLAYS = 20
_BATCH = 2_000


class Source(Protocol):
    """What the memory needs of the log."""

    def matured(
        self, experiment: str, after_seq: int, age: int, barrier: int, limit: int
    ) -> Iterable[tuple[int, Decision, list[RewardEvent]]]: ...
    def read_events(self, after_seq: int, limit: int) -> list[tuple[int, RewardEvent]]: ...


class _Seen:
    """One viewer: title → (pages with it since its last play, when last), and the last plays,
    newest last.
    """

    __slots__ = ("plays", "shown")

    def __init__(self) -> None:
        self.shown: dict[str, tuple[int, float]] = {}
        self.plays: deque[str] = deque(maxlen=MOST_PLAYS)


class ViewingHistory:
    """The viewers of one page. It follows the log, so all processes know the same, a moment
    later.
    """

    def __init__(self, page: str) -> None:
        self.page = page
        self._viewers: OrderedDict[str, _Seen] = OrderedDict()
        self._pages: OrderedDict[str, str] = OrderedDict()
        self._decisions = self._events = 0
        self.begun = False
        """Whether it knows what there was before the log that it follows."""

    def follow(self, log: Source, now: int) -> int:
        """Take in what the log has got since, up to `now` (µs); returns how many rows were read."""
        read = 0
        # Events first: whoever sees an event then finds its page, which was stored before.
        events = log.read_events(self._events, _BATCH)
        while rows := list(log.matured(self.page, self._decisions, 0, now, _BATCH)):
            for seq, page, _ in rows:
                self._decisions = seq
                self.shown(
                    page.decision_id,
                    page.unit,
                    [cell.action for cell in page.slate],
                    page.decided_at / 1e6,
                )
            read += len(rows)
        for seq, event in events:
            self._events = seq
            if event.event == "play" and event.action is not None:
                self.credited(event.decision_id, event.action)
        return read + len(events)

    def begin_after(self, decision: int, event: int) -> None:
        """Follow the log from after these `seq`s on: what came before is known."""
        self._decisions, self._events = decision, event

    def shown(self, page_id: str, unit: str, titles: Iterable[str], at: float) -> None:
        """A page with these titles was served."""
        self._pages[page_id] = unit
        if len(self._pages) > MOST_PAGES:
            self._pages.popitem(last=False)
        shown = self._of(unit).shown
        for title in titles:
            shown[title] = (shown.get(title, (0, 0.0))[0] + 1, at)

    def credited(self, page_id: str, title: str) -> None:
        """A title on this page was played."""
        if page_id in self._pages:
            self.played(self._pages[page_id], title)

    def played(self, unit: str, title: str) -> None:
        """A title was played: it is not tiring any more."""
        seen = self._of(unit)
        seen.shown.pop(title, None)
        if title in seen.plays:
            seen.plays.remove(title)
        seen.plays.append(title)

    def watched(self, unit: str) -> tuple[str, ...]:
        """The viewer's last plays, newest last."""
        seen = self._viewers.get(unit)
        return () if seen is None else tuple(seen.plays)

    def fatigued(self, unit: str, most: int, rest: float, now: float) -> list[str]:
        """Titles that were on `most` pages without a play, the last of them less than `rest`
        seconds ago.
        """
        seen = self._viewers.get(unit)
        if seen is None:
            return []
        shown = list(seen.shown.items())  # copied at once: another thread follows the log
        return [title for title, (count, at) in shown if count >= most and now - at < rest]

    def _of(self, unit: str) -> _Seen:
        seen = self._viewers.get(unit)
        if seen is None:
            seen = self._viewers[unit] = _Seen()
            if len(self._viewers) > MOST_VIEWERS:
                self._viewers.popitem(last=False)
        else:
            self._viewers.move_to_end(unit)
        return seen
