"""`POST /v1/page`: a whole page composed, stored with all its decisions in one entry of the log,
and answered; and the credit that a reward on a page gives to every layer."""

from __future__ import annotations

import logging
import time
from collections import OrderedDict
from collections.abc import Sequence
from hashlib import blake2b
from pathlib import Path
from typing import Any

import msgspec

from topbill.candidates import Signals, signals_path
from topbill.domain.errors import Conflict, FileProblem, NotFound, TopbillError
from topbill.domain.records import Decision, RewardEvent
from topbill.engine import Engine, new_id
from topbill.log import Entry, Log, now_micros
from topbill.pages import credit
from topbill.pages.answers import PageAnswer, PageRequest, RowAnswer
from topbill.pages.compiled import CompiledPage
from topbill.pages.compose import compose, session_page_ids
from topbill.pages.explain import explain_title
from topbill.pages.files import PageFile
from topbill.pages.lake_history import read_lake
from topbill.pages.last_good_catalogs import LastGoodCatalogs, problem
from topbill.pages.viewing_history import ViewingHistory
from topbill.service import telemetry
from topbill.service.writer import GroupWriter

AGAIN = "page_again"
"""The event that marks a page which a session got once more."""
PREFIX = "page-"
"""What the ids of pages begin with: so a reward on anything else costs no look-up."""
_REMEMBERED = 20_000
_WATCHED = 7 * 86_400.0
"""Seconds for which a starting service reads what viewers saw and played before; longer where
fatigue rests longer.
"""
_logger = logging.getLogger("topbill")
_answers = msgspec.json.Decoder(PageAnswer)
_Mark = tuple[int, int]


