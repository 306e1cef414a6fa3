"""`POST /v1/page`: a whole page composed, stored with all its decisions in one entry of the log,
and answered; and the credit that a reward on a page gives to every layer."""

from __future__ import annotations

import logging
import time
from collections import OrderedDict
from collections.abc import Callable, Iterable, Sequence
from hashlib import blake2b
from pathlib import Path
from typing import Any

import msgspec

from topbill.candidates import Signals, signals_path
from topbill.domain.errors import AlreadyDecided, Conflict, FileProblem, NotFound, TopbillError
from topbill.domain.page_answer import PageAnswer, RowAnswer
from topbill.domain.profile import ProfileLimits
from topbill.domain.records import Decision, RewardEvent
from topbill.domain.rewards import SEEN
from topbill.engine import new_id
from topbill.log import Entry, Log, Receipt
from topbill.pages import credit
from topbill.pages.candidate_table import LastGoodTables
from topbill.pages.compiled import CompiledPage
from topbill.pages.compose import EMPTY, compose, session_page_ids
from topbill.pages.explain import explain_title
from topbill.pages.files import PageFile
from topbill.pages.lake_history import read_lake
from topbill.pages.last_good_catalogs import LastGoodCatalogs, problem
from topbill.pages.request import PageRequest
from topbill.pages.viewing_history import ViewingHistory
from topbill.service import telemetry
from topbill.service.backend import Backend
from topbill.service.page_memory import PREFIX, PageMemory
from topbill.service.worker_health import Trouble

AGAIN = "page_again"
"""The event that marks a page which a session got once more."""
_SILENT = 200
"""Pages in a row without impressions that are told, where impressions are to count."""
_AT_HAND = 64
"""Pages that are kept as objects: a page's rewards come together."""
_HISTORY = 7 * 86_400.0
"""Seconds for which a starting service reads what viewers saw and played before; longer where
fatigue rests longer.
"""
_logger = logging.getLogger("topbill")
_answers = msgspec.json.Decoder(PageAnswer)
_Mark = tuple[int, int]
"""When a file was changed, and its size."""
_PageCells = tuple[PageAnswer, dict[str, credit.Cell]]
"""A page as it was answered, and where each of its titles stands."""
_OF_A_SESSION = "sticky"
"""What stands for the request's digest in a session's page: any request of the session gets it."""
_SINCE_0_2 = {"candidates": None, "scores": None, "explore": True, "after": None}
"""Fields that are part of a request's digest only where they are not as they would be left out:
requests of before have the digest that they had.
"""
_NO_KEYS: frozenset[str] = frozenset()


