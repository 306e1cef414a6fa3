"""What changed between two revisions, in words."""

from __future__ import annotations

from topbill.reporting.experiment.differences import spec_differences
from topbill.reporting.experiment.revising import revision_change
from topbill.testing import an_experiment


def test_what_follows_is_told() -> None:
    learned = {"policy": "thompson", "share": "50%"}
    variants = {"a": {"policy": "uniform", "share": "50%", "control": True}, "b": learned}
    before = an_experiment(variants=variants)
    after = an_experiment(
        variants={"a": {**variants["a"], "share": "20%"}, "b": {**learned, "share": "80%"}},
        objective={"play": 0.5},
        title="Home",
    )
    change = revision_change(before, after)
    assert change.sentences() == [
        "objective.play: 1 → 0.5; variants.a: share 50% → 20%; variants.b: share 50% → 80%; "
        "title: left out → Home.",
        "A new phase begins: a 50% → 20%, b 50% → 80%.",
        "Read anew for all of history: objective.play: 1 → 0.5.",
        "Begin to learn anew: b.",
    ]


def test_nothing_changed() -> None:
    assert revision_change(an_experiment(), an_experiment()).sentences() == []


def test_entries_of_lists_are_told_by_their_names() -> None:
    before = {"actions": [{"id": "x"}, {"id": "y", "payload": {"image": "y.svg"}}]}
    after = {"actions": [{"id": "y", "payload": {"image": "y-2.svg"}}, {"id": "z"}]}
    assert spec_differences(before, after) == [
        "actions.x: removed",
        "actions.y: payload {image: y.svg} → {image: y-2.svg}",
        "actions.z: added",
    ]


def test_an_order_that_says_who_gets_what_is_told() -> None:
    before = {"variants": {"a": {"share": "50%"}, "b": {"share": "50%"}}}
    after = {"variants": {"b": {"share": "50%"}, "a": {"share": "50%"}}}
    assert spec_differences(before, after) == ["variants: in another order"]


def test_long_values_are_cut_and_sections_come_and_go() -> None:
    clauses = spec_differences({"hypothesis": "a"}, {"hypothesis": "b" * 200, "launch": {"x": 1}})
    assert clauses == [f"hypothesis: a → {'b' * 59}…", "launch: added"]
    assert spec_differences({"launch": {"x": 1}}, {}) == ["launch: removed"]
