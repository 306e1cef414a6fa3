"""What policies are told of candidates: encoded once per title, with what depends on the viewer
filled in per page.

The same values go into the log as JSON, so that what a policy saw can be had again from the log
alone. So each value is written twice here, into the matrix and into the JSON, and both must stay
equal: a test decodes the one and compares it with the other.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping, Sequence
from itertools import chain, pairwise, repeat
from typing import Any, NamedTuple

import msgspec
import numpy as np
from numpy.typing import NDArray

from topbill.candidates import EVIDENCE, NEW_FOR, SOURCES, Candidates
from topbill.catalog import Bools, Catalog, FieldKind, Picture
from topbill.domain.features import REST, Encoder, Feature, FeatureKind
from topbill.domain.records import Actions, EntityUse, Floats, Indices
from topbill.engine import EntityLookup, Turns
from topbill.policies.linear.drawing import load
from topbill.spec import Experiment

TITLE_FEATURES: dict[str, FeatureKind] = {
    "decade": "number",
    "genres": "vector",
    "popularity": "number",
    "maturity": "number",
    "new": "flag",
    "heat": "number",
    "match": "number",
    "merit": "number",
    "popular": "number",
    "regional": "number",
    "trending": "number",
    "similar": "number",
    "together": "number",
    "items": "number",
    "peers": "number",
    "next": "number",
    "short_term": "number",
    "shown": "number",
    "score": "number",
    "sources": "vector",
    "row": "category",
}
"""What a titles experiment may declare beside the columns of the catalogue, of which those of these
names are no features by themselves. `heat`: how trending (0 to 1); `match`: how much of the
viewer's `taste` (a vector of genres in the context) its genres have; `merit`: the logarithm of how
much likelier it is to be played than one title on average, by all evidence of the first stage
together (some -5 to 6); `similar` and `together`: how alike it is to what the viewer watched, and
how much watched together (-1 to 1); `short_term`: how much watched together with the viewer's last
plays (-1 to 1); `score`: what the request says of it, in that row or in any, 0 where it says
nothing; `sources`: which sources named it; `row`: whose."""
PICTURE_KINDS: dict[FieldKind, tuple[FeatureKind, ...]] = {
    "text": ("category",),
    "number": ("number", "cycle"),
    "flag": ("flag",),
    "numbers": ("vector", "hashed"),
}
"""As what an artwork experiment may declare a feature of pictures, by what it holds."""
_STATIC = ("decade", "genres", "popularity", "maturity")
"""The title's own, whoever looks."""
_KINDS = {
    "together" if kind == "watched" else kind: number
    for number, kind in enumerate(EVIDENCE)
    if kind != "new"
}
"""Feature → the kind of evidence that it is, by its number; whether a title is new is a flag."""
_NUMBERS = ("heat", "match", "merit", "short_term", "shown", *_KINDS)
"""Numbers that depend on the viewer or on the hour."""
_SOURCE_BITS = 1 << np.arange(len(SOURCES))
_DIGITS = 2
"""Decimals of those numbers, in the matrix as in the JSON: more would fill the log with noise."""
_LONGEST_NUMBER = 16
"""Bytes of the longest that a compiled call writes."""
_encode = msgspec.json.Encoder().encode


def column_features(declared: Iterable[Feature]) -> list[Feature]:
    """Those of a titles experiment's own features that are columns of the catalogue."""
    return [feature for feature in declared if feature.name not in TITLE_FEATURES]


