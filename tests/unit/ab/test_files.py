"""A plain A/B table in a file gets verdict, metrics and split; what is wrong with it is told by
name.
"""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
import pytest

from topbill import ab
from topbill.cli import app
from topbill.domain.errors import BadData, BadRequest, TopbillError

UNITS = 2_000


@pytest.fixture(scope="module")
def units() -> pd.DataFrame:
    """A row a unit: minutes follow the past, the variant adds to both metrics."""
    rng = np.random.default_rng(14)
    arm = rng.choice(["old", "new"], UNITS)
    past = rng.gamma(2.0, 5.0, UNITS).round(3)
    return pd.DataFrame(
        {
            "user": [f"u{i:04d}" for i in range(UNITS)],
            "arm": arm,
            "clicked": (rng.random(UNITS) < np.where(arm == "new", 0.3, 0.2)).astype(int),
            "minutes": (past + rng.normal(0, 3, UNITS) + (arm == "new")).round(3),
            "past": past,
            "device": rng.choice(["tv", "phone"], UNITS),
            "day": rng.choice(["2026-03-01", "2026-03-02", "2026-03-03"], UNITS),
        }
    )


@pytest.fixture(scope="module")
def events(units: pd.DataFrame) -> pd.DataFrame:
    """A row an event: each unit has one to three."""
    rng = np.random.default_rng(15)
    rows = units.loc[np.repeat(units.index, rng.integers(1, 4, len(units)))].copy()
    rows["minutes"] = (rows["minutes"] + rng.normal(0, 1, len(rows))).round(3)
    return rows.sample(frac=1.0, random_state=1)


METRICS: dict[str, ab.Metric] = {
    "clicked": ab.Proportion("clicked"),
    "minutes": ab.Mean("minutes"),
    "mean of units": ab.Mean("minutes", "unit"),
    "ever clicked": ab.Proportion("clicked", "unit"),
    "total": ab.Sum("minutes"),
    "rate": ab.Ratio("clicked", "past"),
    "p90": ab.Quantile("minutes", 0.9),
    "median of units": ab.Quantile("minutes", per="unit"),
}


def compared(path: Path, **changes: Any) -> ab.FileComparison:
    arguments: dict[str, Any] = {"unit": "user", "variant": "arm", "control": "old"}
    arguments |= {"metrics": METRICS, "method": "fixed"} | changes
    return ab.compare_file(path, **arguments)


@pytest.mark.parametrize("rows", ["units", "events"])
@pytest.mark.parametrize("written", ["csv", "csv of Europe", "parquet"])
def test_the_numbers_are_those_of_compare(
    rows: str, written: str, request: pytest.FixtureRequest, tmp_path: Path
) -> None:
    frame = request.getfixturevalue(rows)
    path = tmp_path / "t"
    if written == "parquet":
        frame.to_parquet(path)
    elif written == "csv":
        frame.to_csv(path, index=False)
    else:
        frame.to_csv(path, index=False, sep=";", decimal=",", encoding="utf-8-sig")
    result = compared(path, covariates={"minutes": "past"})
    expected = ab.compare(
        frame,
        unit="user",
        variant="arm",
        control="old",
        metrics=METRICS,
        covariates={"minutes": "past"},
        method="fixed",
    )
    numbers = ["value", "control_value", "difference", "se", "p_value", "relative_low"]
    own = result.ab.to_frame().set_index("metric")[numbers]
    assert own.to_numpy(float) == pytest.approx(
        expected.set_index("metric")[numbers].to_numpy(float), rel=1e-9, abs=1e-12
    )
    assert result.ab.primary == "clicked"
    assert result.row_is_unit == (rows == "units")
    assert result.units == UNITS
    assert result.rows == len(frame)
    words = "each a unit of its own" if rows == "units" else "a row is an event"
    assert words in result.sentence


