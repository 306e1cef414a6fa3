"""What policies are told of candidates: encoded once per title, with what depends on the viewer filled in per page.

The same values go into the log as JSON, so that what a policy saw can be had again from the log alone.
"""

from __future__ import annotations

from collections.abc import Sequence
from itertools import pairwise
from typing import Any

import msgspec
import numpy as np
from numpy.typing import NDArray

from topbill.candidates import NEW_FOR, SOURCES, Sight
from topbill.catalog import Catalog, Picture
from topbill.features import Encoder, Feature, FeatureKind
from topbill.records import Actions, Floats, Indices
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
"""What a titles experiment may declare. `heat`: how trending (0 to 1); `match`: how much of the viewer's `taste` (a
vector of genres in the context) its genres have; `similar` and `together`: how alike it is to what the viewer watched,
and how much watched together (-1 to 1); `sources`: which sources named it; `row`: whose."""
PICTURE_FEATURES: dict[str, FeatureKind] = {"tone": "category", "faces": "number", "mood": "vector"}
_STATIC = ("decade", "genres", "popularity", "maturity")
_DIGITS = 3
_encode = msgspec.json.Encoder().encode


class TitleFeatures:
    """Titles encoded for one titles experiment over one catalogue."""

    def __init__(self, experiment: Experiment, catalog: Catalog) -> None:
        encoder = experiment.action_encoder
        declared = {feature.name: feature for feature in experiment.action_features}
        self._catalog = catalog
        self._declared = declared
        static = [
            {name: value for name, value in catalog.features(row).items() if name in declared}
            for row in range(len(catalog))
        ]
        self._matrix: Floats = np.array([encoder.encode(features) for features in static]).reshape(-1, encoder.size)
        more = any(name not in _STATIC for name in declared)
        self._told = [_opening(catalog.ids[row], features, more) for row, features in enumerate(static)]
        self._column = {name: j for j, name in enumerate(encoder.names)}
        self._numbers = [declared[name] for name in ("heat", "match", "similar", "together") if name in declared]
        keys = declared["sources"].keys if "sources" in declared else ()
        self._sources = [(j, self._column[f"sources:{name}"]) for j, name in enumerate(SOURCES) if name in keys]
        self._says_sources = [
            ",".join(f'"{SOURCES[j]}":1' for j, _ in self._sources if code >> j & 1)
            for code in range(1 << len(SOURCES))
        ]

    def of(
        self, pool: Indices, row: str, sight: Sight, heat: Floats, match: Floats, now: float
    ) -> tuple[Actions, msgspec.Raw]:
        """The pool's titles as encoded actions, and as the JSON that says the same."""
        X = self._matrix[pool]
        told: list[list[str]] = []
        if "new" in self._declared:
            age = now - self._catalog.added[pool]
            new = (age >= 0.0) & (age < NEW_FOR)
            X[:, self._column["new"]] = new
            told.append(['"new":true' if flag else '"new":false' for flag in new.tolist()])
        values: dict[str, NDArray[Any]] = {
            "heat": heat,
            "match": match,
            "similar": sight.similar,
            "together": sight.together,
        }
        for feature in self._numbers:
            rounded = np.round(values[feature.name][pool].astype(np.float64), _DIGITS)
            found: Floats = np.asarray(rounded + 0.0, dtype=np.float64)
            X[:, self._column[feature.name]] = _scaled(feature, found)
            told.append([f'"{feature.name}":{value}' for value in found.tolist()])
        if self._sources:
            flags = sight.sources[pool]
            for j, column in self._sources:
                X[:, column] = flags[:, j]
            codes = (flags << np.arange(len(SOURCES))).sum(axis=1)
            told.append([f'"sources":{{{self._says_sources[code]}}}' for code in codes.tolist()])
        if "row" in self._declared:
            if f"row={row}" in self._column:
                X[:, self._column[f"row={row}"]] = 1.0
            told.append([f'"row":"{row}"'] * len(pool))
        rows = pool.tolist()
        parts = [",".join(parts) for parts in zip(*told, strict=True)] if told else [""] * len(rows)
        text = ",".join(f"{self._told[i]}{part}}}}}" for i, part in zip(rows, parts, strict=True))
        ids = self._catalog.ids
        return Actions([ids[i] for i in rows], X), msgspec.Raw(f"[{text}]".encode())


class PictureFeatures:
    """Every title's pictures encoded for one artwork experiment over one catalogue."""

    def __init__(self, experiment: Experiment, catalog: Catalog) -> None:
        encoder = experiment.action_encoder
        declared = {feature.name for feature in experiment.action_features}
        self._per_title = [_pictures(pictures, encoder, declared) for pictures in catalog.pictures]
        self._matrix: Floats = np.concatenate([matrix for _, matrix, _ in self._per_title])
        self._end = np.cumsum([len(own) for own, _, _ in self._per_title]).tolist()

    def of(self, titles: Sequence[int]) -> tuple[Actions, msgspec.Raw, list[Indices]]:
        """The pictures of these titles as actions and as JSON, and which of them are each title's."""
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


def _pictures(pictures: Sequence[Picture], encoder: Encoder, declared: set[str]) -> tuple[list[str], Floats, str]:
    features = [{name: value for name, value in p.features.items() if name in declared} for p in pictures]
    matrix = np.array([encoder.encode(f) for f in features]).reshape(len(pictures), encoder.size)
    told = [_encode({"id": p.id, "features": f}).decode() for p, f in zip(pictures, features, strict=True)]
    return [p.id for p in pictures], matrix, ",".join(told)


def _opening(title: str, features: dict[str, Any], more: bool) -> str:
    """An action's JSON up to the features that depend on the viewer."""
    text = _encode({"id": title, "features": features}).decode().removesuffix("}}")
    return text + "," if features and more else text


def _scaled(feature: Feature, values: Floats) -> Floats:
    """As the encoder scales a number."""
    if feature.low is None or feature.high is None:
        return values
    scale, middle = 2.0 / (feature.high - feature.low), (feature.high + feature.low) / 2.0
    return np.clip((values - middle) * scale, -1.0, 1.0)
