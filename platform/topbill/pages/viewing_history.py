"""What viewers have seen and played of late, read from the log: for fatigue, and for what is like
what they watched.
"""

from __future__ import annotations

import sys
from collections import OrderedDict
from collections.abc import Collection, Iterable, Mapping, Sequence
from itertools import groupby
from typing import Any, NamedTuple, Protocol

import numpy as np

from topbill.candidates import taste_worth
from topbill.domain.chance import uniform
from topbill.domain.profile import PROFILE_TYPE, Merge, guests_of
from topbill.domain.records import Decision, RewardEvent, UnitEvent
from topbill.domain.rewards import IMPRESSIONS
from topbill.log import Matured, Named
from topbill.rules import Rules

MOST_VIEWERS = 100_000
"""Viewers that are remembered: whoever was seen longest ago is forgotten first."""
MOST_PAGES = 200_000
"""Pages whose viewers are remembered, to credit plays on them."""
MOST_TITLES = 5_000
"""Titles of a viewer that are remembered: what was heard of longest ago is forgotten first."""
MOST_GUESTS = 100
"""Guests, the latest, whose history is remembered as a profile's."""
MOST_OF_ALL = 1_000_000
"""Titles of all viewers together, some 150 MB: beyond, viewers are forgotten as above."""
PLAY, FRACTION = "play", "watch_fraction"
"""The events that say that a title was watched, and how much of it: 0 to 1."""
LIST_ADD, LIST_REMOVE = "watchlist_add", "watchlist_remove"
"""The events that put a title on the viewer's list, and take it off."""
FINISHED = 0.9
"""Share of a title that is all but its credits."""
PICK = "onboarding_pick"
"""The event that says that a viewer chose a title when asked, at the start, what they like."""
SIGNALS: Mapping[str, float] = {
    PLAY: 1.0,
    PICK: 1.0,
    "thumbs_up": 2.0,
    "thumbs_down": -3.0,
    "not_interested": -3.0,
    "abandon": -1.0,
}
"""What events say for or against a title where a page file doesn't say it, in plays."""
_BATCH = 2_000
_MOST_MADE = 5_000
"""Pages of this process that are known without the log, until it is followed to where they are."""


def events_read(signals: Mapping[str, float]) -> frozenset[str]:
    """The names of the events that a page of these signals reads."""
    return frozenset({PLAY, FRACTION, LIST_ADD, LIST_REMOVE, *signals})


class LogReader(Protocol):
    """What the history needs of the log."""

    def barrier(self) -> int: ...
    def next_seq(self, experiment: str, after_seq: int) -> int | None: ...
    def matured(
        self, experiment: str, after_seq: int, age: int, barrier: int, limit: int
    ) -> Sequence[Matured]: ...
    def named(self, experiment: str, after_seq: int, barrier: int, limit: int) -> list[Named]: ...
    def read_events(self, after_seq: int, limit: int) -> list[tuple[int, RewardEvent]]: ...
    def read_unit_events(self, after_seq: int, limit: int) -> list[tuple[int, UnitEvent]]: ...
    def merges(self, after: int, limit: int) -> list[Merge]: ...


class _Regard:
    """What a viewer did with a title.

    Attributes:
        at: When it was last heard of, seconds since the epoch.
        opinion: What the viewer's events say for it, less what they say against it, in plays.
        played: Whether it was played.
        fraction: The most of it that was watched at once; None where nobody said.
        listed: Whether it is on the viewer's list; `list_at` says since when it is, or isn't.
    """

    __slots__ = ("at", "fraction", "list_at", "listed", "opinion", "played")

    def __init__(self) -> None:
        self.at, self.opinion, self.played = 0.0, 0.0, False
        self.fraction: float | None = None
        self.list_at, self.listed = 0.0, False

    def put_on_list(self, listed: bool, at: float) -> None:
        """It was put on the viewer's list, or taken off, at that time. Events may come in any
        order: the latest says what holds.
        """
        if at >= self.list_at:
            self.list_at, self.listed = at, listed

    def joined(self, other: _Regard) -> _Regard:
        """What two units did with it, who are one viewer."""
        both = _Regard()
        for each in (self, other):
            both.at = max(both.at, each.at)
            both.opinion += each.opinion
            both.played |= each.played
            if each.fraction is not None:
                both.fraction = max(both.fraction or 0.0, each.fraction)
            both.put_on_list(each.listed, each.list_at)
        return both

    @property
    def is_seen(self) -> bool:
        """Whether it was watched; not to its end where somebody said so."""
        return self.played and (self.fraction is None or self.fraction >= FINISHED)

    @property
    def is_unfinished(self) -> bool:
        """Whether it was begun and, as somebody said, not watched to its end."""
        return self.fraction is not None and 0.0 < self.fraction < FINISHED