def test_several_variants_segments_time_shares_and_guardrails(
    units: pd.DataFrame, tmp_path: Path
) -> None:
    path = tmp_path / "t.csv"
    frame = units.assign(arm=np.arange(UNITS) % 4)
    frame.loc[frame.index[:200], "clicked"] = 0
    frame.to_csv(path, index=False)
    result = compared(
        path,
        control="0",
        segments=["device"],
        time="day",
        shares={"0": 2.0, "1": 2.0, "2": 2.0},
        guardrails={"minutes": 0.5},
        better={"minutes": "lower"},
    )
    assert set(result.ab.units) == {"0", "1", "2"}
    assert result.excluded == {"variant 3, which has no share": UNITS // 4}
    assert [split.value for split in result.ab.sample_ratio.days] == [
        *("2026-03-01", "2026-03-02", "2026-03-03")
    ]
    assert {h.segment for h in result.ab.heterogeneity} == {"device"}
    assert {g.variant: g.status for g in result.ab.guardrails} == {
        "1": "not_worse",
        "2": "not_worse",
    }


def test_a_split_that_is_not_as_meant_withholds_the_verdict(
    units: pd.DataFrame, tmp_path: Path
) -> None:
    path = tmp_path / "t.csv"
    units.to_csv(path, index=False)
    assert not compared(path).ab.sample_ratio.alarm
    assert compared(path, shares={"old": 0.8, "new": 0.2}).ab.verdict.codes == [
        ab.SAMPLE_RATIO_MISMATCH
    ]


def test_what_is_left_out_is_counted(units: pd.DataFrame, tmp_path: Path) -> None:
    path = tmp_path / "t.csv"
    frame = units.copy()
    frame.loc[:4, "user"] = None
    frame.loc[5:6, "arm"] = ""
    twice = frame.iloc[10:13].assign(arm=frame["arm"].iloc[10:13].map({"old": "new", "new": "old"}))
    pd.concat([frame, twice]).to_csv(path, index=False)
    result = compared(path)
    assert result.excluded == {"no user": 5, "no arm": 2}
    assert result.ab.sample_ratio.mixed == 3
    assert any("3 of 1,993 units" in note for note in result.ab.notes)
    assert not result.row_is_unit


@pytest.mark.parametrize("control", ["0", "0.0", "false", "False"])
@pytest.mark.parametrize("kind", [bool, int, float])
def test_labels_compare_by_value(
    control: str, kind: type, units: pd.DataFrame, tmp_path: Path
) -> None:
    path = tmp_path / "t.parquet"
    units.assign(arm=(units["arm"] == "new").astype(kind)).to_parquet(path)
    assert compared(path, control=control).ab.comparisons[0].n > 0


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"control": "olds"}, "arm: got no row of the control olds; .* did you mean old?"),
        ({"unit": "usr"}, "usr: no such column; .* did you mean user?"),
        ({"variant": "user"}, "user: got more than 100 variants, such as u0000"),
        ({"metrics": {"a": ab.Mean("device")}}, "device: got row 1: .*expected numbers"),
        ({"metrics": {"a": ab.Proportion("minutes")}}, "minutes: got values .*expected 0 and 1"),
        ({"metrics": {"a": ab.Mean("user")}}, "metrics.user: got the column of units"),
        ({"shares": {"old": 1.0}}, "arm: got one variant, old"),
        ({"time": "device"}, "device: got row 1: .*expected dates or times"),
        ({"guardrails": {"minutes": 0.1}}, "better: minutes: got nothing"),
        ({"better": {"minuts": "lower"}}, "better.minuts: no such metric"),
        ({"metrics": {}}, "metrics: got none"),
    ],
)
def test_what_is_wrong_is_named(
    changes: dict[str, Any], message: str, units: pd.DataFrame, tmp_path: Path
) -> None:
    path = tmp_path / "t.csv"
    units.to_csv(path, index=False)
    with pytest.raises(BadRequest, match=message):
        compared(path, **changes)


def test_one_variant_is_refused(units: pd.DataFrame, tmp_path: Path) -> None:
    path = tmp_path / "t.csv"
    units.assign(arm="old").to_csv(path, index=False)
    with pytest.raises(BadData, match="got one variant, old"):
        compared(path)