class NumberScaling:
    """How the encoder scales n declared numbers: those with both ends from -1 to 1, clipped; the
    others stay as they are.
    """

    def __init__(self, numbers: Sequence[Feature]) -> None:
        # value → (value - middle) * scale, clipped to ±bound. These leave it as it is:
        scale, middle, bound = [1.0] * len(numbers), [0.0] * len(numbers), [np.inf] * len(numbers)
        self._is_identity = True
        for i, number in enumerate(numbers):
            if number.low is None or number.high is None:
                continue
            self._is_identity = False
            scale[i] = 2.0 / (number.high - number.low)
            middle[i] = (number.high + number.low) / 2.0
            bound[i] = 1.0
        self._scale, self._middle, self._most = np.array(scale), np.array(middle), np.array(bound)
        self._least = -self._most

    @property
    def numbers(self) -> Floats:
        """(n × 3) middle, scale and bound of each: value → (value - middle) * scale, clipped to
        ±bound.
        """
        return np.column_stack([self._middle, self._scale, self._most])

    def __call__(self, values: Floats) -> Floats:
        """(K × n) the values of K titles, scaled."""
        if self._is_identity:
            return values
        scaled: Floats = values - self._middle
        scaled *= self._scale
        # `np.clip` of so few numbers takes three times as long.
        np.maximum(scaled, self._least, out=scaled)
        np.minimum(scaled, self._most, out=scaled)
        return scaled


class TitleFeatures:
    """Titles encoded for one titles experiment over one catalogue of T titles.

    Attributes:
        declared: The experiment's features that pages fill by name, in the order of their values
            in the JSON: first those that are the title's own, whoever looks.
        column: The column of each encoded number in the matrix.
        matrix: (T × columns) every title's own numbers; what depends on the page is 0 here.
        static: Feature → its value for each title, as it goes into the JSON.
        number_names: The declared ones of _NUMBERS, with their `number_columns` and `scaling`.
        looked_up: What tables say of the titles by id.
        score_scaling: That of `score`, where it is declared.
        sources: (index in SOURCES, column) of each source that the experiment declares.
        sources_json: Their JSON, by the bits of the sources that named a title.
    """

    def __init__(
        self, experiment: Experiment, catalog: Catalog, lookup: EntityLookup | None = None
    ) -> None:
        self.catalog = catalog
        declared = {feature.name: feature for feature in experiment.sent_action_features}
        # What is the title's own comes first: so its part of the JSON is written once.
        own = [*_STATIC, *(feature.name for feature in column_features(declared.values()))]
        order = dict.fromkeys([*own, *_NUMBERS, *declared])
        self.declared = {name: declared[name] for name in order if name in declared}
        self.column = {name: j for j, name in enumerate(experiment.action_encoder.names)}
        self._encode_static(experiment.action_encoder)
        self.number_names = [name for name in _NUMBERS if name in self.declared]
        self.looked_up = LookedUpColumns(catalog.ids, lookup)
        self.looked_up.write(self.matrix)
        # A number is one column, called like itself; other kinds have columns of other names.
        self.number_columns = _stretch([self.column[name] for name in self.number_names])
        self.scaling = NumberScaling([self.declared[name] for name in self.number_names])
        self.score_scaling = NumberScaling(
            [self.declared["score"]] if "score" in self.declared else []
        )
        self._list_sources()
        # Structs whose fields are what is declared: msgspec writes thousands of them in no time.
        # Features may have names that Python takes for none of a field.
        names = {f"_{place}": name for place, name in enumerate(self.declared)}
        fields = [(field, Any) for field in names]
        self.features_struct = msgspec.defstruct("Features", fields, gc=False, rename=names)
        self.offer_struct = msgspec.defstruct(
            "Offer", [("id", str), ("features", self.features_struct)], gc=False
        )
        # What requests say of titles is in the numbers of nobody else's pages.
        self.parts = None if "score" in self.declared else OfferParts(self)

    def _encode_static(self, encoder: Encoder) -> None:
        """The numbers, and the values as JSON, of what is the title's own."""
        names = [name for name in _STATIC if name in self.declared]
        columns = {
            feature.name: self.catalog.column(feature).values
            for feature in column_features(self.declared.values())
        }
        self.static: dict[str, list[Any]] = {}
        rows: list[Floats] = []
        for row in range(len(self.catalog)):
            features = self.catalog.features(row)
            own = {name: features[name] for name in names}
            own |= {name: values[row] for name, values in columns.items()}
            rows.append(encoder.encode(own))
            for name, value in own.items():
                # Mappings and lists are written once here, and not again for every page.
                is_long = isinstance(value, dict | list)
                column = self.static.setdefault(name, [])
                column.append(msgspec.Raw(_encode(value)) if is_long else value)
        # The shape is said, since NumPy can't know it of titles without any feature.
        self.matrix: Floats = np.array(rows).reshape(len(rows), encoder.size)

    def _list_sources(self) -> None:
        """The declared sources, and their JSON for each set of them that may name a title."""
        keys = self.declared["sources"].keys if "sources" in self.declared else ()
        self.sources: list[tuple[int, int]] = []
        for j, name in enumerate(SOURCES):
            if name in keys:
                self.sources.append((j, self.column[f"sources:{name}"]))
        self.sources_json: list[msgspec.Raw] = []
        for bits in range(1 << len(SOURCES)):
            named_by = {SOURCES[j]: 1 for j, _ in self.sources if bits >> j & 1}
            self.sources_json.append(msgspec.Raw(_encode(named_by)))

    def on_page(
        self,
        candidates: Candidates,
        heat: Floats,
        match: Floats,
        shown: Floats,
        now: float,
        scores_of: Callable[[str], Mapping[int, float]],
    ) -> TitlesOnPage:
        """The same with what depends on the page.

        Args:
            candidates: What the first stage says of the page's viewer.
            heat: (T,) how trending each title is, 0 to 1.
            match: (T,) how much of the viewer's taste its genres have.
            shown: (T,) on how many pages the viewer was shown it since playing it last.
            now: Seconds since the epoch.
            scores_of: Row → title → the score that the request gives it.
        """
        by_name: dict[str, NDArray[Any]] = {
            "heat": heat,
            "match": match,
            "merit": candidates.merit,
            "short_term": candidates.short_term,
            "shown": shown,
        }
        for name, kind in _KINDS.items():
            by_name[name] = candidates.evidence[kind]
        values = np.empty((len(self.number_names), len(match)))
        for j, name in enumerate(self.number_names):
            values[j] = by_name[name]
        return TitlesOnPage(self, values, candidates.sources, now, scores_of)


