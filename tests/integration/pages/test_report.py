"""From served pages to what is known of them: the record, the signals, the layers' own
effects, and slate OPE.
"""

from __future__ import annotations

import shutil
import time
from io import StringIO
from pathlib import Path
from typing import Any

import msgspec
import numpy as np
import pytest
from rich.console import Console

from topbill import lake, pages, spec
from topbill.candidates import Play, Signals, signals_path
from topbill.candidates.fitting import learn
from topbill.domain.engine_url import ENGINE_VARIABLE
from topbill.domain.errors import BadRequest, NotFound
from topbill.domain.records import RewardEvent
from topbill.ope import estimate_slate, evaluate_page
from topbill.reporting import page as report
from topbill.service.app import create_app
from topbill.service.settings import Settings
from topbill.worker import candidate_signals
from topbill.worker.loop import Worker

from ... import sail_server
from ...answers import differences
from ...local_client import LocalClient
from ...small_page import lay

VIEWERS = 160


@pytest.fixture(scope="module")
def served(tmp_path_factory: pytest.TempPathFactory, home_class: Any) -> tuple[Path, Path, int]:
    """A service that has served a page to each viewer, whose plays all come from the pictures:
    where the artwork's variant is `any`, two in three play the first title; elsewhere nobody plays.
    Then the worker's work."""
    folder, data = (
        tmp_path_factory.mktemp("served") / "experiments",
        tmp_path_factory.mktemp("data"),
    )
    home_class(folder)
    artwork = folder / "pages" / "home" / "artwork.yaml"
    halves = (
        "  first: {policy: fixed, share: 50%, control: true}\n"
        "  any: {policy: uniform, share: 50%}\n"
    )
    artwork.write_text(artwork.read_text().split("  only:")[0] + halves)
    plays = 0
    with LocalClient(create_app(Settings(folder, data))) as client:
        for viewer in range(VIEWERS):
            page = client.post(
                "/v1/page", json={"page": "home", "profile": f"u{viewer}", "region": "de"}
            ).json()
            variant = next(one["variant"] for one in page["layers"] if one["layer"] == "artwork")
            if variant == "any" and viewer % 3:
                title = page["rows"][0]["titles"][0]["title"]
                client.post(
                    "/v1/reward",
                    json={"decision_id": page["page_id"], "event": "play", "action": title},
                )
                plays += 1
    time.sleep(1.1)  # the metric's window
    worker = Worker(folder, data)
    while worker.step():
        pass
    worker.finish()
    return folder, data, plays


def test_the_record_has_every_layer_and_every_learner_learned_once(
    served: tuple[Path, Path, int],
) -> None:
    _, data, plays = served
    found = lake.sql(
        data / lake.DATABASE,
        "SELECT experiment, count(*) AS n FROM decisions GROUP BY ALL ORDER BY ALL",
    )
    counts = {row["experiment"]: row["n"] for row in found.to_pylist()}
    assert counts == {
        "home": VIEWERS,
        "rows": VIEWERS,
        "titles": 3 * VIEWERS,
        "artwork": 3 * VIEWERS,
    }
    credited = lake.sql(
        data / lake.DATABASE, "SELECT experiment, count(*) AS n FROM rewards GROUP BY ALL"
    ).to_pylist()
    assert {row["experiment"]: row["n"] for row in credited} == dict.fromkeys(counts, plays)


def test_the_report_says_it_was_the_picture(served: tuple[Path, Path, int]) -> None:
    _, data, plays = served
    found = report.load_page_report("home", data)
    assert (found.pages, found.mature, found.units, found.again) == (VIEWERS, VIEWERS, VIEWERS, 0)
    arms = {(arm.layer, arm.variant): arm for arm in found.arms}
    picture = arms["artwork", "any"]
    gap = picture.against_control["play"]
    assert gap.low > 0.4
    assert picture.metrics["play"].mean * picture.pages == pytest.approx(plays)
    assert arms["artwork", "first"].metrics["play"].mean == 0.0
    assert arms["artwork", "first"].beaten_by == ("any",)
    assert (picture.beaten_by, picture.standing) == ((), "Pareto-optimal")
    assert arms["artwork", "first"].standing == "dominated by any"
    assert arms["titles", "only"].against_control == {}
    out = StringIO()
    report.render_page_report(found, Console(file=out, width=200))
    assert "dominated by any" in out.getvalue()


def test_a_spark_connect_server_says_the_same(
    served: tuple[Path, Path, int], monkeypatch: pytest.MonkeyPatch
) -> None:
    pytest.importorskip("pysail", reason="no pysail: pip install -r requirements-dev.lock")
    pytest.importorskip("pyspark", reason="no pyspark: pip install 'topbill[spark]'")
    _, data, _ = served

    def asked() -> dict[str, Any]:
        return {
            "report": msgspec.to_builtins(report.load_page_report("home", data)),
            "instead": evaluate_page("home", {"artwork": "uniform"}, data).as_dict(),
        }

    here = asked()
    with sail_server.running() as url:
        monkeypatch.setenv(ENGINE_VARIABLE, url)
        there = asked()
    assert differences(here, there) == []
    assert here["report"]["arms"]
    # The half that the variant `any` decided.
    assert here["instead"]["decisions"] > VIEWERS // 3
    assert here["instead"]["targets"]["artwork: uniform"]


