"""A world whose viewers look at the first row, and only sometimes further down: with impressions,
what nobody looked at is held against no title, in learning, evaluation and reports alike.
"""

from __future__ import annotations

import time
from collections import Counter
from contextlib import closing
from dataclasses import replace
from io import StringIO
from pathlib import Path
from typing import Any, NamedTuple

import pytest
from rich.console import Console

from topbill import pages
from topbill.engine import CompiledExperiment, examples
from topbill.log import LOG_FILE, open_log
from topbill.ope import evaluate, evaluate_page
from topbill.ope.replay.logged_data import LoggedData
from topbill.reporting import page as report
from topbill.service.app import create_app
from topbill.service.settings import Settings
from topbill.worker import archive
from topbill.worker.loop import Worker
from topbill.worker.verification import verify

from ...local_client import LocalClient
from ...small_page import PAGE, RULES

VIEWERS = 240
EXPLORES = "policy: thompson, model: shared, min_probability: 30%"


class Truth(Counter[str]):
    """What became of the titles in lower rows of visits with impressions, and of all pages'."""

    @property
    def rate(self) -> float:
        """Of those that were looked at, the share that was played."""
        return self["lower, played"] / self["lower, looked at"]


class Served(NamedTuple):
    """Where it lies, and what is true."""

    folder: Path
    data: Path
    truth: Truth


def visits(client: LocalClient) -> Truth:
    """Everybody looks at the first row, every third at all rows; of what they look at, they play
    the second title, every other time. A tenth of clients sends no impressions and no plays."""
    truth = Truth()
    for viewer in range(VIEWERS):
        asked = {"page": "home", "profile": f"u{viewer}", "region": "de"}
        page = client.post("/v1/page", json=asked).json()
        truth["placed"] += sum(len(row["titles"]) for row in page["rows"])
        if viewer % 10 == 9:
            continue
        events = []
        for row, shown in enumerate(page["rows"]):
            if row and viewer % 3:
                truth["not looked at"] += len(shown["titles"])
                continue
            truth["rows looked at"] += 1
            for place, tile in enumerate(shown["titles"]):
                about = {"decision_id": page["page_id"], "action": tile["title"]}
                events.append({**about, "event": "seen"})
                truth["lower, looked at"] += row > 0
                if place == 1 and (viewer // 3 + row) % 2 == 0:
                    events.append({**about, "event": "play"})
                    truth["played"] += 1
                    truth["lower, played"] += row > 0
        answer = client.post("/v1/reward/batch", json={"rewards": events})
        assert answer.status_code == 200, answer.text
        assert {one["status"] for one in answer.json()["results"]} == {"stored"}
    return truth


@pytest.fixture(scope="module")
def served(tmp_path_factory: pytest.TempPathFactory, home_class: Any) -> Served:
    folder = tmp_path_factory.mktemp("served") / "experiments"
    data = tmp_path_factory.mktemp("data")
    page = PAGE + "click_model: examined\n"
    home_class(folder).write(RULES, page, EXPLORES)
    with LocalClient(create_app(Settings(folder, data))) as client:
        truth = visits(client)
    time.sleep(1.1)  # the metric's window
    worker = Worker(folder, data)
    while worker.step():
        pass
    worker.finish()
    return Served(folder, data, truth)


def rate_of_examples(served: Served, click_model: str) -> float:
    """The mean reward of lower rows' examples, as policies learn them."""
    layers = {each.key: each for each in pages.load_experiments(served.folder)}
    titles = CompiledExperiment(replace(layers["titles"], click_model=click_model))
    rewards = []
    with closing(LoggedData(served.data, "titles")) as logged:
        with_impressions = [each for each in logged if each.events]
    firsts = first_rows(served)
    for _, decision, events in with_impressions:
        if decision.decision_id not in firsts:
            rewards += [each.reward for each in examples(titles, decision, events)]
    return sum(rewards) / len(rewards)


def first_rows(served: Served) -> set[str]:
    with closing(LoggedData(served.data, "rows")) as logged:
        decisions = [each.decision for each in logged]
    return {f"{d.decision_id.removesuffix(':rows')}:{d.slate[0].action}" for d in decisions}


def test_a_lower_rows_titles_are_learned_as_they_are(served: Served) -> None:
    rate = served.truth.rate
    assert rate_of_examples(served, "examined") == pytest.approx(rate)
    # Two in three did not look further down: what stood there would pass for refused.
    assert rate_of_examples(served, "independent") < 0.4 * rate


def test_evaluation_leaves_out_what_nobody_looked_at(served: Served) -> None:
    result = evaluate("titles", "uniform", served.data)
    # Of the 216 visits with impressions 144 stop below the first row.
    assert result.left_out == {"not looked at": 2 * 144}
    assert result.looks["without impressions"] == 24 * 3
    assert result.decisions == served.truth["rows looked at"] + 24 * 3
    assert result.logged.value == pytest.approx(served.truth["played"] / result.decisions)
    notes = result.targets["uniform"]["sips"].diagnostics.warnings
    assert any("came without impressions" in note for note in notes)


def test_a_page_earns_what_it_earned_and_no_place_is_lost(served: Served) -> None:
    result = evaluate_page("home", {"artwork": "uniform"}, served.data)
    assert result.left_out == {}
    assert result.decisions == VIEWERS
    assert result.looks["places not looked at"] == served.truth["not looked at"]
    assert result.logged.value == pytest.approx(served.truth["played"] / VIEWERS)
    # Pictures were drawn evenly: the same policy earns the same.
    assert result.targets["artwork: uniform"]["iips"].value == pytest.approx(result.logged.value)


def test_the_report_tells_what_was_looked_at_by_place(served: Served) -> None:
    found = report.load_page_report("home", served.data)
    looks, truth = found.impressions, served.truth
    assert (looks.sent, looks.click_model) == (216, "examined")
    by_place = looks.to_frame().set_index(["row", "position"])
    assert by_place.loc[(1, 1), "examples"] == VIEWERS
    # 72 looked, and 24 silent clients count as if they had.
    assert by_place.loc[(2, 1), "examples"] == 72 + 24
    assert by_place.loc[(2, 1), "placed"] == VIEWERS
    assert by_place["rewarded"].sum() == truth["played"]
    out = StringIO()
    report.render_page_report(found, Console(file=out, width=200))
    sentence = (
        f"{truth['not looked at']:,} of {truth['placed']:,} titles that stood on mature pages"
    )
    assert sentence in out.getvalue()
    assert "24 pages came without" in out.getvalue()
    assert sentence in report.page_html(found)


def test_the_same_fold_is_reached_again(served: Served) -> None:
    layers = {each.key: each for each in pages.load_experiments(served.folder)}
    with closing(open_log(served.data / LOG_FILE)) as log:
        assert verify(log, layers["titles"], archive.reader(served.data)).same