class PageService:
    """Composes pages over a backend. One for each API process.

    Two threads use it: the event loop composes pages, and the follower puts new objects in the
    place of those that changed. Neither waits for the other.
    """

    def __init__(self, backend: Backend) -> None:
        self._backend = backend
        self._data = backend.settings.data
        self._catalogs = LastGoodCatalogs(self._data)
        self._candidates = LastGoodTables()
        self.compiled_pages: dict[str, CompiledPage] = {}
        self._histories: dict[str, ViewingHistory] = {}
        self._marks: dict[Path, _Mark] = {}
        self._memory = PageMemory()
        self._at_hand: OrderedDict[str, _PageCells] = OrderedDict()
        self._outdated: set[str] = set()
        """Pages whose histories hold viewers that were erased."""
        backend.on_erasure.append(self.forget)

    def reload(self, files: Sequence[PageFile]) -> None:
        """Take over page files, with their catalogues or the last good ones; a page that would be
        made of the same again stays. Raises TopbillError where a page has neither; then all stays
        as it was.
        """
        compiled_pages = {}
        for file in files:
            # Each is asked: a file that is seen to have changed is then the one that is known.
            changed = (
                self._any_changed(file.catalogue_files),
                self._any_changed(_candidate_files(file)),
            )
            page = self.compiled_pages.get(file.key)
            if page is None or any(changed) or not page.is_of(file):
                page = self._compile(file)
            compiled_pages[file.key] = page
        self.compiled_pages = compiled_pages
        # What viewers did is no part of a file: a page that is edited goes on knowing it.
        histories = {}
        for key, page in compiled_pages.items():
            history = self._histories.get(key)
            made_of = (page.file.signals, page.unit_types)
            if history is None or (history.signals, history.unit_types) != made_of:
                history = ViewingHistory(key, *made_of)
            histories[key] = history
        self._histories = histories

    def _compile(self, file: PageFile) -> CompiledPage:
        page = self._catalogs.compile(file, self._backend.engine, self._signals(file.key))
        page.tables = self._candidates.read(file)
        return page

    def follow(self, log: Log) -> None:
        """Take over changed catalogues and signals, and what viewers have done since. A starting
        service waits for the first call: no page goes out that does not know what its viewer saw.
        """
        for key, compiled_page in list(self.compiled_pages.items()):
            if self._any_changed(compiled_page.file.catalogue_files):
                self.compiled_pages[key] = self._renewed(compiled_page)
            elif self._changed(signals_path(self._data, key)):
                compiled_page.renew(self._signals(key))
            if self._any_changed(_candidate_files(compiled_page.file)):
                self.compiled_pages[key].tables = self._candidates.read(compiled_page.file)
            self._follow_viewers(compiled_page, log)

    def renew_features(self) -> None:
        """Take over what tables say by now of titles and pictures."""
        for page in self.compiled_pages.values():
            page.renew_features()

    def forget(self) -> None:
        """Drop what is in memory of any viewer. What they saw and played is read again with the
        next step of the follower, and until then known as it was.
        """
        self._memory = PageMemory()
        self._at_hand.clear()
        self._outdated.update(self._histories)

    def _follow_viewers(self, compiled_page: CompiledPage, log: Log) -> None:
        file = compiled_page.file
        history = self._histories[file.key]
        if file.key in self._outdated:
            history = ViewingHistory(file.key, file.signals, compiled_page.unit_types)
        if not history.begun:
            fatigue = file.rules.fatigue
            rest = fatigue[1] if fatigue else 0.0
            read_lake(history, self._data, time.time() - max(_HISTORY, rest))
        history.follow(log)
        self._histories[file.key] = history
        self._outdated.discard(file.key)

    def _renewed(self, compiled_page: CompiledPage) -> CompiledPage:
        """The page with its changed catalogue; with the one that it has where the new one and the
        copy of the last good one can't be read.
        """
        try:
            return self._compile(compiled_page.file)
        except TopbillError as error:
            compiled_page.stale = problem(compiled_page.file, error)
            return compiled_page

    @property
    def unit_types(self) -> frozenset[str]:
        """What the pages' experiments call their units."""
        pages = self.compiled_pages.values()
        return frozenset().union(*[page.unit_types for page in pages])

    @property
    def stale(self) -> tuple[FileProblem, ...]:
        """What is wrong with catalogues, where pages are made from earlier ones."""
        pages = self.compiled_pages.values()
        return tuple(page.stale for page in pages if page.stale is not None)

    @property
    def troubles(self) -> list[Trouble]:
        """What anybody may know of the pages' catalogues: values made up, rows set aside."""
        found = []
        for key, page in self.compiled_pages.items():
            if page.catalog.made_up:
                columns = ", ".join(page.catalog.made_up)
                found.append(Trouble("made_up", f"page {key}: {columns} are made up (demo: true)"))
            if page.catalog.set_aside:
                rows = f"{len(page.catalog.set_aside)} rows of its catalogue can be no titles"
                found.append(Trouble("titles_set_aside", f"page {key}: {rows}"))
            for row, signal in page.own_signals.items():
                if signal.problem:
                    what = f"page {key}: row {row}: signal {signal.name}"
                    found.append(Trouble("signal", f"{what}: {signal.problem}"))
            if page.catalog.without_pictures:
                titles = f"{len(page.catalog.without_pictures)} titles go without their pictures"
                found.append(Trouble("pictures_set_aside", f"page {key}: {titles}"))
        for (key, row), problem_of_file in list(self._candidates.problems.items()):
            if key in self.compiled_pages:
                expected = "the last good candidates go on, or none where there are none"
                found.append(
                    Trouble("candidates", f"page {key}: row {row}: {problem_of_file}; {expected}")
                )
        return found

    def _any_changed(self, paths: Iterable[Path]) -> bool:
        """Whether any of these files is another one than at the last call."""
        # Each is looked at, so that this look notes all of them.
        return True in [self._changed(path) for path in paths]

    def notes(self, page: CompiledPage) -> tuple[str, ...]:
        """What must be known of a page and its catalogue, and of what its clients leave out."""
        history = self._histories.get(page.file.key)
        if page.file.click_model != "examined" or history is None:
            return page.notes
        if history.unseen_pages < _SILENT:
            return page.notes
        silent = (
            f"click_model: examined, but none of the last {history.unseen_pages:,} pages came with "
            f"impressions (event {SEEN}): all that stood on them counts as looked at"
        )
        return (*page.notes, silent)

    def _changed(self, path: Path) -> bool:
        """Whether a file is another one than at the last call; at the first one it is not."""
        mark: _Mark = (0, 0)
        if path.exists():
            status = path.stat()
            mark = (status.st_mtime_ns, status.st_size)
        changed = self._marks.get(path, mark) != mark
        self._marks[path] = mark
        return changed

    def _signals(self, key: str) -> Signals | None:
        path = signals_path(self._data, key)
        try:
            return Signals.load(path) if path.exists() else None
        except TopbillError as error:
            _logger.warning("%s; pages are made without it", error)
            return None

    # ------------------------------------------------------------------ pages

    async def page(self, request: PageRequest) -> PageAnswer | msgspec.Raw:
        """The viewer's page, durable; the stored one where its id or its session has one. A new one
        as JSON, which its own decision has already.
        """
        compiled_page = self.compiled_pages.get(request.page)
        if compiled_page is None:
            keys = ", ".join(self.compiled_pages) or "(none)"
            raise NotFound(f"page {request.page!r} is not there; expected one of {keys}")
        now = time.time()
        unit = None if request.unit is None else self._backend.unit_ids.stored(request.unit)
        # Before anything is looked for: a page of other limits is another page.
        request = await self._within_limits(request)
        above = await self._above(request, unit)
        if above and unit is None:
            # Nobody was randomised by the first page's id, and is below it.
            unit = above[-1].unit
        page_id, request_hash, stored = await self._find(compiled_page, request, unit, now)
        if stored is not None:
            return await self._serve_again(compiled_page, request, stored, now)

        unit = unit or page_id
        known = self._histories[request.page].known(unit, compiled_page.file.rules, now)
        viewer = compiled_page.viewer(request, page_id, known, unit=unit)
        if request.account is not None:
            # It is part of what is stored of a page.
            account = self._backend.unit_ids.stored(request.account)
            request = msgspec.structs.replace(request, account=account)
        pages_above = [_answers.decode(page.actions) for page in above]
        composed = compose(compiled_page, request, viewer, page_id, now, request_hash, pages_above)
        # All decisions of a page are one entry, and whole: of two calls of one session at once,
        # the slower one leaves none of its rows. All of its ids are keyed: where a decision of
        # another request has one of them, there is no half of a page.
        ids = [decision.decision_id for decision in composed.decisions]
        keyed = frozenset(ids) if request_hash else _NO_KEYS
        receipt = await self._backend.writer.put(
            Entry(composed.decisions, keyed_decisions=keyed, whole=True, page=composed.answer)
        )
        earlier = await self._earlier(page_id, request_hash, receipt)
        if earlier is not None:
            return await self._serve_again(compiled_page, request, earlier, now)

        for decision in composed.decisions:
            telemetry.count_decision(decision)
        for stage in composed.answer.fallbacks:
            telemetry.PAGE_FALLBACKS.labels(request.page, stage).inc()
        # The page's own decision holds its answer, as the log keeps it.
        page = composed.decisions[0]
        self._memory.add(page_id, bytes(page.actions))
        self._histories[request.page].made(page)
        return page.actions

    async def _above(self, request: PageRequest, unit: str | None) -> list[Decision]:
        """The pages that a request goes on below, the last one first; none for a page of its own.
        Raises NotFound where one of them is not there, or is another viewer's or page's.
        """
        pages: list[Decision] = []
        page_id = None if request.after is None else _stored_id(request.after)
        while page_id is not None:
            page = (await self._backend.find([page_id])).get(page_id)
            if page is None or not _is_of(page, request.page, unit):
                raise NotFound(f"after: {page_id!r} is no page of this viewer that is in the log")
            pages.append(page)
            unit = page.unit
            facts = msgspec.json.decode(page.context)
            page_id = _stored_id(facts["after"]) if facts.get("after") else None
        return pages

    async def _within_limits(self, request: PageRequest) -> PageRequest:
        """The request within what is set of its profile: of the account's, and of the profile whose
        account nobody said, since a limit must hold however it was set.
        """
        if request.profile is None:
            return request
        for name in dict.fromkeys((request.unit, request.profile)):
            if name is not None:
                limits = await self._limits(self._backend.unit_ids.stored(name))
                request = request if limits is None else request.within(limits)
        return request

    async def _limits(self, unit: str) -> ProfileLimits | None:
        return await self._backend.quick(lambda log: log.profile(unit))

    async def _earlier(self, page_id: str, request_hash: str, receipt: Receipt) -> Decision | None:
        """The page that was stored before under that id; None where the receipt's is stored now.
        Raises Conflict where one of its ids was used before for something else, AlreadyDecided
        where the page can't be given again.
        """
        if receipt.let_go is not None:
            # Whoever's session it is gets the session's page; of other requests nobody knows any
            # more what they were.
            page = None
            if request_hash == _OF_A_SESSION:
                page = (await self._backend.recall([page_id])).get(page_id)
            if page is None:
                raise AlreadyDecided.under("page_id", receipt.let_go)
            return page
        if receipt.conflict is not None:
            raise _used_before(receipt.conflict)
        page = receipt.stored.get(page_id)
        if page is None and receipt.stored:
            raise _used_before(min(receipt.stored))
        return page

    async def _find(
        self, compiled_page: CompiledPage, request: PageRequest, unit: str | None, now: float
    ) -> tuple[str, str, Decision | None]:
        """The page's id, what its request is known by ("" where nobody can ask for it again), and
        the stored one.
        """
        if request.page_id is None and request.after is not None:
            # Its id follows from that of the page above, so that asking again gives the same.
            page_id = _next_id(_stored_id(request.after))
            return page_id, _OF_A_SESSION, (await self._backend.stored([page_id])).get(page_id)
        if request.page_id is not None:
            page_id = _stored_id(request.page_id)
            fingerprint = _fingerprint(request, unit)
            stored = (await self._backend.stored([page_id])).get(page_id)
            if stored is not None and stored.request_hash != fingerprint:
                raise _used_before(page_id)
            if stored is None:
                self._backend.refuse_old("page_id", request.page_id.removeprefix(PREFIX))
            return page_id, fingerprint, stored

        ttl = compiled_page.file.session_ttl
        if not ttl or unit is None or request.session is None:
            return PREFIX + new_id(), "", None
        # What decides which titles are allowed is part of the session: a kids' profile never gets
        # an adult's page.
        session = f"{request.session}|{request.kids}|{request.maturity}|{request.region}"
        if not request.explore:
            session += "|without exploration"  # nor anybody the page of a preview
        # Ids follow from the session and the stretch of time, so that all processes agree without
        # asking each other. A page made at the end of a stretch lives on into the next one.
        ids = [PREFIX + each for each in session_page_ids(request.page, unit, session, ttl, now)]
        pages = await self._backend.stored(ids)
        for session_id in ids:
            stored = pages.get(session_id)
            if stored is not None and now - stored.decided_at / 1e6 < ttl:
                return session_id, _OF_A_SESSION, stored
        return ids[0], _OF_A_SESSION, None

    async def _serve_again(
        self, compiled_page: CompiledPage, request: PageRequest, stored: Decision, now: float
    ) -> PageAnswer:
        """The stored page. A session's is marked in the log as served again, and keeps no title
        that rules now bar.
        """
        answer = _answers.decode(stored.actions)
        if request.page_id is not None:
            return answer
        mark = RewardEvent(decision_id=stored.decision_id, event_id=new_id(), event=AGAIN)
        await self._backend.writer.put(Entry(events=(mark,)))

        viewer = compiled_page.viewer(request, stored.decision_id)
        by_rule = compiled_page.rules.allowed_by_rule(viewer.region, viewer.age, now)
        index = compiled_page.catalog.index

        def allowed(title: str) -> bool:
            row = index.get(title)
            return row is not None and all(mask[row] for mask in by_rule.values())

        rows = tuple(_without_barred(row, allowed) for row in answer.rows)
        fallbacks = answer.fallbacks
        if EMPTY not in fallbacks and not any(row.titles for row in rows):
            fallbacks = (*fallbacks, EMPTY)
        return msgspec.structs.replace(answer, rows=rows, fallbacks=fallbacks, again=True)

    async def why(self, page_id: str, title: str) -> dict[str, Any]:
        """What the rules did with a title on a stored page. Raises NotFound for a page or title
        that is not there.
        """
        page = (await self._backend.find([page_id])).get(page_id)
        if page is None or page.layer != "page" or page.experiment not in self.compiled_pages:
            raise NotFound(f"page {page_id!r} is not in the log")
        row_above = None
        facts = msgspec.json.decode(page.context)
        if facts.get("after"):
            request = PageRequest(page=page.experiment, after=facts["after"])
            for above in await self._above(request, page.unit):
                cell = credit.cells_of(_answers.decode(above.actions)).get(title)
                row_above = row_above if cell is None else cell.row
        row_ids = [f"{page_id}:{row.row}" for row in _answers.decode(page.actions).rows]
        decisions = await self._backend.find(row_ids)
        rows = [decisions[row_id] for row_id in row_ids if row_id in decisions]
        compiled_page = self.compiled_pages[page.experiment]
        return explain_title(compiled_page, page, rows, title, row_above)

    # ------------------------------------------------------------------ credit

    def spread(self, event: RewardEvent) -> list[RewardEvent]:
        """The events that one event is: itself, and on a page one for each layer's decision that it
        speaks of.
        """
        page = self._page_cells(event.decision_id)
        if page is None:
            return [event]
        answer, cells = page
        return credit.spread(event, answer, cells)

    def impressions_sent(self, event: RewardEvent) -> list[RewardEvent]:
        """What an impression on a page says of all of its decisions; none for other events."""
        page = self._page_cells(event.decision_id)
        return [] if page is None else credit.impressions_sent(event, page[0])

    def is_at_hand(self, decision_id: str) -> bool:
        """Whether `spread` needs no look into the log: of a page it is in memory."""
        is_page = decision_id.startswith(PREFIX) and ":" not in decision_id
        return not is_page or decision_id in self._at_hand or decision_id in self._memory

    def _page_cells(self, page_id: str) -> _PageCells | None:
        """The page of that id, None for any other decision."""
        if not page_id.startswith(PREFIX) or ":" in page_id:
            return None
        cells = self._at_hand.get(page_id)
        if cells is not None:
            return cells
        answer = self._memory.get(page_id)
        if answer is None:
            decision = self._backend.decision(page_id)
            if decision is None or decision.layer != "page":
                return None
            answer = bytes(decision.actions)
            self._memory.add(page_id, answer)
        page = _answers.decode(answer)
        cells = self._at_hand[page_id] = (page, credit.cells_of(page))
        if len(self._at_hand) > _AT_HAND:
            self._at_hand.popitem(last=False)
        return cells