class _ViewerRecord:
    """One viewer.

    Attributes:
        appearances: Title → (pages with it since its last play, seconds since the epoch of the
            last).
        regards: Title → what the viewer did with it, the latest last.
    """

    __slots__ = ("appearances", "regards")

    def __init__(self) -> None:
        self.appearances: dict[str, tuple[int, float]] = {}
        self.regards: dict[str, _Regard] = {}

    def copy(self) -> _ViewerRecord:
        """As it is now. At once: another thread follows the log, and a dictionary that grows under
        a loop ends it with an error.
        """
        copied = _ViewerRecord()
        copied.appearances, copied.regards = self.appearances.copy(), self.regards.copy()
        return copied

    def join(self, other: _ViewerRecord) -> None:
        """Take in what another unit did, who is the same viewer."""
        for title, (pages, at) in other.appearances.items():
            own_pages, own_at = self.appearances.get(title, (0, 0.0))
            self.appearances[title] = (own_pages + pages, max(own_at, at))
        for title, regard in other.regards.items():
            own = self.regards.get(title)
            self.regards[title] = regard if own is None else own.joined(regard)


class _Made(NamedTuple):
    """A page that this process made: when, in µs of log time, for whom, and of which titles."""

    at: int
    unit: str
    titles: Sequence[str]


class KnownViewer(NamedTuple):
    """What is known of a viewer.

    Attributes:
        watched: Titles that were watched and liked, newest last.
        resting: Rule → the titles that it keeps away for now.
        unfinished: (Title, seconds since it was last heard of) of what was begun, newest first.
        finished: The same of what was watched, in no order.
        listed: The viewer's list, what was put there last first.
        worth: What each that was watched says of the viewer's taste, 1 for a fresh play.
        shown: Title → on how many pages it was since it was last played.
    """

    watched: tuple[str, ...] = ()
    resting: Mapping[str, Sequence[str]] = {}
    unfinished: Sequence[tuple[str, float]] = ()
    finished: Sequence[tuple[str, float]] = ()
    listed: Sequence[str] = ()
    worth: tuple[float, ...] = ()
    shown: Mapping[str, int] = {}


NOBODY = KnownViewer()
"""A viewer of whom nothing is known."""


