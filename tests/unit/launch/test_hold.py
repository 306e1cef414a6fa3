"""What a launch's steps cannot show is told when the file is checked, in the numbers of `power`."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from topbill.ab import plan_ahead
from topbill.ab.harm import shown_harm
from topbill.cli.files import validate
from topbill.domain.margin import Margin
from topbill.launch.hold import hold_notes
from topbill.spec import from_audit


def file(margin: str = "2%", better: str = "lower", **launch: Any) -> dict[str, Any]:
    return {
        "experiment": "home",
        "surface": "artwork",
        "unit": "profile",
        "actions": [{"id": "x"}, {"id": "y"}],
        "metrics": {
            "click": {"event": "click", "kind": "binary", "window": "60s"},
            "abandon": {"event": "abandon", "kind": "binary", "window": "60s"},
        },
        "objective": {"click": 1.0},
        "guardrails": [{"metric": "abandon", "better": better, "margin": margin}],
        "variants": {
            "old": {"policy": "uniform", "share": "50%", "control": True},
            "new": {"policy": "uniform", "share": "50%"},
        },
        "launch": {"ramp": ["1%", "100%"], **launch},
    }


def notes(*arguments: str, **launch: Any) -> list[str]:
    return list(hold_notes(from_audit(json.dumps(file(*arguments, **launch)), "home.yaml")))


def test_a_narrow_margin_is_told_with_what_it_takes_and_what_a_step_shows() -> None:
    (note,) = notes(hold={"units": 5_000})
    assert note == (
        "that abandon is not worse by 2% takes some 721,000 units where 10% have it; "
        "a step of 5,000 shows harm from 39.4% on"
    )
    (planned,) = plan_ahead(0.1, margins=[Margin(0.02)], method="fixed").guardrails
    assert planned.units == pytest.approx(721_000, rel=0.001)
    (points,) = notes("2pp", hold={"units": 5_000})
    assert points.endswith(" pp on")


def test_a_step_that_is_large_enough_is_no_news() -> None:
    assert notes(hold={"units": 1_000_000}) == []
    assert notes("0%", hold={"units": 5_000}) == []


def test_a_step_of_a_handful_shows_none() -> None:
    for better in ("lower", "higher"):
        (note,) = notes("2%", better, hold={"units": 10})
        assert note.endswith("a step of 10 shows none")


def test_a_step_without_units_may_be_over_too_early() -> None:
    (note,) = notes()
    assert note.startswith("hold asks for no number of units")


def test_a_file_without_a_launch_has_no_steps() -> None:
    raw = file()
    del raw["launch"]
    assert list(hold_notes(from_audit(json.dumps(raw), "home.yaml"))) == []


def test_validate_says_it_and_goes_on(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    # JSON is YAML.
    (tmp_path / "home.yaml").write_text(json.dumps(file(hold={"units": 5_000})))
    validate(tmp_path)
    answer = capsys.readouterr().out
    assert "valid" in answer
    assert "note: that abandon is not worse by 2% takes some 721,000 units" in answer


@given(st.integers(2, 10**6), st.integers(1, 10**6), st.integers(5_000, 10**6))
def test_more_units_show_less_harm_until_the_sequence_has_to_wait(
    units: int, more: int, horizon: int
) -> None:
    least = shown_harm(units, horizon)
    assert least > 0.0
    assert shown_harm(units, horizon, 0.01) >= least
    # A stage that has ended asks for more than before, but for less than twice as much.
    assert shown_harm(units + more, horizon) < 2.0 * least
