"""A service in process, for tests of code that uses the client: it reads requests as the real one
does, keeps what came, and can be down, slow, or refuse.

    fake = FakeService({"home-artwork": ["close-up", "chase"]})
    topbill = Client(transport=fake)
    assert topbill.decide("home-artwork").action == "close-up"
    topbill.reward(..., "play"); topbill.flush()
    assert fake.rewards[0].event == "play"
"""

from __future__ import annotations

import asyncio
import time
from collections.abc import Mapping, Sequence
from typing import Any

import httpx
import msgspec

from topbill.domain.errors import BadRequest
from topbill.domain.records import NULL
from topbill.engine import Answer, AnswerItem, DecideRequest, OfferedAction, at_path, new_id
from topbill.pages.answers import PageAnswer, PageRequest, RowAnswer, Tile
from topbill.service.bodies import (
    RewardAnswer,
    RewardBatch,
    RewardBatchAnswer,
    RewardRequest,
    problem,
)


class FakeService(httpx.BaseTransport, httpx.AsyncBaseTransport):
    """A transport for `Client` and `AsyncClient`. `orders` maps experiments to the orders that they
    show, `pages` maps pages to their rows of titles.

    `decisions`, `page_requests` and `rewards` hold what came, in the structs of the real service.
    Set `down` to refuse connections, `delay` (seconds) to be slow, `failures` to answer that many
    requests with 503 first.
    """

    def __init__(
        self,
        orders: Mapping[str, Sequence[str]] | None = None,
        *,
        pages: Mapping[str, Mapping[str, Sequence[str]]] | None = None,
        down: bool = False,
        delay: float = 0.0,
    ) -> None:
        self.orders, self.pages = dict(orders or {}), dict(pages or {})
        self.down, self.delay, self.failures = down, delay, 0
        self.decisions: dict[str, DecideRequest] = {}
        self.page_requests: dict[str, PageRequest] = {}
        self.rewards: list[RewardRequest] = []
        self.requests = 0
        self._shown: dict[str, list[str]] = {}
        self._answers: dict[str, Answer] = {}

    def handle_request(self, request: httpx.Request) -> httpx.Response:
        """What a sync client gets."""
        self._wait(request, time.sleep)
        return self._respond(request)

    async def handle_async_request(self, request: httpx.Request) -> httpx.Response:
        """What an async client gets."""
        self.requests += 1
        if self.down:
            raise httpx.ConnectError("the fake service is down", request=request)
        await asyncio.sleep(self.delay)
        return self._respond(request)

    def _wait(self, request: httpx.Request, sleep: Any) -> None:
        self.requests += 1
        if self.down:
            raise httpx.ConnectError("the fake service is down", request=request)
        patience = request.extensions.get("timeout", {}).get("read", None)
        if patience is not None and self.delay > patience:
            sleep(patience)
            raise httpx.ReadTimeout("the fake service is slow", request=request)
        sleep(self.delay)

    def _respond(self, request: httpx.Request) -> httpx.Response:
        if self.failures > 0:
            self.failures -= 1
            return httpx.Response(
                503, content=problem("log_unavailable", "the fake service was told to fail")
            )
        try:
            if request.url.path == "/v1/decide":
                return self._decide(msgspec.json.decode(request.content, type=DecideRequest))
            if request.url.path == "/v1/page":
                return self._page(msgspec.json.decode(request.content, type=PageRequest))
            if request.url.path == "/v1/reward/batch":
                return self._store(msgspec.json.decode(request.content, type=RewardBatch).rewards)
            return httpx.Response(404, content=problem("not_found", request.url.path))
        except msgspec.ValidationError as error:
            wrong = at_path(error)
            return httpx.Response(422, content=problem("invalid", wrong.message, wrong.path))
        except BadRequest as error:
            return httpx.Response(422, content=problem("invalid", error.message, error.path))

    def _decide(self, request: DecideRequest) -> httpx.Response:
        key = request.decision_id or new_id()
        held = self.decisions.get(key)
        if held is not None and held.fingerprint != request.fingerprint:
            return httpx.Response(409, content=problem("conflict", f"{key!r} was used before"))
        if held is None:
            if request.experiment not in self.orders:
                return httpx.Response(
                    404, content=problem("not_found", f"no experiment {request.experiment!r}")
                )
            self.decisions[key] = request
            self._answers[key] = self._answer(key, request)
        return httpx.Response(200, content=msgspec.json.encode(self._answers[key]))

    def _answer(self, key: str, request: DecideRequest) -> Answer:
        payloads = dict.fromkeys(self.orders[request.experiment], NULL)
        if request.actions != NULL:
            offered = msgspec.json.decode(request.actions, type=list[OfferedAction])
            payloads = {action.id: action.payload for action in offered}
        shown = [action for action in payloads if action not in request.exclude][
            : request.slots or 1
        ]
        slate = tuple(AnswerItem(position, a, payloads[a], 1.0) for position, a in enumerate(shown))
        self._shown[key] = shown
        return Answer(key, "fake", slate, 1.0, "fixed", 0, "policy")

    def _page(self, request: PageRequest) -> httpx.Response:
        if request.page not in self.pages:
            return httpx.Response(404, content=problem("not_found", f"no page {request.page!r}"))
        page_id = request.page_id or f"{request.unit}-{request.session}"
        again = request.page_id is None and page_id in self.page_requests
        self.page_requests.setdefault(page_id, request)
        rows = self.pages[request.page]
        self._shown[page_id] = [title for titles in rows.values() for title in titles]
        answer = PageAnswer(
            page_id,
            request.page,
            (),
            tuple(
                RowAnswer(
                    row,
                    NULL,
                    1.0,
                    tuple(Tile(t, NULL, 1.0, None, NULL, 1.0) for t in titles),
                    0,
                    {},
                )
                for row, titles in rows.items()
            ),
            (),
            again,
        )
        return httpx.Response(200, content=msgspec.json.encode(answer))

    def _store(self, rewards: list[RewardRequest]) -> httpx.Response:
        known = {(reward.decision_id, reward.event_id) for reward in self.rewards}
        results = []
        for index, reward in enumerate(rewards):
            shown = self._shown.get(reward.decision_id)
            if shown is None:
                results.append(
                    RewardAnswer("unknown_decision", reward.decision_id, reward.event_id)
                )
                continue
            if reward.action is not None and reward.action not in shown:
                raise BadRequest(f"$.rewards[{index}].action", f"{reward.action!r} was not shown")
            again = reward.event_id is not None and (reward.decision_id, reward.event_id) in known
            results.append(
                RewardAnswer(
                    "duplicate" if again else "stored", reward.decision_id, reward.event_id
                )
            )
        for result, reward in zip(results, rewards, strict=True):
            if result.status == "stored":
                self.rewards.append(reward)
        return httpx.Response(200, content=msgspec.json.encode(RewardBatchAnswer(results)))
