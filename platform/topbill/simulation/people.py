"""MovieLens' people replayed on a service: each opens a page now and then, plays what stands on it
of the films that they really rated next, and finds the others elsewhere.
"""

from __future__ import annotations

import asyncio
import math
import time
from collections import Counter, deque
from collections.abc import Coroutine, Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from itertools import count
from typing import Any

import httpx
import msgspec
import numpy as np
from rich.box import SIMPLE_HEAD
from rich.console import Console, Group
from rich.table import Table

from topbill.pages import PageAnswer
from topbill.simulation.demo import watch
from topbill.simulation.driver import WHOLE_PAGES_PER_SECOND, Sender
from topbill.simulation.movielens import LEAST, NEXT, PLACES, History
from topbill.simulation.page_viewers import tiles_of
from topbill.stats.moments import Moments, ratio

KNOWN = 0.6
"""Part of each person's history that is known when the replay begins."""
STEP = 10
"""Films by which a person has moved on at the next visit."""
PEOPLE = 2
"""Pages that are opened at once."""
_PLAYED_AFTER = 1.5
"""Seconds after which what a person did with a page is sent."""

_page = msgspec.json.Decoder(PageAnswer).decode


@dataclass
class Tally:
    """What one variant's pages had of what their viewers watched next.

    Attributes:
        pages: How many there were.
        hits: Films on them that were among the viewer's next.
        popular: The same of the most popular films that the viewer had not seen, at the same
            moments.
        seen: Places that went to films which the viewer had watched.
        by_person: Person → (pages, hits).
    """

    pages: int = 0
    hits: int = 0
    popular: int = 0
    seen: int = 0
    by_person: dict[str, list[float]] = field(default_factory=dict)

    def interval(self) -> tuple[float, float] | None:
        """The 95% interval of hits a page, by person; None for less than two."""
        if len(self.by_person) < 2:
            return None
        moments = Moments.of(("pages", "hits"), np.array(list(self.by_person.values())))
        estimate = ratio("hits", "pages")(moments)
        half = 1.96 * math.sqrt(estimate.variance(moments))
        return estimate.value - half, estimate.value + half


class People:
    """The people of one replay.

    Attributes:
        past: Person → the films that are known when it begins.
        tallies: Variant of the titles' layer → what its pages came to.
    """

    def __init__(self, histories: Mapping[str, History], name: str, seed: int = 0) -> None:
        """`name` is what the ids of this replay's pages begin with."""
        self._histories = {p: own for p, own in histories.items() if len(own) >= LEAST}
        self.past = {p: own[: int(len(own) * KNOWN)] for p, own in self._histories.items()}
        self._name, self._place = name, {p: len(own) for p, own in self.past.items()}
        # What each has watched by now: also what they found on a page before its time.
        self._watched = {p: {film for film, _ in own} for p, own in self.past.items()}
        self._waiting = deque(np.random.default_rng(seed).permutation(list(self.past)).tolist())
        plays = Counter(film for own in self.past.values() for film, _ in own)
        self._popular = [film for film, _ in plays.most_common()]
        self.tallies: dict[str, Tally] = {}
        self.pages = self.plays = 0
        self._sender = Sender()

    def __len__(self) -> int:
        return len(self.past)

    @property
    def retries(self) -> int:
        """Requests that had to be sent again."""
        return self._sender.retries

    async def run(
        self,
        client: httpx.AsyncClient,
        seconds: float,
        pages_per_second: float,
    ) -> None:
        """Open pages for that many seconds, or until everybody has watched what they watched.

        Raises Unavailable when the service does not take what it is sent.
        """
        stop = time.monotonic() + seconds
        visits = count()
        pause = PEOPLE / pages_per_second
        await asyncio.gather(
            *[self._open_pages(client, stop, pause, visits) for _ in range(PEOPLE)]
        )

    async def _open_pages(
        self, client: httpx.AsyncClient, stop: float, pause: float, visits: Iterator[int]
    ) -> None:
        due = time.monotonic()
        later: list[asyncio.Task[None]] = []
        while (now := time.monotonic()) < stop and self._waiting:
            # Taken off before anything is waited for, so that nobody opens two pages at once.
            person = self._waiting.popleft()
            await asyncio.sleep(max(0.0, due - now))
            due = max(due + pause, now)
            told = await self._visit(client, next(visits), person)
            if self._place[person] < len(self._histories[person]):
                self._waiting.append(person)
            later = [task for task in later if not task.done()]
            later.append(asyncio.create_task(told))
        await asyncio.gather(*later)

    async def _visit(
        self, client: httpx.AsyncClient, number: int, person: str
    ) -> Coroutine[Any, Any, None]:
        """One page, counted, and what remains to be sent of it."""
        body = {
            "page": "home",
            "page_id": f"{self._name}-{number}",
            "profile": person,
            "context": {"device": "tv"},
        }
        place, watched = self._place[person], self._watched[person]
        future = [film for film, _ in self._histories[person][place : place + NEXT]]
        self._place[person] = place + STEP
        answer = await self._sender.post(client, "/v1/page", body, _page)
        shown = {tile.title for tile in tiles_of(answer)}
        played = [film for film in future if film in shown and film not in watched]
        self._count(person, answer, shown, set(future) - watched, len(played))
        elsewhere = [film for film in future[:STEP] if film not in shown and film not in watched]
        watched.update(played, elsewhere)
        return self._tell(client, person, answer.page_id, played, elsewhere)

    def _count(
        self, person: str, answer: PageAnswer, shown: set[str], future: set[str], hits: int
    ) -> None:
        (variant,) = (layer.variant for layer in answer.layers if layer.layer == "titles")
        tally = self.tallies.setdefault(variant or "nobody", Tally())
        watched = self._watched[person]
        unseen = [film for film in self._popular[: PLACES + len(watched)] if film not in watched]
        tally.pages += 1
        tally.hits += hits
        tally.popular += len(future.intersection(unseen[:PLACES]))
        tally.seen += len(shown & watched)
        sums = tally.by_person.setdefault(person, [0.0, 0.0])
        sums[0] += 1.0
        sums[1] += hits
        self.pages += 1
        self.plays += hits

    async def _tell(
        self,
        client: httpx.AsyncClient,
        person: str,
        page_id: str,
        played: Sequence[str],
        elsewhere: Sequence[str],
    ) -> None:
        """Send what a person played of a page, and what they watched without it."""
        await asyncio.sleep(_PLAYED_AFTER)
        rewards: list[dict[str, Any]] = []
        for film in played:
            for event in ("play", "watch_fraction"):
                reward: dict[str, Any] = {
                    "decision_id": page_id,
                    "event": event,
                    "value": 1.0,
                    "action": film,
                }
                rewards.append({**reward, "event_id": f"{event}-{film}"})
        if rewards:
            await self._sender.post(client, "/v1/reward/batch", {"rewards": rewards})
        events: list[dict[str, Any]] = []
        for film in elsewhere:
            film_event = {"unit": person, "unit_type": "profile_id", "event": "play"}
            events.append(
                {**film_event, "action": film, "value": 1.0, "event_id": f"{person}-{film}"}
            )
        if events:
            await self._sender.post(client, "/v1/event/batch", {"events": events})


