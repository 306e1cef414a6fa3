"""Rewards and events in the background: a thread for each that sends them in batches, again and
again until the service has them.
"""

from __future__ import annotations

import atexit
import logging
import threading
import time
import weakref
from collections import deque
from collections.abc import Mapping
from dataclasses import dataclass
from itertools import islice
from pathlib import Path
from typing import Any

import httpx
import msgspec

from topbill_client.choice import new_id
from topbill_client.errors import BadRequest, Conflict, NotFound
from topbill_client.spool import Spool
from topbill_client.wire import TRANSIENT, Settings, backoff, refusal

LARGEST_BATCH = 500
LONGEST_QUEUE = 50_000
_GATHER = 0.05
"""Seconds that they gather before a batch that isn't full goes out."""
_LONGEST_TRY = 5.0
_logger = logging.getLogger("topbill")


_NOT_STORED = ("unknown_decision", "erased")


class Delivered(msgspec.Struct, frozen=True):
    """What became of rewards and events: `stored` (duplicates included), `unknown` where the
    service has no such decision, or has erased the unit since, `refused` for their form, `dropped`
    because too many waited, and `waiting` still."""

    stored: int
    unknown: int
    refused: int
    dropped: int
    waiting: int

    def plus(self, other: Delivered) -> Delivered:
        """Of both together."""
        sums = {name: getattr(self, name) + getattr(other, name) for name in self.__struct_fields__}
        return Delivered(**sums)


class _Result(msgspec.Struct):
    status: str
    warning: str | None = None


class _Results(msgspec.Struct):
    results: list[_Result]


@dataclass(frozen=True)
class Route:
    """Where a kind of event goes: the `kind` in the plural, as the body of its `path` has it, and
    what a message calls `one`."""

    kind: str
    one: str
    path: str


REWARDS = Route("rewards", "a reward", "/v1/reward/batch")
EVENTS = Route("events", "an event", "/v1/event/batch")


