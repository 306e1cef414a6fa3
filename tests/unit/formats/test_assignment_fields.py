"""An A/B test that ran elsewhere: variant and unit are fields of its log; a unit may come again."""

from __future__ import annotations

import json
from collections import Counter
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
import pytest
from scipy import stats

from topbill import cli, lake, spec
from topbill.domain.errors import BadData, TopbillError
from topbill.formats import import_log

ARMS = ("control", "treatment")
DECLARED = """
experiment: old-test
surface: artwork
unit: user_id
status: stopped
context: {country: {type: category, values: [DE]}}
actions: [{id: control}, {id: treatment}]
metrics:
  reward: {event: reward, kind: sum, window: 7d, cap: 1}
objective: {reward: 1.0}
variants:
  a: {policy: fixed, order: [control], share: 50%, control: true}
  b: {policy: fixed, order: [treatment], share: 50%}
"""


def exposures(users: int = 900) -> pd.DataFrame:
    """Who saw which arm, and converted or not: three in ten users were exported twice."""
    rng = np.random.default_rng(8)
    rows = []
    for user in range(users):
        arm = ARMS[int(rng.random() < 0.5)]
        converted = int(rng.random() < {"control": 0.1, "treatment": 0.3}[arm])
        for hour in range(2 if rng.random() < 0.3 else 1):
            at = f"2026-03-{1 + user % 20:02d}T0{hour}:00:00Z"
            rows.append({"user": f"user{user}", "arm": arm, "converted": converted, "at": at})
    return pd.DataFrame(rows)


def line_of(row: Any, context: Mapping[str, Any] | None = None, **more: Any) -> dict[str, Any]:
    """A row as the guide writes it: the arm that a user saw, with its share as its probability."""
    chosen = ARMS.index(row.arm)
    return {
        "Version": "1",
        "EventId": row.user,
        "Timestamp": row.at,
        "_label_cost": -float(row.converted),
        "c": {
            "shared": {"country": "DE", **(context or {})},
            "_multi": [{"_tag": arm} for arm in ARMS],
        },
        "a": [chosen + 1, 2 - chosen],
        "p": [0.5, 0.5],
        **more,
    }


def write(path: Path, lines: list[dict[str, Any]]) -> Path:
    path.write_text("".join(json.dumps(line) + "\n" for line in lines))
    return path


def run(*command: str | Path) -> None:
    cli.app([str(part) for part in command], result_action="return_value")


def closed_form(rows: pd.DataFrame) -> tuple[float, float]:
    """The difference of the rates per row, and its standard error by user: the ratio's."""
    means, variances = [], []
    for arm in ARMS:
        users = rows[rows.arm == arm].groupby("user").converted.agg(["sum", "size"])
        rate = users["sum"].sum() / users["size"].sum()
        rest = users["sum"] - rate * users["size"]
        means.append(rate)
        variances.append(rest.var(ddof=1) / len(users) / users["size"].mean() ** 2)
    return means[1] - means[0], float(np.sqrt(sum(variances)))


def comparison(data: Path, capsys: pytest.CaptureFixture[str], key: str = "old-test") -> Any:
    capsys.readouterr()
    run("report", key, "--data", data, "--method", "fixed", "--json")
    return json.loads(capsys.readouterr().out)


@pytest.mark.parametrize("declared", [False, True])
def test_a_plain_ab_export_is_compared_as_its_closed_form(
    tmp_path: Path, capsys: pytest.CaptureFixture[str], declared: bool
) -> None:
    rows = exposures()
    log = write(tmp_path / "log.dsjson", [line_of(row) for row in rows.itertuples()])
    (tmp_path / "exp").mkdir()
    if declared:
        (tmp_path / "exp" / "old-test.yaml").write_text(DECLARED)
    command: list[str | Path] = ["import", log, "--key", "old-test", "--data", tmp_path / "D"]
    command += ["--experiments", tmp_path / "exp", "--variant", "action", "--unit", "EventId"]
    run(*command)
    said = " ".join(capsys.readouterr().out.split())
    assert "each variant shows its action with probability 1" in said
    assert ("old-test: 'treatment' is variant b" in said) == declared
    report = comparison(tmp_path / "D", capsys)
    (row,) = [r for r in report["ab"]["comparisons"] if r["metric"] == "reward"]
    assert row["variant"] == ("b" if declared else "treatment")
    difference, se = closed_form(rows)
    assert row["difference"] == pytest.approx(difference, rel=1e-9)
    p = 2 * stats.norm.sf(abs(difference) / se)
    assert row["p_value"] == pytest.approx(p, rel=0.05)
    counts = rows.groupby("arm").user.nunique()
    units = [variant["units"] for variant in report["variants"]]
    assert sorted(units) == sorted(counts)
    # The line's p is the share of an arm, which says nothing of what an arm shows.
    assert all(line["ok"] for line in report["health"]["propensity"])


