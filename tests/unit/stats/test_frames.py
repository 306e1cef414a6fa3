"""Results as frames: one column a number, whatever is missing, and text as it is."""

from __future__ import annotations

import numpy as np
import pandas as pd
from hypothesis import given
from hypothesis import strategies as st

from topbill import ab, ope
from topbill.stats.frames import frame_of, html_of


@given(st.lists(st.none() | st.floats(allow_nan=False), min_size=1, max_size=20))
def test_a_number_that_is_missing_is_unknown_and_no_number(
    values: list[float | None],
) -> None:
    frame = frame_of([{"value": value} for value in values])
    assert frame["value"].dtype == "Float64"
    for value, cell in zip(values, frame["value"], strict=True):
        assert cell is pd.NA if value is None else cell == value


def test_whole_numbers_and_truth_stay_what_they_are_beside_a_missing_one() -> None:
    frame = frame_of([{"n": 2**60 + 1, "known": True}, {"n": None, "known": None}])
    assert frame["n"].sum() == frame["n"][0] == 2**60 + 1
    assert frame["known"][0]
    assert frame["n"][1] is frame["known"][1] is pd.NA
    assert "<td>–</td>" in html_of(frame)


def test_whole_numbers_stay_whole_and_text_stays_text() -> None:
    frame = frame_of([{"n": 1, "reason": ""}, {"n": 2, "reason": None}], text=("reason",))
    assert frame["n"].tolist() == [1, 2]
    assert frame["n"].dtype == "Int64"
    assert frame["reason"].tolist() == ["", None]


def test_html_carries_sentences_as_text() -> None:
    html = html_of(frame_of([{"value": 0.25}]), "a < b & c")
    assert html.startswith("<p>a &lt; b &amp; c</p><table")
    assert "0.25" in html


def test_estimates_turn_into_a_row_each_and_say_why_one_is_missing() -> None:
    r, p = np.array([0.0, 1.0] * 100), np.full(200, 0.5)
    estimates = ope.estimate(r, p, p, estimators=("ips", "dr"))
    frame = estimates.to_frame()
    assert frame["estimator"].tolist() == ["ips", "dr"]
    assert frame["value"][0] == estimates["ips"].value == 0.5
    assert frame["value"][1] is pd.NA
    assert frame["reason"].tolist() == ["", "needs_reward_model"]
    assert ope.REASONS["needs_reward_model"] in estimates._repr_html_()
    assert estimates["ips"].to_frame().equals(frame.head(1))
    assert "needs_reward_model" not in estimates["ips"]._repr_html_()


def test_an_analysis_turns_into_a_row_for_each_metric_and_variant() -> None:
    rows = pd.DataFrame(
        {
            "unit": range(600),
            "variant": ["a", "b", "c"] * 200,
            "day": [0] * 600,
            "play": [0.0, 1.0, 1.0, 1.0, 0.0, 0.0] * 100,
            "minutes": [1.0, 2.0, 0.5, 4.0, 1.5, 3.0] * 100,
        }
    )
    design = ab.Design(
        key="home",
        control="a",
        shares={"a": 1.0, "b": 1.0, "c": 1.0},
        metrics=(
            ab.MetricDesign(name="play", binary=True, weight=1.0),
            ab.MetricDesign(name="minutes"),
        ),
    )
    analysis = ab.analyse(rows, design)
    frame = analysis.to_frame()
    assert list(zip(frame["metric"], frame["variant"], strict=True)) == [
        ("play", "b"),
        ("play", "c"),
        ("minutes", "b"),
        ("minutes", "c"),
    ]
    words = ["metric", "variant", "reason", "better", "call", "per", "is_proportion"]
    numbers = frame.drop(columns=words)
    assert all(pd.api.types.is_numeric_dtype(kind) for kind in numbers.dtypes)
    assert frame["difference"].tolist() == [c.difference for c in analysis.comparisons]
    assert analysis.comparisons[0].to_frame().iloc[0].equals(frame.iloc[0])
    assert analysis._repr_html_().startswith(f"<p>{analysis.verdict.sentence}")
