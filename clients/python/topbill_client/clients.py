"""The two clients, for threads and for asyncio: one course of a decide or page, carried out by
waiting or awaiting.
"""

from __future__ import annotations

import asyncio
import time
from collections.abc import Coroutine, Mapping, Sequence
from dataclasses import replace
from datetime import datetime
from pathlib import Path
from types import TracebackType
from typing import Any, Generic, TypeAlias, TypeVar

import httpx

from topbill_client.choice import Choice, new_id
from topbill_client.page import Merged, Page
from topbill_client.sender import EVENTS, Delivered, Sender
from topbill_client.wire import (
    TRANSIENT,
    Answer,
    Breaker,
    Call,
    DecideBody,
    Endpoint,
    MergeBody,
    PageBody,
    Settings,
)

Decided = TypeVar("Decided")
Paged = TypeVar("Paged")
Merging = TypeVar("Merging")
"""What a decide, a page and a merge return: a choice, a page and what became of the profile, or
coroutines that do."""
Deciding: TypeAlias = Coroutine[Any, Any, Choice]
Paging: TypeAlias = Coroutine[Any, Any, Page]


class _Common(Generic[Decided, Paged, Merging]):
    """Everything but how to wait. `_settle` is written once, as a coroutine, over `_send` and
    `_sleep`.
    """

    settings: Settings
    _breaker: Breaker
    _http: httpx.Client | httpx.AsyncClient
    _sender: Sender
    _events: Sender

    def decide(
        self,
        experiment: str,
        *,
        unit: str | None = None,
        context: Mapping[str, Any] | None = None,
        actions: Sequence[Mapping[str, Any]] | None = None,
        exclude: Sequence[str] = (),
        slots: int | None = None,
        decision_id: str | None = None,
        explore: bool = True,
        override: str | None = None,
        default: Sequence[str] | None = None,
        deadline: float | None = None,
    ) -> Decided:
        """What to show. `default` is the order to fall back on: by default that of the `actions`
        given, if any. Without `explore`, for crawlers and previews, it is what the policy holds to
        be the best; nothing is learned from it.

        Raises Unavailable, BadRequest, NotFound or Conflict only where the client is strict.
        """
        body = DecideBody(
            experiment=experiment,
            decision_id=decision_id or new_id(),
            unit=unit,
            context=context or None,
            actions=actions,
            exclude=exclude,
            slots=slots,
            explore=explore,
        )
        decided: Decided = self._drive(self._settle(body.endpoint(default, override), deadline))
        return decided

    def page(
        self,
        page: str,
        *,
        profile: str | None = None,
        account: str | None = None,
        session: str | None = None,
        kids: bool = False,
        maturity: int | None = None,
        region: str | None = None,
        watched: Sequence[str] | None = None,
        context: Mapping[str, Any] | None = None,
        page_id: str | None = None,
        after: str | None = None,
        candidates: Mapping[str, Sequence[Mapping[str, Any]]] | None = None,
        scores: Mapping[str, float] | None = None,
        explore: bool = True,
        override: str | None = None,
        default: Mapping[str, Sequence[str]] | None = None,
        deadline: float | None = None,
    ) -> Paged:
        """A whole page: rows, titles, artwork. `default` gives the rows of titles to fall back on.

        `candidates` are those of rows of source external, by row: `{"title": …, "score": …}`.
        `scores`, by title, are a feature of titles and the order of rows.

        `after` is the `page_id` of the viewer's page below which it goes on, for more on scrolling;
        where it has no rows, none are left. `override` is as in `decide`.

        A session's page, and one after another, is known by that; any other gets an id of its
        own, so that a retry makes no second one. Raises as `decide` does, only where the client is
        strict.
        """
        body = PageBody(
            page=page,
            profile=profile,
            account=account,
            session=session,
            kids=kids,
            maturity=maturity,
            region=region,
            watched=watched,
            context=context or None,
            page_id=page_id or (None if session or after else new_id()),
            after=after,
            candidates=candidates,
            scores=scores,
            explore=explore,
        )
        paged: Paged = self._drive(self._settle(body.endpoint(default, override), deadline))
        return paged

    def merge_profile(self, profile: str, guest: str, *, deadline: float = 5.0) -> Merging:
        """A guest signed in: the profile knows from now on what the guest watched, liked and
        disliked, and may see no more than either. Both are named as pages randomise them:
        `PROFILE`, `ACCOUNT/PROFILE`, or `guest/SESSION`. The same again changes nothing.

        Takes a key of scope `admin`. Raises Unavailable or BadRequest, strict or not.
        """
        endpoint = MergeBody(guest).endpoint(profile)
        merging: Merging = self._drive(self._settle(endpoint, deadline, strict=True))
        return merging

    async def _settle(
        self, endpoint: Endpoint[Answer], deadline: float | None, *, strict: bool = False
    ) -> Answer:
        settings = replace(self.settings, strict=True) if strict else self.settings
        call = Call(settings, self._breaker, endpoint, deadline)
        pause = 0.0 if call.open() else None
        while pause is not None:
            try:
                if pause:
                    await self._sleep(pause)
                answer = call.read(await self._send(call.request(self._http), call.until))
                if answer is not None:
                    return answer
            except TRANSIENT as error:
                call.failed(error)
            pause = call.pause()
        return call.give_up()

    def reward(
        self,
        decision: Choice | Page | str,
        event: str,
        value: float = 1.0,
        *,
        action: str | None = None,
        position: int | None = None,
        at: datetime | None = None,
        event_id: str | None = None,
    ) -> str:
        """Tell what came of a decision, or of a page, where `action` is the title: queued, sent in
        the background with others, kept until the service has it.

        Returns the event's id at once. Raises nothing: what is lost in the end is counted in
        `delivered`.
        """
        key = decision if isinstance(decision, str) else decision.decision_id
        return self._sender.put(
            key,
            decision_id=key,
            event=event,
            value=value,
            event_id=event_id,
            action=action,
            position=position,
            at=at,
        )

    def event(
        self,
        unit: str,
        event: str,
        value: float = 1.0,
        *,
        unit_type: str | None = None,
        action: str | None = None,
        at: datetime | None = None,
        event_id: str | None = None,
    ) -> str:
        """Tell what a unit did that came of no decision: it started a session, answered a survey,
        cancelled. `unit_type` is what experiments call their `unit` (`profile_id`); it may be left
        out where all of the service have one. Queued, sent and kept as a reward is.

        Returns the event's id at once. Raises nothing: what is lost in the end is counted in
        `delivered`.
        """
        return self._events.put(
            unit,
            unit=unit,
            unit_type=unit_type,
            event=event,
            value=value,
            event_id=event_id,
            action=action,
            at=at,
        )

    def _flush(self, timeout: float) -> bool:
        until = time.monotonic() + timeout
        flushed = self._sender.flush(timeout)
        return self._events.flush(max(0.0, until - time.monotonic())) and flushed

    def _end(self, timeout: float) -> None:
        until = time.monotonic() + timeout
        self._sender.close(timeout)
        self._events.close(max(0.0, until - time.monotonic()))

    @property
    def delivered(self) -> Delivered:
        """What became of the rewards and events so far."""
        return self._sender.delivered().plus(self._events.delivered())

    def _drive(self, asking: Coroutine[Any, Any, Any]) -> Any:
        raise NotImplementedError

    async def _send(self, request: httpx.Request, until: float) -> httpx.Response:
        raise NotImplementedError

    async def _sleep(self, seconds: float) -> None:
        raise NotImplementedError


