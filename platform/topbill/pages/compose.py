"""Composes a page for a viewer: the rows, then each row's titles below what stands above, then
their pictures. Every choice is made by the engine, with the rules in force before the draw.

All decisions of a page, with the page's own, go to the log together.
"""

from __future__ import annotations

import logging
import math
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import replace
from itertools import starmap
from types import MappingProxyType
from typing import Any, NamedTuple

import msgspec
import numpy as np

from topbill.candidates import GIVEN, Candidates
from topbill.catalog import Bools
from topbill.domain.chance import hash64
from topbill.domain.errors import BadRequest, PolicyError
from topbill.domain.page_answer import LayerAnswer, PageAnswer, RowAnswer, Tile, cells_of
from topbill.domain.records import NULL, Decision, EntityUse, Indices, Placement
from topbill.domain.slate import Allowed, Length, ScoreTerms
from topbill.domain.sums import plain_sum
from topbill.engine import DecisionInput, decode
from topbill.pages.compiled import CompiledPage, Viewer
from topbill.pages.features import PicturesOnPage, TitlesOnPage
from topbill.pages.layers import Layer, PinnedRows, refuse_unknown
from topbill.pages.own_signal import SignalRow
from topbill.pages.request import PageRequest
from topbill.pages.viewer_rows import ViewerRows, about, holding_in, keeps_titles
from topbill.plugins.signal import PageViewer
from topbill.policies.places import Places
from topbill.rules import Counts, PoolOrder, PositionChoices, RowConstraints

_logger = logging.getLogger("topbill")
_encode = msgspec.json.Encoder().encode
_LEAST_LOG = -745.0
"""The logarithm of the smallest double: a page's joint propensity is logged as no less than that,
since a propensity of 0 would say that the page could not have been."""
EMPTY = "empty"
"""The fallback of a page on which nothing may be shown."""
_MOST_REACH = 4.0
"""How much more, or less, than on average a row is taken to earn at most."""
_BOOSTED = 10
"""Titles that a row's pool has at most for being boosted alone."""
_FRESH_DEPTH = 3
"""New titles in a row's pool for each one that its quota asks for: so there is a choice of them."""


class ComposedPage(msgspec.Struct, frozen=True):
    """A page that is ready to be stored, and then answered."""

    answer: PageAnswer
    decisions: tuple[Decision, ...]


class FilledRow(NamedTuple):
    """A row with its titles: where it stands, the decision, None where there is no title, how many
    it lacks, and what each rule took of those that it could have.
    """

    placement: Placement
    decision: Decision | None
    titles: list[int]
    missing: int
    removed: dict[str, int]


class Pictures(NamedTuple):
    """The pictures of a row's titles: the decision, None where nothing was to be decided, and
    column by column their ids, None where a title has none, their payloads, and the propensities
    with which they were drawn.
    """

    decision: Decision | None
    ids: Sequence[str | None]
    payloads: Sequence[msgspec.Raw]
    propensities: Sequence[float]


def compose(
    page: CompiledPage,
    request: PageRequest,
    viewer: Viewer,
    page_id: str,
    now: float,
    request_hash: str = "",
    above: Sequence[PageAnswer] = (),
) -> ComposedPage:
    """The page for a viewer, not yet stored.

    Whatever fails, a page is made: without policies and signals in the worst case, and it says so.

    Args:
        page: The page file, compiled.
        request: What was asked for.
        viewer: Who asks (`CompiledPage.viewer`).
        page_id: The page's id; its decisions' ids begin with it.
        now: Seconds since the epoch, for dates of the catalogue and of the rules.
        request_hash: By what the request is known again, "" where nobody can ask for it again.
        above: The pages that this one goes on below, in any order: none of their rows and titles
            comes again, and what they have of each cap is used up.

    Raises:
        BadRequest: The context has a feature that no layer declares, or a value that is none.
    """
    context = decode(request.context, "$.context")
    if not isinstance(context, dict):
        raise BadRequest("$.context", "expected a mapping from feature name to value")
    try:
        builder = PageBuilder(
            page, context, viewer, page_id, now, explore=request.explore, above=above
        )
        return builder.build(request, request_hash)
    except BadRequest:
        raise
    except Exception:
        _logger.exception(
            "page %s: composing failed; its viewers get the editors' page", page.file.key
        )
    builder = PageBuilder(page, context, viewer, page_id, now, degraded=True, above=above)
    return builder.build(request, request_hash)


