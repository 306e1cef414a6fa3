"""The library's page: what past experiments found, and how each of them ended."""

from __future__ import annotations

from pathlib import Path

import msgspec
import pytest
from test_pages import said, tables

from topbill.domain.records import RewardEvent
from topbill.engine import Engine
from topbill.engine.api import DecideRequest
from topbill.launch import conclude
from topbill.log import open_log
from topbill.spec import Experiment, load
from topbill.worker.loop import Worker

from ...conftest import ARTWORK, write
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
    assert table["experiment"].iloc[0] == '<a href="library?kept=film-noir">Film noir</a>'
    crime = table[table["experiment"].str.contains("Crime row")].iloc[0]
    assert (crime["outcome"], crime["measured lift"]) == ("fresh won", "fresh +4.0%")
    assert crime["shrunken lift"].startswith("+")
    assert set(table["outcome"]) == {"fresh won", "editorial won", "nobody won"}
    assert "It harmed" in set(table["because"])
    assert len(app.get("vega_lite_chart")) == 1


def test_it_is_searched_by_words_and_by_outcome(past: Path, open_app) -> None:
    app = open_app(past, "library", past="harmed")
    (table,) = tables(app)
    assert [">Old titles<" in cell for cell in table["experiment"]] == [True]
    app = open_app(past, "library", past="of none")
    assert "No experiment matches" in said(app)


def test_of_what_is_gone_the_kept_report_is_shown(past: Path, open_app) -> None:
    app = open_app(past, "library", kept="crime-row")
    assert [e.message for e in app.exception] == []
    text = said(app)
    assert "Crime row" in text
    assert "Its file and its decisions are gone: this is its report as it was kept." in text
    assert "by ann: fresh won, and everybody gets it, because: More plays." in text
    assert "Fresh was compared with editorial." in text
    assert "its file is gone, and its report stays" in text
    every = next(table for table in tables(app) if "probability to beat control" in table)
    assert every["lift"].iloc[0] == "+4.0%"
    # A key of nobody is an old link: the library itself is shown.
    assert "ended with a new winner" in said(open_app(past, "library", kept="nobody"))


def test_without_any_it_says_how_one_is_ended(demo: Path, open_app) -> None:
    text = said(open_app(demo, "library"))
    assert "No experiment was concluded yet" in text
    assert "topbill conclude" in text


@pytest.fixture(scope="module")
def ended(tmp_path_factory: pytest.TempPathFactory) -> tuple[Path, Path]:
    """Folder and data of an experiment whose objective was changed on the way, and which was
    concluded."""
    place = tmp_path_factory.mktemp("ended")
    quick = ARTWORK.replace("window: 1s", "window: 1ms")
    folder, data = write(place / "experiments", quick), place / "data"
    with open_log(data / "log.sqlite") as log:
        for text in (quick, quick.replace("play: 1.0", "play: 0.5")):
            write(folder, text)
            experiment = load(folder / "art.yaml")
            log.revise("art", experiment.fingerprint, "bo", text_of(experiment))
            engine = Engine([experiment])
            asked = [DecideRequest(experiment="art", unit=f"u{n}") for n in range(60)]
            decisions = [engine.decide(request) for request in asked]
            plays = []
            for decision in decisions[::2]:
                plays.append(
                    RewardEvent(decision_id=decision.decision_id, event_id="p", event="play")
                )
            log.append(decisions, plays)
    publish(folder, data)
    conclude(data, "art", "thompson", who="ann", because="More plays")
    publish(folder, data)
    return folder, data


def text_of(experiment: Experiment) -> str:
    return msgspec.json.encode(experiment.raw).decode()


def publish(folder: Path, data: Path) -> None:
    worker = Worker(folder, data)
    worker.step()
    worker.finish()


def test_the_experiments_page_says_how_it_ended_and_what_was_changed(
    ended: tuple[Path, Path], open_app, monkeypatch: pytest.MonkeyPatch
) -> None:
    folder, data = ended
    app = open_app(data, "experiment", experiment="art")
    assert [e.message for e in app.exception] == []
    text = said(app)
    assert "by ann: thompson won, and everybody gets it, because: More plays." in text
    assert "These numbers are as they stood then" in text
    assert "Changed after the first exposure: on " in text
    assert "by bo: objective.play: 1 → 0.5" in text
    assert "Concluded" in said(open_app(data))

    monkeypatch.setenv("TOPBILL_EXPERIMENTS", str(folder))
    app = open_app(data, "experiment", experiment="art")
    monkeypatch.setenv("TOPBILL_EXPERIMENTS", str(folder))
    app.text_input(key="who").set_value("u1").run()
    assert "u1 is in thompson of art" in said(app)
    assert any("since" in table.columns for table in tables(app))
    app.text_input(key="who-context").set_value("[]").run()
    assert "expected an object of features" in said(app)