class Tails(NamedTuple):
    """The ends of titles' JSON one behind the other, where they end, after a 0, and how long the
    longest is.
    """

    texts: bytes
    ends: Indices
    longest: int


class OfferParts:
    """The JSON of titles in the parts that a compiled call puts together: each part's texts one
    behind the other, and where they end, after a 0.

    Attributes:
        heads, head_ends: Of each title, up to the last feature that is its own.
        labels, label_ends: The names of the numbers that depend on the viewer.
        columns: (n,) the column of each of these, with their `scaling` (n × 3).
        flags: The column of each of SOURCES, and that of what is new; -1 where that is none.
        room: Bytes that a title takes at most, but for its tail.
    """

    def __init__(self, titles: TitleFeatures) -> None:
        self._declared = list(titles.declared)
        self._sources_json = titles.sources_json
        names = titles.number_names
        heads = []
        for row, name in enumerate(titles.catalog.ids):
            own = {feature: values[row] for feature, values in titles.static.items()}
            heads.append(b'{"id":%b,"features":%b' % (_encode(name), _encode(own)[:-1]))
        self.heads, self.head_ends = _one_behind_the_other(heads)
        labels = [self._label(name) for name in names]
        self.labels, self.label_ends = _one_behind_the_other(labels)
        self.columns = np.array([titles.column[name] for name in names], dtype=np.intp)
        self.scaling = titles.scaling.numbers
        self.flags: Indices = np.full(len(SOURCES) + 1, -1)
        for j, column in titles.sources:
            self.flags[j] = column
        if "new" in titles.declared:
            self.flags[-1] = titles.column["new"]
        self._tails: dict[str, Tails] = {}
        longest = max((len(head) for head in heads), default=0) + _LONGEST_NUMBER * len(names)
        self.room = longest + len(self.labels)

    def _label(self, name: str) -> bytes:
        """A feature's name, behind what stands before it."""
        comma = b"" if name == self._declared[0] else b","
        return b"%b%b:" % (comma, _encode(name))

    def tails(self, row: str) -> Tails:
        """The ends of JSON in a row, by the bits of the sources that named a title and then of
        whether it is new.
        """
        tails = self._tails.get(row)
        if tails is None:
            texts = []
            for bits in range(2 << len(SOURCES)):
                is_new, named_by = divmod(bits, 1 << len(SOURCES))
                values = {"new": bool(is_new), "sources": self._sources_json[named_by], "row": row}
                text = b""
                for name in self._declared:
                    if name in values:
                        text += self._label(name) + _encode(values[name])
                texts.append(text + b"}}")
            longest = max(map(len, texts))
            tails = self._tails[row] = Tails(*_one_behind_the_other(texts), longest)
        return tails


