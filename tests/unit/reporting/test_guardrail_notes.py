"""A margin that takes far more units than there are says so before anybody was asked."""

from __future__ import annotations

import re
from pathlib import Path
from typing import Any

import pytest

from topbill import spec
from topbill.reporting.experiment.guardrail_notes import guardrail_notes

EXAMPLE = Path(__file__).parents[3] / "experiments" / "home-artwork.yaml"


def notes(margin: str, **changes: Any) -> list[str]:
    raw = {**spec.load(EXAMPLE).raw, **changes}
    raw["guardrails"] = [{"metric": "abandon", "margin": margin}]
    return list(guardrail_notes(spec.from_raw(raw, "example.yaml")))


def units(note: str) -> int:
    (number,) = re.findall(r"takes ([\d,]+) units", note)
    return int(number.replace(",", ""))


def test_a_narrow_margin_is_told_with_its_units_and_where_to_ask() -> None:
    (note,) = notes("2%")
    assert "non-inferiority of abandon within 2%" in note
    assert "--guardrail abandon=RATE" in note
    # Half the margin takes four times the units, but for how much the sequence of looks costs.
    (half,) = notes("1%")
    assert units(half) / units(note) == pytest.approx(4.0, rel=0.1)


def test_a_margin_that_can_be_shown_is_no_news() -> None:
    assert notes("10%") == []
    assert notes("2pp") == []


def test_a_single_look_takes_fewer() -> None:
    (sequential,) = notes("2%")
    (fixed,) = notes("2%", method="fixed")
    assert units(fixed) < units(sequential)
