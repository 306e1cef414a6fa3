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

from topbill_client.choice import Choice, Item, new_id
from topbill_client.errors import BadRequest
from topbill_client.page import Merged, Page, Row, Tile
from topbill_client.requests import (
    DecideRequest,
    EventBatch,
    EventRequest,
    EventResult,
    EventResults,
    MergeRequest,
    OfferedAction,
    PageRequest,
    RewardBatch,
    RewardRequest,
    RewardResult,
    RewardResults,
    RewardStatus,
)


class FakeService(httpx.BaseTransport, httpx.AsyncBaseTransport):
    """A transport for `Client` and `AsyncClient`. `orders` maps experiments to the orders that they
    show, `pages` maps pages to their rows of titles.

    `decisions`, `page_requests`, `rewards` and `events` hold what came, in the forms of `requests`,
    `merges` each profile and the guest that was merged into it.
    `unit_type` is what an event's unit is where it does not say.
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
        unit_type: str = "profile_id",
    ) -> None:
        self.orders, self.pages = dict(orders or {}), dict(pages or {})
        self.down, self.delay, self.failures = down, delay, 0
        self.decisions: dict[str, DecideRequest] = {}
        self.page_requests: dict[str, PageRequest] = {}
        self.rewards: list[RewardRequest] = []
        self.events: list[EventRequest] = []
        self.merges: list[tuple[str, str]] = []
        self.unit_type = unit_type
        self.requests = 0
        self._actions_of: dict[str, list[str]] = {}
        self._answers: dict[str, Choice] = {}

    def handle_request(self, request: httpx.Request) -> httpx.Response:
        """What a sync client gets."""
        self._count(request)
        # The sync client's own time-outs do not reach a transport that answers in process, so the
        # deadline that it set on the request is kept here.
        patience = request.extensions.get("timeout", {}).get("read", None)
        if patience is not None and self.delay > patience:
            time.sleep(patience)
            raise httpx.ReadTimeout("the fake service is slow", request=request)
        time.sleep(self.delay)
        return self._respond(request)

    async def handle_async_request(self, request: httpx.Request) -> httpx.Response:
        """What an async client gets."""
        self._count(request)
        await asyncio.sleep(self.delay)
        return self._respond(request)

    def _count(self, request: httpx.Request) -> None:
        self.requests += 1
        if self.down:
            raise httpx.ConnectError("the fake service is down", request=request)

    def _respond(self, request: httpx.Request) -> httpx.Response:
        if self.failures > 0:
            self.failures -= 1
            return _refused(503, "log_unavailable", "the fake service was set to fail")
        try:
            if request.url.path == "/v1/decide":
                return self._decide(msgspec.json.decode(request.content, type=DecideRequest))
            if request.url.path == "/v1/page":
                return self._page(msgspec.json.decode(request.content, type=PageRequest))
            if request.url.path == "/v1/reward/batch":
                return self._store(msgspec.json.decode(request.content, type=RewardBatch).rewards)
            if request.url.path == "/v1/event/batch":
                return self._store_events(
                    msgspec.json.decode(request.content, type=EventBatch).events
                )
            if request.url.path.startswith("/v1/profiles/"):
                body = msgspec.json.decode(request.content, type=MergeRequest)
                return self._merge(request.url.path.split("/", 3)[3], body.guest)
            return _refused(404, "not_found", request.url.path)
        except msgspec.ValidationError as error:
            message, _, path = str(error).partition(" - at `")
            return _refused(422, "invalid", message, path.rstrip("`") or "$")
        except BadRequest as error:
            return _refused(422, "invalid", error.message, error.path)

    def _decide(self, request: DecideRequest) -> httpx.Response:
        key = request.decision_id or new_id()
        earlier = self.decisions.get(key)
        if earlier is not None and earlier != request:
            return _refused(409, "conflict", f"{key!r} was used before")
        if earlier is None:
            if request.experiment not in self.orders:
                return _refused(404, "not_found", f"no experiment {request.experiment!r}")
            self.decisions[key] = request
            self._answers[key] = self._answer(key, request)
        return _answered(self._answers[key])

    def _answer(self, key: str, request: DecideRequest) -> Choice:
        payloads: dict[str, Any] = dict.fromkeys(self.orders[request.experiment])
        if request.actions is not None:
            offered = msgspec.convert(request.actions, type=list[OfferedAction])
            payloads = {action.id: action.payload for action in offered}
        eligible = [action for action in payloads if action not in request.exclude]
        slate = eligible[: request.slots or 1]
        self._actions_of[key] = slate
        items = (Item(position, action, payloads[action]) for position, action in enumerate(slate))
        return Choice(
            decision_id=key, slate=tuple(items), variant="fake", policy="fixed", reason="policy"
        )

    def _page(self, request: PageRequest) -> httpx.Response:
        if request.page not in self.pages:
            return _refused(404, "not_found", f"no page {request.page!r}")
        viewer = request.profile
        if viewer is not None and request.account is not None:
            viewer = f"{request.account}/{viewer}"
        page_id = request.page_id or f"{viewer}-{request.session}"
        again = request.page_id is None and page_id in self.page_requests
        self.page_requests.setdefault(page_id, request)
        rows = []
        self._actions_of[page_id] = []
        for row, titles in self.pages[request.page].items():
            self._actions_of[page_id].extend(titles)
            rows.append(Row(row, titles=tuple(Tile(title) for title in titles)))
        return _answered(Page(page_id=page_id, page=request.page, rows=tuple(rows), again=again))

    def _merge(self, path: str, guest: str) -> httpx.Response:
        profile = path.removesuffix("/merge")
        if profile == guest:
            raise BadRequest("$.from", f"got {guest!r}, the profile itself; expected another")
        is_new = (profile, guest) not in self.merges
        if is_new:
            self.merges.append((profile, guest))
        return _answered(Merged("merged" if is_new else "known", profile, guest))

    def _store(self, rewards: list[RewardRequest]) -> httpx.Response:
        stored = {(reward.decision_id, reward.event_id) for reward in self.rewards}
        results = []
        for index, reward in enumerate(rewards):
            actions = self._actions_of.get(reward.decision_id)
            if actions is None:
                status: RewardStatus = "unknown_decision"
            elif reward.action is not None and reward.action not in actions:
                raise BadRequest(f"$.rewards[{index}].action", f"{reward.action!r} was not shown")
            elif reward.event_id and (reward.decision_id, reward.event_id) in stored:
                status = "duplicate"
            else:
                status = "stored"
            results.append(RewardResult(status, reward.decision_id, reward.event_id))
        # All or none, as the real one: nothing is kept before the whole batch was found right.
        for result, reward in zip(results, rewards, strict=True):
            if result.status == "stored":
                self.rewards.append(reward)
        return _answered(RewardResults(results))

    def _store_events(self, events: list[EventRequest]) -> httpx.Response:
        stored = {(event.unit_type, event.unit, event.event_id) for event in self.events}
        results = []
        for event in events:
            event_id = event.event_id or new_id()
            unit_type = event.unit_type or self.unit_type
            key = (unit_type, event.unit, event_id)
            if key in stored:
                results.append(EventResult("duplicate", event.unit, unit_type, event_id))
                continue
            stored.add(key)
            whole = msgspec.structs.replace(event, unit_type=unit_type, event_id=event_id)
            self.events.append(whole)
            results.append(EventResult("stored", event.unit, unit_type, event_id))
        return _answered(EventResults(results))


def _answered(body: Choice | Page | RewardResults | EventResults | Merged) -> httpx.Response:
    content = msgspec.to_builtins(body)
    if isinstance(body, Choice | Page):
        # These two say what a caller fell back on; no service sends them.
        del content["fallback"], content["problem"]
    return httpx.Response(200, content=msgspec.json.encode(content))


def _refused(status: int, code: str, message: str, path: str | None = None) -> httpx.Response:
    error = {"code": code, "message": message, "path": path}
    return httpx.Response(status, content=msgspec.json.encode({"error": error}))
