"""The way from rows to the sentence stays short enough to be read at one sitting."""

from __future__ import annotations

import sys
from types import FrameType

import pandas as pd

from topbill import ab


def test_an_analysis_passes_through_at_most_twelve_modules_of_ab_and_statistics() -> None:
    units = 400
    rows = pd.DataFrame({"unit": range(units), "day": [i % 5 for i in range(units)]})
    rows["variant"] = ["a", "b"] * (units // 2)
    rows["device"] = ["tv", "tv", "web", "web"] * (units // 4)
    rows["before"] = [float(i % 7) for i in range(units)]
    rows["play"] = [float(i % 3 == 0) for i in range(units)]
    rows["abandon"] = [float(i % 11 == 0) for i in range(units)]
    design = ab.Design(
        key="home",
        control="a",
        shares={"a": 0.5, "b": 0.5},
        metrics=(
            ab.MetricDesign(name="play", binary=True, weight=1.0),
            ab.MetricDesign(name="abandon", binary=True, better="lower"),
        ),
        guardrails={"abandon": 0.1},
    )
    modules: set[str] = set()

    def note(frame: FrameType, event: str, _argument: object) -> None:
        if event == "call":
            modules.add(frame.f_globals.get("__name__", ""))

    sys.setprofile(note)
    try:
        result = ab.analyse(rows, design, segments=["device"], covariates={"play": "before"})
    finally:
        sys.setprofile(None)
    assert result.verdict.sentence
    assert result.heterogeneity
    own = sorted(name for name in modules if name.startswith(("topbill.ab", "topbill.stats")))
    assert 5 < len(own) <= 12, own
