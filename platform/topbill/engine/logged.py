"""What decisions of the log saw and offered, encoded for many of them at once."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping, Sequence
from functools import lru_cache
from itertools import chain
from typing import Any, NamedTuple

import msgspec
import numpy as np

from topbill.domain.errors import BadRequest
from topbill.domain.features import Encoder, Feature
from topbill.domain.records import NULL, Actions, Decision, Floats, Offer
from topbill.domain.typed_features import TypedFeatures, Values, typed_features
from topbill.engine.compiled import CompiledExperiment, logged_actions


class OfferedActions(Actions):
    """Actions that a decision brought along, all of them encoded when somebody asks for them.
    `values` are the features of those that were shown, by row: they are encoded together with other
    decisions' (`shown_features`).
    """

    __slots__ = ("_encode", "_features", "values")

    def __init__(
        self, ids: tuple[str, ...], values: Mapping[int, Values], encode: Callable[[], Floats]
    ) -> None:
        self.ids, self.values = ids, values
        self._encode = encode
        self._features: Floats | None = None

    @property
    def features(self) -> Floats:  # type: ignore[override]  # as good as the attribute
        if self._features is None:
            self._features = self._encode()
        return self._features


class Offered(NamedTuple):
    """What a decision offered: the actions, and the row of each by its id."""

    actions: Actions
    row_of: dict[str, int]


class _Decoders(NamedTuple):
    """How a schema's features are read: of one mapping, and of a list of them."""

    typed: TypedFeatures
    features: msgspec.json.Decoder[Any]
    many: msgspec.json.Decoder[Any]

    def values(self, offers: Iterable[Offer]) -> list[Values]:
        """The features of some offers, in one call: for most it takes longer than to read them.
        Raises msgspec.ValidationError where one does not fit.
        """
        texts = b",".join([offer.features for offer in offers])
        values: list[Values] = self.many.decode(b"[" + texts + b"]")
        return values


_offers = msgspec.json.Decoder(list[Offer])


@lru_cache(maxsize=256)
def _decoders(features: tuple[Feature, ...]) -> _Decoders | None:
    """None where the features have no types of their own."""
    typed = typed_features(features)
    if typed is None:
        return None
    many = msgspec.json.Decoder(list[typed.type])  # type: ignore[name-defined]  # made above
    return _Decoders(typed, msgspec.json.Decoder(typed.type), many)


def _decoders_of(encoder: Encoder) -> _Decoders | None:
    """The same for what an encoder takes. Names that it ignores may have any value."""
    return None if encoder.ignored else _decoders(encoder.features)


def encoded_contexts(
    compiled: CompiledExperiment, decisions: Sequence[Decision]
) -> tuple[Floats, list[bool]]:
    """The encoded context of each decision (n × d), and whether the experiment can still read it:
    where it cannot, the row is 0.
    """
    contexts = np.zeros((len(decisions), compiled.encoder.size))
    readable = [True] * len(decisions)
    decoders = _decoders_of(compiled.encoder)
    rows, values = [], []
    for row, decision in enumerate(decisions):
        typed = None if decoders is None else _typed(decoders.features, decision.context)
        if typed is not None:
            rows.append(row)
            values.append(typed)
            continue
        try:
            contexts[row] = compiled.encoder.encode(msgspec.json.decode(decision.context))
        except BadRequest:
            readable[row] = False
    if decoders is not None and rows:
        contexts[rows] = decoders.typed.matrix(values)
    return contexts, readable


def _typed(decoder: msgspec.json.Decoder[Any], text: msgspec.Raw) -> Any:
    """A text as it is typed; None where it does not fit."""
    try:
        return decoder.decode(text)
    except msgspec.ValidationError:
        return None


class LoggedOffers:
    """Reads what decisions of one experiment offered."""

    def __init__(self, compiled: CompiledExperiment) -> None:
        self._compiled = compiled
        self._decoders = None
        # What tables give is looked up for all of a decision's actions.
        if not compiled.experiment.action_entities:
            self._decoders = _decoders_of(compiled.lookup.sent_actions_encoder)
        self._own = _with_rows(compiled.actions)

    def of(self, decision: Decision, offers: Sequence[Offer] | None = None) -> Offered:
        """As `logged_actions`, but that actions which the decision brought along are encoded later,
        if at all. `offers` are these, where somebody has read them already.
        """
        if decision.actions == NULL:
            if not self._compiled.experiment.action_entities:
                return self._own
        elif self._decoders is not None:
            offered = self._offered(self._decoders, decision, offers)
            if offered is not None:
                return offered
        # Says what is wrong with offers, too.
        return _with_rows(logged_actions(self._compiled, decision))

    def _offered(
        self, decoders: _Decoders, decision: Decision, offers: Sequence[Offer] | None
    ) -> Offered | None:
        """None where they don't fit the types, or an id is there twice."""
        if offers is None:
            offers = _typed(_offers, decision.actions) or ()
        ids = tuple([offer.id for offer in offers])
        row_of = dict(zip(ids, range(len(ids)), strict=True))
        if not ids or len(row_of) != len(ids):
            return None
        # Who decided under this very revision read all of them; of another one, all have to fit.
        shown: Iterable[int] = range(len(ids))
        try:
            if decision.revision == self._compiled.revision:
                shown = [row_of[placement.action] for placement in decision.slate]
            values = dict(zip(shown, decoders.values([offers[row] for row in shown]), strict=True))
        except (KeyError, msgspec.ValidationError):
            return None

        def encode() -> Floats:
            try:
                return decoders.typed.matrix(decoders.values(offers))
            except msgspec.ValidationError:
                return logged_actions(self._compiled, decision).features

        return Offered(OfferedActions(ids, values, encode), row_of)

    def shown_features(self, shown: Sequence[tuple[Actions, list[int]]]) -> Floats:
        """(n × da) the features of single actions of some decisions, given by their rows."""
        own, typed = self._own.actions, None if self._decoders is None else self._decoders.typed
        if all(actions is own for actions, _ in shown):
            return own.features[list(chain.from_iterable(rows for _, rows in shown))]
        values: list[Values] = []
        for actions, rows in shown:
            if isinstance(actions, OfferedActions):
                values += [actions.values[row] for row in rows]
        if typed is not None and len(values) == sum(len(rows) for _, rows in shown):
            return typed.matrix(values)
        return np.concatenate([actions.features[rows] for actions, rows in shown])


def _with_rows(actions: Actions) -> Offered:
    return Offered(actions, dict(zip(actions.ids, range(len(actions)), strict=True)))
