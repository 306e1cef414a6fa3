"""The library of past experiments: what is kept of them, and what their lifts are to be believed
at."""

from __future__ import annotations

from pathlib import Path

import pytest

from topbill import reporting
from topbill.ab import Proportion, compare
from topbill.ab.core.shrinkage import shrink
from topbill.lake import Lake
from topbill.reporting import past
from topbill.reporting.past import experiment_library

from ...past_experiments import PAST, Past, comparison, record
from ...processes import topbill


@pytest.fixture(scope="module")
def data(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return record(tmp_path_factory.mktemp("past"))


def test_the_last_concluded_stands_first_with_who_won_and_why(data: Path) -> None:
    library = experiment_library(data)
    assert [one.key for one in library.experiments] == [one.key for one in reversed(PAST)]
    harmful = library.of("old-titles")
    assert harmful is not None
    assert (harmful.winner, harmful.because, harmful.who) == ("editorial", "It harmed", "ann")
    assert library.of("other") is None


def test_lifts_are_drawn_towards_all_of_them_winners_and_losers(data: Path) -> None:
    library = experiment_library(data)
    expected = shrink([one.lift for one in reversed(PAST)], [one.se for one in reversed(PAST)])
    assert expected is not None
    assert library.lifts == 5
    assert library.mean == pytest.approx(expected.mean)
    for one, believed in zip(library.experiments, expected.effects, strict=True):
        assert one.lift is not None
        assert one.lift.shrunken == pytest.approx(believed.value)
        assert (one.lift.shrunken_low, one.lift.shrunken_high) == pytest.approx(
            (believed.low, believed.high)
        )
    best = library.of("midnight-run")
    assert best is not None
    assert best.lift is not None
    assert best.lift.shrunken is not None
    assert library.mean is not None
    assert library.mean < best.lift.shrunken < best.lift.relative


def test_of_few_lifts_all_are_as_measured_and_that_is_said(tmp_path: Path) -> None:
    library = experiment_library(record(tmp_path, PAST[:3]))
    assert library.mean is None
    assert {one.lift and one.lift.shrunken for one in library.experiments} == {None}
    assert "as measured" in past.sentence(library)


@pytest.mark.parametrize("lift", [-0.3, 0.05, 0.6])
def test_the_standard_error_of_a_lift_is_fiellers_where_the_control_is_known_well(
    lift: float,
) -> None:
    n, rate = 40_000, 0.2
    plays = int(n * rate)
    more = int(n * rate * (1 + lift))
    rows = {
        "arm": ["old"] * n + ["new"] * n,
        "play": [1] * plays + [0] * (n - plays) + [1] * more + [0] * (n - more),
    }
    table = compare(
        rows,
        unit=None,
        variant="arm",
        control="old",
        metrics={"play": Proportion("play")},
        method="fixed",
    )
    row = table.iloc[0]
    effect = comparison(lift, 0.01)
    effect = type(effect)(
        metric="play",
        variant="new",
        control_value=row.control_value,
        relative=row.relative,
        se=row.se,
        n=n,
        n_control=n,
    )
    half = (row.relative_high - row.relative_low) / 2
    error = past._standard_error(effect)
    assert error is not None
    assert 1.96 * error == pytest.approx(half, rel=0.12)


def test_what_it_was_worth_over_the_holdout_is_told(data: Path) -> None:
    kept = experiment_library(data).of("midnight-run")
    assert kept is not None
    assert past.worth(kept) == "+5.0% (−0.9% to +10.9%)"
    assert "worth +5.0%" in past.ended(kept)


def test_it_is_found_by_whatever_one_remembers(data: Path) -> None:
    kept = experiment_library(data).of("kids-row")
    assert kept is not None
    for text in ("kids", "nothing to be seen", "ann", "fresh pictures", "objective"):
        assert text in past.searchable(kept)


def test_the_report_is_there_when_nothing_else_is_left(data: Path) -> None:
    report = reporting.load("crime-row", data)
    assert isinstance(report, reporting.Report)
    assert report.conclusion is not None
    assert report.conclusion.is_frozen
    assert "fresh won" in reporting.to_html(report)


def test_what_a_year_taught_is_told_in_a_sentence(data: Path) -> None:
    library = experiment_library(data)
    year = int(library.experiments[0].concluded_at[:4])
    said = past.year_sentence(library, year)
    assert said.startswith(f"In {year}, 5 experiments were concluded: Film noir (fresh won), ")
    assert "Old titles (editorial won)" in said
    assert "Kids row (nobody won)" in said
    assert past.year_sentence(library, year + 1) == f"No experiment was concluded in {year + 1}."


def test_a_record_without_conclusions_is_an_empty_library(tmp_path: Path) -> None:
    Lake(tmp_path).write_database([], 1)
    library = experiment_library(tmp_path)
    assert (library.experiments, library.mean) == ([], None)


def test_the_list_tells_how_each_ended(data: Path) -> None:
    done = topbill("list", "--data", data)
    assert done.returncode == 0, done.stderr
    said = done.stdout
    assert "midnight-run" in said
    assert "fresh won, lift of fresh +9.0% as measured" in said
    assert "because: It harmed" in said


def test_one_without_a_lift_is_kept_without(tmp_path: Path) -> None:
    library = experiment_library(record(tmp_path, [*PAST, Past("odd", 0.1, 0.0)]))
    odd = library.of("odd")
    assert odd is not None
    assert odd.lift is not None
    assert odd.lift.shrunken is None
    assert library.lifts == 5