class Client(_Common[Choice, Page, Merged]):
    """Decides, pages, rewards and events over kept connections; safe to share between threads.

    `deadline` (seconds) is the longest a decide or page takes, retries included. Neither raises
    unless `strict`: where the service is down, slow or refuses, it returns the `default` given to
    it, flagged `fallback`. `spool` names a folder in which rewards and events wait as well: what a
    process could not send before it ended, however it ended, the next one with the same folder
    sends, under the same event ids. Any number of processes may share it. `transport` replaces the
    network in tests (`topbill_client.testing`). Raises BadRequest where the spool cannot be
    written.
    """

    def __init__(
        self,
        address: str = "http://127.0.0.1:8600",
        *,
        key: str | None = None,
        deadline: float = 0.25,
        retries: int = 2,
        strict: bool = False,
        spool: Path | str | None = None,
        transport: httpx.BaseTransport | None = None,
    ) -> None:
        self.settings = Settings(address, key, deadline, retries, strict=strict)
        self._breaker = Breaker(self.settings.trips, self.settings.rest)
        self._http = self._sync = httpx.Client(
            base_url=address, headers=self.settings.headers(), transport=transport
        )
        self._sender = Sender(self.settings, transport, spool)
        self._events = Sender(self.settings, transport, spool, EVENTS)

    def _drive(self, asking: Coroutine[Any, Any, Any]) -> Any:
        """Nothing in it ever suspends: `_send` and `_sleep` wait themselves, so one step is all
        there is.
        """
        try:
            asking.send(None)
        except StopIteration as done:
            return done.value
        raise RuntimeError("a decide of the sync client was suspended")

    async def _send(self, request: httpx.Request, until: float) -> httpx.Response:  # noqa: ARG002 (see Remaining)
        return self._sync.send(request)

    async def _sleep(self, seconds: float) -> None:
        time.sleep(seconds)

    def flush(self, timeout: float = 5.0) -> bool:
        """Wait until every reward and event has been dealt with; False where some still waited
        after `timeout` seconds.
        """
        return self._flush(timeout)

    def close(self, timeout: float = 5.0) -> None:
        """Flush, then end. Also done when the process exits."""
        self._end(timeout)
        self._sync.close()

    def __enter__(self) -> Client:
        return self

    def __exit__(
        self,
        _kind: type[BaseException] | None,
        _error: BaseException | None,
        _trace: TracebackType | None,
    ) -> None:
        self.close()