class PageBuilder:
    """One page while it is composed. It is built once, from top to bottom; what is decided above
    narrows what may stand below, and these say how far that has come:

    Attributes:
        taken: (T,) the titles that rows above show: no title stands on a page twice.
        page_left: (C,) how many more of each cap the page takes, without what is `reserved`.
        reserved: Row → (C,) what the row's pins will use of each cap. It is set aside before the
            first row is filled, so that no row above can use up what an editor needs below; each
            row gets its own back when it is filled.
        rows_above: The rows of pages that this one goes on below.
        members: Row → the titles that it may be made of, first choice first.
        kept: Row below → the titles of its own that rows above it leave alone.
        reach: Row → how much more is earned in it than in a row on average.
    """

    def __init__(
        self,
        page: CompiledPage,
        context: Mapping[str, Any],
        viewer: Viewer,
        page_id: str,
        now: float,
        *,
        explore: bool = True,
        degraded: bool = False,
        above: Sequence[PageAnswer] = (),
    ) -> None:
        """Begin a page, below those `above`. Without `explore` chance has no say; `degraded` asks
        neither policies nor signals.

        Raises BadRequest for a context that no layer declares or that can't be encoded.
        """
        self.page, self.file, self.engine = page, page.file, page.engine
        self.viewer, self.id, self.now, self.explore = viewer, page_id, now, explore
        self.start = self.engine.now()
        # No clock is behind -inf: every choice is past the deadline, so no policy is asked.
        self.deadline = -math.inf if degraded else self.start + self.file.budget_ms / 1e3
        self.fallbacks: list[str] = []
        self.notes: list[str] = [*viewer.external.notes]
        if page.stale is not None:
            self.fallbacks.append("catalogue")
        if degraded:
            self.fallbacks.append("page")
        self.layers: dict[str, Layer] = {}
        for name, key in self.file.layers.items():
            unit = viewer.unit if viewer.identified else None
            self.layers[name] = Layer(self.engine.find(key), context, unit, viewer.unit)
        refuse_unknown(context, self.layers.values())

        self.allowed_by_rule = page.rules.allowed_by_rule(
            viewer.region, viewer.age, now, viewer.resting
        )
        self.allowed: Bools = np.logical_and.reduce(list(self.allowed_by_rule.values()))
        self.pins: dict[str, dict[int, int]] = {}
        for row in page.rules.pins:
            self.pins[row] = self._allowed_pins(row)
        if not degraded:
            self._ask_own_signals(context)
            viewer = self.viewer
        self.own = ViewerRows(self.file.sources, viewer.own, viewer.liked, self.allowed_by_rule)
        self.candidates = self._candidates(degraded)
        self.title_features = self._title_features(context)
        self.boosts = page.boosts.at(now)

        self.taken: Bools = np.zeros(len(page.catalog), dtype=bool)
        self.page_left: Counts = page.rules.page_left()
        self.rows_above: set[str] = set()
        for page_above in above:
            self._go_on_below(page_above)
        self.reserved: dict[str, Counts] = {}
        self.members: dict[str, Indices] = {}
        self.kept: dict[str, Indices] = {}
        self.reach: dict[str, float] = {}
        self.decisions: list[Decision] = []
        # What rows could be made of were there no rules: worked out when first asked for.
        self._everything: Candidates | None = None

    def _go_on_below(self, above: PageAnswer) -> None:
        """Leave out what a page above has, and count it against the caps of the page."""
        catalog = self.page.catalog
        for row in above.rows:
            self.rows_above.add(row.row)
            titles = catalog.rows_of([tile.title for tile in row.titles])
            self.taken[titles] = True
            self.page_left = self.page_left - self.page.rules.used(titles)

    def build(self, request: PageRequest, request_hash: str) -> ComposedPage:
        """All layers, one below the other."""
        rows = self._choose_rows()
        answers: list[RowAnswer] = []
        if rows is not None:
            self.decisions.append(rows)
            self.reach = self._reaches(rows)
            self._reserve_pins(rows)
            self._keep_titles(rows)
            answers = self._with_pictures([self._fill_row(placed) for placed in rows.slate])
        for name, layer in self.layers.items():
            if layer.failed:
                self.fallbacks.append(name)
        if any(row.titles for row in answers):
            self.notes += [_why_empty(row) for row in answers if not row.titles]
        elif rows is not None:
            self.fallbacks.append(EMPTY)
        answer = PageAnswer(
            page_id=self.id,
            page=self.file.key,
            layers=self._layer_answers(),
            rows=tuple(answers),
            fallbacks=tuple(self.fallbacks),
            made_up=self.page.catalog.made_up,
            notes=tuple(self.notes),
        )
        own = self._page_decision(answer, request, request_hash)
        return ComposedPage(answer, (own, *self.decisions))

    # ------------------------------------------------------------------ before the first row

    def _candidates(self, degraded: bool) -> Candidates:
        """The candidates, with what the viewer's own rows are made of."""
        candidates = self._first_stage(degraded)
        candidates.give(self.own.members, self.viewer.external.scores)
        return candidates

    def _first_stage(self, degraded: bool) -> Candidates:
        """The candidates; popular titles alone where the first stage fails or has no time."""
        model, viewer = self.page.candidate_model, self.viewer
        if not degraded:
            try:
                candidates = model.candidates_for(
                    *(viewer.region, viewer.watched, self.allowed, self.now, self.id, viewer.worth)
                )
                self.own.add_alike(model, self.allowed)
                if self.engine.now() <= self.deadline:
                    return candidates
                self.fallbacks.append("candidates")
            except Exception:
                _logger.exception(
                    "page %s: candidates failed; its viewers get popular titles", self.file.key
                )
                self.fallbacks.append("candidates")
        return model.popular_only(self.allowed, self.id)

    def _ask_own_signals(self, context: Mapping[str, Any]) -> None:
        """Fill rows of packages' signals for which neither the request nor a table has a
        candidate.
        """
        viewer, brought = self.viewer, self.viewer.external
        asked = PageViewer(viewer.watched, viewer.region, MappingProxyType(context), self.now)
        for row, signal in self.page.own_signals.items():
            if brought.rows.get(row):
                continue
            scores = self._signal_scores(signal, asked)
            brought = brought.with_row(row, scores)
        if brought is not viewer.external:
            own = {**viewer.own, **brought.rows}
            self.viewer = replace(viewer, external=brought, own=own)

    def _signal_scores(self, signal: SignalRow, viewer: PageViewer) -> dict[int, float]:
        """Title → score; nothing where the signal fails, is late, or rests."""
        start = self.engine.now()
        scores: dict[int, float] = {}
        problem = ""
        if signal.patience.may_ask(start):
            try:
                scores = signal.best(viewer, self.allowed)
            except PolicyError as error:
                problem = str(error)
            if not signal.patience.in_time(start, self.engine.now(), self.file.budget_ms):
                problem = problem or f"it took longer than budget_ms: {self.file.budget_ms:g}"
        else:
            problem = "it rests, as it took too long"
        if problem != signal.problem:
            signal.problem = problem
            if problem:
                _logger.warning("page %s: signal %s: %s", self.file.key, signal.name, problem)
        if not problem:
            return scores
        if "candidates" not in self.fallbacks:
            self.fallbacks.append("candidates")
        self.notes.append(f"signal {signal.name}: {problem}")
        return {}

    def _title_features(self, context: Mapping[str, Any]) -> TitlesOnPage:
        """What policies are told of titles on this page."""
        # `taste` may be any layer's; it speaks of genres only where it is declared as a vector.
        is_vector = any(layer.declares_vector("taste") for layer in self.layers.values())
        match = self.page.catalog.match(self._taste(context) if is_vector else None)
        features = self.page.title_features(self.layers["titles"].file)
        heat = self.page.candidate_model.trending
        shown = np.zeros(len(self.page.catalog))
        for title, pages in self.viewer.shown.items():
            shown[title] = pages
        scores_of = self.viewer.external.scores_of
        return features.on_page(self.candidates, heat, match, shown, self.now, scores_of)

    def _taste(self, context: Mapping[str, Any]) -> Any:
        """The viewer's, as it was sent, or as a table of some layer has it."""
        if "taste" in context:
            return context["taste"]
        for layer in self.layers.values():
            if "taste" in layer.values:
                return layer.values["taste"]
        return None

    def _allowed_pins(self, row: str) -> dict[int, int]:
        """Position → title of this row's pins that this viewer may see. No viewer tires of a pin:
        editors want it there.
        """
        pins: dict[int, int] = {}
        for position, title in self.page.rules.pins[row].items():
            by_rule = self.allowed_by_rule.items()
            if all(allowed[title] for rule, allowed in by_rule if rule != "fatigue"):
                pins[position] = title
        return pins

    # ------------------------------------------------------------------ rows

    def _choose_rows(self) -> Decision | None:
        """Which rows, in which order: only rows that have a title to show, with the editors'
        pins; None where pages above have all of those.
        """
        rows, file = self.layers["rows"].file, self.file
        own, offered = self.page.row_actions(rows)
        actions, entities = rows.lookup.own_actions(own, rows.lookup.of_actions())
        ids = actions.ids
        self.row_actions = actions
        with_titles: list[int] = []
        for j, row in enumerate(ids):
            self.members[row] = self.candidates.members(file.sources[row])
            if row in self.rows_above or self._is_above(row):
                continue
            if len(self.members[row]) or self.pins.get(row):
                with_titles.append(j)
            else:
                self.notes.append(self.own.why_none(row, self.page.catalog))
        if self.rows_above and not with_titles:
            return None
        # Nothing for this viewer at all: the rows stand there empty, and each says why.
        of_all = [j for j, row in enumerate(ids) if file.sources[row].source not in GIVEN]
        eligible = np.array(with_titles or of_all or range(len(ids)), dtype=np.intp)
        pins: dict[int, int] = {}
        for j in eligible.tolist():
            # Positions count from the first page's top.
            position = file.pinned.get(ids[j], -1) - len(self.rows_above)
            if position >= 0:
                pins[position] = j
        return self._decide(
            "rows",
            decision_id=f"{self.id}:rows",
            actions=actions,
            entities=entities,
            eligible=eligible,
            slots=file.rows,
            offered=offered,
            # Made anew for each attempt at the slate: they count what was placed. A slate whose
            # length is drawn has rules in any case: what could stand below its end is in masks.
            rules=(
                (lambda: PinnedRows(eligible, file.rows, pins)) if pins or file.row_length else None
            ),
            length=_with_pins(self._row_length(), pins),
        )

    def _is_above(self, row: str) -> bool:
        """Whether pages above have all titles of a row."""
        members = self.members[row]
        return bool(self.rows_above and len(members) and self.taken[members].all())

    def _row_length(self) -> Length | None:
        """How many rows: each costs what its titles cost too, as many as a row has on average."""
        of_rows, of_titles = self.file.row_length, self.file.title_length
        if of_rows is None or of_titles is None:
            return of_rows
        titles = self.layers["titles"].compiled
        variant, _ = self.layers["titles"].admitted
        places = None if variant is None else getattr(titles.policies[variant.name], "places", None)
        usual = 0.0 if places is None else places.length
        cost = of_rows.cost + of_titles.cost * max(of_titles.least, usual)
        return msgspec.structs.replace(of_rows, cost=cost)

    def _reaches(self, rows: Decision) -> dict[str, float]:
        """Row → how much more it is expected to earn than a row does on average, where lengths of
        rows are drawn and the rows' policy can tell: what a title there is worth goes with it.
        """
        layer = self.layers["rows"]
        if self.file.title_length is None or rows.variant is None or not rows.stops:
            return {}
        policy = layer.compiled.policies[rows.variant]
        places: Places = policy.places  # type: ignore[attr-defined]  # or there were no stops
        # Not `rows.stops`' worths: those are of what could have been drawn, not of what was.
        mean = policy.score(layer.x, self.row_actions, hash64(rows.decision_id)).mean
        typical = places.typical
        if mean is None or not typical:
            return {}
        reaches: dict[str, float] = {}
        index = self.row_actions.ids.index
        for placed in rows.slate:
            worth = places.worth(placed.position, float(mean[index(placed.action)]))
            reaches[placed.action] = min(max(worth / typical, 1.0 / _MOST_REACH), _MOST_REACH)
        return reaches

    def _reserve_pins(self, rows: Decision) -> None:
        """Set aside of the page's caps what the pins of its rows will use."""
        nothing = self.page.rules.used([])
        for placement in rows.slate:
            self.reserved[placement.action] = nothing
            pins = self.pins.get(placement.action)
            if pins:
                used = self.page.rules.used([*pins.values()])
                self.reserved[placement.action] = used
                self.page_left = self.page_left - used

    def _keep_titles(self, rows: Decision) -> None:
        """Keep the first titles of the viewer's own rows for them: taken by a row above, they would
        not stand where the viewer looks for them.
        """
        taken: Bools = np.zeros_like(self.taken)
        for placement in rows.slate:
            row = placement.action
            if keeps_titles(self.file.sources[row], len(self.members[row]), self.file.titles):
                first = self.members[row][: self.file.titles]
                self.kept[row] = first[~taken[first]]
                taken[self.kept[row]] = True

    # ------------------------------------------------------------------ titles

    def _fill_row(self, placement: Placement) -> FilledRow:
        """One row: its titles."""
        page, row = self.page, placement.action
        decision: Decision | None = None
        titles: tuple[Placement, ...] = ()
        pool = self._pool(row)
        if len(pool):
            decision = self._choose_titles(row, pool)
            titles = decision.slate
        names = [title.action for title in titles]
        chosen = list(map(page.catalog.index.__getitem__, names))
        if chosen:
            self.taken[chosen] = True
            # The row's own reserve comes back: its pins are among the chosen, and counted there.
            self.page_left = self.page_left + self.reserved[row] - page.rules.used(chosen)
        self._note_trends(row, chosen)
        length = self.file.title_length
        missing = max(0, (self.file.titles if length is None else length.least) - len(chosen))
        removed = self._removed(row, decision, chosen) if missing else {}
        return FilledRow(placement, decision, chosen, missing, removed)

    def _with_pictures(self, rows: Sequence[FilledRow]) -> list[RowAnswer]:
        """The rows as they are answered, and their decisions, one row below the other."""
        page, answers = self.page, []
        for filled, choice in zip(rows, self._choose_pictures(rows), strict=True):
            own = filled.decision
            self.decisions += [made for made in (own, choice.decision) if made is not None]
            titles = () if own is None else own.slate
            columns = (
                [title.action for title in titles],
                map(page.title_payloads.__getitem__, filled.titles),
                [title.propensity for title in titles],
                choice.ids,
                choice.payloads,
                choice.propensities,
            )
            row = filled.placement.action
            answers.append(
                RowAnswer(
                    row=row,
                    payload=self._row_payload(row),
                    propensity=filled.placement.propensity,
                    # A page has hundreds: `starmap` keeps them in C.
                    titles=tuple(starmap(Tile, zip(*columns, strict=True))),
                    missing=filled.missing,
                    removed=filled.removed,
                )
            )
        return answers

    def _note_trends(self, row: str, titles: Sequence[int]) -> None:
        """Say so where a row of what is trending in the region shows what is trending anywhere."""
        region = self.viewer.region
        is_regional = self.file.sources[row].by_region and bool(titles)
        if is_regional and not self.page.candidate_model.has_trends(region):
            self.notes.append(
                f"row {row}: nothing was played in region {region} of late; it has what is "
                "trending anywhere"
            )

    def _row_payload(self, row: str) -> msgspec.Raw:
        """What the experiment says of the row, with the title that it is about."""
        name = self.file.repeats.get(row, row)
        payload = self.layers["rows"].compiled.payloads.get(name, NULL)
        if self.file.sources[row].source != "because":
            return payload
        seed = self.own.seeds.get(row)
        if seed is None:
            return NULL  # there is no title that its heading could name
        return about(payload, self.page.catalog.ids[seed], self.page.catalog.names[seed])

    def _pool(self, row: str) -> Indices:
        """The row's candidates: what no rule has removed, no row above shows, and no other row has
        pinned.
        """
        unavailable = self.taken.copy()
        for other, pinned in self.pins.items():
            if other != row:
                unavailable[list(pinned.values())] = True
        self.kept.pop(row, None)
        for kept in self.kept.values():
            unavailable[kept] = True
        pool = self.candidates.pool(row, self.file.sources[row], unavailable, self.file.candidates)
        quota = self.file.rules.fresh.get(row)
        if quota is not None:
            # A pool of popular titles may hold too few new ones for the row's quota: add some.
            count, within = quota
            rest = self._rest(row, pool)
            rest = rest[self._is_new(rest, within) & ~unavailable[rest]]
            short = max(0, _FRESH_DEPTH * count - int(self._is_new(pool, within).sum()))
            pool = self.candidates.in_order(np.concatenate([pool, rest[:short]]))
        if self.file.sources[row].source not in ("titles", *GIVEN):
            pool = self._with_boosted(row, pool, unavailable)
        # Its own pins are candidates too, whether the row would be made of them or not.
        own_pins = self.pins.get(row, {}).values()
        pins = [title for title in own_pins if not self.taken[title] and title not in pool]
        if not pins:
            return pool
        return np.concatenate([np.array(pins, dtype=np.intp), pool])

    def _rest(self, row: str, pool: Indices) -> Indices:
        """The titles that a row may be made of, less those of a pool, in the catalogue's order."""
        rest: Bools = np.zeros(len(self.page.catalog), dtype=bool)
        rest[self.members[row]] = True
        rest[pool] = False
        return rest.nonzero()[0]

    def _is_new(self, titles: Indices, within: float) -> Bools:
        """Which of these were added less than `within` seconds ago."""
        age = self.now - self.page.catalog.added[titles]
        return np.asarray((age >= 0.0) & (age < within))

    def _choose_titles(self, row: str, pool: Indices) -> Decision:
        """The row's titles, of a pool of P; the rules speak of titles by their place in it."""
        rules, file = self.page.rules, self.file
        is_fixed = file.sources[row].source == "unfinished"
        actions, offered = self.title_features.of(pool, row)
        slots = min(file.titles, len(pool))
        pins: dict[int, int] = {}
        if self.pins.get(row):
            place_in_pool = {title: place for place, title in enumerate(pool.tolist())}
            for position, title in self.pins[row].items():
                # A pin below the end of a short row, or shown above already, does not count.
                if title in place_in_pool and position < slots:
                    pins[position] = place_in_pool[title]
        row_left = rules.row_left(row, self.page_left + self.reserved[row])
        fresh = None
        if row in file.rules.fresh:
            count, within = file.rules.fresh[row]
            fresh = (count, self._is_new(pool, within))
        length = _with_pins(file.title_length, pins)
        if length is not None:
            length = msgspec.structs.replace(length, reach=self.reach.get(row, 1.0))
        caps = rules.caps_of(pool)

        def constraints() -> Allowed:
            own = RowConstraints(
                caps,
                slots,
                cap_left=row_left[caps.caps],
                pins=pins,
                fresh=fresh,
                least=None if length is None else length.least,
            )
            return PoolOrder(own) if is_fixed else own

        return self._decide(
            "titles",
            decision_id=f"{self.id}:{row}",
            actions=actions,
            entities=self.title_features.entities(pool),
            eligible=np.arange(len(pool)),
            slots=slots,
            offered=offered,
            place=row,
            rules=constraints,
            length=length,
            terms=self._terms(pool),
        )

    def _terms(self, pool: Indices) -> Callable[[], ScoreTerms] | None:
        """What is added to the scores of a pool's titles: boosts, and less for what is alike."""
        weight = self.file.diversity
        if self.boosts is None and not weight:
            return None
        boost = np.zeros(len(pool)) if self.boosts is None else self.boosts[pool]
        content = self.page.candidate_model.content[pool].astype(np.float64) if weight else None
        return lambda: ScoreTerms(boost, weight, content)

    def _with_boosted(self, row: str, pool: Indices, unavailable: Bools) -> Indices:
        """A row's pool by merit and boosts, with titles of the row that are boosted and would
        be too far down to be in it otherwise.
        """
        boosts = self.boosts
        if boosts is None:
            return pool
        rest = self._rest(row, pool)
        rest = self.candidates.in_order(rest[(boosts[rest] > 0.0) & ~unavailable[rest]])
        pool = np.concatenate([pool, rest[:_BOOSTED]])
        order = np.argsort(-(self.candidates.merit[pool] + boosts[pool]), kind="stable")
        return pool[order]

    def _removed(
        self, row: str, decision: Decision | None, chosen: Sequence[int]
    ) -> dict[str, int]:
        """How many of the titles that the row could be made of each rule took away; caps, of the
        candidates of its `decision`, where there were any. `chosen` are those that it shows.
        """
        model, source = self.page.candidate_model, self.file.sources[row]
        could: Indices
        if row in self.viewer.own:
            could = np.array(self.viewer.own[row], dtype=np.intp)
        else:
            if self._everything is None:
                all_titles = np.ones(len(self.page.catalog), dtype=bool)
                self._everything = model.popular_only(all_titles, self.id)
            could = self._everything.members(source)
        counts: dict[str, int] = {}
        for rule, allowed in holding_in(source, self.allowed_by_rule).items():
            counts[rule] = int(np.count_nonzero(~allowed[could]))
        not_here = self.members[row][~np.isin(self.members[row], list(chosen))]
        counts["shown above"] = int(np.count_nonzero(self.taken[not_here]))
        masks = () if decision is None else decision.masks
        for mask in masks:
            # An `only` mask demands a title, and a pin's other mask keeps its title off the
            # positions above: neither is a cap.
            if not mask.only and mask.stop > mask.start and mask.rule != "pin":
                counts[mask.rule] = counts.get(mask.rule, 0) + len(mask.rows)
        return {rule: count for rule, count in counts.items() if count}

    # ------------------------------------------------------------------ artwork

    def _choose_pictures(self, rows: Sequence[FilledRow]) -> list[Pictures]:
        """A picture for each title of each row: the artwork experiment's choice, or the title's
        first picture.
        """
        page, layer = self.page, self.layers.get("artwork")
        pictures = page.catalog.pictures
        # Titles without a picture take no position of a decision.
        pictured = [[title for title in row.titles if pictures[title]] for row in rows]
        if layer is None:
            return list(map(self._first_pictures, rows, pictured))
        with_some = [(row, titles) for row, titles in zip(rows, pictured, strict=True) if titles]
        decisions: Iterator[Decision] = iter(())
        if with_some:
            shown = page.picture_features(layer.file).of_rows([titles for _, titles in with_some])
            choices = []
            for (row, titles), own in zip(with_some, shown.rows, strict=True):
                names = list(map(page.catalog.ids.__getitem__, titles))
                choices.append(self._picture_input(row.placement.action, names, own))
            # Rows take no pictures from each other: those of all are drawn together.
            decisions = iter(layer.choose_turns(self.engine, choices, shown.turns, self.deadline))
        chosen = []
        for row, titles in zip(rows, pictured, strict=True):
            decision = next(decisions) if titles else None
            chosen.append(self._pictures_of(row.titles, titles, decision))
        return chosen

    def _picture_input(self, row: str, titles: Sequence[str], own: PicturesOnPage) -> DecisionInput:
        """What is asked of the artwork's policy for a row's `titles`."""
        return self._input(
            "artwork",
            decision_id=f"{self.id}:{row}:artwork",
            actions=own.actions,
            entities=own.entities,
            eligible=np.arange(len(own.actions)),
            slots=len(titles),
            offered=own.offered,
            place=row,
            rules=lambda: PositionChoices(titles, own.starts),
        )

    def _pictures_of(
        self, titles: Sequence[int], pictured: Sequence[int], decision: Decision | None
    ) -> Pictures:
        """The pictures of a row's titles, of which those `pictured` got what was decided."""
        if decision is None:
            return _no_pictures(len(titles))
        ids = [drawn.action for drawn in decision.slate]
        propensities = [drawn.propensity for drawn in decision.slate]
        chosen = Pictures(decision, ids, self._picture_payloads(ids), propensities)
        return chosen if len(pictured) == len(titles) else _of_titles(titles, pictured, chosen)

    def _first_pictures(self, row: FilledRow, pictured: Sequence[int]) -> Pictures:
        """The first picture of each title."""
        pictures = self.page.catalog.pictures
        ids = [pictures[title][0].id for title in pictured]
        chosen = Pictures(None, ids, self._picture_payloads(ids), [1.0] * len(ids))
        return _of_titles(row.titles, pictured, chosen)

    def _picture_payloads(self, pictures: Sequence[str]) -> list[msgspec.Raw]:
        return list(map(self.page.picture_payloads.__getitem__, pictures))

    # ------------------------------------------------------------------ decisions

    def _decide(self, name: str, **choice: Any) -> Decision:
        """Ask the engine for a layer's choice, and add it to the layer's account."""
        return self.layers[name].choose(self.engine, self._input(name, **choice), self.deadline)

    def _input(
        self, name: str, *, entities: tuple[EntityUse, ...] = (), **choice: Any
    ) -> DecisionInput:
        """What is asked for a layer's choice."""
        layer = self.layers[name]
        return DecisionInput(
            unit=self.viewer.unit,
            x=layer.x,
            context=layer.context,
            entities=layer.entities + entities,
            page=self.id,
            layer=name,
            start=self.engine.now(),
            explore=self.explore,
            **choice,
        )

    def _layer_answers(self) -> tuple[LayerAnswer, ...]:
        answers: list[LayerAnswer] = []
        for name, layer in self.layers.items():
            key = self.file.layers[name]
            answers.append(
                LayerAnswer(
                    name,  # type: ignore[arg-type]
                    key,
                    layer.variant,
                    layer.log_propensity,
                    layer.length_propensity,
                )
            )
        return tuple(answers)

    def _page_decision(self, page: PageAnswer, request: PageRequest, request_hash: str) -> Decision:
        """The page's own decision: a cell for each title, and the joint propensity of all
        layers.
        """
        log_joint = plain_sum(layer.log_propensity for layer in self.layers.values())
        return Decision(
            decision_id=self.id,
            experiment=self.file.key,
            revision=self.file.revision,
            variant=None,
            unit=self.viewer.unit,
            context=msgspec.Raw(_encode(self.page.facts(request, self.viewer, self.now))),
            actions=msgspec.Raw(_encode(page)),
            slate=cells_of(page),
            propensity=math.exp(max(log_joint, _LEAST_LOG)),
            policy="page",
            reason="fallback" if self.fallbacks else "policy",
            request_hash=request_hash,
            latency_us=int((self.engine.now() - self.start) * 1e6),
            page=self.id,
            layer="page",
        )


