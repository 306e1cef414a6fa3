"""What decisions of the log offered is encoded for many at once, as it would be for each alone."""

from __future__ import annotations

from dataclasses import replace

import msgspec
import numpy as np
import pytest

from topbill.domain.errors import BadRequest, PolicyError
from topbill.domain.example_batch import ExampleBatch
from topbill.domain.features import Feature
from topbill.domain.records import Decision, Mask, Offer, Placement, RewardEvent, Stop, TakenActions
from topbill.engine import CompiledExperiment, examples, logged_actions, teach
from topbill.engine.logged import LoggedOffers, OfferedActions
from topbill.spec import Experiment

FEATURES = (Feature("tone", "category", values=("warm", "dark")), Feature("faces", "number"))
OFFERED = [
    {"id": "a", "features": {"tone": "dark", "faces": 2}},
    {"id": "b"},
    {"id": "c", "features": {"faces": -1.5, "tone": None}, "payload": {"any": "thing"}},
]


@pytest.fixture
def compiled(art: Experiment) -> CompiledExperiment:
    return CompiledExperiment(replace(art, action_features=FEATURES, context=()))


def decision(offered: object, *slate: str) -> Decision:
    return Decision(
        decision_id="d",
        experiment="art",
        revision="r",
        variant="v",
        unit="u",
        actions=msgspec.Raw(msgspec.json.encode(offered)),
        eligible=("a", "b", "c"),
        slate=tuple(Placement(k, action, 0.5) for k, action in enumerate(slate)),
        policy="uniform",
        reason="policy",
    )


def test_offered_actions_are_what_the_log_says(compiled: CompiledExperiment) -> None:
    logged = decision(OFFERED, "c", "b")
    reader = LoggedOffers(compiled)
    offered, row_of = reader.of(logged)
    plain = logged_actions(compiled, logged)
    assert isinstance(offered, OfferedActions)
    assert row_of == {"a": 0, "b": 1, "c": 2}
    shown = [0.0, 0.0, -1.5], [0.0, 1.0, 2.0]
    assert reader.shown_features([(offered, [2, 0])]).tolist() == list(shown)
    assert reader.shown_features([(plain, [2]), (offered, [0])]).tolist() == list(shown)
    assert (offered.ids, len(offered)) == (plain.ids, 3)
    assert np.array_equal(offered.features, plain.features)


def test_of_what_was_decided_under_this_revision_only_what_was_shown_is_read(
    compiled: CompiledExperiment,
) -> None:
    logged = decision([OFFERED[0], {"id": "x", "features": {"faces": "?"}}], "a")
    reader = LoggedOffers(compiled)
    with pytest.raises(BadRequest):
        reader.of(logged)
    logged = msgspec.structs.replace(logged, revision=compiled.revision)
    offered, _ = reader.of(logged)
    assert reader.shown_features([(offered, [0])]).tolist() == [[0.0, 1.0, 2.0]]
    with pytest.raises(BadRequest):
        _ = offered.features


def test_offers_that_were_read_before_are_those_of_the_text(compiled: CompiledExperiment) -> None:
    logged = decision(OFFERED, "c", "a")
    read = msgspec.json.decode(logged.actions, type=list[Offer])
    offered, row_of = LoggedOffers(compiled).of(logged, read)
    again, rows_again = LoggedOffers(compiled).of(logged)
    assert (offered.ids, row_of) == (again.ids, rows_again)
    assert np.array_equal(offered.features, again.features)


def test_an_example_offers_what_could_still_be_drawn(compiled: CompiledExperiment) -> None:
    first, second = examples(compiled, decision(OFFERED, "c", "a"), [])
    assert (first.actions.ids, first.index) == (("a", "b", "c"), 2)
    assert isinstance(second.actions, TakenActions)
    assert second.actions.at(second.index)[0] == "a"
    assert (second.actions.ids, second.index, len(second.actions)) == (("a", "b"), 0, 2)
    assert second.actions.features.tolist() == [[0.0, 1.0, 2.0], [0.0, 0.0, 0.0]]


@pytest.mark.parametrize(
    "wrong", [{"id": "b", "features": {"tone": 1}}, {"id": "a"}, {"id": "b", "features": {"x": 1}}]
)
def test_an_action_that_cannot_be_read_keeps_the_whole_decision_from_teaching(
    compiled: CompiledExperiment, wrong: object
) -> None:
    logged = decision([OFFERED[0], wrong, OFFERED[2]], "a")
    with pytest.raises(BadRequest):
        logged_actions(compiled, logged)
    assert examples(compiled, logged, []) == []


@pytest.mark.parametrize(
    ("slate", "masks"),
    [
        (("a", "a"), ()),
        (("a", "b"), (Mask("no b below", 1, 2, (1,)),)),
        (("a", "b"), (Mask("b first", 0, 1, (1,), only=True),)),
    ],
)
def test_what_could_not_be_drawn_where_it_stands_teaches_nobody(
    compiled: CompiledExperiment, slate: tuple[str, ...], masks: tuple[Mask, ...]
) -> None:
    logged = msgspec.structs.replace(decision(OFFERED, *slate), masks=masks)
    with pytest.raises(ValueError, match="expected"):
        examples(compiled, logged, [])


@pytest.mark.parametrize("revision", ["r", "own"])
def test_what_was_placed_and_not_offered_is_an_error(
    compiled: CompiledExperiment, revision: str
) -> None:
    own = compiled.revision if revision == "own" else revision
    logged = msgspec.structs.replace(decision(OFFERED, "a", "x"), revision=own)
    with pytest.raises(KeyError):
        examples(compiled, logged, [])


class Columns:
    """A policy that keeps the columns it was given."""

    def __init__(self) -> None:
        self.batch: ExampleBatch | None = None

    def update(self, batch: ExampleBatch) -> None:
        self.batch = batch


def test_columns_say_what_the_examples_say(compiled: CompiledExperiment) -> None:
    stops = (Stop(1, 0.2, 0.1, reach=1.5),)
    matured: list[tuple[Decision, list[RewardEvent]]] = [
        (decision(OFFERED, "c", "a", "b"), []),
        (decision([{"id": "z"}], "z"), []),  # what was eligible is not there: teaches nothing
        (msgspec.structs.replace(decision(OFFERED, "b"), decided_at=3_000_000, stops=stops), []),
    ]
    policy = Columns()
    compiled.policies = {"v": policy}  # type: ignore[dict-item]
    assert teach(compiled, matured) == 4
    batch = policy.batch
    assert batch is not None
    plain = [example for one, events in matured for example in examples(compiled, one, events)]
    assert len(batch) == len(plain) == 4
    assert batch.ids == ["c", "a", "b", "b"]
    again = ExampleBatch.of(plain, 0, 3)
    for of_columns, of_examples in ((batch, again), (batch[1:], again.take([1, 2, 3]))):
        assert of_columns.ids == of_examples.ids
        for name in ("contexts", "features", "rewards", "positions", "times", "reaches"):
            assert np.array_equal(getattr(of_columns, name), getattr(of_examples, name)), name
        for own, other in zip(of_columns, of_examples, strict=True):
            assert (own.actions.ids, own.index) == (other.actions.ids, other.index)
            assert own.propensity == other.propensity
    with pytest.raises(PolicyError, match=r"action features have shape \(3,\), expected \(2,\)"):
        ExampleBatch.of(batch, 0, 2)
    with pytest.raises(PolicyError, match=r"context has shape \(0,\), expected \(1,\)"):
        ExampleBatch.of(plain, 1, 3)