def _one_behind_the_other(texts: Sequence[bytes]) -> tuple[bytes, Indices]:
    """The texts, and where each ends, after a 0."""
    return b"".join(texts), np.cumsum([0, *map(len, texts)])


class TitlesOnPage:
    """What policies are told of titles on one page. `values` (n × T) are the numbers that depend on
    the viewer.
    """

    def __init__(
        self,
        titles: TitleFeatures,
        values: Floats,
        sources: Bools,
        now: float,
        scores_of: Callable[[str], Mapping[int, float]],
    ) -> None:
        self._titles, self._values, self._sources, self._now = titles, values, sources, now
        self._scores_of = scores_of

    def of(self, pool: Indices, row: str) -> tuple[Actions, msgspec.Raw]:
        """The pool's titles in a row as encoded actions, and as the JSON that says the same."""
        told = self._compiled(pool, row)
        if told is not None:
            return told
        titles, catalog = self._titles, self._titles.catalog
        # A copy, since the pool is a list of rows: what is filled in below is this page's alone.
        X = titles.matrix[pool]
        indices = pool.tolist()
        # Feature → its values for the pool's titles, in the pool's order.
        values: dict[str, Iterable[Any]] = {}
        for name, column in titles.static.items():
            values[name] = list(map(column.__getitem__, indices))
        if titles.number_names:
            values |= self._fill_numbers(X, pool)
        if "new" in titles.declared:
            values["new"] = self._fill_new(X, pool)
        if "score" in titles.declared:
            values["score"] = self._fill_scores(X, indices, row)
        if "sources" in titles.declared:
            values["sources"] = self._fill_sources(X, pool)
        if "row" in titles.declared:
            # A row that the experiment doesn't list is no category of its own: all zero.
            if f"row={row}" in titles.column:
                X[:, titles.column[f"row={row}"]] = 1.0
            values["row"] = repeat(row)
        ids = list(map(catalog.ids.__getitem__, indices))
        return Actions(ids, X), self._offers(ids, values)

    def _compiled(self, pool: Indices, row: str) -> tuple[Actions, msgspec.Raw] | None:
        """The same in a compiled call; None where there is no compiler, or something is said of
        titles that it cannot write.
        """
        titles, compiled = self._titles, load()
        parts = titles.parts
        if compiled is None or parts is None:
            return None
        tails = parts.tails(row)
        X = np.empty((len(pool), titles.matrix.shape[1]))
        # Each has a comma or a bracket too, and the text one bracket more.
        text = np.empty(len(pool) * (parts.room + tails.longest + 1) + 2, dtype=np.uint8)
        size = compiled.tell_titles(
            pool, titles.matrix, self._values, parts.columns, parts.scaling,
            self._sources, titles.catalog.added, self._now, NEW_FOR, parts.flags,
            parts.heads, parts.head_ends, parts.labels, parts.label_ends, tails.texts, tails.ends,
            X, text,
        )  # fmt: skip
        if size < 0:
            return None
        if f"row={row}" in titles.column:
            X[:, titles.column[f"row={row}"]] = 1.0
        ids = map(titles.catalog.ids.__getitem__, pool.tolist())
        return Actions(ids, X), msgspec.Raw(text[:size].tobytes())

    def entities(self, pool: Indices) -> tuple[EntityUse, ...]:
        """What was looked up of the pool's titles."""
        return self._titles.looked_up.uses(pool)

    def _fill_numbers(self, X: Floats, pool: Indices) -> dict[str, list[float]]:
        """Write the numbers that depend on the viewer into X; returns them for the JSON."""
        titles = self._titles
        # Adding 0 turns -0.0 into 0.0: JSON would keep the sign, and the log would look odd.
        numbers = self._values[:, pool].T.round(_DIGITS)
        numbers += 0.0
        X[:, titles.number_columns] = titles.scaling(numbers)
        return dict(zip(titles.number_names, numbers.T.tolist(), strict=True))

    def _fill_new(self, X: Floats, pool: Indices) -> list[bool]:
        titles = self._titles
        # What is added later than now is not new: it isn't there yet.
        age = self._now - titles.catalog.added[pool]
        is_new = (age >= 0.0) & (age < NEW_FOR)
        X[:, titles.column["new"]] = is_new
        flags: list[bool] = is_new.tolist()
        return flags

    def _fill_scores(self, X: Floats, titles: Sequence[int], row: str) -> list[float]:
        of_row = self._scores_of(row)
        scores = [of_row.get(title, 0.0) for title in titles]
        scaled = self._titles.score_scaling(np.array([scores]).T)
        X[:, self._titles.column["score"]] = scaled[:, 0]
        return scores

    def _fill_sources(self, X: Floats, pool: Indices) -> list[msgspec.Raw]:
        titles = self._titles
        named_by = self._sources[pool]
        for j, column in titles.sources:
            X[:, column] = named_by[:, j]
        # The sources that named a title as one number: bit j is SOURCES[j].
        bits = (named_by @ _SOURCE_BITS).tolist()
        return [titles.sources_json[code] for code in bits]

    def _offers(self, ids: Sequence[str], values: dict[str, Iterable[Any]]) -> msgspec.Raw:
        """The titles with their features as JSON. A page has hundreds: `map` keeps them in C."""
        titles = self._titles
        features: Iterable[Any]
        if titles.declared:
            in_order = [values[name] for name in titles.declared]
            features = map(titles.features_struct, *in_order)
        else:
            features = repeat(titles.features_struct())
        return msgspec.Raw(_encode(list(map(titles.offer_struct, ids, features))))