@pytest.mark.parametrize(
    ("lines", "field"),
    [
        (lambda row: line_of(row, {"group": row.arm}), "group"),
        (lambda row: line_of(row, {"exp": [{"group": row.arm}]}), "exp.group"),
        (lambda row: line_of(row, {"group": row.arm}), "c.shared.group"),
        (lambda row: line_of(row, group=row.arm), "group"),
        (lambda row: line_of(row, tags={"ab": row.arm}), "tags.ab"),
    ],
)
def test_the_variant_stands_in_the_context_or_in_the_line(
    tmp_path: Path, lines: Any, field: str
) -> None:
    rows = exposures(60)
    log = write(tmp_path / "log.dsjson", [lines(row) for row in rows.itertuples()])
    import_log(log, tmp_path / "D", key="old", variant=field, unit="EventId")
    query = "SELECT variant, count(DISTINCT unit) n FROM decisions GROUP BY 1 ORDER BY 1"
    shown = lake.sql(tmp_path / "D" / lake.DATABASE, query).to_pylist()
    counts = rows.groupby("arm").user.nunique()
    assert {row["variant"]: row["n"] for row in shown} == dict(counts)
    experiment = spec.load(tmp_path / "D" / "experiments" / "old.yaml")
    # As a feature it would part the variants in every segment, and tell models what they look for.
    assert "group" not in [feature.name for feature in experiment.context]
    (control,) = [variant for variant in experiment.variants if variant.control]
    assert control.name == "control"
    # Shares are those of units: a variant that brings units back has more rows, and no more units.
    assert control.share == pytest.approx(counts["control"] / counts.sum(), abs=1e-6)


def test_labels_that_are_no_names_get_one(tmp_path: Path) -> None:
    labels: list[Any] = [0, 1, True, 2.0, "New one!", "対照"]
    lines = [
        {**line_of(row), "bucket": labels[i % 6]}
        for i, row in enumerate(exposures(24).itertuples())
    ]
    remarks: list[str] = []
    log = write(tmp_path / "log.dsjson", lines)
    import_log(log, tmp_path / "D", key="old", variant="bucket", unit="EventId", remarks=remarks)
    names = {v.name for v in spec.load(tmp_path / "D" / "experiments" / "old.yaml").variants}
    assert names == {"variant-0", "variant-1", "true", "variant-2", "New-one", "variant-6"}
    assert "old: '0' is variant variant-0" in remarks
    assert "old: '対照' is variant variant-6" in remarks


def test_a_field_that_is_not_there_is_named_with_the_nearest(tmp_path: Path) -> None:
    rows = [line_of(row, {"group": row.arm}) for row in exposures(30).itertuples()]
    log = write(tmp_path / "log.dsjson", rows)
    with pytest.raises(BadData, match=r"line 1: got no 'grop', .*; did you mean group\?"):
        import_log(log, tmp_path / "D", variant="grop")
    # However many rows may be left out: all of them is none.
    with pytest.raises(BadData, match="got no 'grop'"):
        import_log(log, tmp_path / "E", variant="grop", skip_bad=10**6)
    with pytest.raises(BadData, match="got no 'usr_id', which is to say the unit"):
        import_log(log, tmp_path / "F", variant="group", unit="usr_id")


