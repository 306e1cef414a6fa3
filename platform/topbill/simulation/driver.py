"""Simulated viewers open homepages over real HTTP.

A homepage is one `POST /v1/decide/batch` with a decision for each experiment, made for the same
viewer, or one `POST /v1/page` that answers with all of it. What the viewer then does follows as
`POST /v1/reward/batch`, late, and sometimes not at all.
"""

from __future__ import annotations

import asyncio
import heapq
import math
import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from itertools import count
from typing import Any

import httpx
import msgspec

from topbill.domain.errors import Unavailable
from topbill.pages import PageAnswer
from topbill.simulation.environment import Environment
from topbill.simulation.page_driver import PageDriver
from topbill.simulation.scoreboard import Scoreboard
from topbill.simulation.viewers import Visit

PAGES_PER_SECOND = 200.0
WHOLE_PAGES_PER_SECOND = 12.0
"""Of each page file: some 150 choices each."""
VISITORS = 8
"""Homepages that are open at once."""
REWARDS_PER_REQUEST = 500
DELIVER_EVERY = 0.05
TRIES = 6
BACKOFF = 0.1
"""Seconds before a request is sent again; doubled each time."""


_page = msgspec.json.Decoder(PageAnswer).decode


class Sender:
    """Sends requests to a service, and again where it had no answer; `retries` counts these."""

    def __init__(self) -> None:
        self.retries = 0

    async def post(
        self,
        client: httpx.AsyncClient,
        path: str,
        body: dict[str, Any],
        decode: Callable[[bytes], Any] = msgspec.json.decode,
    ) -> Any:
        """The answer, decoded. Ids are ours, so what got no answer is simply sent again."""
        problem = ""
        for attempt in range(TRIES):
            if attempt:
                self.retries += 1
                await asyncio.sleep(BACKOFF * 2**attempt)
            try:
                response = await client.post(path, json=body)
            except httpx.TransportError as error:
                problem = f"{type(error).__name__}: {error}"
                continue
            if response.status_code < 300:
                return decode(response.content)
            problem = f"HTTP {response.status_code}: {response.text[:300]}"
            if response.status_code < 500:
                break
        raise Unavailable(f"POST {path}: {problem}; expected 2xx: look at the service's own output")


