"""A kind of metric is added in one place, and everything that Topbill does with metrics works with
it: the example homepage runs with a kind that only this test has.
"""

from __future__ import annotations

import re
import shutil
import statistics
import time
from collections.abc import Sequence
from dataclasses import replace
from io import StringIO
from pathlib import Path

import pytest
from rich.console import Console

from topbill import lake, ope, reporting, spec
from topbill.domain import metric
from topbill.domain.metric import MetricKind, TimedValue
from topbill.ope.diagnostics import OPEN
from topbill.reporting.page import load_page_report, render_page_report
from topbill.reporting.queries.database import problems
from topbill.reporting.queries.series import progress
from topbill.service.app import create_app
from topbill.service.settings import Settings
from topbill.simulation.environment import Habits
from topbill.simulation.run import run
from topbill.worker.loop import Worker

from ..local_client import LocalClient

ROOT = Path(__file__).parents[2]
VIEWERS = 120
SHARES = (0.9, 0.1, 0.2)
"""What is watched of each first title, in the order in which it is reported; the median is 0.2."""


def median(events: Sequence[TimedValue]) -> float:
    return statistics.median(value for value, _ in events)


MEDIAN = MetricKind(
    fold=median,
    sql="median({value}) {inside}",
    takes_value=True,
    cap="optional",
    summary="the value in the middle",
)


@pytest.fixture
def folder(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """The example experiments with `median` where they have `max`, a default, and short windows."""
    monkeypatch.setitem(metric._KINDS, "median", MEDIAN)
    folder = tmp_path / "experiments"
    shutil.copytree(ROOT / "experiments", folder)
    for file in folder.rglob("*.yaml"):
        text = file.read_text().replace("kind: max,", "kind: median, default: 0.1,")
        text = re.sub(r"(window|reward_delay): \d+s", r"\1: 1s", text)
        file.write_text(text)
    return folder


def serve(folder: Path, data: Path) -> int:
    """Pages for so many viewers; every second one reports three shares of the first title. Returns
    how many did."""
    reported = 0
    with LocalClient(create_app(Settings(folder, data))) as client:
        for viewer in range(VIEWERS):
            page = client.post(
                "/v1/page", json={"page": "home", "profile": f"u{viewer}", "region": "us"}
            ).json()
            decision = client.post(
                "/v1/decide",
                json={
                    "experiment": "home-artwork",
                    "unit": f"u{viewer}",
                    "context": {"device": "tv", "hour": 20, "taste": {"drama": 1.0}},
                },
            ).json()
            if viewer % 2:
                continue
            reported += 1
            title = page["rows"][0]["titles"][0]["title"]
            for share in SHARES:
                event = {"event": "watch_fraction", "value": share}
                whole = {"decision_id": page["page_id"], "action": title}
                of_one = {"decision_id": decision["decision_id"]}
                assert client.post("/v1/reward", json=whole | event).status_code < 300
                assert client.post("/v1/reward", json=of_one | event).status_code < 300
    return reported


def test_a_kind_that_is_in_the_table_works_everywhere(folder: Path, tmp_path: Path) -> None:
    data = tmp_path / "data"
    experiments = {e.key: e for e in spec.load_all([folder, folder / "pages" / "home"])}
    schema = spec.json_schema()
    assert '"median"' in str(schema).replace("'", '"')
    reported = serve(folder, data)
    time.sleep(1.1)  # the windows

    worker = Worker(folder, data)
    while worker.step():
        pass
    worker.finish()
    # It learns; that the example is a demonstration is told, and no problem.
    assert [problem for problem in problems(data) if problem.kind != "page"] == []
    expected = (reported * 0.2 + (VIEWERS - reported) * 0.1) / VIEWERS

    # The lake, and the experiment's report over it.
    (row,) = lake.sql(
        data / lake.DATABASE,
        "SELECT avg(metrics['watched']) AS mean, count(*) AS n FROM feedback "
        "WHERE experiment = 'home-artwork'",
    ).to_pylist()
    assert row["n"] == VIEWERS
    assert row["mean"] == pytest.approx(expected)
    report = reporting.load("home-artwork", data)
    lines = [line for line in report.metrics if line.metric == "watched"]
    total = sum(
        line.estimate.value * line.estimate.decisions
        for line in lines
        if line.estimate.value is not None
    )
    assert total / VIEWERS == pytest.approx(expected)
    series = progress(data, "home-artwork", "watched")
    assert (series["value"] * series["decisions"]).sum() / VIEWERS == pytest.approx(expected)

    # The report of the whole page: its titles' `watched` is capped at 0.7.
    page = load_page_report("home", data)
    arms = [arm for arm in page.arms if arm.layer == "artwork" and arm.pages]
    watched = sum(arm.metrics["watched"].mean * arm.pages for arm in arms) / page.pages
    assert watched == pytest.approx(expected / 0.7)
    render_page_report(page, Console(file=StringIO()))

    # Evaluation reads the objective from the log, decision by decision.
    evaluated = ope.evaluate("home-artwork", "uniform", data, log_variants=["uniform"], gates=OPEN)
    (row,) = lake.sql(
        data / lake.DATABASE,
        "SELECT avg(objective) AS mean FROM feedback "
        "WHERE experiment = 'home-artwork' AND variant = 'uniform'",
    ).to_pylist()
    assert evaluated.logged.value == pytest.approx(row["mean"])
    assert 0.1 / 1.2 < row["mean"] < 0.2 / 1.2

    # A simulation's viewers act on it as on any kind with values.
    artwork = replace(experiments["home-artwork"], unit=None)
    simulated = run(artwork, 400, habits=Habits(missing=0.0))
    assert all(line.reward > 0.1 / 1.2 - 1e-9 for line in simulated)

    # And the guide would have to name it.
    guide = (ROOT / "docs" / "experiments.md").read_text()
    assert f"| `median` | {MEDIAN.summary} |" not in guide


def test_a_kind_that_cannot_be_computed_stops_no_other_experiment(
    folder: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    data = tmp_path / "data"
    for name in ("rows", "titles"):
        file = folder / f"home-{name}.yaml"
        file.write_text(file.read_text().replace("kind: median", "kind: max"))
    shutil.rmtree(folder / "pages")
    for sql in ("no_such_function({value}) {inside}", "median({values}) {inside}"):
        monkeypatch.setitem(metric._KINDS, "median", replace(MEDIAN, sql=sql))
        worker = Worker(folder, data)
        worker.step()
        worker.finish()
        (problem,) = problems(data)
        assert (problem.kind, problem.subject) == ("metrics", "home-artwork")
        assert reporting.load("home-rows", data).experiment == "home-rows"
        keys = lake.sql(data / lake.DATABASE, "SELECT key FROM experiments").to_pylist()
        assert {"key": "home-artwork"} in keys
