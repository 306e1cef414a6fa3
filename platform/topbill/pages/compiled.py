"""A page file compiled over its catalogue: everything that composing needs and that does not depend
on a viewer, worked out once.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from itertools import compress
from typing import Any

import msgspec

from topbill.candidates import CandidateModel, Signals
from topbill.catalog import Catalog
from topbill.domain.errors import FileProblem
from topbill.domain.records import NULL, Action, Actions
from topbill.engine import CompiledExperiment, Engine
from topbill.pages.boosts import CompiledBoosts
from topbill.pages.candidate_table import CandidateTable
from topbill.pages.checks import check
from topbill.pages.external import NOTHING, External, external
from topbill.pages.features import PictureFeatures, TitleFeatures
from topbill.pages.files import PageFile
from topbill.pages.notes import layers_of, notes
from topbill.pages.own_signal import signal_rows
from topbill.pages.request import PageRequest
from topbill.pages.viewer_rows import own_titles
from topbill.pages.viewing_history import NOBODY, KnownViewer
from topbill.rules import CompiledRules

_encode = msgspec.json.Encoder().encode
_LARGEST_AGE = 99
"""The age limit of a profile that has none: above every title's."""


@dataclass(frozen=True)
class Viewer:
    """Who looks at a page.

    Attributes:
        unit: Who is randomised.
        identified: Whether that is the id of somebody, by which features may be looked up.
        region: Where the viewer is.
        age: The age limit, in years: titles for older viewers are not shown.
        watched: Rows of the catalogue that the viewer liked, newest last; `worth` what each says
            of the viewer's taste, 1 for a fresh play, all the same where it is empty.
        shown: Row of the catalogue → on how many pages it was since the viewer played it last.
        resting: Rule → the rows of the catalogue that it keeps from this viewer for now: `fatigue`
            what was shown often and never played, `seen` what was watched, `disliked` what the
            viewer's events speak against.
        own: Row → what it is made of for this viewer alone, before any rule, first choice first.
        liked: Titles that the viewer liked and has not left unfinished, the last one first.
        external: What the request brings.
    """

    unit: str
    region: str
    age: int
    watched: tuple[int, ...] = ()
    resting: Mapping[str, Sequence[int]] = field(default_factory=dict)
    own: Mapping[str, tuple[int, ...]] = field(default_factory=dict)
    liked: tuple[int, ...] = ()
    identified: bool = True
    external: External = NOTHING
    worth: tuple[float, ...] = ()
    shown: Mapping[int, int] = field(default_factory=dict)


