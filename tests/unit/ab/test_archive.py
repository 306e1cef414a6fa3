"""Which weeks of an archive of tests have a broken split: found to the week where there are any,
and none where there are none.
"""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import msgspec
import numpy as np
import pandas as pd
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from topbill.ab import ArchiveSplits, srm, srm_archive
from topbill.cli import app
from topbill.domain.errors import BadData, BadRequest

UPWORTHY = Path(__file__).parents[2] / "data" / "upworthy" / "impressions.csv.gz"


def archive(
    rng: np.random.Generator,
    *,
    tests: int = 400,
    weeks: int = 40,
    broken: range = range(0),
    severity: float = 0.15,
) -> pd.DataFrame:
    """Tests of three arms; those of broken weeks give their first arm more."""
    week = rng.integers(0, weeks, tests)
    shares = np.full((tests, 3), 1.0)
    shares[np.isin(week, broken), 0] += severity
    units = rng.multinomial(4_000, shares / shares.sum(axis=1, keepdims=True))
    return pd.DataFrame(
        {
            "test": np.repeat(np.arange(tests), 3),
            "week": np.repeat(week, 3),
            "units": units.ravel(),
        }
    ).sample(frac=1.0, random_state=1)


def scanned(data: Any, **options: Any) -> ArchiveSplits:
    return srm_archive(data, test="test", units="units", period="week", **options)


def broken_weeks(result: ArchiveSplits) -> list[int]:
    return [int(each.period) for each in result.periods if each.broken]


def test_upworthys_window_is_found_to_the_week() -> None:
    """Its authors name 25 June 2013 to 10 January 2014: weeks 201325 to 201401."""
    result = srm_archive(pd.read_csv(UPWORTHY), test="test", units="impressions", period="week")
    (span,) = result.spans
    assert (span.since, span.until, span.broken) == ("201325", "201401", True)
    assert (span.tests, span.failing) == (526, 417)
    assert span.p_value < 1e-100
    assert [w for w in broken_weeks(result) if not 201325 <= w <= 201401] == []
    assert result.rest_failing == pytest.approx(42 / 1907)


def test_a_broken_span_is_found_to_the_week() -> None:
    for seed in range(5):
        rng = np.random.default_rng(seed)
        result = scanned(archive(rng, tests=1_200, broken=range(12, 19), severity=0.3))
        assert broken_weeks(result) == [*range(12, 19)]


def test_two_spans_are_both_found() -> None:
    data = archive(np.random.default_rng(1), tests=1_000, broken=range(5, 8), severity=0.4)
    late = data["week"].isin([30, 31]) & (data.groupby("test").cumcount() == 0)
    data.loc[late, "units"] *= 2
    result = scanned(data)
    assert broken_weeks(result) == [5, 6, 7, 30, 31]


def test_sound_archives_have_no_span() -> None:
    """At alpha 1%, of 60 archives two or fewer with more than 97%."""
    alarms = 0
    for seed in range(60):
        alarms += bool(scanned(archive(np.random.default_rng(seed), tests=150, weeks=20)).spans)
    assert alarms <= 2


def test_single_broken_tests_make_no_span() -> None:
    data = archive(np.random.default_rng(2))
    data.loc[data["test"].isin([3, 90, 200]) & (data["units"] > 1_330), "units"] *= 30
    result = scanned(data)
    assert result.spans == []
    assert {each.test for each in result.worst[:3]} == {"3", "90", "200"}
    assert result.worst[0].p_value == srm(result.worst[0].counts, [1, 1, 1])


def test_an_archive_that_is_broken_from_end_to_end_is_one_span() -> None:
    result = scanned(archive(np.random.default_rng(3), broken=range(40), severity=0.6))
    assert broken_weeks(result) == sorted({int(each.period) for each in result.periods})
    assert result.rest_failing is None


def test_intended_shares_count() -> None:
    rng = np.random.default_rng(4)
    data = archive(rng, tests=300, broken=range(40), severity=1.0)
    first = data.groupby("test")["units"].transform("max") == data["units"]
    meant = data.assign(share=np.where(first, 50, 25))
    assert scanned(meant).spans
    assert scanned(meant, share="share").spans == []


def test_what_cannot_be_tested_is_counted() -> None:
    rows = {
        "test": ["a", "a", "b", "c", "c", None, "d", "d"],
        "week": [1, 1, 1, 2, 2, 2, None, None],
        "units": [500, 520, 100, 3, 4, 10, 50, 50],
    }
    result = scanned(rows)
    assert result.tests == 1
    assert result.excluded == {"one arm": 1, "too few units": 1, "no test or period": 2}
    assert scanned({"test": [], "week": [], "units": []}).periods == []


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"units": [1, -2]}, "data.units: got -2.0 in test a"),
        ({"units": [1, float("inf")]}, "data.units: got inf"),
        ({"units": ["1", "many"]}, "data.units: got None in test a"),
    ],
)
def test_counts_that_are_none_are_refused(changes: dict[str, Any], message: str) -> None:
    rows = {"test": ["a", "a"], "week": [1, 1], "units": [500, 520]} | changes
    with pytest.raises(BadData, match=message):
        scanned(rows)


def test_wrong_arguments_are_named() -> None:
    with pytest.raises(BadRequest, match=r"data\.weeks: no such column"):
        srm_archive({"test": [1], "units": [2]}, test="test", units="units", period="weeks")
    with pytest.raises(BadRequest, match="alpha"):
        scanned({"test": [1], "week": [1], "units": [2]}, alpha=0.0)
    with pytest.raises(BadData, match="2,001 periods; expected at most 2,000"):
        scanned({"test": [*range(2_001)] * 2, "week": [*range(2_001)] * 2, "units": [9] * 4_002})


@settings(max_examples=25)
@given(seed=st.integers(0, 10_000), factor=st.sampled_from([1, 3]))
def test_the_order_of_rows_and_the_names_of_tests_do_not_matter(seed: int, factor: int) -> None:
    data = archive(np.random.default_rng(seed), tests=60, weeks=8, broken=range(2, 4), severity=0.5)
    other = data.sample(frac=1.0, random_state=seed).assign(test=lambda d: d["test"] * factor)
    one, two = scanned(data), scanned(other)
    assert one.spans == two.spans
    assert one.periods == two.periods


def test_it_is_json_and_a_frame() -> None:
    result = scanned(archive(np.random.default_rng(5), tests=30, weeks=4))
    assert json.loads(msgspec.json.encode(result))["tests"] == 30
    assert list(result.to_frame().columns) == ["period", "tests", "failing", "broken"]
    assert "no span of periods" in result._repr_html_()


def test_the_command_tells_the_span(capsys: pytest.CaptureFixture[str]) -> None:
    options = ["--test", "test", "--units", "impressions", "--period", "week"]
    app(["srm", str(UPWORTHY), *options], result_action="return_value")
    text = " ".join(capsys.readouterr().out.split())
    assert "broken: 201325 to 201401 (417 of 526 tests fail)" in text
    app(["srm", str(UPWORTHY), *options, "--json"], result_action="return_value")
    assert json.loads(capsys.readouterr().out)["spans"][0]["until"] == "201401"