class LookedUpColumns:
    """What tables say of n actions by id, in one version of each table."""

    def __init__(self, ids: Sequence[str], lookup: EntityLookup | None) -> None:
        self._columns: list[Floats] = []
        self._unknown: list[tuple[str, str, Bools]] = []
        for source, table in lookup.of_actions() if lookup is not None else ():
            rows = table.rows(ids)
            self._columns.append(table.encoded(source.features)[rows])
            self._unknown.append((source.name, table.version, rows < 0))

    def write(self, matrix: Floats) -> None:
        """Write it into the last columns of the actions' (n × columns) features."""
        end = matrix.shape[1]
        for columns in reversed(self._columns):
            matrix[:, end - columns.shape[1] : end] = columns
            end -= columns.shape[1]

    def uses(self, rows: Sequence[int] | Indices) -> tuple[EntityUse, ...]:
        """What was looked up of those of the actions."""
        uses = []
        for name, version, unknown in self._unknown:
            count = int(np.count_nonzero(unknown[rows]))
            uses.append(EntityUse(name, version, len(rows), count))
        return tuple(uses)


class _TitlePictures(NamedTuple):
    """One title's pictures: their ids, encoded features (P × columns), and JSON without its
    brackets.
    """

    ids: list[str]
    matrix: Floats
    json: bytes


class PicturesOnPage(NamedTuple):
    """Pictures of some titles, those of one title side by side: as encoded actions, as JSON, where
    each title's start with the end of the last one's, and what was looked up of them."""

    actions: Actions
    offered: msgspec.Raw
    starts: list[int]
    entities: tuple[EntityUse, ...]


class PicturesOfRows(NamedTuple):
    """Pictures of the titles of some rows, row by row, and of all of them together."""

    rows: list[PicturesOnPage]
    turns: Turns


