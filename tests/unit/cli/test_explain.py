"""`topbill explain` is read in a terminal: of hundreds of parts of a score the few that weigh."""

from __future__ import annotations

from pathlib import Path

import pytest

from topbill import cli
from topbill.cli import explain

SCORES = {
    "a": {"score": 0.05, "width": 0.036, "contributions": {"device=tv": 0.0, "tone-of-it": -0.25}},
    "quite-a-long-name": {
        "score": 0.0748,
        "width": None,
        "contributions": {f"feature-of-some-length-{n}": 0.01 * n for n in range(9)},
    },
    "fixed": {"score": None, "width": None, "contributions": {}},
}
FOUND = {
    "experiment": "art",
    "variant": "linucb",
    "unit": "u",
    "policy": "linucb",
    "reason": "policy",
    "policy_version": 3,
    "slate": [{"position": 0, "action": "a", "propensity": 0.02}],
    "scores": SCORES,
    "rewards": [],
}


def test_scores_fall_and_say_the_parts_that_weigh_most(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setattr(explain, "_explained", lambda *_: FOUND)
    cli.app(["explain", "d1", "--data", str(Path("nowhere"))], result_action="return_value")
    lines = capsys.readouterr().out.splitlines()
    assert max(map(len, lines)) <= 80
    begin = lines.index("score of each candidate, and what weighs most in it:") + 1
    assert lines[begin].split() == ["quite-a-long-name", "0.0748"]
    text = " ".join(" ".join(lines[begin:]).split())
    assert "feature-of-some-length-8 +0.08, feature-of-some-length-7 +0.07" in text
    assert "feature-of-some-length-4 +0.04, 3 more" in text
    assert "a 0.05 ± 0.036 tone-of-it −0.25 fixed no score" in text
    assert "device=tv" not in text, "what weighs nothing is not told"
