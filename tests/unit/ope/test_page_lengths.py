"""Pages of other lengths: told of the probabilities to stop that were logged, refused where they
can't be.
"""

from __future__ import annotations

from collections.abc import Mapping
from math import exp
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from topbill.domain.errors import TopbillError
from topbill.domain.records import Stop
from topbill.ope import OPEN, evaluate_page
from topbill.ope.page_lengths import LENGTHS_TOLD, stop_ratio
from topbill.pages import CompiledPage

from ..pages.test_lengths import LENGTHS, teach, write
from .test_evaluate_pages import expected, lay_pages, logged_pages

DEARER = {"row_cost": 0.04, "title_cost": 0.03}
LONGER = {"rows.count": (3, 4), "titles.count": (5, 10)}
SHORTER = {"rows.count": (2, 3), "titles.count": (3, 6)}


@given(logged=st.floats(1e-6, 0.98), other=st.floats(0.0, 1.0))
def test_what_stopping_weighs_is_a_ratio_of_two_distributions(logged: float, other: float) -> None:
    ended = stop_ratio(Stop(3, 0.1, logged), other, ended=True)
    went_on = stop_ratio(Stop(3, 0.1, logged), other, ended=False)
    weights = np.array([exp(ended.log_ratio), exp(went_on.log_ratio)])
    p = np.array([logged, 1.0 - logged])
    assert p @ weights == pytest.approx(1.0)
    assert p @ weights**2 == pytest.approx(ended.moment)


@pytest.fixture(scope="module")
def taught(tmp_path_factory: pytest.TempPathFactory, home_class: Any) -> Any:
    """Pages whose lengths are drawn by policies that have learned, in a lake."""
    home = home_class(tmp_path_factory.mktemp("lengths") / "experiments")
    compiled_page = write(home, rules="")
    teach(compiled_page, 0.3, 12, home)
    made = logged_pages(compiled_page, home, 150, 20_000)
    data = home.folder.parent / "data"
    lay_pages(home, data, made, np.random.default_rng(5))
    return home, compiled_page, made, data


def test_the_lengths_that_there_were_weigh_one(taught: Any) -> None:
    _, _, made, data = taught
    assert len({len(page.answer.rows) for page in made}) > 1
    same = {"row_cost": 0.01, "title_cost": 0.02, "rows.count": (2, 4), "titles.count": "3-10"}
    result = evaluate_page("home", same, data)
    assert result.decisions == len(made)
    (estimates,) = result.targets.values()
    for estimate in estimates.values():
        assert estimate.value == pytest.approx(result.logged.value, rel=1e-9)


@pytest.mark.parametrize("instead", [DEARER, LONGER])
def test_the_truth_of_other_lengths_lies_near(taught: Any, instead: Mapping[str, Any]) -> None:
    """What pages of these lengths earn, made by the same policies for others, whose plays are
    known."""
    home, compiled_page, _, data = taught
    page = LENGTHS.replace("row_cost: 0.01", "row_cost: 0.04").replace(
        "title_cost: 0.02", "title_cost: 0.03"
    )
    if instead is LONGER:
        page = LENGTHS.replace("min: 2", "min: 3").replace("min: 3, max: 10", "min: 5, max: 10")
    home.write(page=page, rules="", policy="policy: uniform")
    other = CompiledPage(home.file(), compiled_page.engine, compiled_page.catalog)
    pages = [home.compose(other, 40_000 + number, region="de") for number in range(150)]
    truth = float(np.mean([expected(other, page, ()) for page in pages]))
    result = evaluate_page("home", instead, data, gates=OPEN)
    assert result.logged.value is not None
    assert abs(result.logged.value - truth) > 0.02 * truth
    (estimates,) = result.targets.values()
    assert tuple(estimates) == LENGTHS_TOLD
    for name in ("rips", "snrips", "sips", "snsips"):
        estimate = estimates[name]
        assert estimate.value is not None
        assert estimate.low is not None
        assert abs(estimate.value - truth) < 1.5 * (estimate.value - estimate.low), name


def test_lengths_that_hardly_ever_came_are_no_number(taught: Any) -> None:
    (estimates,) = evaluate_page("home", SHORTER, taught[3]).targets.values()
    assert {estimate.reason for estimate in estimates.values()} == {"no_overlap"}


@pytest.mark.parametrize(
    ("instead", "says"),
    [
        ({"rows.count": (1, 4)}, "150 shorter or longer than the log.*log, rows 2-4, titles 3-10"),
        ({"titles.count": "3-11"}, "150 shorter or longer than the log could tell"),
        ({"rows.count": "4"}, "expected LEAST-MOST, as rows.count=4-12"),
        ({"row_cost": "much"}, "got row_cost=much; expected a number above 0"),
        ({"title_cost": 0.0}, "got title_cost=0.0; expected a number above 0"),
        ({"titles": "uniform", "title_cost": 0.1}, "another policy and another length of titles"),
        (
            {"row_costs": 0.1},
            "got layer 'row_costs'; expected some of rows, titles, artwork, row_c",
        ),
    ],
)
def test_what_the_log_cannot_tell_is_named(taught: Any, instead: Any, says: str) -> None:
    with pytest.raises(TopbillError, match=says):
        evaluate_page("home", instead, taught[3])


def test_estimators_that_know_nothing_of_lengths_are_refused(taught: Any) -> None:
    with pytest.raises(TopbillError, match="of lengths expected some of rips"):
        evaluate_page("home", DEARER, taught[3], estimators=("iips",))


def test_pages_of_a_fixed_count_tell_nothing_of_others(home: Any, tmp_path: Path) -> None:
    home.write(policy="policy: uniform")
    made = logged_pages(home.compiled_page(), home, 3, 0)
    lay_pages(home, tmp_path / "data", made, np.random.default_rng(3))
    with pytest.raises(TopbillError, match="3 rows of a fixed count"):
        evaluate_page("home", {"row_cost": 0.1}, tmp_path / "data")