def _with_pins(length: Length | None, pins: Mapping[int, int]) -> Length | None:
    """The length of a slate that goes on at least to the last of its pins (position → what)."""
    if length is None or not pins:
        return length
    return msgspec.structs.replace(length, least=max(length.least, max(pins) + 1))


def _no_pictures(count: int) -> Pictures:
    """The pictures of so many titles that have none."""
    return Pictures(None, [None] * count, [NULL] * count, [1.0] * count)


def _of_titles(titles: Sequence[int], pictured: Sequence[int], chosen: Pictures) -> Pictures:
    """The pictures of these titles, where only those `pictured` have one."""
    place_of = {title: place for place, title in enumerate(pictured)}
    places = [place_of.get(title, len(pictured)) for title in titles]
    # What has no picture finds its own behind those of the others.
    ids, payloads = [*chosen.ids, None], [*chosen.payloads, NULL]
    propensities = [*chosen.propensities, 1.0]
    return Pictures(
        chosen.decision,
        [ids[place] for place in places],
        [payloads[place] for place in places],
        [propensities[place] for place in places],
    )


def _why_empty(row: RowAnswer) -> str:
    """Why a row has no titles, though it could have been made of some when rows were chosen."""
    taken = ", ".join(f"{count} {rule}" for rule, count in row.removed.items())
    return f"row {row.row}: none of its titles is left for it ({taken or 'pinned elsewhere'})"


def session_page_ids(
    page: str, unit: str, session: str, seconds: float, now: float
) -> tuple[str, str]:
    """The ids that a session's page can have at `now`: this stretch of `seconds` and the one
    before. A page made in one stretch lasts into the next, so at most one is made in each,
    whichever process makes it.
    """
    stretch = int(now // seconds)

    def id_in(number: int) -> str:
        # The word is part of every session's ids, so it stays whatever the key is called.
        return f"s{hash64('sticky', page, unit, session, str(number)):016x}{number:x}"

    return id_in(stretch), id_in(stretch - 1)
