"""Sub-sampled logs: a row stands for 1/(1 − pdrop) decisions, from the line to the report."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest

from topbill import formats, lake, reporting, spec
from topbill.domain.errors import BadData, BadRequest
from topbill.formats import export_log, import_log, registry
from topbill.ope import evaluate
from topbill.reporting.experiment.plan import plan

SPEC = """
experiment: old
title: A sub-sampled log
surface: titles
unit: event_id
context: {}
actions: []
metrics:
  reward: {event: reward, kind: sum, window: 1s, cap: 1}
objective: {reward: 1.0}
variants:
  base: {policy: fixed, share: 1%, control: true}
  imported: {policy: uniform, share: 99%}
"""
KEPT_ALL, KEPT_A_TENTH = 60, 60
# A reward in 6 of 10 rows that stand for themselves, and in 1 of 10 that stand for ten each.
RIGHT = (0.6 * KEPT_ALL + 0.1 * 10 * KEPT_A_TENTH) / (KEPT_ALL + 10 * KEPT_A_TENTH)


def line(number: int, reward: bool, **changes: Any) -> bytes:
    own = {
        "EventId": f"e{number}",
        "Timestamp": f"2024-03-01T00:{number // 60:02d}:{number % 60:02d}Z",
        "_label_cost": -float(reward),
        "a": [1 + number % 2, 2 - number % 2],
        "p": [0.5, 0.5],
        "c": {"_multi": [{"_tag": "rome"}, {"_tag": "oslo"}]},
    }
    return json.dumps(own | changes).encode() + b"\n"


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    """A data folder with the log."""
    lines = [line(i, i % 10 < 6) for i in range(KEPT_ALL)]
    for i in range(KEPT_ALL, KEPT_ALL + KEPT_A_TENTH):
        lines.append(line(i, i % 10 < 1, pdrop=0.9))
    (tmp_path / "old.dsjson").write_bytes(b"".join(lines))
    (tmp_path / "old.yaml").write_text(SPEC)
    data = tmp_path / "data"
    import_log(
        tmp_path / "old.dsjson", data, key="old", experiments=[spec.load(tmp_path / "old.yaml")]
    )
    return data


def test_the_lake_has_a_weight_where_a_row_stands_for_others(folder: Path) -> None:
    counts = lake.sql(
        folder / lake.DATABASE,
        "SELECT row_weight, count(*) AS n FROM decisions GROUP BY ALL ORDER BY ALL NULLS FIRST",
    ).to_pylist()
    assert counts == [
        {"row_weight": None, "n": KEPT_ALL},
        {"row_weight": pytest.approx(10.0), "n": KEPT_A_TENTH},
    ]


@pytest.mark.parametrize("entry", registry.FORMATS.values(), ids=lambda entry: entry.name)
def test_a_format_keeps_the_weights_or_refuses_them(
    folder: Path, tmp_path: Path, entry: registry.Format
) -> None:
    target = tmp_path / "out"
    if not entry.weights:
        with pytest.raises(BadRequest, match=f"60 decisions stand for several .*{entry.name} has"):
            export_log("old", folder, target, format=entry.name)
        assert not target.exists()
        return
    export_log("old", folder, target, format=entry.name)
    if not entry.reader:
        assert target.read_text().count(",10.0") == KEPT_A_TENTH
        return
    weights = [row[0].row_weight for row in formats.read(target, entry.name, "old")]
    assert weights == [None] * KEPT_ALL + [pytest.approx(10.0)] * KEPT_A_TENTH


def test_a_report_weighs_means_and_compares_nothing(folder: Path) -> None:
    report = reporting.load_experiment_report("old", folder)
    (imported,) = (v for v in report.variants if v.variant == "imported")
    assert imported.reward.value == pytest.approx(RIGHT)
    # What is there and what is mature are told in one count, that of rows.
    assert imported.decisions == imported.reward.decisions == KEPT_ALL + KEPT_A_TENTH
    assert {line.estimate.decisions for line in report.metrics} <= {0, KEPT_ALL + KEPT_A_TENTH}
    assert report.ab is None
    (note,) = (note for note in report.notes if note.code == "sub_sampled")
    assert "60 of its decisions stand for several" in note.sentence
    with pytest.raises(BadData, match="'old' is a sub-sampled log"):
        plan("old", folder)


def test_an_evaluation_counts_each_row_for_what_it_stands_for(folder: Path) -> None:
    result = evaluate("old", "always rome", folder, estimators=("snips",))
    assert result.logged.value == pytest.approx(RIGHT)
    # Every other row drew rome: 6 of 10 that stand for themselves had a reward, 2 of 10 others.
    half, tenfold = KEPT_ALL / 2, 10 * KEPT_A_TENTH / 2
    right = (0.6 * half + 0.2 * tenfold) / (half + tenfold)
    assert result.targets["always rome"]["snips"].value == pytest.approx(right)


def test_a_policy_that_learned_weighted_rows_once_says_so(folder: Path, tmp_path: Path) -> None:
    (tmp_path / "other.yaml").write_text(SPEC.replace("policy: uniform", "policy: epsilon_greedy"))
    result = evaluate(
        "old", tmp_path / "other.yaml", folder, variant="imported", estimators=("snips",)
    )
    (estimates,) = result.targets.values()
    (note,) = (w for w in estimates["snips"].diagnostics.warnings if "row_weight" in w)
    # The last of them have not matured before the last batch.
    assert "of the decisions that it learned from stand for several" in note
    assert 0 < int(note.split()[0]) <= KEPT_A_TENTH
    plain = evaluate("old", "uniform", folder, estimators=("snips",))
    assert not any(
        "row_weight" in w for w in plain.targets["uniform"]["snips"].diagnostics.warnings
    )