class Driver:
    """Sends viewers to a service and keeps the scoreboard. `name` is what the decision ids of this
    run begin with; `page_drivers` are the viewers of whole pages and keep scoreboards of their own.
    """

    def __init__(
        self,
        environments: Mapping[str, Environment],
        name: str,
        page_drivers: Sequence[PageDriver] = (),
    ) -> None:
        self.page_drivers = page_drivers
        self.scoreboard = Scoreboard(
            environment.experiment for environment in environments.values()
        )
        self.pages = self.rewards = 0
        self.elapsed = 0.0
        self._whole_pages: list[str] = []
        self._sender = Sender()
        self._environments = environments
        self.name = name
        self._start = self._deliver_at = 0.0
        # Rewards on their way: (when they are due, a number that breaks ties, the event). Without
        # the number, the heap would compare dictionaries.
        self._waiting: list[tuple[float, int, dict[str, Any]]] = []
        self._sequence = count()

    @property
    def whole_pages(self) -> int:
        """Whole pages that were answered."""
        return len(self._whole_pages)

    @property
    def retries(self) -> int:
        """Requests that had to be sent again."""
        return self._sender.retries

    def decision_ids(self) -> Iterator[str]:
        """The ids of all that was answered, once `run` has returned: each decision's, and each
        whole page's.
        """
        for number in range(self.pages):
            for key in self._environments:
                yield self._decision_id(number, key)
        yield from self._whole_pages

    async def run(
        self, client: httpx.AsyncClient, seconds: float, pages_per_second: float = PAGES_PER_SECOND
    ) -> None:
        """Open homepages for that many seconds (`math.inf` for ever), then send what rewards are
        still on their way.

        Raises Unavailable when the service does not take what it is sent.
        """
        self._start = time.monotonic()
        stop = self._start + seconds
        # Shared: each visit is made once, by whichever visitor is free.
        numbers = count()
        pause = VISITORS / pages_per_second
        visitors = [self._visitor(client, stop, pause, numbers) for _ in range(VISITORS)]
        page_visitors = [self._page_visitor(client, stop, driver) for driver in self.page_drivers]
        await asyncio.gather(*visitors, *page_visitors)
        await self._deliver(client, math.inf)

    async def _visitor(
        self, client: httpx.AsyncClient, stop: float, pause: float, numbers: Iterator[int]
    ) -> None:
        """One homepage after the other, a `pause` between their beginnings unless the service is
        slower.
        """
        due = time.monotonic()
        while (now := time.monotonic()) < stop:
            if due > now:
                await asyncio.sleep(due - now)
            # From when it was due, not from now: so the pace holds on average. What was missed
            # because the service was slow is not made up for.
            due = max(due + pause, now)
            await self._page(client, next(numbers))
            if (now := time.monotonic()) >= self._deliver_at:
                self._deliver_at = now + DELIVER_EVERY
                await self._deliver(client, now)

    async def _page(self, client: httpx.AsyncClient, number: int) -> None:
        """One visit: decide for every experiment, and put what the viewer will do on its way."""
        at = time.monotonic() - self._start
        visits: dict[str, Visit] = {}
        requests: list[dict[str, Any]] = []
        for key, environment in self._environments.items():
            visits[key] = environment.visit(number)
            requests.append(self._request(key, visits[key], at))
        answer = await self._sender.post(client, "/v1/decide/batch", {"decisions": requests})
        self.pages += 1
        self.elapsed = time.monotonic() - self._start
        for (key, visit), decision in zip(visits.items(), answer["decisions"], strict=True):
            self._react(self._environments[key], visit, at, decision)

    async def _page_visitor(
        self, client: httpx.AsyncClient, stop: float, driver: PageDriver
    ) -> None:
        """One whole page after the other."""
        for number in count():
            due = self._start + number / WHOLE_PAGES_PER_SECOND
            if due > (now := time.monotonic()):
                await asyncio.sleep(due - now)
            if max(due, now) >= stop:
                return
            answer = await self._sender.post(client, "/v1/page", driver.request(number), _page)
            self._whole_pages.append(answer.page_id)
            for delay, event in driver.react(number, answer):
                self._send_later(delay, event)

    def _decision_id(self, number: int, key: str) -> str:
        return f"{self.name}-{number}-{key}"

    def _request(self, key: str, visit: Visit, at: float) -> dict[str, Any]:
        environment = self._environments[key]
        request: dict[str, Any] = {
            "experiment": key,
            "context": visit.context,
            "decision_id": self._decision_id(visit.number, key),
        }
        if environment.experiment.unit:
            request["unit"] = visit.unit
        if absent := environment.absent(at):
            request["exclude"] = absent
        return request

    def _react(
        self, environment: Environment, visit: Visit, at: float, decision: Mapping[str, Any]
    ) -> None:
        slate = [item["action"] for item in decision["slate"]]
        truth = environment.truth(visit, at)
        responses = environment.respond(visit, truth, slate)
        key = environment.experiment.key
        self.scoreboard.add(
            key, decision["variant"], visit.unit, environment.rows(slate), truth, responses
        )
        for response in responses:
            reward = {
                "decision_id": decision["decision_id"],
                "event": response.event,
                "value": response.value,
                "event_id": response.event,
            }
            if response.position is not None:
                reward["position"] = response.position
            self._send_later(response.delay, reward)

    def _send_later(self, delay: float, event: dict[str, Any]) -> None:
        heapq.heappush(self._waiting, (time.monotonic() + delay, next(self._sequence), event))

    async def _deliver(self, client: httpx.AsyncClient, until: float) -> None:
        """Send the rewards that are due by then."""
        while self._waiting and self._waiting[0][0] <= until:
            # Taken off before they are sent: another visitor delivers while this one waits for the
            # answer.
            rewards: list[dict[str, Any]] = []
            while self._waiting and self._waiting[0][0] <= until:
                if len(rewards) == REWARDS_PER_REQUEST:
                    break
                rewards.append(heapq.heappop(self._waiting)[2])
            await self._sender.post(client, "/v1/reward/batch", {"rewards": rewards})
            self.rewards += len(rewards)
