"""The client for threads."""

from __future__ import annotations

import time
from collections.abc import Mapping, Sequence
from datetime import datetime
from types import TracebackType
from typing import Any

import httpx

from topbill.client.choice import Choice
from topbill.client.sender import Delivered, Sender
from topbill.client.wire import TRANSIENT, Breaker, Call, Settings


class Client:
    """Decides and rewards over kept connections; safe to share between threads.

    `deadline` (seconds) is the longest a decide takes, retries included. A decide never raises unless `strict`:
    where the service is down, slow or refuses, it returns the `default` given to it, flagged `fallback`.
    `transport` replaces the network in tests (`topbill.client.testing`).
    """

    def __init__(
        self,
        address: str = "http://127.0.0.1:8600",
        *,
        key: str | None = None,
        deadline: float = 0.25,
        retries: int = 2,
        strict: bool = False,
        transport: httpx.BaseTransport | None = None,
    ) -> None:
        self.settings = Settings(address, key, deadline, retries, strict=strict)
        self._breaker = Breaker(self.settings.trips, self.settings.rest)
        self._http = httpx.Client(base_url=address, headers=self.settings.headers(), transport=transport)
        self._sender = Sender(self.settings, transport)

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
        default: Sequence[str] | None = None,
        deadline: float | None = None,
    ) -> Choice:
        """What to show. `default` is the order to fall back on: by default that of the `actions` given, if any.

        Raises Unavailable, BadRequest, NotFound or Conflict only where the client is strict.
        """
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
                time.sleep(pause)
            try:
                choice = call.read(self._http.send(call.request(self._http)))
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
        """Tell what came of a decision: queued, sent in the background with others, kept until the service has it.

        Returns the event's id at once. Raises nothing: what is lost in the end is counted in `delivered`.
        """
        return self._sender.put(decision, event, value, action=action, position=position, at=at, event_id=event_id)

    def flush(self, timeout: float = 5.0) -> bool:
        """Wait until every reward has been dealt with; False where some still waited after `timeout` seconds."""
        return self._sender.flush(timeout)

    @property
    def delivered(self) -> Delivered:
        """What became of the rewards so far."""
        return self._sender.delivered()

    def close(self, timeout: float = 5.0) -> None:
        """Flush, then end. Also done when the process exits."""
        self._sender.close(timeout)
        self._http.close()

    def __enter__(self) -> Client:
        return self

    def __exit__(
        self, _kind: type[BaseException] | None, _error: BaseException | None, _trace: TracebackType | None
    ) -> None:
        self.close()
