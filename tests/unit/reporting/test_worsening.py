"""How a guardrail's change is told: each number by a word for its direction, and without a sign."""

from __future__ import annotations

import pytest

from topbill.ab import GuardrailResult
from topbill.reporting.experiment.wording import worsening


@pytest.mark.parametrize(
    ("numbers", "expected"),
    [
        ((-0.116, -0.203, -0.03), ("11.6% better", "20.3% better to 3.0% better")),
        ((0.031, -0.01, 0.07), ("3.1% worse", "1.0% better to 7.0% worse")),
        ((0.0, -0.02, 0.02), ("unchanged", "2.0% better to 2.0% worse")),
        ((None, None, None), ("–", "")),
    ],
)
def test_a_change_for_the_better_is_called_so(
    numbers: tuple[float | None, float | None, float | None], expected: tuple[str, str]
) -> None:
    by, low, high = numbers
    guardrail = GuardrailResult(
        metric="abandon",
        variant="t",
        margin=0.02,
        status="undecided",
        worse_by=by,
        worse_by_low=low,
        worse_by_high=high,
    )
    assert worsening(guardrail) == expected
