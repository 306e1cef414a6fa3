"""One page while it is composed: rows, then each row's titles below what stands above, then their
pictures.
"""

from __future__ import annotations

import logging
import math
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import msgspec
import numpy as np

from topbill.candidates import Candidates
from topbill.catalog import Bools
from topbill.domain.records import NULL, Decision, Indices, Placement
from topbill.engine import DecisionInput
from topbill.pages.answers import LayerAnswer, PageAnswer, PageRequest, RowAnswer, Tile
from topbill.pages.features import TitlesOnPage
from topbill.pages.layers import Layer, PinnedRows, refuse_unknown
from topbill.rules import Filling, Turns

if TYPE_CHECKING:
    from topbill.pages.compose import Composer

_logger = logging.getLogger("topbill")
_encode = msgspec.json.Encoder().encode


@dataclass(frozen=True)
class Viewer:
    """Who looks: `unit` is randomised, `age` the limit, `watched` rows of the catalogue, `tired`
    those that rest.
    """

    unit: str
    region: str
    age: int
    watched: tuple[int, ...] = ()
    tired: frozenset[int] = frozenset()


class Composed(msgspec.Struct, frozen=True):
    """A page that is ready to be stored, and then answered."""

    answer: PageAnswer
    decisions: tuple[Decision, ...]


