"""Events of units on the fast path: what a viewer did that came of no decision, durable before it
is answered.
"""

from __future__ import annotations

from functools import lru_cache

from topbill.domain.errors import BadRequest
from topbill.domain.records import UnitEvent
from topbill.domain.suggestion import nearest
from topbill.engine import CompiledExperiment, new_id
from topbill.log import Entry
from topbill.log.tombstones import ErasedUnits
from topbill.pages import CompiledPage
from topbill.pages.viewing_history import events_read
from topbill.service import telemetry
from topbill.service.backend import Backend
from topbill.service.bodies import (
    UNREAD_BECAME,
    EventAnswer,
    EventBatch,
    EventBatchAnswer,
    EventRequest,
    EventStatus,
    micros,
)
from topbill.service.page import PageService
from topbill.spec.fields import listed

_MOST_NAMED = 10


class UnitTypes:
    """What the experiments of a service call their units, and which events of them metrics and
    pages read.
    """

    def __init__(
        self, experiments: dict[str, CompiledExperiment], pages: dict[str, CompiledPage]
    ) -> None:
        self.made_of = (experiments, pages)
        self.read: dict[str, frozenset[str]] = {}
        for compiled in experiments.values():
            unit_type = compiled.experiment.unit
            if unit_type is not None:
                others = self.read.get(unit_type, frozenset())
                self.read[unit_type] = others | compiled.unit_events
        for page in pages.values():
            for unit_type in page.unit_types:
                others = self.read.get(unit_type, frozenset())
                self.read[unit_type] = others | events_read(page.file.signals)
        self.names = sorted(self.read)

    def warning_for(self, event: UnitEvent) -> str | None:
        """That nothing reads an event: it is kept all the same, since files come and go, and events
        that were turned away are gone."""
        read = self.read.get(event.unit_type)
        if read is None:
            return _unknown_type(event.unit_type, tuple(self.names))
        return None if event.event in read else _unread(event.unit_type, event.event, read)


class UnitEvents:
    """Takes events of units, for a backend."""

    def __init__(self, backend: Backend, pages: PageService) -> None:
        self._backend = backend
        self._pages = pages
        self._types = UnitTypes({}, {})
        self._erased = ErasedUnits(backend.settings.data)

    async def one(self, request: EventRequest) -> EventAnswer:
        """One event, durable where it was stored."""
        answers = await self._store([request], ["$"])
        return answers[0]

    async def batch(self, batch: EventBatch) -> EventBatchAnswer:
        """Events, durable together; one of the wrong form refuses the whole batch."""
        paths = [f"$.events[{index}]" for index in range(len(batch.events))]
        return EventBatchAnswer(await self._store(batch.events, paths))

    async def _store(self, requests: list[EventRequest], paths: list[str]) -> list[EventAnswer]:
        # Everything is checked before anything is stored: all of a batch or nothing.
        types = self._current_types()
        events = []
        erased = set()
        keyed = set()
        for request, path in zip(requests, paths, strict=True):
            event = _event(request, self._backend.unit_ids.stored(request.unit), types, path)
            events.append(event)
            # An id of our own making is new: only a caller's has to be looked up by the log.
            if request.event_id is not None:
                keyed.add(event.key)
            if self._erased.is_from_before(event.unit_type, event.unit, event.occurred_at):
                erased.add(id(event))
        to_store = [event for event in events if id(event) not in erased]
        duplicates: tuple[bool, ...] = ()
        if to_store:
            entry = Entry(unit_events=to_store, keyed_unit_events=frozenset(keyed))
            receipt = await self._backend.writer.put(entry)
            duplicates = receipt.unit_duplicates
        answers = []
        is_duplicate = iter(duplicates)
        for request, event in zip(requests, events, strict=True):
            # Callers know their units by their own ids.
            unit = request.unit
            if id(event) in erased:
                telemetry.EVENTS.labels("erased").inc()
                answers.append(EventAnswer("erased", unit, event.unit_type, event.event_id))
                continue
            status: EventStatus = "duplicate" if next(is_duplicate) else "stored"
            telemetry.EVENTS.labels(status).inc()
            warning = types.warning_for(event)
            if warning is not None:
                warning = f"{UNREAD_BECAME[status]} {warning}"
                if status == "stored":
                    telemetry.UNREAD_EVENTS.inc()
            answers.append(EventAnswer(status, unit, event.unit_type, event.event_id, warning))
        return answers

    def _current_types(self) -> UnitTypes:
        """Worked out anew only where the files were: reloading makes another dict."""
        experiments, pages = self._backend.engine.experiments, self._pages.compiled_pages
        before = self._types.made_of
        if before[0] is not experiments or before[1] is not pages:
            self._types = UnitTypes(experiments, pages)
        return self._types


def _event(request: EventRequest, unit: str, types: UnitTypes, path: str) -> UnitEvent:
    """The event of a request, of the unit as it is stored. Raises BadRequest where it does not say
    of which type its unit is, and the experiments leave it open."""
    unit_type = request.unit_type
    if unit_type is None:
        if len(types.names) != 1:
            raise _ambiguous(types.names, path)
        unit_type = types.names[0]
    return UnitEvent(
        unit=unit,
        unit_type=unit_type,
        event_id=request.event_id or new_id(),
        event=request.event,
        value=request.value,
        action=request.action,
        occurred_at=None if request.at is None else micros(request.at, path),
    )


def _ambiguous(names: list[str], path: str) -> BadRequest:
    """Profile 7 is not account 7: nobody guesses which was meant."""
    if not names:
        return BadRequest(
            f"{path}.unit_type",
            "nothing, and no experiment says its unit; expected what the unit is, such as "
            "profile_id",
        )
    return BadRequest(
        f"{path}.unit_type",
        "nothing, and the experiments have units of several types; expected one of "
        f"{listed(names, _MOST_NAMED)}",
    )


@lru_cache(1_024)
def _unread(unit_type: str, event: str, read: frozenset[str]) -> str:
    message = f"no metric of scope: unit reads event {event!r} of a {unit_type}"
    hint = nearest(event, read)
    return f"{message}; {hint}" if hint else message


@lru_cache(1_024)
def _unknown_type(unit_type: str, names: tuple[str, ...]) -> str:
    message = f"no experiment has {unit_type!r} as its unit"
    hint = nearest(unit_type, names)
    return f"{message}; {hint}" if hint else message
