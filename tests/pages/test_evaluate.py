"""Layers of pages are evaluated like any experiment: under the rules that held when the page was made."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import pytest

from topbill.ope import evaluate
from topbill.records import Decision, RewardEvent

from .conftest import lay

SECOND = 1_000_000
PAGES = 250
RULES = """
rules:
  - {rule: at_most, count: 2, of: genre, per: row, except: [fun, tension]}
  - {rule: pin, title: t07, row: best, position: 2}
  - {rule: fresh, count: 2, within: 60d, rows: [best]}
"""


def laid(home: Any, data: Path, layer: str, title: str) -> list[Decision]:
    """A lake of one layer of pages, each a second after the other, on which this title alone is played, surely."""
    composer = home.composer()
    decisions: list[Decision] = []
    for number in range(PAGES):
        for decision in home.compose(composer, number).decisions:
            if decision.layer == layer:
                at = round(home.now * SECOND) + number * SECOND
                decisions.append(decision.__class__(**{**fields(decision), "at": at}))
    events = [
        RewardEvent(
            decision_id=d.decision_id, event_id="e", event="play", action=p.action, position=p.position, at=d.at + 1
        )
        for d in decisions
        for p in d.slate
        if p.action.split("/")[0] == title
    ]
    experiment = next(e for e in home.experiments() if e.key == layer)
    lay(data, [experiment], decisions, events, decisions[-1].at + 9 * SECOND)
    return decisions


def fields(decision: Decision) -> dict[str, Any]:
    return {name: getattr(decision, name) for name in decision.__struct_fields__}


@pytest.mark.parametrize("layer", ["titles", "artwork"])
def test_the_policy_that_decided_is_worth_what_it_earned_whatever_the_rules(
    home: Any, tmp_path: Path, layer: str
) -> None:
    """Uniform over what the rules left is what decided, so every weight is 1; over all eligible it would not be."""
    home.write(rules=RULES, policy="policy: uniform")
    decisions = laid(home, tmp_path / "data", layer, "t00")
    assert any(d.masks for d in decisions)
    found = evaluate(layer, "uniform", tmp_path / "data", estimators=("sips", "rips")).targets["uniform"]
    for estimate in found.values():
        assert estimate.value == pytest.approx(np.mean([earned(d, "t00") for d in decisions]))
        assert estimate.diagnostics.mean_weight == pytest.approx(1.0)


def earned(decision: Decision, title: str) -> int:
    return sum(p.action.split("/")[0] == title for p in decision.slate)