class Attempt:
    """One page while it is composed."""

    def __init__(
        self,
        composer: Composer,
        context: Mapping[str, Any],
        viewer: Viewer,
        page_id: str,
        now: float,
        plain: bool = False,
    ) -> None:
        self.c, self.file, self.engine = composer, composer.file, composer.engine
        self.viewer, self.id, self.now = viewer, page_id, now
        self.start = self.engine.now()
        self.deadline = -math.inf if plain else self.start + self.file.budget_ms / 1e3
        self.layers = {
            name: Layer(self.engine.find(key), context) for name, key in self.file.layers.items()
        }
        refuse_unknown(context, self.layers.values())
        self.fallbacks: list[str] = ["catalogue"] * (composer.stale is not None) + ["page"] * plain
        before = composer.house.before(viewer.region, viewer.age, now, viewer.tired)
        self.before = before
        self.open: Bools = np.logical_and.reduce(list(before.values()))
        self.sight = self._look(plain)
        match = composer.catalog.match(
            context.get("taste") if _vector(self.layers.values(), "taste") else None
        )
        titles = composer.encoded("titles", self.layers["titles"].live)
        self.sheet: TitlesOnPage = titles.on_page(
            self.sight, composer.candidate_model.trending, match, now
        )
        self.taken: Bools = np.zeros(len(composer.catalog), dtype=bool)
        self.page_left = composer.house.page_left()

    def _look(self, plain: bool) -> Candidates:
        """The candidates; popular titles alone where the first stage fails or has no time."""
        stage, viewer = self.c.candidate_model, self.viewer
        if not plain:
            try:
                sight = stage.candidates_for(
                    viewer.region, viewer.watched, self.open, self.now, self.id
                )
                if self.engine.now() <= self.deadline:
                    return sight
                self.fallbacks.append("candidates")
            except Exception:
                _logger.exception(
                    "page %s: candidates failed; its viewers get popular titles", self.file.key
                )
                self.fallbacks.append("candidates")
        return stage.popular_only(self.open, self.id)

    def page(self, request: PageRequest, request_hash: str) -> Composed:
        """All layers, one below the other."""
        rows = self._rows()
        groups = self.c.house.groups
        self.reserved = {
            p.action: groups[list(self._pins(p.action).values())].sum(axis=0) for p in rows.slate
        }
        for kept in self.reserved.values():
            self.page_left = self.page_left - kept
        decisions = [rows]
        answers: list[RowAnswer] = []
        cells: list[Placement] = []
        for placed in rows.slate:
            answer, made = self._row(placed)
            answers.append(answer)
            decisions += made
            row_p = placed.propensity
            for tile in answer.titles:
                cells.append(
                    Placement(
                        len(cells), tile.title, row_p * tile.propensity * tile.picture_propensity
                    )
                )
                row_p = 1.0
        self.fallbacks += [name for name, layer in self.layers.items() if layer.failed]
        page = PageAnswer(
            self.id,
            self.file.key,
            tuple(
                LayerAnswer(name, self.file.layers[name], layer.variant, layer.log_propensity)  # type: ignore[arg-type]
                for name, layer in self.layers.items()
            ),
            tuple(answers),
            tuple(self.fallbacks),
        )
        return Composed(page, (self._own(page, cells, request, request_hash), *decisions))

    def _own(
        self, page: PageAnswer, cells: Sequence[Placement], request: PageRequest, request_hash: str
    ) -> Decision:
        """The page's own decision: a cell for each title, and the joint propensity of all
        layers.
        """
        joint = math.exp(max(sum(layer.log_propensity for layer in self.layers.values()), -745.0))
        return Decision(
            decision_id=self.id,
            experiment=self.file.key,
            revision=self.file.revision,
            variant=None,
            unit=self.viewer.unit,
            context=msgspec.Raw(_encode(_facts(request, self.viewer, self.c.catalog.ids))),
            actions=msgspec.Raw(_encode(page)),
            slate=tuple(cells),
            propensity=joint,
            policy="page",
            reason="fallback" if self.fallbacks else "policy",
            request_hash=request_hash,
            micros=int((self.engine.now() - self.start) * 1e6),
            page=self.id,
            layer="page",
        )

    def _ask(self, name: str, **asked: Any) -> Decision:
        layer, unit = self.layers[name], self.viewer.unit
        question = DecisionInput(
            unit=unit,
            x=layer.x,
            context=layer.context,
            page=self.id,
            layer=name,
            start=self.engine.now(),
            **asked,
        )
        return layer.note(self.engine.choose(layer.live, question, self.deadline))

    def _rows(self) -> Decision:
        """Which rows, in which order: only rows that have a title to show, with the editors'
        pins.
        """
        layer, file = self.layers["rows"], self.file
        ids = layer.live.actions.ids
        self.members = {row: self.sight.members(file.sources[row]) for row in ids}
        filled = [j for j, row in enumerate(ids) if len(self.members[row]) or self._pins(row)]
        if not filled:
            filled = list(range(len(ids)))
        pins = {file.pinned[ids[j]]: j for j in filled if ids[j] in file.pinned}
        eligible = np.array(filled, dtype=np.intp)
        return self._ask(
            "rows",
            decision_id=f"{self.id}:rows",
            actions=layer.live.actions,
            eligible=eligible,
            slots=file.rows,
            offered=NULL,
            rules=(lambda: PinnedRows(eligible, file.rows, pins)) if pins else None,
        )

    def _pins(self, row: str) -> dict[int, int]:
        """Position → title of this row's pins that this viewer may see."""
        held = self.c.house.pins.get(row, {})
        return {position: title for position, title in held.items() if self.open[title]}

    def _row(self, placed: Placement) -> tuple[RowAnswer, list[Decision]]:
        """One row: its titles, then their pictures."""
        c, file, row = self.c, self.file, placed.action
        chosen: list[int] = []
        decisions: list[Decision] = []
        pool = self._pool(row)
        tiles: list[tuple[str, float]] = []
        if len(pool):
            titles = self._titles(row, pool)
            decisions.append(titles)
            index = c.catalog.index
            chosen = [index[p.action] for p in titles.slate]
            tiles = [(p.action, p.propensity) for p in titles.slate]
            self.taken[chosen] = True
            self.page_left = (
                self.page_left + self.reserved[row] - c.house.groups[chosen].sum(axis=0)
            )
        pictures = self._artwork(row, chosen, decisions)
        payload = self.layers["rows"].live.payloads.get(row, NULL)
        shown = tuple(
            Tile(title, c.payloads[i], p, *pictures[k])
            for k, (i, (title, p)) in enumerate(zip(chosen, tiles, strict=True))
        )
        missing = file.titles - len(shown)
        removed = self._removed(row, decisions) if missing else {}
        return RowAnswer(row, payload, placed.propensity, shown, missing, removed), decisions

    def _pool(self, row: str) -> Indices:
        """The row's candidates: what no rule has removed, no row above shows, and no other row has
        pinned.
        """
        c = self.c
        elsewhere = [
            title for other in c.house.pins if other != row for title in self._pins(other).values()
        ]
        taken = self.taken.copy()
        taken[elsewhere] = True
        pool = self.sight.pool(row, self.file.sources[row], taken, self.file.candidates)
        if row in self.file.rules.fresh:
            count, within = self.file.rules.fresh[row]
            rest = np.setdiff1d(self.members[row], pool)
            rest = rest[self._new(rest, within) & ~taken[rest]]
            short = max(0, 3 * count - int(self._new(pool, within).sum()))
            pool = c.candidate_model.in_order(np.concatenate([pool, rest[:short]]))
        pins = [
            title
            for title in self._pins(row).values()
            if not self.taken[title] and title not in pool
        ]
        return np.concatenate([np.array(pins, dtype=np.intp), pool]) if pins else pool

    def _new(self, titles: Indices, within: float) -> Bools:
        """Which of these were added less than `within` seconds ago."""
        age = self.now - self.c.catalog.added[titles]
        return np.asarray((age >= 0.0) & (age < within))

    def _titles(self, row: str, pool: Indices) -> Decision:
        c, file = self.c, self.file
        actions, told = self.sheet.of(pool, row)
        place = {title: i for i, title in enumerate(pool.tolist())}
        slots = min(file.titles, len(pool))
        pins = {
            k: place[title] for k, title in self._pins(row).items() if title in place and k < slots
        }
        left = c.house.row_left(row, self.page_left + self.reserved[row])
        fresh = None
        if row in file.rules.fresh:
            count, within = file.rules.fresh[row]
            fresh = (count, self._new(pool, within))
        groups, members = c.house.groups[pool], [c.house.members[title] for title in pool.tolist()]
        return self._ask(
            "titles",
            decision_id=f"{self.id}:{row}",
            actions=actions,
            eligible=np.arange(len(pool)),
            slots=slots,
            offered=told,
            place=row,
            rules=lambda: Filling(
                groups, members, c.house.names, slots, left=left, pins=pins, fresh=fresh
            ),
        )

    def _artwork(
        self, row: str, chosen: Sequence[int], decisions: list[Decision]
    ) -> list[tuple[str | None, msgspec.Raw, float]]:
        """A picture for each title: the artwork experiment's choice, or the title's first
        picture.
        """
        c, layer = self.c, self.layers.get("artwork")
        own = c.catalog.pictures
        if layer is None:
            first = [own[i][0].id if own[i] else None for i in chosen]
            return [(name, c.pictures.get(name or "", NULL), 1.0) for name in first]
        pictured = [i for i in chosen if own[i]]
        found: dict[int, tuple[str | None, msgspec.Raw, float]] = {}
        if pictured:
            actions, told, turns = c.encoded("artwork", layer.live).of(pictured)
            names = [c.catalog.ids[i] for i in pictured]
            decision = self._ask(
                "artwork",
                decision_id=f"{self.id}:{row}:artwork",
                actions=actions,
                eligible=np.arange(len(actions)),
                slots=len(pictured),
                offered=told,
                place=row,
                rules=lambda: Turns(names, turns),
            )
            decisions.append(decision)
            for i, p in zip(pictured, decision.slate, strict=True):
                found[i] = (p.action, c.pictures[p.action], p.propensity)
        return [found.get(i, (None, NULL, 1.0)) for i in chosen]

    def _removed(self, row: str, decisions: Sequence[Decision]) -> dict[str, int]:
        """How many of the titles that the row could be made of each rule took away; caps, of its
        candidates.
        """
        everything = self.c.candidate_model.popular_only(
            np.ones(len(self.c.catalog), dtype=bool), self.id
        )
        could = everything.members(self.file.sources[row])
        counts = {rule: int(np.count_nonzero(~lets[could])) for rule, lets in self.before.items()}
        counts["shown above"] = int(np.count_nonzero(self.taken[self.members[row]]))
        for mask in (mask for d in decisions if d.layer == "titles" for mask in d.masks):
            if not mask.only and mask.stop > mask.start and mask.rule != "pin":
                counts[mask.rule] = counts.get(mask.rule, 0) + len(mask.rows)
        return {rule: count for rule, count in counts.items() if count}


def _facts(request: PageRequest, viewer: Viewer, ids: Sequence[str]) -> dict[str, Any]:
    """What the page's own decision says of the viewer: enough to tell later what the rules
    removed.
    """
    return {
        "context": request.context,
        "region": viewer.region,
        "age": viewer.age,
        "account": request.account,
        "guest": request.profile is None,
        "watched": len(viewer.watched),
        "tired": [ids[title] for title in sorted(viewer.tired)],
    }


def _vector(layers: Iterable[Layer], name: str) -> bool:
    """Whether a layer declares this feature of the context as a vector."""
    return any(
        f.name == name and f.kind == "vector"
        for layer in layers
        for f in layer.live.experiment.context
    )