class Sender:
    """A queue and the thread that empties it to a route. The thread starts with the first event.

    An event's id is chosen when it is queued, so that sending it twice stores it once. Events that
    are thrown out because the queue is full are the newest, and are counted. With a `spool` (a
    folder) all that is queued is on disk too, and what earlier senders left there is sent first.
    Raises BadRequest where it cannot be written.
    """

    def __init__(
        self,
        settings: Settings,
        transport: httpx.BaseTransport | None = None,
        spool: Path | str | None = None,
        route: Route = REWARDS,
    ) -> None:
        self._settings = settings
        self._route = route
        self._transport = transport
        self._queue: deque[msgspec.Raw] = deque()
        self._changed = threading.Condition()
        self._thread: threading.Thread | None = None
        self._closing = False
        self._hurry = 0
        self._counts = dict.fromkeys(("stored", "unknown", "refused", "dropped"), 0)
        self._warned: set[str] = set()
        self._spool = None if spool is None else Spool(Path(spool), route.kind)
        if self._spool is not None:
            self._queue.extend(msgspec.Raw(line) for line in self._spool.take_over())
        if self._queue:
            self._start()
        atexit.register(_at_exit, weakref.ref(self))

    def put(self, owner: str, **fields: Any) -> str:
        """Queue an event with these fields of its body, without those that are None; returns its
        id. `owner` is whose it is, for messages."""
        body = {name: value for name, value in fields.items() if value is not None}
        body["event_id"] = body.get("event_id") or new_id()
        try:
            raw = msgspec.Raw(msgspec.json.encode(body))
        except (TypeError, ValueError) as error:
            _logger.warning("%s of %s was refused: %s", self._route.one, owner, error)
            raw = None
        with self._changed:
            if raw is None:
                self._counts["refused"] += 1
            elif len(self._queue) >= LONGEST_QUEUE or self._closing:
                self._counts["dropped"] += 1
            else:
                self._queue.append(raw)
                if self._spool is not None:
                    self._spool.add(bytes(raw))
                self._start()
                if len(self._queue) in (1, LARGEST_BATCH):
                    self._changed.notify_all()
        return str(body["event_id"])

    def delivered(self) -> Delivered:
        """The counts so far."""
        with self._changed:
            return Delivered(**self._counts, waiting=len(self._queue))

    def flush(self, timeout: float) -> bool:
        """Wait until nothing waits; False after `timeout` seconds."""
        with self._changed:
            self._hurry += 1
            self._changed.notify_all()
            try:
                return self._changed.wait_for(lambda: not self._queue, timeout)
            finally:
                self._hurry -= 1

    def close(self, timeout: float) -> None:
        """Flush, then end the thread. What still waits then is left to the next with this spool, or
        lost; the log says which. Done again it does nothing."""
        if self._closing:
            return
        flushed = self.flush(timeout)
        with self._changed:
            self._closing = True
            self._changed.notify_all()
        if self._thread is not None:
            self._thread.join(1.0)
        with self._changed:
            waiting, spool, self._spool = len(self._queue), self._spool, None
        if spool is not None:
            spool.close(empty=not waiting)
        if not flushed:
            then = "are lost" if spool is None else "wait in the spool for its next client"
            _logger.warning(
                "%s: %d %s could not be sent, and %s",
                self._settings.address,
                waiting,
                self._route.kind,
                then,
            )

    def _start(self) -> None:
        if self._thread is None:
            name = f"topbill-{self._route.kind}"
            self._thread = threading.Thread(target=self._run, name=name, daemon=True)
            self._thread.start()

    def _run(self) -> None:
        failures = 0
        with httpx.Client(
            base_url=self._settings.address,
            headers=self._settings.headers(),
            transport=self._transport,
            timeout=_LONGEST_TRY,
        ) as http:
            while True:
                batch = self._next()
                if batch is None:
                    return
                try:
                    self._send(http, batch)
                    failures = 0
                except TRANSIENT as error:
                    failures += 1
                    if failures == 1:
                        _logger.warning(
                            "%s: %s wait: %s",
                            self._settings.address,
                            self._route.kind,
                            error or type(error).__name__,
                        )
                    with self._changed:
                        self._changed.wait_for(lambda: self._closing, backoff(failures))

    def _next(self) -> list[msgspec.Raw] | None:
        """The oldest events, left in the queue until they are dealt with; None when it is time to
        end.
        """
        with self._changed:
            self._changed.wait_for(lambda: self._queue or self._closing)
            if self._closing:
                return None
            full = time.monotonic() + _GATHER
            while len(self._queue) < LARGEST_BATCH and not self._hurry and not self._closing:
                left = full - time.monotonic()
                if left <= 0:
                    break
                self._changed.wait(left)
            return list(islice(self._queue, LARGEST_BATCH))

    def _send(self, http: httpx.Client, batch: list[msgspec.Raw]) -> None:
        body = msgspec.json.encode({self._route.kind: batch})
        response = http.post(self._route.path, content=body)
        if response.status_code == 200:
            try:
                results = msgspec.json.decode(response.content, type=_Results).results
            except msgspec.DecodeError as error:
                raise httpx.TransportError(f"answered what is no receipt: {error}") from error
            for warning in {result.warning for result in results if result.warning} - self._warned:
                self._warned.add(
                    warning
                )  # once: it is about an event's name, and there are few of these
                _logger.warning("%s: %s", self._settings.address, warning)
            unknown = sum(result.status in _NOT_STORED for result in results)
            self._done(len(batch), {"stored": len(batch) - unknown, "unknown": unknown})
            return
        refused = refusal(response)
        if not isinstance(refused, BadRequest | NotFound | Conflict):
            raise httpx.TransportError(str(refused))
        bad = _culprit(refused, self._route.kind) if isinstance(refused, BadRequest) else None
        _logger.warning("%s: %s was refused: %s", self._settings.address, self._route.one, refused)
        if bad is None or bad >= len(batch):
            self._done(len(batch), {"refused": len(batch)})
        else:
            with self._changed:
                self._queue.rotate(-bad)
                self._done(1, {"refused": 1})
                self._queue.rotate(bad)

    def _done(self, number: int, counts: Mapping[str, int]) -> None:
        with self._changed:
            gone = [bytes(self._queue.popleft()) for _ in range(number)]
            for name, count in counts.items():
                self._counts[name] += count
            if self._spool is not None:
                self._spool.sent(gone, map(bytes, self._queue), empty=not self._queue)
            self._changed.notify_all()


def _culprit(error: BadRequest, kind: str) -> int | None:
    """The place in its batch of the event that a refusal is about: `$.rewards[3].position` → 3."""
    place = error.path.removeprefix(f"$.{kind}[").partition("]")[0]
    return int(place) if place.isdigit() else None


def _at_exit(sender: weakref.ref[Sender]) -> None:
    living = sender()
    if living is not None:
        living.close(5.0)