class PageService:
    """Composes pages over an engine, a log to read and a writer. One for each API process."""

    def __init__(self, data: Path, engine: Engine) -> None:
        self._data, self._engine, self._catalogs = data, engine, LastGoodCatalogs(data)
        self.compiled_pages: dict[str, CompiledPage] = {}
        self.log: Log
        self.writer: GroupWriter
        self._histories: dict[str, ViewingHistory] = {}
        self._ready = False
        self._seen: dict[Path, _Mark] = {}
        self._cells: OrderedDict[str, tuple[PageAnswer, dict[str, credit.Cell]]] = OrderedDict()

    def reload(self, files: Sequence[PageFile]) -> None:
        """Take over page files, with their catalogues or the last good ones. Raises TopbillError
        where a page has neither; then all stays as it was."""
        compiled_pages = {}
        for file in files:
            self._changed(file.catalogue)
            compiled_pages[file.key] = self._catalogs.compile(
                file, self._engine, self._signals(file.key)
            )
        self.compiled_pages = compiled_pages
        self._histories = {
            key: self._histories.get(key) or ViewingHistory(key) for key in compiled_pages
        }

    def follow(self, log: Log) -> None:
        """Take over changed catalogues and signals, and what viewers have done since. The first
        call, for which a starting service waits, leaves out what viewers did: that may be read from
        the lake."""
        for key, compiled_page in list(self.compiled_pages.items()):
            if self._changed(compiled_page.file.catalogue):
                self.compiled_pages[key] = self._renewed(compiled_page)
            elif self._changed(signals_path(self._data, key)):
                compiled_page.renew(self._signals(key))
            if self._ready:
                history, fatigue = self._histories[key], compiled_page.file.rules.fatigue
                if not history.begun:
                    read_lake(
                        history,
                        self._data,
                        time.time() - max(_WATCHED, fatigue[1] if fatigue else 0.0),
                    )
                history.follow(log, now_micros())
        self._ready = True

    def _renewed(self, compiled_page: CompiledPage) -> CompiledPage:
        file = compiled_page.file
        try:
            return self._catalogs.compile(file, self._engine, self._signals(file.key))
        except TopbillError as error:  # the kept one is lost too: what is in memory goes on
            compiled_page.stale = problem(file, error)
            return compiled_page

    @property
    def stale(self) -> tuple[FileProblem, ...]:
        """What is wrong with catalogues, where pages are made from earlier ones."""
        return tuple(c.stale for c in self.compiled_pages.values() if c.stale is not None)

    def _changed(self, path: Path) -> bool:
        stat = path.stat() if path.exists() else None
        mark = (0, 0) if stat is None else (stat.st_mtime_ns, stat.st_size)
        first = path not in self._seen
        changed = self._seen.get(path, mark) != mark
        self._seen[path] = mark
        return changed and not first

    def _signals(self, key: str) -> Signals | None:
        path = signals_path(self._data, key)
        try:
            return Signals.load(path) if path.exists() else None
        except TopbillError as error:
            _logger.warning("%s; pages are made without it", error)
            return None

    # ------------------------------------------------------------------ pages

    async def page(self, request: PageRequest) -> PageAnswer:
        """The viewer's page, durable; the stored one where its id or its session has one."""
        compiled_page = self.compiled_pages.get(request.page)
        if compiled_page is None:
            raise NotFound(
                f"page {request.page!r} is not there; expected one of {', '.join(self.compiled_pages) or '(none)'}"
            )
        now = time.time()
        page_id, request_hash, held = self._held(compiled_page, request, now)
        if held is not None:
            return await self._again(compiled_page, request, held, now)
        unit = request.unit or page_id
        history, fatigue, index = (
            self._histories[request.page],
            compiled_page.file.rules.fatigue,
            compiled_page.catalog.index,
        )

        def fatigued() -> frozenset[int]:
            titles = [] if fatigue is None else history.fatigued(unit, *fatigue, now)
            return frozenset(index[title] for title in titles if title in index)

        viewer = compiled_page.viewer(request, page_id, history.watched(unit), fatigued)
        made = compose(compiled_page, request, viewer, page_id, now, request_hash)
        keyed = frozenset((page_id,) if request_hash else ())
        receipt = await self.writer.put(Entry(made.decisions, keyed_decisions=keyed, whole=True))
        if receipt.conflict is not None:
            raise _reused(receipt.conflict)
        if (stored := receipt.stored.get(page_id)) is not None:
            return await self._again(
                compiled_page, request, stored, now
            )  # another call of the session was faster
        for decision in made.decisions:
            telemetry.DECISIONS.labels(
                decision.experiment, decision.variant or "", decision.reason
            ).inc()
        for stage in made.answer.fallbacks:
            telemetry.PAGE_FALLBACKS.labels(request.page, stage).inc()
        self._remember(page_id, made.answer)
        return made.answer

    def _held(
        self, compiled_page: CompiledPage, request: PageRequest, now: float
    ) -> tuple[str, str, Decision | None]:
        """The page's id, what its request is known by ("" where nobody can ask for it again), and
        the stored one.
        """
        if request.page_id is not None:
            page_id, fingerprint = (
                PREFIX + request.page_id.removeprefix(PREFIX),
                _fingerprint(request),
            )
            held = self.log.decision(page_id)
            if held is not None and held.request_hash != fingerprint:
                raise _reused(page_id)
            return page_id, fingerprint, held
        sticky, unit = compiled_page.file.session_ttl, request.unit
        if not sticky or unit is None or request.session is None:
            return PREFIX + new_id(), "", None
        # What decides which titles are allowed is part of the session: a kids' profile never gets
        # an adult's page.
        session = f"{request.session}|{request.kids}|{request.maturity}|{request.region}"
        this, before = (
            PREFIX + i for i in session_page_ids(request.page, unit, session, sticky, now)
        )
        for page_id in (this, before):
            held = self.log.decision(page_id)
            if held is not None and now - held.decided_at / 1e6 < sticky:
                return page_id, "sticky", held
        return this, "sticky", None

    async def _again(
        self, compiled_page: CompiledPage, request: PageRequest, held: Decision, now: float
    ) -> PageAnswer:
        """The stored page. A session's is marked in the log as served again, and keeps no title
        that rules now bar.
        """
        answer = _answers.decode(held.actions)
        if request.page_id is not None:
            return answer
        mark = RewardEvent(decision_id=held.decision_id, event_id=new_id(), event=AGAIN)
        await self.writer.put(Entry(events=(mark,)))
        viewer = compiled_page.viewer(request, held.decision_id)
        lets = compiled_page.rules.allowed_by_rule(viewer.region, viewer.age, now, ()).values()
        index = compiled_page.catalog.index

        def still(row: RowAnswer) -> RowAnswer:
            kept = tuple(
                t
                for t in row.titles
                if t.title in index and all(let[index[t.title]] for let in lets)
            )
            gone = len(row.titles) - len(kept)
            return (
                msgspec.structs.replace(row, titles=kept, missing=row.missing + gone)
                if gone
                else row
            )

        return msgspec.structs.replace(answer, rows=tuple(map(still, answer.rows)), again=True)

    def why(self, page_id: str, title: str, log: Log) -> dict[str, Any]:
        """What the rules did with a title on a stored page. Raises NotFound for a page or title
        that is not there.
        """
        held = log.decision(page_id)
        if held is None or held.layer != "page" or held.experiment not in self.compiled_pages:
            raise NotFound(f"page {page_id!r} is not in the log")
        rows = [row.row for row in _answers.decode(held.actions).rows]
        found = [log.decision(f"{page_id}:{row}") for row in rows]
        return explain_title(
            self.compiled_pages[held.experiment], held, [d for d in found if d is not None], title
        )

    # ------------------------------------------------------------------ credit

    def spread(self, event: RewardEvent) -> list[RewardEvent]:
        """The events that one event is: itself, and on a page one for each layer's decision that it
        speaks of.
        """
        known = self._known(event.decision_id)
        if known is None:
            return [event]
        return credit.spread(event, *known)

    def _known(self, decision_id: str) -> tuple[PageAnswer, dict[str, credit.Cell]] | None:
        """The page of that id, None for any other decision."""
        if not decision_id.startswith(PREFIX) or ":" in decision_id:
            return None
        known = self._cells.get(decision_id)
        if known is None:
            held = self.log.decision(decision_id)
            if held is None or held.layer != "page":
                return None
            known = self._remember(decision_id, _answers.decode(held.actions))
        return known

    def _remember(
        self, page_id: str, answer: PageAnswer
    ) -> tuple[PageAnswer, dict[str, credit.Cell]]:
        self._cells[page_id] = known = (answer, credit.cells_of(answer))
        if len(self._cells) > _REMEMBERED:
            self._cells.popitem(last=False)
        return known


def _fingerprint(request: PageRequest) -> str:
    parts = {name: getattr(request, name) for name in request.__struct_fields__}
    parts["context"] = msgspec.json.decode(request.context)
    return blake2b(msgspec.json.encode(parts, order="deterministic"), digest_size=12).hexdigest()


def _reused(page_id: str) -> Conflict:
    return Conflict(f"page_id {page_id!r} was used before with another request; use a new id")
