"""The client for asyncio."""

from __future__ import annotations

import asyncio
import time
from collections.abc import Mapping, Sequence
from datetime import datetime
from types import TracebackType
from typing import Any

import httpx

from topbill.client.choice import Choice
from topbill.client.sender import Delivered, Sender
from topbill.client.wire import TRANSIENT, Breaker, Call, Settings


class AsyncClient:
    """`Client` for asyncio: `decide` is awaited; `reward` is not, it only queues.

    Rewards are sent by a thread, so that they get out even when the loop has ended. A `transport` that is not for
    threads as well serves decides only; give the other one as `reward_transport`.
    """

    def __init__(
        self,
        address: str = "http://127.0.0.1:8600",
        *,
        key: str | None = None,
        deadline: float = 0.25,
        retries: int = 2,
        strict: bool = False,
        transport: httpx.AsyncBaseTransport | None = None,
        reward_transport: httpx.BaseTransport | None = None,
    ) -> None:
        if reward_transport is None and isinstance(transport, httpx.BaseTransport):
            reward_transport = transport
        self.settings = Settings(address, key, deadline, retries, strict=strict)
        self._breaker = Breaker(self.settings.trips, self.settings.rest)
        self._http = httpx.AsyncClient(base_url=address, headers=self.settings.headers(), transport=transport)
        self._sender = Sender(self.settings, reward_transport)

    async def decide(
        self,
        experiment: str,
        *,
        unit: str | None = None,
        context: Mapping[str, Any] | None = None,
        actions: Sequence[Mapping[str, Any]] | None = None,
        exclude: Sequence[str] = (),
        slots: int | None = None,
        decision_id: str | None = None,
        default: Sequence[str] | None = None,
        deadline: float | None = None,
    ) -> Choice:
        """As `Client.decide`."""
        call = Call(
            self.settings,
            self._breaker,
            experiment,
            unit=unit,
            context=context,
            actions=actions,
            exclude=exclude,
            slots=slots,
            decision_id=decision_id,
            default=default,
            deadline=deadline,
        )
        pause = 0.0 if call.open() else None
        while pause is not None:
            if pause:
                await asyncio.sleep(pause)
            try:
                async with asyncio.timeout(max(0.0, call.until - time.monotonic())):
                    choice = call.read(await self._http.send(call.request(self._http)))
                if choice is not None:
                    return choice
            except TRANSIENT as error:
                call.failed(error)
            pause = call.pause()
        return call.give_up()

    def reward(
        self,
        decision: Choice | str,
        event: str,
        value: float = 1.0,
        *,
        action: str | None = None,
        position: int | None = None,
        at: datetime | None = None,
        event_id: str | None = None,
    ) -> str:
        """As `Client.reward`."""
        return self._sender.put(decision, event, value, action=action, position=position, at=at, event_id=event_id)

    async def flush(self, timeout: float = 5.0) -> bool:
        """As `Client.flush`."""
        return await asyncio.to_thread(self._sender.flush, timeout)

    @property
    def delivered(self) -> Delivered:
        """As `Client.delivered`."""
        return self._sender.delivered()

    async def close(self, timeout: float = 5.0) -> None:
        """As `Client.close`."""
        await asyncio.to_thread(self._sender.close, timeout)
        await self._http.aclose()

    async def __aenter__(self) -> AsyncClient:
        return self

    async def __aexit__(
        self, _kind: type[BaseException] | None, _error: BaseException | None, _trace: TracebackType | None
    ) -> None:
        await self.close()
