"""All that is done with a lake in a data folder is done with one at a URL: reports say the same of
it, a unit is erased from it, it is backed up, verified and looked through for damage.
"""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import closing
from pathlib import Path
from typing import Any

import msgspec
import pytest
from tests import object_store
from tests.traces import traces, traces_in_files
from tests.unit.reporting import test_kept_days
from tests.unit.worker import test_erasure

import topbill
from topbill import spec
from topbill.backup import back_up, restore
from topbill.domain.errors import BadRequest
from topbill.domain.lake_url import LAKE_VARIABLE
from topbill.lake import Lake, database_of, lake_place, sql
from topbill.lake.files import files_below
from topbill.lake.kept import SUMS
from topbill.log import LOG_FILE, open_log
from topbill.reporting import load_experiment_report
from topbill.shipped import shipped
from topbill.simulation.recording import record_visits
from topbill.worker import archive
from topbill.worker.damage import damage
from topbill.worker.erasure import find_unit
from topbill.worker.publisher import Publisher
from topbill.worker.verification import verify


def at_a_new_url(monkeypatch: pytest.MonkeyPatch) -> str:
    for name, value in object_store.environment().items():
        monkeypatch.setenv(name, value)
    url = f"s3://{object_store.fresh_bucket()}/lake"
    monkeypatch.setenv(LAKE_VARIABLE, url)
    return url


def differences(one: Any, other: Any, where: str = "") -> Iterator[tuple[str, Any, Any]]:
    """What is not equal, to 1e-12 of it."""
    if isinstance(one, dict) and isinstance(other, dict):
        for key in one.keys() | other.keys():
            yield from differences(one.get(key), other.get(key), f"{where}.{key}")
    elif isinstance(one, list) and isinstance(other, list) and len(one) == len(other):
        for i, (left, right) in enumerate(zip(one, other, strict=True)):
            yield from differences(left, right, f"{where}[{i}]")
    elif isinstance(one, float) and isinstance(other, float):
        # A test of sums that cancel out is of their last digits, which depend on their order.
        least = 1e-6 if where.endswith("p_value") and min(one, other) > 0.999 else 1e-12
        if one != pytest.approx(other, rel=least, abs=1e-12, nan_ok=True):
            yield where, one, other
    elif one != other:
        yield where, one, other


def test_reports_and_evaluations_say_the_same_of_both(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    (artwork,) = [e for e in spec.load_all([shipped("experiments")]) if e.key == "home-artwork"]
    monkeypatch.delenv(LAKE_VARIABLE, raising=False)
    said = []
    for name in ("disk", "store"):
        if name == "store":
            at_a_new_url(monkeypatch)
        data = record_visits(tmp_path / name, [artwork], 150, seed=5)
        report = load_experiment_report(artwork.key, data)
        evaluation = topbill.evaluate(artwork.key, "uniform", data, buckets=64)
        said.append([msgspec.to_builtins(report), msgspec.to_builtins(evaluation)])
    assert not (tmp_path / "store" / "lake" / "decisions").exists()
    assert list(differences(*said)) == []


def test_what_days_add_up_to_is_kept_of_a_large_experiment(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    at_a_new_url(monkeypatch)
    record = test_kept_days.Record(tmp_path / "data", seed=3, units=20)
    for _ in range(3):
        record.live(40)
    record.publish()
    whole = load_experiment_report("home", record.folder)
    monkeypatch.setattr("topbill.reporting.experiment.build.LARGE", 1)
    kept = load_experiment_report("home", record.folder)
    assert any((record.folder / SUMS).rglob("*.parquet"))
    assert list(differences(msgspec.to_builtins(whole), msgspec.to_builtins(kept))) == []


@pytest.fixture(scope="module")
def world(tmp_path_factory: pytest.TempPathFactory) -> Iterator[test_erasure.World]:
    with pytest.MonkeyPatch.context() as patch:
        at_a_new_url(patch)
        yield test_erasure.World(tmp_path_factory.mktemp("world"))


def count(data: Path, table: str) -> int:
    query = f"SELECT count(*) AS n FROM {table}"  # noqa: S608 (a test's own)
    return int(sql(database_of(data), query).to_pylist()[0]["n"])


@pytest.mark.slow
def test_a_backup_has_the_lake_and_goes_back_to_a_url(
    world: test_erasure.World, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    back_up(world.data, tmp_path / "backups")
    with pytest.raises(BadRequest, match="is not empty"):
        restore(tmp_path / "backups", tmp_path / "same")
    for name in ("elsewhere", "folder"):
        if name == "elsewhere":
            at_a_new_url(monkeypatch)
        else:
            monkeypatch.delenv(LAKE_VARIABLE)
        data = tmp_path / name
        restore(tmp_path / "backups", data)
        assert (data / "lake" / "decisions").exists() == (name == "folder")
        with closing(open_log(data / LOG_FILE)) as log:
            Publisher(log, Lake(data), lambda: [world.art]).publish()
            assert verify(log, world.art, archive.reader(data)).same
        assert (count(data, "decisions"), count(data, "rewards")) == (120, 60)
        assert damage(data) == []


@pytest.mark.slow
def test_nothing_of_an_erased_unit_is_left_in_the_store(
    world: test_erasure.World, tmp_path: Path
) -> None:
    with closing(open_log(world.data / LOG_FILE)) as log:
        Publisher(log, Lake(world.data), lambda: [world.art]).publish()
    assert len(find_unit(world.data, test_erasure.VIEWER).decisions) == 24
    assert traces_in_store(world.data, tmp_path / "before")
    world.erase()
    assert traces_in_store(world.data, tmp_path / "after") == []
    assert list(traces(world.data, test_erasure.MARK)) == []
    assert [count(world.data, name) for name in ("decisions", "rewards", "events")] == [96, 48, 96]
    with closing(open_log(world.data / LOG_FILE)) as log:
        verification = verify(log, world.art, archive.reader(world.data))
        assert verification.same
        assert verification.erasure is not None
    assert damage(world.data) == []


def traces_in_store(data: Path, into: Path) -> list[str]:
    """Every place in the store that holds the viewer."""
    files = files_below(lake_place(data))
    for path in files.sizes(""):
        target = into / path
        target.parent.mkdir(parents=True, exist_ok=True)
        target.write_bytes(files.read(path))
    return list(traces_in_files(into, test_erasure.MARK))