def _is_of(page: Decision, key: str, unit: str | None) -> bool:
    """Whether a decision is a page of that key and viewer, of anybody where that is nobody."""
    is_page = page.layer == "page" and page.experiment == key
    return is_page and unit in (None, page.unit)


def _stored_id(page_id: str) -> str:
    """A page's id as it is stored, of one that a caller made or was answered."""
    return PREFIX + page_id.removeprefix(PREFIX)


def _next_id(page_id: str) -> str:
    """The id of the page below: page-X, page-X+2, page-X+3."""
    first, plus, number = page_id.rpartition("+")
    if plus and number.isdecimal():
        return f"{first}+{int(number) + 1}"
    return f"{page_id}+2"


def _without_barred(row: RowAnswer, allowed: Callable[[str], bool]) -> RowAnswer:
    """The row without the titles that are no longer allowed, which count as missing."""
    titles = tuple(tile for tile in row.titles if allowed(tile.title))
    barred = len(row.titles) - len(titles)
    if not barred:
        return row
    return msgspec.structs.replace(row, titles=titles, missing=row.missing + barred)


def _candidate_files(file: PageFile) -> list[Path]:
    return [path for path, _ in file.candidate_files.values()]


def _fingerprint(request: PageRequest, unit: str | None) -> str:
    """A digest of the request, equal for bodies that differ only in the order of keys. `unit` is
    what is stored of who asks: an id that is not stored must not be found by trying digests.
    """
    parts = {name: getattr(request, name) for name in request.__struct_fields__}
    for name, default in _SINCE_0_2.items():
        if parts[name] == default:
            del parts[name]
    if unit != request.unit:
        parts |= {"profile": unit, "account": None, "session": None}
    parts["context"] = msgspec.json.decode(request.context)
    return blake2b(msgspec.json.encode(parts, order="deterministic"), digest_size=12).hexdigest()


def _used_before(page_id: str) -> Conflict:
    return Conflict(
        f"page_id: {page_id!r} was used before with another request; nothing of this page was "
        "stored: use a new id"
    )