@pytest.mark.parametrize("nothing", [None, "", "missing"])
def test_rows_without_a_variant_are_refused_or_counted(tmp_path: Path, nothing: Any) -> None:
    lines = [line_of(row, group=row.arm) for row in exposures(30).itertuples()]
    for line in lines[4:7]:
        line["group"] = nothing
        if nothing == "missing":
            del line["group"]
    log = write(tmp_path / "log.dsjson", lines)
    with pytest.raises(BadData, match="line 7: got no 'group'"):
        import_log(log, tmp_path / "D", variant="group", unit="EventId", skip_bad=2)
    left_out: Counter[str] = Counter()
    number = import_log(
        log, tmp_path / "E", variant="group", unit="EventId", skip_bad=3, left_out=left_out
    )
    assert left_out == {"rows without a variant": 3}
    assert number == len(lines) - 3


def test_what_cannot_be_a_variant_is_refused_by_name(tmp_path: Path) -> None:
    rows = list(exposures(40).itertuples())
    cases: dict[str, tuple[list[dict[str, Any]], str]] = {
        "many": ([line_of(row, group=row.user) for row in rows], "the 21st value of 'group'"),
        "list": ([line_of(row, group=["b"]) for row in rows], "got a list as 'group'"),
        "alike": (
            [line_of(row, group=("a b", "a.b")[i % 2]) for i, row in enumerate(rows)],
            "got variants 'a b' and 'a.b', which would both be called 'a-b'",
        ),
    }
    for name, (lines, message) in cases.items():
        with pytest.raises(BadData, match=message):
            import_log(
                write(tmp_path / f"{name}.dsjson", lines), tmp_path / name, variant="group",
                unit="EventId",
            )  # fmt: skip


def test_a_variant_that_the_file_does_not_have_is_refused_or_counted(tmp_path: Path) -> None:
    (tmp_path / "old-test.yaml").write_text(DECLARED)
    experiments = spec.load_all([tmp_path / "old-test.yaml"])
    lines = [line_of(row, group="ab"[ARMS.index(row.arm)]) for row in exposures(30).itertuples()]
    lines[5]["group"] = "c"
    log = write(tmp_path / "log.dsjson", lines)
    options: dict[str, Any] = {"key": "old-test", "variant": "group", "unit": "EventId"}
    with pytest.raises(BadData, match=r"line 6: got variant 'c'; expected one that old-test\.yaml"):
        import_log(log, tmp_path / "D", experiments=experiments, **options)
    left_out: Counter[str] = Counter()
    import_log(
        log, tmp_path / "E", experiments=experiments, **options, skip_bad=1, left_out=left_out
    )
    assert left_out == {"rows of a variant that the file does not have": 1}


def test_the_same_row_again_is_the_same_and_another_of_the_unit_counts(tmp_path: Path) -> None:
    rows = list(exposures(10).itertuples())
    lines = [line_of(row) for row in rows]
    log = write(tmp_path / "log.dsjson", [*lines, lines[0]])
    left_out: Counter[str] = Counter()
    number = import_log(log, tmp_path / "D", variant="action", unit="EventId", left_out=left_out)
    assert number == len(lines)
    assert left_out == {"repeated decisions": 1}
    # Without --unit the id is the decision's, of which there is one; the message says the way out.
    with pytest.raises(BadData, match="import with --unit EventId"):
        import_log(log, tmp_path / "E", variant="action")
    # A folder holds what was imported in one way.
    with pytest.raises(TopbillError, match="with --variant action --unit EventId; expected"):
        import_log(log, tmp_path / "D", variant="action")


def test_an_open_bandit_csv_says_its_variant_by_a_feature(tmp_path: Path) -> None:
    text = "timestamp,item_id,position,click,propensity_score,user_feature_0,user_feature_1\n"
    for n in range(40):
        text += (
            f"2019-11-24 00:00:{n:02d}+00:00,{n % 2},1,{n % 2},0.5,u{n // 2},{'ab'[n % 4 // 2]}\n"
        )
    (tmp_path / "log.csv").write_text(text)
    import_log(
        tmp_path / "log.csv", tmp_path / "D", variant="user_feature_1", unit="user_feature_0"
    )
    query = (
        "SELECT variant, count(*) n, count(DISTINCT unit) u FROM decisions GROUP BY 1 ORDER BY 1"
    )
    shown = lake.sql(tmp_path / "D" / lake.DATABASE, query).to_pylist()
    assert shown == [{"variant": "a", "n": 20, "u": 10}, {"variant": "b", "n": 20, "u": 10}]