def test_infinite_and_huge_values_have_a_reason(units: pd.DataFrame, tmp_path: Path) -> None:
    path = tmp_path / "t.csv"
    frame = units.copy()
    frame["minutes"] = frame["minutes"].astype(str)
    for odd in ("inf", "1e400", "1e300", "-Infinity"):
        frame.loc[3, "minutes"] = odd
        frame.to_csv(path, index=False)
        result = compared(path, metrics={"minutes": ab.Mean("minutes")})
        assert result.ab.comparisons[0].reason == "infinite_values"
        assert result.ab.comparisons[0].p_value is None


# --- On the command line


def run(capsys: pytest.CaptureFixture[str], *arguments: object) -> str:
    app([*map(str, arguments)], result_action="return_value")
    return capsys.readouterr().out


def base(path: Path) -> tuple[object, ...]:
    return ("compare", path, "--unit", "user", "--variant", "arm", "--control", "old")


def test_the_command_prints_verdict_metrics_and_split(
    units: pd.DataFrame, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    path = tmp_path / "t.csv.gz"
    units.to_csv(path, index=False)
    text = run(
        capsys,
        *base(path),
        *("--metric", "clicked=proportion:clicked", "--metric", "minutes=mean:minutes"),
        *("--covariate", "minutes=past", "--covariate", "minutes=clicked"),
        *("--shares", "old=50%,new=50%"),
    )
    assert f"{path}: 2,000 rows, each a unit of its own" in text
    assert "new beats old" in text
    assert "sample ratio (SRM check): as intended" in text
    assert "what units did before" in text


def test_the_commands_json_holds_the_analysis(
    units: pd.DataFrame, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    path = tmp_path / "t.csv"
    units.to_csv(path, index=False)
    kinds = ("mean:minutes", "mean-per-unit:minutes", "sum:minutes", "p90:minutes")
    options: list[object] = []
    for i, kind in enumerate(kinds):
        options += ["--metric", f"m{i}={kind}"]
    answer = json.loads(run(capsys, *base(path), *options, "--json"))
    assert [c["metric"] for c in answer["ab"]["comparisons"]] == ["m0", "m1", "m2", "m3"]
    assert answer["row_is_unit"] is True
    assert answer["excluded"] == {}
    assert answer["ab"]["sample_ratio"]["alarm"] is False


@pytest.mark.parametrize(
    "options",
    [
        ("--metric", "minutes"),
        ("--metric", "minutes=minutes"),
        ("--metric", "a=avg:minutes"),
        ("--metric", "a=ratio:minutes"),
        ("--metric", "a=ratio-per-unit:clicked/minutes"),
        ("--metric", "a=mean:minutes", "--metric", "a=mean:minutes"),
        ("--metric", "a=mean:minutes", "--shares", "old=half"),
        ("--metric", "a=mean:minutes", "--better", "a=up"),
        ("--metric", "a=mean:minutes", "--guardrail", "b=2%"),
        ("--metric", "a=mean:minutes", "--covariate", "b=past"),
    ],
)
def test_options_that_cannot_be_meant_are_named(
    options: tuple[str, ...],
    units: pd.DataFrame,
    tmp_path: Path,
    capsys: pytest.CaptureFixture[str],
) -> None:
    path = tmp_path / "t.csv"
    units.to_csv(path, index=False)
    with pytest.raises(TopbillError):
        run(capsys, *base(path), *options)


def test_a_share_of_a_misspelt_variant_is_refused(units: pd.DataFrame, tmp_path: Path) -> None:
    path = tmp_path / "t.csv"
    units.to_csv(path, index=False)
    with pytest.raises(BadData, match=r"a share of nwe, and none of new; .* mean new\?"):
        compared(path, shares={"old": 0.5, "nwe": 0.5})
    # One that nobody got, while all others have shares, is a split that went wrong.
    assert compared(path, shares={"old": 0.4, "new": 0.4, "third": 0.2}).ab.sample_ratio.alarm


def test_rows_without_a_value_are_counted(units: pd.DataFrame, tmp_path: Path) -> None:
    path = tmp_path / "t.parquet"
    holed = units.assign(minutes=units.minutes.where(units.index % 10 != 0))
    holed.to_parquet(path)
    result = compared(path, metrics={"minutes": ab.Mean("minutes")})
    count = int(holed.minutes.isna().sum())
    assert result.missing == {"minutes": count}
    assert f"minutes has no value in {count:,} rows" in result.notes