def test_weights_can_be_changed_afterwards(served: tuple[Path, Path, int]) -> None:
    _, data, _ = served
    plain, weighed = (
        report.load_page_report("home", data),
        report.load_page_report("home", data, weights={"play": 3.0}),
    )
    assert weighed.weights == {"play": 3.0}
    assert [a.metrics[report.OBJECTIVE].mean for a in weighed.arms] == [
        a.metrics["play"].mean for a in plain.arms
    ]
    with pytest.raises(BadRequest, match="no such metric; expected some of play"):
        report.load_page_report("home", data, weights={"joy": 1.0})


def test_a_page_that_is_not_there_is_not_found(served: tuple[Path, Path, int]) -> None:
    with pytest.raises(NotFound, match="no page 'nope'"):
        report.load_page_report("nope", served[1])


def test_the_worker_leaves_what_was_played_where_the_service_finds_it(
    served: tuple[Path, Path, int],
) -> None:
    folder, data, plays = served
    experiments = spec.load_all(pages.experiment_folders(folder))
    found = candidate_signals.refresh(folder, data, experiments, time.time())["home"]
    held = Signals.load(signals_path(data, "home"))
    assert held.plays == found.plays == plays
    assert held.regional[held.regions.index("de")].sum() == plays
    assert held.trending.sum() == pytest.approx(plays, rel=0.01)
    assert held.recall is None  # nobody has played twice


def test_the_report_says_what_the_candidates_find_of_held_out_plays(
    served: tuple[Path, Path, int], home: Any, tmp_path: Path
) -> None:
    data = shutil.copytree(served[1], tmp_path / "data")

    def shown() -> str:
        out = StringIO()
        report.render_page_report(
            report.load_page_report("home", data), Console(file=out, width=200)
        )
        return out.getvalue()

    signals_path(data, "home").unlink(missing_ok=True)
    assert "too few viewers with two plays" in shown()
    catalog = home.catalog()
    plays = [
        Play(f"u{i}", catalog.ids[(i + j) % 60], time.time(), "us")
        for i in range(200)
        for j in (0, 1)
    ]
    learned = learn(plays, catalog, time.time())
    learned.save(signals_path(data, "home"))
    assert report.load_page_report("home", data).recall == learned.recall
    assert "the first 200 hold 100.0% of 100 plays that were held out" in shown()
    signals_path(data, "home").write_bytes(b"damaged")
    assert report.load_page_report("home", data).recall is None


def test_pages_can_be_evaluated_as_slates(served: tuple[Path, Path, int]) -> None:
    """Cells of the page's own decision are a slate: under the policy that served it, every
    estimator gives the mean number of plays, and a target is weighed cell by cell."""
    _, data, plays = served
    cells = lake.sql(
        data / lake.DATABASE,
        """SELECT p.decision_id AS page, p.position, p.propensity,
               (r.event IS NOT NULL)::DOUBLE AS played
           FROM placements p
           LEFT JOIN rewards r ON r.decision_id = p.decision_id AND r.position = p.position
           WHERE p.experiment = 'home' ORDER BY p.decision_id, p.position""",
    ).to_pandas()
    cascade = cells.groupby("page").propensity.cumprod().to_numpy()
    whole = cells.groupby("page").propensity.transform("prod").to_numpy()
    joint = {d["decision_id"]: d["propensity"] for d in decisions(data)}
    assert np.allclose(whole, cells.page.map(joint))
    found = estimate_slate(
        cells.played.to_numpy(),
        slate_id=cells.page.to_numpy(),
        position=cells.position.to_numpy(),
        propensities=whole,
        target_propensities=whole,
        item_propensities=cells.propensity.to_numpy(),
        target_item_propensities=cells.propensity.to_numpy(),
        cascade_propensities=cascade,
        target_cascade_propensities=cascade,
    )
    values = [estimate.value for estimate in found.values() if estimate.value is not None]
    assert len(values) >= 3
    assert values == [pytest.approx(plays / VIEWERS)] * len(values)


def decisions(data: Path) -> list[dict[str, Any]]:
    query = "SELECT decision_id, propensity FROM decisions WHERE experiment = 'home'"
    rows: list[dict[str, Any]] = lake.sql(data / lake.DATABASE, query).to_pylist()
    return rows


def test_other_weights_weigh_all_of_history_anew(home: Any, tmp_path: Path) -> None:
    """Plays and returns on known pages: each objective is what the weights say of the two, whatever
    was learned.
    """
    for file in (home.folder / "pages" / "home").glob("*.yaml"):
        back = "  back: {event: session_start, kind: binary, window: 1s}\nobjective"
        file.write_text(file.read_text().replace("objective", back, 1))
    compiled_page = home.compiled_page()
    made = [d for n in range(40) for d in home.compose(compiled_page, n).decisions]
    start = round(home.now * 1e6)
    laid = [msgspec.structs.replace(d, decided_at=start + n) for n, d in enumerate(made)]
    own = [d for d in laid if d.layer == "page"]
    events = [
        RewardEvent(
            decision_id=d.decision_id, event_id=name, event=name, received_at=d.decided_at + 1
        )
        for number, d in enumerate(own)
        for name, every in (("play", 2), ("session_start", 5))
        if number % every == 0
    ]
    lay(tmp_path / "data", home.experiments(), laid, events, start + 60_000_000)
    for weights, mean in (
        ({"play": 1.0}, 0.5),
        ({"back": 1.0}, 0.2),
        ({"play": 1.0, "back": 3.0}, (0.5 + 0.6) / 4),
    ):
        (arm,) = [
            a
            for a in report.load_page_report("home", tmp_path / "data", weights=weights).arms
            if a.layer == "titles"
        ]
        assert arm.metrics[report.OBJECTIVE].mean == pytest.approx(mean)
    assert report.load_page_report("home", tmp_path / "data").weights == {"play": 1.0}