class AsyncClient(_Common[Deciding, Paging, Coroutine[Any, Any, Merged]]):
    """`Client` for asyncio: `decide` and `page` are awaited; `reward` and `event` are not, they
    only queue.

    What is queued is sent by threads, so that it gets out even when the loop has ended. A
    `transport` that is not for threads as well serves decides only; give the other one as
    `reward_transport`.
    """

    def __init__(
        self,
        address: str = "http://127.0.0.1:8600",
        *,
        key: str | None = None,
        deadline: float = 0.25,
        retries: int = 2,
        strict: bool = False,
        spool: Path | str | None = None,
        transport: httpx.AsyncBaseTransport | None = None,
        reward_transport: httpx.BaseTransport | None = None,
    ) -> None:
        if reward_transport is None and isinstance(transport, httpx.BaseTransport):
            reward_transport = transport
        self.settings = Settings(address, key, deadline, retries, strict=strict)
        self._breaker = Breaker(self.settings.trips, self.settings.rest)
        self._http = self._async = httpx.AsyncClient(
            base_url=address, headers=self.settings.headers(), transport=transport
        )
        self._sender = Sender(self.settings, reward_transport, spool)
        self._events = Sender(self.settings, reward_transport, spool, EVENTS)

    def _drive(self, asking: Coroutine[Any, Any, Any]) -> Any:
        return asking

    async def _send(self, request: httpx.Request, until: float) -> httpx.Response:
        async with asyncio.timeout(max(0.0, until - time.monotonic())):
            return await self._async.send(request)

    async def _sleep(self, seconds: float) -> None:
        await asyncio.sleep(seconds)

    async def flush(self, timeout: float = 5.0) -> bool:
        """As `Client.flush`."""
        return await asyncio.to_thread(self._flush, timeout)

    async def close(self, timeout: float = 5.0) -> None:
        """As `Client.close`."""
        await asyncio.to_thread(self._end, timeout)
        await self._async.aclose()

    async def __aenter__(self) -> AsyncClient:
        return self

    async def __aexit__(
        self,
        _kind: type[BaseException] | None,
        _error: BaseException | None,
        _trace: TracebackType | None,
    ) -> None:
        await self.close()
