"""What decisions of the log saw and offered, encoded for many of them at once."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from functools import lru_cache
from typing import Any, NamedTuple

import msgspec

from topbill.domain.errors import BadRequest
from topbill.domain.features import Encoder, Feature
from topbill.domain.records import NULL, Actions, Decision, Floats
from topbill.domain.typed_features import TypedFeatures, Values, typed_features
from topbill.engine.compiled import CompiledExperiment, logged_actions


class OfferedActions(Actions):
    """Actions that a decision brought along, encoded when somebody asks for all of them. Those that
    were shown are encoded before, together with other decisions' (`encode_shown`).
    """

    __slots__ = ("_features", "_shown", "_typed", "_values")

    def __init__(self, ids: tuple[str, ...], values: list[Values], typed: TypedFeatures) -> None:
        self.ids = ids
        self._values, self._typed = values, typed
        self._features: Floats | None = None
        self._shown: dict[int, Floats] = {}

    @property
    def features(self) -> Floats:  # type: ignore[override]  # as good as the attribute
        if self._features is None:
            self._features = self._typed.matrix(self._values)
        return self._features

    def at(self, row: int) -> tuple[str, Floats]:
        features = self._shown.get(row)
        return self.ids[row], self.features[row] if features is None else features


def encode_shown(shown: Sequence[tuple[OfferedActions, int]]) -> None:
    """Encode single actions of many decisions of an experiment, each given by its row."""
    if shown:
        typed = shown[0][0]._typed
        matrix = typed.matrix([actions._values[row] for actions, row in shown])
        for (actions, row), features in zip(shown, matrix, strict=True):
            actions._shown[row] = features


class _Decoders(NamedTuple):
    """How a schema's features are read as contexts, and as those of offered actions."""

    typed: TypedFeatures
    context: msgspec.json.Decoder[Any]
    actions: msgspec.json.Decoder[Any]


@lru_cache(maxsize=256)
def _decoders(features: tuple[Feature, ...]) -> _Decoders | None:
    """None where the features have no types of their own."""
    typed = typed_features(features)
    if typed is None:
        return None
    action = msgspec.defstruct(
        "Offered", [("id", str), ("features", typed.type, typed.type())], frozen=True, gc=False
    )
    return _Decoders(
        typed,
        msgspec.json.Decoder(typed.type),
        msgspec.json.Decoder(list[action]),  # type: ignore[valid-type]  # made above
    )


def _decoders_of(encoder: Encoder) -> _Decoders | None:
    """The same for what an encoder takes. Names that it ignores may have any value."""
    return None if encoder.ignored else _decoders(encoder.features)


def encoded_contexts(
    compiled: CompiledExperiment, decisions: Iterable[Decision]
) -> list[Floats | None]:
    """The encoded context of each decision; None where the experiment cannot read it any more."""
    texts = [decision.context for decision in decisions]
    decoders = _decoders_of(compiled.encoder)
    if decoders is None:
        return [_plain_context(compiled, text) for text in texts]
    read = [_typed(decoders.context, text) for text in texts]
    rows = iter(decoders.typed.matrix([values for values in read if values is not None]))
    contexts = []
    for text, values in zip(texts, read, strict=True):
        contexts.append(_plain_context(compiled, text) if values is None else next(rows))
    return contexts


def _plain_context(compiled: CompiledExperiment, text: msgspec.Raw) -> Floats | None:
    try:
        return compiled.encoder.encode(msgspec.json.decode(text))
    except BadRequest:
        return None


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

    def of(self, decision: Decision) -> Actions:
        """As `logged_actions`, but that actions which the decision brought along are encoded later,
        if at all.
        """
        compiled, decoders = self._compiled, self._decoders
        if decoders is None or decision.actions == NULL:
            return logged_actions(compiled, decision)
        offered = _typed(decoders.actions, decision.actions) or ()
        ids = tuple([action.id for action in offered])
        if not ids or len(set(ids)) != len(ids):
            return logged_actions(compiled, decision)  # which says what is wrong
        return OfferedActions(ids, [action.features for action in offered], decoders.typed)
