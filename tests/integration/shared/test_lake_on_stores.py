"""A lake at an az:// or gs:// URL: commits, rival writers, reports, merges and erasing, over
Azurite, and over a server that takes Google's words.
"""

from __future__ import annotations

import json
from collections.abc import Iterator
from pathlib import Path
from threading import Barrier, Thread
from typing import Any

import pytest
from tests import azure_store, google_store, object_store
from tests.answers import differences
from tests.unit.reporting.test_kept_days import Record

from topbill import reporting
from topbill.domain.decision import decision_rows
from topbill.domain.errors import LogError
from topbill.domain.lake_url import LAKE_VARIABLE
from topbill.lake import Lake, database_of, sql

pytest.importorskip("obstore", reason="no obstore: pip install -r requirements-dev.lock")
pytest.importorskip("fsspec", reason="no fsspec: pip install -r requirements-dev.lock")


@pytest.fixture(scope="module", params=["az", "gs"])
def store(
    request: pytest.FixtureRequest, tmp_path_factory: pytest.TempPathFactory
) -> Iterator[tuple[str, dict[str, str]]]:
    """The scheme of its URLs, and what a process is given to reach it."""
    folder = tmp_path_factory.mktemp(request.param)
    if request.param == "az" and azure_store.missing():
        pytest.skip(azure_store.missing())
    running = azure_store.running if request.param == "az" else google_store.running
    with running(folder) as environment:
        yield request.param, environment


@pytest.fixture
def url(store: tuple[str, dict[str, str]], monkeypatch: pytest.MonkeyPatch) -> str:
    """Of a lake that nobody has used."""
    scheme, environment = store
    for name, value in environment.items():
        monkeypatch.setenv(name, value)
    bucket = (
        azure_store.fresh_container(environment) if scheme == "az" else object_store.fresh_bucket()
    )
    return f"{scheme}://{bucket}/lake"


def lived(folder: Path) -> dict[str, Any]:
    """What a report says of some days with late rewards, an erased unit and merged files."""
    record = Record(folder, seed=1, units=60)
    for _ in range(3):
        record.live(60)
    record.send(record.late)
    record.erase(str(record.decisions[0].unit))
    record.lake.compact(thorough=True)
    record.live(60)
    record.publish()
    answer = reporting.load_experiment_report("home", folder)
    return json.loads(reporting.to_json(answer))


def test_a_lake_there_is_one_in_a_folder(
    url: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    here = lived(tmp_path / "folder")
    monkeypatch.setenv(LAKE_VARIABLE, url)
    assert differences(here, lived(tmp_path / "store")) == []
    assert here["ab"]["comparisons"]


def test_of_two_that_append_the_same_rows_one_is_refused(
    url: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv(LAKE_VARIABLE, url)
    record = Record(tmp_path, seed=1, units=60)
    decisions = [record.decision(0) for _ in range(40)]
    together, appended, refused = Barrier(2), list[int](), list[str]()

    def publish(lake: Lake) -> None:
        for first in range(0, 40, 10):
            rows = list(enumerate(decisions[first : first + 10], first + 1))
            together.wait(60.0)
            try:
                appended.append(int(lake.append("decisions", decision_rows(rows), first + 10)))
            except LogError as error:
                refused.append(str(error))

    writers = [Thread(target=publish, args=(Lake(tmp_path),)) for _ in range(2)]
    for writer in writers:
        writer.start()
    for writer in writers:
        writer.join(60.0)
    assert sum(appended) == 4, "each rows once"
    assert all("meanwhile" in line or "Concurrent" in line for line in refused)
    record.publish()
    rows = sql(
        database_of(tmp_path), "SELECT count(*) AS n, count(DISTINCT seq) AS k FROM decisions"
    )
    assert rows.to_pylist() == [{"n": 40, "k": 40}]
