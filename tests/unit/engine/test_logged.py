"""What decisions of the log offered is encoded for many at once, as it would be for each alone."""

from __future__ import annotations

from dataclasses import replace

import msgspec
import numpy as np
import pytest

from topbill.domain.errors import BadRequest
from topbill.domain.features import Feature
from topbill.domain.records import Decision, Placement, TakenActions
from topbill.engine import CompiledExperiment, examples, logged_actions
from topbill.engine.logged import LoggedOffers, OfferedActions, encode_shown
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
    logged = decision(OFFERED)
    offered, plain = LoggedOffers(compiled).of(logged), logged_actions(compiled, logged)
    assert isinstance(offered, OfferedActions)
    encode_shown([(offered, 2)])
    assert offered.at(2)[1].tolist() == [0.0, 0.0, -1.5]
    assert offered.at(0)[1].tolist() == [0.0, 1.0, 2.0]
    assert (offered.ids, len(offered)) == (plain.ids, 3)
    assert np.array_equal(offered.features, plain.features)


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