class ViewingHistory:
    """What the viewers of one page saw and played, on its pages and, where events say so, anywhere
    else. It follows the log, so all processes know the same, a moment later.

    `begun` says whether it knows what there was before the log that it follows
    (`lake_history.read_lake`); `unseen_pages` how many pages it followed since the last impression.
    """

    def __init__(
        self,
        page: str,
        signals: Mapping[str, float] = SIGNALS,
        unit_types: Collection[str] = (PROFILE_TYPE,),
    ) -> None:
        """`signals`: event → what it says for a title, below 0 against it, in plays; `unit_types`:
        what the page's experiments call their units.
        """
        self.page = page
        self.signals = signals
        self.unit_types = frozenset(unit_types)
        self._viewers: OrderedDict[str, _ViewerRecord] = OrderedDict()
        self._titles = 0
        # Page id → its viewer.
        self._pages: OrderedDict[str, str] = OrderedDict()
        # By id, the pages that this process made and has not followed the log to.
        self._made: dict[str, _Made] = {}
        # The last rows of the log that were read.
        self._decision_seq = self._event_seq = self._unit_event_seq = 0
        # Profile → the guests that were merged into it, the latest last.
        self._merged: dict[str, list[str]] = {}
        self._merge_place = 0
        self.begun = False
        self.unseen_pages = 0

    @property
    def events(self) -> frozenset[str]:
        """The names of the events that it reads."""
        return events_read(self.signals)

    def follow(self, log: LogReader) -> int:
        """Take in what the log has got since; returns how many rows were read."""
        rows_read = self._follow_merges(log)
        # Events first: whoever sees an event then finds its page, which was stored before.
        events = log.read_events(self._event_seq, _BATCH)
        # A barrier is a write: none is made where nobody has asked for a page.
        has_pages = log.next_seq(self.page, self._decision_seq) is not None
        barrier = log.barrier() if has_pages else 0
        while pages := log.named(self.page, self._decision_seq, barrier, _BATCH):
            made = [self._made.pop(page.decision_id, None) for page in pages]
            for is_made, run in groupby(zip(pages, made, strict=True), _is_made):
                together = list(run)
                if not is_made:
                    self._read(log, [page for page, _ in together], barrier)
                for page, known in together:
                    if known is not None:
                        at = page.decided_at / 1e6
                        self.shown(page.decision_id, known.unit, known.titles, at)
                    self._decision_seq = page.seq
            rows_read += len(pages)
            self.unseen_pages += len(pages)
        self._forget_made(barrier)
        for seq, event in events:
            self._event_seq = seq
            unit = self._pages.get(event.decision_id)
            if unit is not None and event.event in IMPRESSIONS:
                self.unseen_pages = 0
            if unit is not None and event.action is not None:
                at = (event.occurred_at or event.received_at) / 1e6
                self.told(unit, event.action, event.event, event.value, at)
        unit_events = log.read_unit_events(self._unit_event_seq, _BATCH)
        for seq, unit_event in unit_events:
            self._unit_event_seq = seq
            if unit_event.unit_type in self.unit_types and unit_event.action is not None:
                at = (unit_event.occurred_at or unit_event.received_at) / 1e6
                self.told(
                    unit_event.unit, unit_event.action, unit_event.event, unit_event.value, at
                )
        return rows_read + len(events) + len(unit_events)

    def _read(self, log: LogReader, pages: Sequence[Named], barrier: int) -> None:
        """Take in pages as the log has them, which follow one upon the other."""
        last = pages[-1].seq
        for seq, page, *_ in log.matured(self.page, self._decision_seq, 0, barrier, len(pages)):
            if seq <= last:
                at = page.decided_at / 1e6
                self.shown(page.decision_id, page.unit, _titles_of(page), at)

    def made(self, page: Decision) -> None:
        """This process has stored that page: it counts as shown when the log is followed to where
        it is, and is not read then.
        """
        if len(self._made) < _MOST_MADE:
            made = _Made(page.decided_at, page.unit, _titles_of(page))
            self._made[page.decision_id] = made

    def _forget_made(self, barrier: int) -> None:
        """Forget pages that were followed before it was known that they were made here."""
        # A list, made at once: another thread makes pages.
        for page_id, page in list(self._made.items()):
            if page.at <= barrier:
                self._made.pop(page_id, None)

    def _follow_merges(self, log: LogReader) -> int:
        rows_read = 0
        while merges := log.merges(self._merge_place, _BATCH):
            rows_read += len(merges)
            self._merge_place = merges[-1].place
            for merge in merges:
                if merge.unit_type in self.unit_types:
                    self._merge(merge)
        return rows_read

    def _merge(self, merge: Merge) -> None:
        # A new list: another thread may be reading the one that it had.
        guests = [*self._merged.pop(merge.unit, ()), merge.merged]
        self._merged[merge.unit] = guests[-MOST_GUESTS:]
        if len(self._merged) > MOST_VIEWERS:
            del self._merged[next(iter(self._merged))]

    def _guests_of(self, unit: str) -> list[str]:
        """The units whose history is this one's as well; most have none."""
        return guests_of(unit, self._merged, MOST_GUESTS) if unit in self._merged else []

    def begin_after(self, decision: int, event: int, unit_event: int) -> None:
        """Follow the log from after these `seq`s on: what came before is known."""
        self._decision_seq, self._event_seq = decision, event
        self._unit_event_seq = unit_event

    def shown(self, page_id: str, unit: str, titles: Iterable[str], at: float) -> None:
        """A page with these titles was served, `at` seconds since the epoch."""
        self._pages[page_id] = unit
        if len(self._pages) > MOST_PAGES:
            self._pages.popitem(last=False)
        record = self._record_of(unit)
        for title in map(sys.intern, titles):
            # Taken out first, so that it goes to the end. One text for all viewers of a title.
            pages, _ = record.appearances.pop(title, (0, 0.0))
            if not pages:
                self._make_room(record.appearances)
            record.appearances[title] = (pages + 1, at)

    def told(self, unit: str, title: str, event: str, value: float, at: float) -> None:
        """Something happened with a title, `at` seconds since the epoch. A play ends fatigue."""
        if event not in self.events:
            return
        record = self._record_of(unit)
        title = sys.intern(title)
        regard = record.regards.pop(title, None)
        if regard is None:
            regard = _Regard()
            self._make_room(record.regards)
        record.regards[title] = regard
        if event in (LIST_ADD, LIST_REMOVE):
            regard.put_on_list(event == LIST_ADD, at)
            # A list says what is to be watched, and nothing of what was.
            if event not in self.signals:
                return
        regard.at = max(regard.at, at)
        # A value is how much of the event there was: 1 for most, a share for some.
        regard.opinion += self.signals.get(event, 0.0) * min(abs(value), 1.0)
        if event == PLAY:
            regard.played = True
            if record.appearances.pop(title, None) is not None:
                self._titles -= 1
        elif event == FRACTION:
            regard.played = True
            regard.fraction = max(regard.fraction or 0.0, value)

    def _make_room(self, titles: dict[str, Any]) -> None:
        """Room for one more title among these, of the viewer that is the last to be forgotten."""
        if len(titles) == MOST_TITLES:
            del titles[next(iter(titles))]
        else:
            self._titles += 1
        while self._titles > MOST_OF_ALL and len(self._viewers) > 1:
            self._forget_one()

    def _forget_one(self) -> None:
        """Forget the viewer who was here longest ago."""
        _, record = self._viewers.popitem(last=False)
        self._titles -= len(record.regards) + len(record.appearances)

    def known(self, unit: str, rules: Rules, now: float) -> KnownViewer:
        """What is known of a viewer, under a page's rules, at `now` in seconds since the epoch."""
        record = self._viewers.get(unit)
        guests = self._guests_of(unit)
        if record is None and not guests:
            return NOBODY
        record = _ViewerRecord() if record is None else record.copy()
        for guest in guests:
            other = self._viewers.get(guest)
            if other is not None:
                record.join(other.copy())
        appearances, regards = list(record.appearances.items()), list(record.regards.items())
        # By when it happened: events may tell late of what was watched elsewhere. What is in order
        # already takes no time to sort.
        liked = [each for each in regards if each[1].opinion > 0.0]
        liked.sort(key=_heard_of)
        finished = [(title, now - regard.at) for title, regard in regards if regard.is_seen]
        unfinished, listed, disliked = [], [], []
        for title, regard in regards:
            if regard.is_unfinished:
                unfinished.append((title, now - regard.at))
            if regard.listed:
                listed.append((title, now - regard.list_at))
            if regard.opinion < 0.0:
                disliked.append(title)
        for titles in (unfinished, listed):
            # Sorting is stable: of what happened at one time, the last that was heard of is first.
            titles.reverse()
            titles.sort(key=_age_of)
        resting = {
            "fatigue": _fatigued(unit, appearances, rules, now),
            "seen": [title for title, age in finished if age < rules.again_after],
            "disliked": disliked,
        }
        last = liked[-1][1].at if liked else 0.0
        worth = taste_worth(
            np.array([regard.opinion for _, regard in liked]),
            np.array([last - regard.at for _, regard in liked]),
        )
        return KnownViewer(
            watched=tuple(title for title, _ in liked),
            resting=resting,
            unfinished=unfinished,
            finished=finished,
            listed=[title for title, _ in listed],
            worth=tuple(worth.tolist()),
            shown={title: pages for title, (pages, _) in appearances},
        )

    def _record_of(self, unit: str) -> _ViewerRecord:
        """The viewer's record, new where there is none; it becomes the last to be forgotten."""
        record = self._viewers.get(unit)
        for guest in self._guests_of(unit):
            if guest in self._viewers:
                self._viewers.move_to_end(guest)
        if record is None:
            record = self._viewers[unit] = _ViewerRecord()
            if len(self._viewers) > MOST_VIEWERS:
                self._forget_one()
        else:
            self._viewers.move_to_end(unit)
        return record


def _fatigued(
    unit: str, appearances: Sequence[tuple[str, tuple[int, float]]], rules: Rules, now: float
) -> list[str]:
    """The titles that rest for having been shown so often and not played. Not all at once, nor back
    at once: each at a number of its own from half of the most on, for half of the rest or more.
    """
    if rules.fatigue is None:
        return []
    most, rest = rules.fatigue
    earliest = (most + 1) // 2
    resting = []
    for title, (pages, at) in appearances:
        if pages < earliest or now - at >= rest:
            continue
        # The same in every process: it follows from who and what alone.
        luck = uniform("fatigue", unit, title)
        tired = earliest + int(luck * (most - earliest + 1))
        if pages >= tired and now - at < rest * (1.0 - 0.5 * uniform("rest", unit, title)):
            resting.append(title)
    return resting


def _is_made(page: tuple[Named, _Made | None]) -> bool:
    return page[1] is not None


def _titles_of(page: Decision) -> list[str]:
    return [cell.action for cell in page.slate]


def _heard_of(title: tuple[str, _Regard]) -> float:
    return title[1].at


def _age_of(title: tuple[str, float]) -> float:
    return title[1]