class CompiledPage:
    """One page file over one catalogue, ready to compose. Immutable but for caches and signals;
    replaced as a whole when the file or its catalogue changes.

    `stale` says what is wrong with the page's own catalogue, where this is an earlier one; `notes`
    what is no mistake but must be known (`pages.notes`).
    """

    def __init__(
        self,
        file: PageFile,
        engine: Engine,
        catalog: Catalog,
        signals: Signals | None = None,
        stale: FileProblem | None = None,
        tables: Mapping[str, CandidateTable] | None = None,
    ) -> None:
        """Compile the page. `tables`: row → its table of candidates, where it has one.

        Raises:
            SpecError: The page and the catalogue contradict each other; with every contradiction.
                Or a signal of its rows can't be used.
            NotFound: The engine has no experiment of a layer.
        """
        self.file, self.engine, self.catalog, self.stale = file, engine, catalog, stale
        self.candidate_model = CandidateModel(catalog, signals)
        self.rules = CompiledRules(file.rules, catalog)
        self.boosts = CompiledBoosts(file.boosts, catalog)
        self._layers = [engine.find(key) for key in file.layers.values()]
        layers = [compiled.experiment for compiled in self._layers]
        check(file, self.rules, layers_of(file, layers))
        self.own_signals = signal_rows(file.signal_rows, catalog, file.source)
        self.tables: Mapping[str, CandidateTable] = {} if tables is None else tables
        self.notes = notes(file, catalog, layers, self.tables)
        # Written as JSON once: a page's answer then only puts texts together.
        self.title_payloads: list[msgspec.Raw] = []
        self.picture_payloads: dict[str, msgspec.Raw] = {}
        for row, pictures in enumerate(catalog.pictures):
            self.title_payloads.append(msgspec.Raw(_encode(catalog.payload(row))))
            for picture in pictures:
                self.picture_payloads[picture.id] = msgspec.Raw(_encode(picture.payload))
        # (the experiment's revision, what was encoded for it); encoded here already, so that the
        # first viewer does not wait.
        self._title_features: tuple[str, TitleFeatures] | None = None
        self._picture_features: tuple[str, PictureFeatures] | None = None
        self._row_actions: tuple[str, Actions, msgspec.Raw] | None = None
        for layer, key in file.layers.items():
            compiled = engine.find(key)
            if layer == "titles":
                self.title_features(compiled)
            elif layer == "artwork":
                self.picture_features(compiled)

    def is_of(self, file: PageFile) -> bool:
        """Whether it is this file's, over the file's own catalogue as far as was known, and for the
        experiments that the engine has now.
        """
        layers = [self.engine.experiments.get(key) for key in file.layers.values()]
        return self.stale is None and self.file == file and layers == self._layers

    def renew(self, signals: Signals | None) -> None:
        """Take over new signals; a page under way keeps what it began with."""
        self.candidate_model = self.candidate_model.renewed(signals)

    def renew_features(self) -> None:
        """Take over what tables say by now of titles and pictures: here, where no viewer waits. A
        page under way keeps what it began with.
        """
        layers = self.file.layers
        titles = self.engine.find(layers["titles"])
        features = TitleFeatures(titles.experiment, self.catalog, titles.lookup)
        self._title_features = (titles.revision, features)
        if "artwork" in layers:
            artwork = self.engine.find(layers["artwork"])
            pictures = PictureFeatures(artwork.experiment, self.catalog, artwork.lookup)
            self._picture_features = (artwork.revision, pictures)

    @property
    def unit_types(self) -> frozenset[str]:
        """What the page's experiments call their units: events of such units are its viewers'."""
        experiments = self.engine.experiments.values()
        return self.file.unit_types(compiled.experiment for compiled in experiments)

    def title_features(self, compiled: CompiledExperiment) -> TitleFeatures:
        """The titles encoded for the titles experiment, anew when its file has changed."""
        cached = self._title_features
        if cached is None or cached[0] != compiled.revision:
            features = TitleFeatures(compiled.experiment, self.catalog, compiled.lookup)
            cached = (compiled.revision, features)
            self._title_features = cached
        return cached[1]

    def picture_features(self, compiled: CompiledExperiment) -> PictureFeatures:
        """The pictures encoded for the artwork experiment, anew when its file has changed."""
        cached = self._picture_features
        if cached is None or cached[0] != compiled.revision:
            features = PictureFeatures(compiled.experiment, self.catalog, compiled.lookup)
            cached = (compiled.revision, features)
            self._picture_features = cached
        return cached[1]

    def row_actions(self, compiled: CompiledExperiment) -> tuple[Actions, msgspec.Raw]:
        """The page's rows as actions of the rows experiment, and as JSON: null where they are the
        experiment's own. A row that is several has an action for each, all with its features.
        """
        repeats = self.file.repeats
        if not repeats:
            return compiled.actions, NULL
        cached = self._row_actions
        if cached is None or cached[0] != compiled.revision:
            own = {action.id: action for action in compiled.experiment.actions}
            actions = []
            for row in self.file.sources:
                features = own[repeats.get(row, row)].features
                actions.append(Action(id=row, features=features))
            offered = [{"id": action.id, "features": action.features} for action in actions]
            encoded = compiled.action_encoder.encode_actions(actions)
            cached = (compiled.revision, encoded, msgspec.Raw(_encode(offered)))
            self._row_actions = cached
        return cached[1], cached[2]

    def viewer(
        self,
        request: PageRequest,
        page_id: str,
        known: KnownViewer = NOBODY,
        *,
        unit: str | None = None,
    ) -> Viewer:
        """The viewer of a request.

        Args:
            request: What was asked for.
            page_id: The page's id, by which somebody is randomised who is nobody: neither a
                profile nor a session.
            known: What is known of the viewer beside it. What the request says to have been
                watched is taken as watched just now.
            unit: The request's unit as it is stored, where that is not as it was sent.

        Raises:
            BadRequest: It brings candidates for a row that takes none.
        """
        rows_of = self.catalog.rows_of
        brought = external(request, self.file.sources, self.catalog, self.tables)
        resting = {rule: rows_of(titles) for rule, titles in known.resting.items()}
        if request.watched is not None:
            resting["seen"] = sorted({*resting.get("seen", ()), *rows_of(request.watched)})
        # Who says what was watched says it in order alone.
        plays, worth = known.watched, known.worth
        if request.watched is not None:
            plays, worth = tuple(request.watched), (1.0,) * len(request.watched)
        index = self.catalog.index
        known_plays = [title in index for title in plays]
        just_watched = frozenset(request.watched or ())
        own = own_titles(
            self.file.sources, self.catalog, known, self.file.rules.again_after, just_watched
        )
        begun = {title for title, _ in known.unfinished if title not in just_watched}
        liked = [title for title in reversed(plays) if title not in begun]
        return Viewer(
            unit=unit or request.unit or page_id,
            region=request.region or self.file.region,
            age=self._age_limit(request),
            watched=tuple(rows_of(plays)),
            worth=tuple(compress(worth, known_plays)),
            resting=resting,
            own=own | brought.rows,
            external=brought,
            liked=tuple(rows_of(dict.fromkeys(liked))),
            identified=request.profile is not None,
            shown={index[title]: pages for title, pages in known.shown.items() if title in index},
        )

    def _age_limit(self, request: PageRequest) -> int:
        """The strictest of the limits that hold: a guest on a kids' device is a kid."""
        limits = [_LARGEST_AGE if request.maturity is None else request.maturity]
        if request.kids:
            limits.append(self.file.kids_max_age)
        if request.profile is None:
            limits.append(self.file.guest_max_age)
        return min(limits)

    def facts(self, request: PageRequest, viewer: Viewer, now: float) -> dict[str, Any]:
        """What the page's own decision says of the viewer: enough to tell later what the rules
        removed (`explain_title` reads it).
        """
        ids, resting = self.catalog.ids, viewer.resting.items()
        own = {row: [ids[title] for title in titles] for row, titles in viewer.own.items()}
        made_of = {"made_of": own} if own else {}
        return {
            "context": request.context,
            "region": viewer.region,
            "age": viewer.age,
            "account": request.account,
            "guest": request.profile is None,
            "watched": len(viewer.watched),
            **({} if request.after is None else {"after": request.after}),
            **({"boosts": boosts} if (boosts := self.boosts.told(now)) else {}),
            **({"lengths": lengths} if (lengths := self.file.lengths) else {}),
            "resting": {rule: [ids[title] for title in titles] for rule, titles in resting},
            **made_of,
        }
