"""Composes pages: one page file over one catalogue, every choice made by the engine.

All decisions of a page, with the page's own, go to the log together.
"""

from __future__ import annotations

import logging
from collections.abc import Callable, Sequence
from typing import Any

import msgspec

from topbill.candidates import CandidateModel, Signals
from topbill.catalog import Catalog
from topbill.domain.chance import hash64
from topbill.domain.errors import BadRequest, Problem
from topbill.engine import CompiledExperiment, Engine, decode_context
from topbill.pages.answers import PageRequest
from topbill.pages.attempt import Attempt, Composed, Viewer
from topbill.pages.checks import check
from topbill.pages.features import PictureFeatures, TitleFeatures
from topbill.pages.files import PageFile
from topbill.rules import House

_logger = logging.getLogger("topbill")
_encode = msgspec.json.Encoder().encode
_LARGEST_AGE = 99


class Composer:
    """One page file over one catalogue, ready to compose. Immutable but for caches; replaced as a
    whole.

    `stale` says what is wrong with the page's own catalogue, where this is an earlier one.
    """

    def __init__(
        self,
        file: PageFile,
        engine: Engine,
        catalog: Catalog,
        signals: Signals | None = None,
        stale: Problem | None = None,
    ) -> None:
        self.file, self.engine, self.catalog, self.stale = file, engine, catalog, stale
        self.candidate_model = CandidateModel(catalog, signals)
        self.house = House(file.rules, catalog)
        check(file, self.house)
        self.payloads = [msgspec.Raw(_encode(catalog.payload(row))) for row in range(len(catalog))]
        self.pictures = {
            p.id: msgspec.Raw(_encode(p.payload)) for pictures in catalog.pictures for p in pictures
        }
        self._features: dict[str, tuple[str, Any]] = {}
        for layer in file.layers:
            self.encoded(layer, engine.find(file.layers[layer]))

    def renew(self, signals: Signals | None) -> None:
        """Take over new signals; a page under way keeps what it began with."""
        self.candidate_model = self.candidate_model.renewed(signals)

    def encoded(self, layer: str, live: CompiledExperiment) -> Any:
        """The catalogue encoded for a layer's experiment, anew when its file has changed."""
        held = self._features.get(layer)
        if held is None or held[0] != live.revision:
            kind: Callable[..., Any] | None = {
                "titles": TitleFeatures,
                "artwork": PictureFeatures,
            }.get(layer)
            held = (live.revision, None if kind is None else kind(live.experiment, self.catalog))
            self._features[layer] = held
        return held[1]

    def viewer(
        self,
        request: PageRequest,
        page_id: str,
        watched: Sequence[str] = (),
        tired: Callable[[], frozenset[int]] = frozenset,
    ) -> Viewer:
        """The viewer of a request. `watched` and `tired` are what the service knows, where the
        request doesn't say.
        """
        ages = [_LARGEST_AGE if request.maturity is None else request.maturity]
        if request.kids:
            ages.append(self.file.kids_max_age)
        if request.profile is None:
            ages.append(self.file.guest_max_age)
        plays = watched if request.watched is None else request.watched
        index = self.catalog.index
        return Viewer(
            unit=request.unit or page_id,
            region=request.region or self.file.region,
            age=min(ages),
            watched=tuple(index[title] for title in plays if title in index),
            tired=tired(),
        )

    def compose(
        self, request: PageRequest, viewer: Viewer, page_id: str, now: float, request_hash: str = ""
    ) -> Composed:
        """The page for a viewer at `now` (seconds since the epoch), not yet stored.

        Raises BadRequest for a context that no layer declares. Whatever else fails, a page is made:
        without policies and signals in the worst case, and it says so.
        """
        context = _context(request)
        try:
            return Attempt(self, context, viewer, page_id, now).page(request, request_hash)
        except BadRequest:
            raise
        except Exception:
            _logger.exception(
                "page %s: composing failed; its viewers get the editors' page", self.file.key
            )
            return Attempt(self, context, viewer, page_id, now, plain=True).page(
                request, request_hash
            )


def _context(request: PageRequest) -> dict[str, Any]:
    context = decode_context(request.context)
    if not isinstance(context, dict):
        raise BadRequest("$.context", "expected a mapping from feature name to value")
    return context


def sticky_ids(page: str, unit: str, session: str, seconds: float, now: float) -> tuple[str, str]:
    """The ids that a session's page can have at `now`: this stretch of `seconds` and the one
    before. A page made in one stretch lasts into the next, so at most one is made in each,
    whichever process makes it."""
    stretch = int(now // seconds)
    this, before = (
        f"s{hash64('sticky', page, unit, session, str(n)):016x}{n:x}"
        for n in (stretch, stretch - 1)
    )
    return this, before
