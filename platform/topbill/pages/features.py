"""What policies are told of candidates: encoded once per title, with what depends on the viewer
filled in per page.

The same values go into the log as JSON, so that what a policy saw can be had again from the log
alone.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Sequence
from itertools import pairwise, repeat
from typing import Any

import msgspec
import numpy as np

from topbill.candidates import NEW_FOR, SOURCES, Candidates
from topbill.catalog import Bools, Catalog, Picture
from topbill.domain.features import Encoder, Feature, FeatureKind
from topbill.domain.records import Actions, Floats, Indices
from topbill.spec import Experiment

TITLE_FEATURES: dict[str, FeatureKind] = {
    "decade": "number",
    "genres": "vector",
    "popularity": "number",
    "maturity": "number",
    "new": "flag",
    "heat": "number",
    "match": "number",
    "similar": "number",
    "together": "number",
    "sources": "vector",
    "row": "category",
}
"""What a titles experiment may declare. `heat`: how trending (0 to 1); `match`: how much of the
viewer's `taste` (a vector of genres in the context) its genres have; `similar` and `together`: how
alike it is to what the viewer watched, and how much watched together (-1 to 1); `sources`: which
sources named it; `row`: whose."""
PICTURE_FEATURES: dict[str, FeatureKind] = {"tone": "category", "faces": "number", "mood": "vector"}
_STATIC = ("decade", "genres", "popularity", "maturity")
_NUMBERS = ("heat", "match", "similar", "together")
_CODES = 1 << np.arange(len(SOURCES))
_DIGITS = 3
_encode = msgspec.json.Encoder().encode


class TitleFeatures:
    """Titles encoded for one titles experiment over one catalogue."""

    def __init__(self, experiment: Experiment, catalog: Catalog) -> None:
        encoder = experiment.action_encoder
        self.declared = {feature.name: feature for feature in experiment.action_features}
        self.column = {name: j for j, name in enumerate(encoder.names)}
        self.catalog = catalog
        own = [catalog.features(row) for row in range(len(catalog))]
        static = [{name: value for name, value in f.items() if name in self.declared} for f in own]
        self.matrix: Floats = np.array([encoder.encode(features) for features in static]).reshape(
            -1, encoder.size
        )
        self.static = {
            name: [_plain(f[name]) for f in static] for name in _STATIC if name in self.declared
        }
        self.numbers = [self.declared[name] for name in _NUMBERS if name in self.declared]
        self.names = [feature.name for feature in self.numbers]
        self.places = [self.column[name] for name in self.names]
        self.scaled = _scaling(self.numbers)
        keys = self.declared["sources"].keys if "sources" in self.declared else ()
        self.sources = [
            (j, self.column[f"sources:{name}"]) for j, name in enumerate(SOURCES) if name in keys
        ]
        self.says_sources = [
            msgspec.Raw(_encode({SOURCES[j]: 1 for j, _ in self.sources if code >> j & 1}))
            for code in range(1 << len(SOURCES))
        ]
        features = msgspec.defstruct("Features", [(name, Any) for name in self.declared], gc=False)
        self.offer = msgspec.defstruct("Offer", [("id", str), ("features", features)], gc=False)
        self.features = features

    def on_page(self, sight: Candidates, heat: Floats, match: Floats, now: float) -> TitlesOnPage:
        """The same with what depends on the page: `heat` and `match` (T), and what the `sight` says
        of its viewer.
        """
        values = {
            "heat": heat,
            "match": match,
            "similar": sight.similar,
            "together": sight.together,
        }
        told = [values[feature.name] for feature in self.numbers]
        return TitlesOnPage(
            self,
            np.array(told, dtype=np.float64).reshape(len(told), len(match)),
            sight.sources,
            now,
        )


class TitlesOnPage:
    """What policies are told of titles on one page. `values` (n × T) are the numbers that depend on
    the viewer.
    """

    def __init__(self, titles: TitleFeatures, values: Floats, sources: Bools, now: float) -> None:
        self._titles, self._values, self._sources, self._now = titles, values, sources, now

    def of(self, pool: Indices, row: str) -> tuple[Actions, msgspec.Raw]:
        """The pool's titles in a row as encoded actions, and as the JSON that says the same."""
        t = self._titles
        X = t.matrix[pool]
        rows = pool.tolist()
        told: dict[str, Iterable[Any]] = {
            name: [column[i] for i in rows] for name, column in t.static.items()
        }
        if t.numbers:
            values = self._values[:, pool].round(_DIGITS) + 0.0
            X[:, t.places] = t.scaled(values).T
            told |= zip(t.names, values.tolist(), strict=True)
        if "new" in t.declared:
            age = self._now - t.catalog.added[pool]
            new = (age >= 0.0) & (age < NEW_FOR)
            X[:, t.column["new"]] = new
            told["new"] = new.tolist()
        if "sources" in t.declared:
            flags = self._sources[pool]
            for j, at in t.sources:
                X[:, at] = flags[:, j]
            told["sources"] = [t.says_sources[code] for code in (flags @ _CODES).tolist()]
        if "row" in t.declared:
            if f"row={row}" in t.column:
                X[:, t.column[f"row={row}"]] = 1.0
            told["row"] = repeat(row)
        ids = [t.catalog.ids[i] for i in rows]
        features = (
            map(t.features, *(told[name] for name in t.declared)) if told else repeat(t.features())
        )
        return Actions(ids, X), msgspec.Raw(_encode(list(map(t.offer, ids, features))))


