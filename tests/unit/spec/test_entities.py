"""What an experiment file may say of tables of features by id, and what it may not."""

from __future__ import annotations

from typing import Any

import pytest
import yaml

from topbill.domain.errors import SpecError
from topbill.spec import Experiment, from_audit, from_raw

FILE = """
experiment: hero
surface: artwork
unit: profile_id
context:
  device: {type: category, values: [tv, web]}
  campaign: {type: id}
action_features: {tone: {type: category, values: [warm]}}
entities:
  people:
    file: people.parquet
    key: id
    of: unit
    features: {minutes: {type: number}, staff: {type: flag}}
  films:
    file: shop.duckdb
    table: main.films
    key: id
    of: action
    features: {look: {type: embedding, length: 512, dimension: 8}}
  campaigns:
    file: campaigns
    key: id
    of: campaign
    features: {budget: {type: number, min: 0, max: 9}}
exclude: {context: {staff: true}}
actions: []
metrics: {play: {event: play, kind: binary, window: 1s, covariate: minutes}}
objective: {play: 1}
variants: {only: {policy: thompson, share: 100%, control: true}}
"""


def changed(change: Any) -> dict[str, Any]:
    raw: dict[str, Any] = yaml.safe_load(FILE)
    change(raw)
    return raw


def test_what_tables_give_stands_after_what_calls_send() -> None:
    experiment = from_raw(yaml.safe_load(FILE), "hero.yaml")
    names = [feature.name for feature in experiment.context]
    assert names == ["device", "campaign", "minutes", "staff", "budget"]
    assert experiment.looked_up == {"minutes", "staff", "budget"}
    assert [f.name for f in experiment.action_features] == ["tone", "look"]
    assert [f.name for f in experiment.sent_action_features] == ["tone"]
    assert experiment.context_encoder.size == 2 + 3
    assert experiment.action_encoder.size == 1 + 8


def audit(experiment: Experiment) -> str:
    import msgspec

    return msgspec.json.encode(experiment.raw).decode()


def test_the_audit_reads_as_the_file_did() -> None:
    experiment = from_raw(yaml.safe_load(FILE), "hero.yaml")
    again = from_audit(audit(experiment), "hero", experiment.fingerprint)
    assert again.entities == experiment.entities
    assert again.fingerprint == experiment.fingerprint
    moved = from_raw(changed(lambda raw: raw["entities"]["people"].update(file="p.csv")), "h.yaml")
    assert moved.fingerprint != experiment.fingerprint
    # Where a table lies is nothing that was learned.
    assert moved.learning_fingerprint == experiment.learning_fingerprint


def of(name: str, **parts: Any) -> Any:
    return lambda raw: raw["entities"][name].update(parts)


def features(table: str, **parts: Any) -> Any:
    return lambda raw: raw["entities"][table]["features"].update(parts)


@pytest.mark.parametrize(
    ("change", "path", "message"),
    [
        (of("people", of="profile"), "people.of", "got 'profile'; expected one of unit, action, c"),
        (of("people", of="device"), "people.of", "expected one of unit, action, campaign"),
        (lambda raw: raw.pop("unit"), "people.of", "expected a unit: in this file"),
        (of("people", file="../people.csv"), "people.file", "a path below folder tables"),
        (of("people", file="people.xlsx"), "people.file", "a file ending in .parquet, .csv"),
        (of("people", table="x"), "people.table", "no table, since people.parquet is one itself"),
        (lambda raw: raw["entities"]["films"].pop("table"), "films.table", "the table of the data"),
        (lambda raw: raw["entities"]["films"].pop("key"), "films.key", "this key, which is req"),
        (
            features("people", device={"type": "flag"}),
            "people.features.device",
            "expected a name of its own: context has this one already",
        ),
        (
            features("campaigns", minutes={"type": "number"}),
            "campaigns.features.minutes",
            "expected a name of its own: entities.people has this one already",
        ),
        (
            features("people", all={"type": "hashed", "size": 8}),
            "people.features.all.type",
            "got 'hashed'; expected category, number, cycle, vector, flag, text or embedding",
        ),
        (
            features("people", taste={"type": "embedding", "length": 100}),
            "people.features.taste.dimension",
            "to how many numbers a vector of 100 is projected",
        ),
        (
            features("people", taste={"type": "embedding", "length": 4, "dimension": 9}),
            "people.features.taste.dimension",
            "got 9; expected at most 4, its length",
        ),
        (
            features("people", taste={"type": "embedding", "length": 600, "dimension": 511}),
            "people.features",
            "got features of 513 numbers; expected at most 512 of one table",
        ),
    ],
)
def test_a_mistake_is_named_with_its_place(change: Any, path: str, message: str) -> None:
    with pytest.raises(SpecError) as caught:
        from_raw(changed(change), "hero.yaml")
    told = {problem.path: problem.message for problem in caught.value.problems}
    assert message in told[f"entities.{path}"], told


def test_an_action_has_no_feature_of_type_id() -> None:
    with pytest.raises(SpecError, match="an action's own id"):
        from_raw(changed(lambda raw: raw["action_features"].update(x={"type": "id"})), "hero.yaml")