class PictureFeatures:
    """Every title's pictures encoded for one artwork experiment over one catalogue.

    Attributes:
        several: How many titles have several pictures.
        alike: How many of these have pictures that all look alike to the experiment's policies.
    """

    def __init__(
        self, experiment: Experiment, catalog: Catalog, lookup: EntityLookup | None = None
    ) -> None:
        encoder = experiment.action_encoder
        declared = {feature.name: feature for feature in experiment.sent_action_features}
        per_title: list[_TitlePictures] = []
        for pictures in catalog.pictures:
            per_title.append(_encode_pictures(pictures, encoder, declared))
        self._matrix: Floats = np.concatenate([encoded.matrix for encoded in per_title])
        self._json = [encoded.json for encoded in per_title]
        self._ends: Indices = np.cumsum([0, *[len(encoded.ids) for encoded in per_title]])
        """Where each title's pictures end in the matrix of all, after a 0."""
        every_id = self._ids = [picture.id for own in catalog.pictures for picture in own]
        self._looked_up = LookedUpColumns(every_id, lookup)
        self._looked_up.write(self._matrix)
        self.several = self.alike = 0
        for start, end in pairwise(self._ends.tolist()):
            if end - start > 1:
                self.several += 1
                own = self._matrix[start:end]
                self.alike += bool((own == own[0]).all())

    def of_rows(self, titles: Sequence[Sequence[int]]) -> PicturesOfRows:
        """The pictures of these titles, row by row, each of at least one."""
        chosen = np.array(list(chain.from_iterable(titles)), dtype=np.intp)
        compiled = load()
        if compiled is not None:
            told = compiled.stretches(chosen, self._ends)
            rows, ends = told[: -len(chosen)], told[-len(chosen) :]
        else:
            counts = self._ends[chosen + 1] - self._ends[chosen]
            ends = counts.cumsum()
            # Each title's are a stretch of all: moved from where they are to where they are here.
            rows = np.arange(counts.sum()) + np.repeat(self._ends[chosen + 1] - ends, counts)
        ids, matrix = list(map(self._ids.__getitem__, rows.tolist())), self._matrix[rows]
        starts: list[int] = [0, *ends.tolist()]
        pictures, place = [], 0
        for own in titles:
            own_starts = starts[place : place + len(own) + 1]
            first, last = own_starts[0], own_starts[-1]
            text = b",".join(map(self._json.__getitem__, own))
            pictures.append(
                PicturesOnPage(
                    Actions(ids[first:last], matrix[first:last]),
                    msgspec.Raw(b"[" + text + b"]"),
                    [start - first for start in own_starts],
                    self._looked_up.uses(rows[first:last]),
                )
            )
            place += len(own)
        return PicturesOfRows(pictures, Turns(Actions(ids, matrix), starts))


def _stretch(columns: list[int]) -> slice | list[int]:
    """The columns as a slice where they lie side by side, which NumPy finds sooner."""
    start = columns[0] if columns else 0
    if columns == list(range(start, start + len(columns))):
        return slice(start, start + len(columns))
    return columns


def _encode_pictures(
    pictures: Sequence[Picture], encoder: Encoder, declared: Mapping[str, Feature]
) -> _TitlePictures:
    ids: list[str] = []
    rows: list[Floats] = []
    offers: list[bytes] = []
    for picture in pictures:
        features = _declared_part(picture.features, declared)
        ids.append(picture.id)
        rows.append(encoder.encode(features))
        offers.append(_encode({"id": picture.id, "features": features}))
    # The shape is said for titles without pictures, of which NumPy could not know it.
    matrix = np.array(rows).reshape(len(pictures), encoder.size)
    return _TitlePictures(ids, matrix, b",".join(offers))


def _declared_part(features: Mapping[str, Any], declared: Mapping[str, Feature]) -> dict[str, Any]:
    """What an experiment reads of a picture's features. It stands in each decision: of a vector
    only the declared keys do, for an embedding may have hundreds.
    """
    own: dict[str, Any] = {}
    for name, value in features.items():
        feature = declared.get(name) or declared.get(REST)
        if feature is None:
            continue
        if feature.kind == "vector":
            value = {key: value[key] for key in feature.keys if key in value}
        own[name] = value
    return own
