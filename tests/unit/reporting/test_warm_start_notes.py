"""The report says what variants knew before anybody was asked."""

from __future__ import annotations

from typing import Any

import pytest

from topbill import spec
from topbill.domain.records import Decision, Placement
from topbill.reporting import load_experiment_report
from topbill.testing import temporary_lake

SECOND = 1_000_000


def raw(starts: dict[str, Any]) -> dict[str, Any]:
    return {
        "experiment": "art",
        "surface": "artwork",
        "actions": [{"id": "face"}, {"id": "chase"}],
        "metrics": {"play": {"event": "play", "kind": "binary", "window": "5s"}},
        "objective": {"play": 1.0},
        "variants": {
            "control": {"policy": "uniform", "share": "50%", "control": True},
            "ours": {"policy": "linucb", "share": "50%", "min_probability": "5%", **starts},
        },
    }


@pytest.mark.parametrize(
    ("starts", "sentence"),
    [
        ({"start_from": {"log": "old", "until": "2026-03-02"}}, "the log of old before"),
        (
            {"start_from": {"snapshot": "a.policy", "sha256": "f" * 64}},
            "a.policy, a trained policy (SHA-256 ffffffffffff…)",
        ),
        (
            {"prior": {"from": [f"e{i}" for i in range(14)]}},
            "14 earlier experiments (e0, e1, e2, e3,",
        ),
        ({"prior": {"from": ["old"]}}, "1 earlier experiment (old)"),
    ],
)
def test_the_report_says_what_a_variant_starts_from(starts: dict[str, Any], sentence: str) -> None:
    art = spec.from_raw(raw(starts), "art.yaml")
    decisions = [
        Decision(
            decision_id=f"d{i}",
            experiment="art",
            revision=art.fingerprint,
            variant=variant,
            unit=f"u{i}",
            eligible=("face", "chase"),
            slate=(Placement(0, "face", 0.5),),
            propensity=0.5,
            policy="uniform",
            reason="policy",
            decided_at=(i + 1) * SECOND,
        )
        for i, variant in enumerate(["control", "ours"])
    ]
    with temporary_lake([art], decisions) as data:
        notes = load_experiment_report("art", data).notes
    (note,) = [note for note in notes if note.code == "starts_from"]
    assert note.sentence.startswith(f"ours starts from {sentence}")


def test_who_knew_nothing_is_no_news() -> None:
    art = spec.from_raw(raw({}), "art.yaml")
    with temporary_lake([art], []) as data:
        notes = load_experiment_report("art", data).notes
    assert not [note for note in notes if note.code == "starts_from"]
