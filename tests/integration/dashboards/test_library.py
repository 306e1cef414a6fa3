"""The library's page: what past experiments found, and how each of them ended."""

from __future__ import annotations

from pathlib import Path

import pytest
from test_pages import said, tables

from ...past_experiments import record


@pytest.fixture(scope="module")
def past(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return record(tmp_path_factory.mktemp("past"))


def test_every_past_experiment_is_told_with_its_lift_and_why(past: Path, open_app) -> None:
    app = open_app(past, "library")
    assert [e.message for e in app.exception] == []
    text = said(app)
    assert "3 of 5 experiments ended with a new winner" in text
    assert "Morris 1983" in text
    (table,) = tables(app)
    assert table["experiment"].iloc[0] == "Film noir"
    crime = table[table["experiment"] == "Crime row"].iloc[0]
    assert (crime["result"], crime["measured"]) == ("fresh won", "fresh +4.0%")
    assert crime["believed"].startswith("+")
    assert set(table["result"]) == {"fresh won", "editorial won", "nobody won"}
    assert "It harmed" in set(table["because"])
    assert len(app.get("vega_lite_chart")) == 1


def test_it_is_searched_by_words_and_by_outcome(past: Path, open_app) -> None:
    app = open_app(past, "library", past="harmed")
    (table,) = tables(app)
    assert list(table["experiment"]) == ["Old titles"]
    app = open_app(past, "library", past="of none")
    assert "No experiment matches" in said(app)


def test_without_any_it_says_how_one_is_ended(demo: Path, open_app) -> None:
    text = said(open_app(demo, "library"))
    assert "No experiment was concluded yet" in text
    assert "topbill conclude" in text