class PictureFeatures:
    """Every title's pictures encoded for one artwork experiment over one catalogue."""

    def __init__(self, experiment: Experiment, catalog: Catalog) -> None:
        encoder = experiment.action_encoder
        declared = {feature.name for feature in experiment.action_features}
        self._per_title = [_pictures(pictures, encoder, declared) for pictures in catalog.pictures]
        self._matrix: Floats = np.concatenate([matrix for _, matrix, _ in self._per_title])
        self._end = np.cumsum([len(own) for own, _, _ in self._per_title]).tolist()

    def of(self, titles: Sequence[int]) -> tuple[Actions, msgspec.Raw, list[Indices]]:
        """The pictures of these titles as actions and as JSON, and which of them are each
        title's.
        """
        ids: list[str] = []
        rows: list[int] = []
        starts = [0]
        for title in titles:
            own = self._per_title[title][0]
            ids += own
            rows += range(self._end[title] - len(own), self._end[title])
            starts.append(len(ids))
        text = ",".join([self._per_title[title][2] for title in titles])
        places = np.arange(len(ids))
        turns = [places[a:b] for a, b in pairwise(starts)]
        return Actions(ids, self._matrix[rows]), msgspec.Raw(f"[{text}]".encode()), turns


def _pictures(
    pictures: Sequence[Picture], encoder: Encoder, declared: set[str]
) -> tuple[list[str], Floats, str]:
    features = [
        {name: value for name, value in p.features.items() if name in declared} for p in pictures
    ]
    matrix = np.array([encoder.encode(f) for f in features]).reshape(len(pictures), encoder.size)
    told = [
        _encode({"id": p.id, "features": f}).decode()
        for p, f in zip(pictures, features, strict=True)
    ]
    return [p.id for p in pictures], matrix, ",".join(told)


def _plain(value: Any) -> Any:
    """A title's own value, as JSON already where it is more than a number."""
    return msgspec.Raw(_encode(value)) if isinstance(value, dict) else value


def _scaling(numbers: Sequence[Feature]) -> Callable[[Floats], Floats]:
    """How the encoder scales these numbers (n × titles): those with both ends from -1 to 1, the
    others not.
    """
    ends = [None if f.low is None or f.high is None else (f.low, f.high) for f in numbers]
    if not any(ends):
        return lambda values: values
    found = [
        (1.0, 0.0, np.inf) if e is None else (2.0 / (e[1] - e[0]), (e[1] + e[0]) / 2.0, 1.0)
        for e in ends
    ]
    scale, middle, bound = np.array(found).reshape(-1, 3, 1).transpose(1, 0, 2)
    return lambda values: np.clip((values - middle) * scale, -bound, bound)