def live_table(people: People) -> Group:
    """What pages had so far of what people watched next."""
    rows = Table(box=SIMPLE_HEAD)
    rows.add_column("titles chosen by", no_wrap=True)
    headings = ("pages", "hits a page ± 95%", f"{PLACES} most popular unseen", "seen before")
    for heading in headings:
        rows.add_column(heading, justify="right")
    for variant, tally in sorted(people.tallies.items()):
        interval = tally.interval()
        half = f" ± {(interval[1] - interval[0]) / 2:.2f}" if interval else ""
        rows.add_row(
            variant,
            f"{tally.pages:,}",
            f"{tally.hits / tally.pages:.2f}{half}",
            f"{tally.popular / tally.pages:.2f}",
            f"{tally.seen:,}",
        )
    head = (
        f"{people.pages:,} pages for {len(people):,} real people; a hit is a film on the page "
        f"among the next {NEXT} that its viewer rated"
    )
    return Group(head, rows)


def summary(people: People, *, data: str, command: str = "topbill") -> list[str]:
    """What the replay showed, in sentences, and what to do next."""
    sentences = [
        f"{len(people):,} people of MovieLens opened {people.pages:,} pages and played "
        f"{people.plays:,} films that stood on them; {people.retries} requests had to be sent "
        "again."
    ]
    for variant, tally in sorted(people.tallies.items()):
        sentences.append(
            f"Pages with titles chosen by {variant} had {tally.hits / tally.pages:.2f} of the next "
            f"{NEXT} films that their viewer rated; the {PLACES} most popular films that the "
            f"viewer had not seen had {tally.popular / tally.pages:.2f} at the same moments."
        )
    sentences.append(
        f"Next: `{command} report home --data {data}` reads the pages from their log, "
        f"`{command} dashboard --data {data} --experiments {data}/experiments` shows them."
    )
    return sentences


def replay(
    base_url: str,
    people: People,
    console: Console,
    *,
    seconds: float,
    transport: httpx.AsyncBaseTransport | None = None,
) -> None:
    """Send the people to the service at `base_url` for that many seconds, under a live table.

    Raises Unavailable when the service fails.
    """

    async def go() -> None:
        client = httpx.AsyncClient(base_url=base_url, transport=transport, timeout=10.0)
        async with client:
            running = asyncio.create_task(people.run(client, seconds, WHOLE_PAGES_PER_SECOND))
            await watch(running, lambda: live_table(people), console)

    try:
        asyncio.run(go())
    except KeyboardInterrupt:
        console.print("Stopped.")
