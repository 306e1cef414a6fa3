"""Results draw themselves: what stands in a chart are the result's own numbers."""

from __future__ import annotations

from typing import Any

import altair as alt
import numpy as np
import pandas as pd
import pytest

from topbill import ab, charts, ope
from topbill.domain.errors import NotFound
from topbill.ope.comparison import THE_LOG
from topbill.ope.evaluation import Evaluation
from topbill.reporting.page import Impressions, LayerVariant, PageMean, PageReport

DESIGN = ab.Design(
    key="home",
    control="a",
    shares={"a": 1.0, "b": 1.0, "c": 1.0},
    metrics=(
        ab.MetricDesign(name="play", binary=True, weight=1.0),
        ab.MetricDesign(name="minutes"),
    ),
)


def analysis(**changed: Any) -> ab.Analysis:
    columns = {
        "unit": range(600),
        "variant": ["a", "b", "c"] * 200,
        "day": [0] * 600,
        "play": [0.0, 1.0, 1.0, 1.0, 0.0, 0.0] * 100,
        "minutes": [1.0, 2.0, 0.5, 4.0, 1.5, 3.0] * 100,
    }
    return ab.analyse(pd.DataFrame({**columns, **changed}), DESIGN)


def drawn(chart: alt.LayerChart, column: str) -> list[dict[str, Any]]:
    """The rows of the chart's data that have the column."""
    every = chart.to_dict()["datasets"].values()
    [rows] = [rows for rows in every if not rows or column in rows[0]]
    return list(rows)


def test_a_lift_is_drawn_with_its_interval() -> None:
    found = analysis()
    rows = drawn(found.chart("minutes"), "relative")
    told = [(row["name"], row["relative"], row["low"], row["high"]) for row in rows]
    assert told == [
        (c.variant, c.relative, c.relative_low, c.relative_high)
        for c in found.comparisons
        if c.metric == "minutes"
    ]
    assert rows[0]["text"].startswith("−30.0% (")


def test_without_a_metric_it_is_the_primary_one() -> None:
    found = analysis()
    assert found.chart().to_dict() == found.chart(found.primary).to_dict()
    with pytest.raises(NotFound, match=r"likes: not compared; expected one of .*minutes"):
        found.chart("likes")


def test_where_a_variant_has_no_lift_differences_are_drawn() -> None:
    # Nobody plays in the control: there is nothing to be a share of.
    nobody = [0.0, 1.0, 1.0, 0.0, 0.0, 0.0] * 100
    found = analysis(play=nobody)
    rows = drawn(found.chart("play"), "relative")
    assert [row["relative"] for row in rows] == [
        c.difference for c in found.comparisons if c.metric == "play"
    ]
    assert "difference from a" in str(found.chart("play").to_dict())


def test_no_lift_is_drawn_under_a_sample_ratio_mismatch() -> None:
    found = analysis(variant=["a"] * 400 + ["b"] * 100 + ["c"] * 100)
    assert found.sample_ratio.alarm
    chart = found.chart("minutes").to_dict()
    assert "not trustworthy (SRM)" in str(chart)
    assert all("relative" not in row for rows in chart["datasets"].values() for row in rows)


def test_of_a_variant_that_moves_the_denominator_its_units_are_compared() -> None:
    found = analysis()
    [first, *_] = [c for c in found.comparisons if c.metric == "minutes"]
    once = first.__class__(**{**_fields(first), "per": "unit"})
    changed = found.__class__(**{**_fields(found), "per_unit": [once]})
    assert [c.per for c in changed.comparisons_of("minutes")] == ["unit", "decision"]


def _fields(value: Any) -> dict[str, Any]:
    return {name: getattr(value, name) for name in value.__struct_fields__}


def test_candidates_are_drawn_beside_the_log_and_the_title_names_who_is_missing() -> None:
    r, p = np.array([0.0, 1.0] * 100), np.full(200, 0.5)
    given = ope.estimate(r, p, p, estimators=("ips", "dr"))
    refused = ope.Estimates({"dr": given["dr"]})
    found = Evaluation(
        experiment="home",
        variants=("a",),
        decisions=200,
        units=200,
        first_at=0,
        last_at=1,
        left_out={},
        logged=given["ips"],
        targets={"even": given, "other": refused},
    )
    chart = found.chart()
    rows = {row["name"]: row for row in drawn_all(chart)}
    assert rows["even"]["value"] == given["ips"].value
    assert "other" not in rows
    assert chart.to_dict()["title"] == "home (the log cannot tell: other)"
    one = found.chart("even")
    assert {row["name"] for row in drawn_all(one)} == {THE_LOG, "ips"}
    with pytest.raises(NotFound, match="evn: not evaluated; expected one of even, other"):
        found.chart("evn")


def drawn_all(chart: alt.LayerChart) -> list[dict[str, Any]]:
    return [row for rows in chart.to_dict()["datasets"].values() for row in rows]


def test_a_page_draws_each_layer_against_its_control() -> None:
    gap = PageMean(0.2, 0.1, 0.3)
    metrics = {"objective": PageMean(1.0, 0.9, 1.1)}
    arms = (
        LayerVariant("rows", "rows", "fixed", True, 10, 10, metrics, {}),
        LayerVariant("rows", "rows", "learned", False, 10, 10, metrics, {"objective": gap}),
    )
    report = PageReport("home", 20, 20, 20, 0, {}, {"play": 1.0}, arms, Impressions(0, "", ()))
    [row] = drawn(report.chart(), "reading")
    assert (row["name"], row["value"], row["reading"]) == ("rows: learned", 0.2, "better")
    assert "learned" in report._repr_html_()
    assert PageMean(-0.2, -0.3, -0.1).reading == "worse"
    assert PageMean(0.0, -0.1, 0.1).reading == "inconclusive"


def test_decisions_of_no_variant_are_told_from_the_controls() -> None:
    scale = charts.colours(["editorial", "thompson", "(none)"], "editorial").to_dict()["scale"]
    assert scale["domain"] == ["editorial", "thompson", "(none)"]
    assert len(set(scale["range"])) == 3
