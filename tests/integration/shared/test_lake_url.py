"""A lake at a URL: published to, read and tidied in an S3 server as in a data folder."""

from __future__ import annotations

import threading
from collections.abc import Iterator
from pathlib import Path

import pytest
from tests import object_store
from tests.object_store_gate import EVERYTHING, WRITES, Gate, gate
from tests.unit.lake.test_lake import NOW, decision, experiment

from topbill.domain.decision import decision_rows
from topbill.domain.errors import BadRequest, LogError, NotFound
from topbill.domain.lake_url import LAKE_VARIABLE
from topbill.lake import DATABASE, Lake, database_of, is_published, sql
from topbill.lake.buckets import bucket
from topbill.lake.home import check_home
from topbill.log import open_log_of
from topbill.log.unit_ids import SALT, SETTINGS


@pytest.fixture
def store(monkeypatch: pytest.MonkeyPatch) -> str:
    """The URL of an empty lake."""
    for name, value in object_store.environment().items():
        monkeypatch.setenv(name, value)
    url = f"s3://{object_store.fresh_bucket()}/a/lake"
    monkeypatch.setenv(LAKE_VARIABLE, url)
    return url


@pytest.fixture(params=["s3", "file"])
def url(request: pytest.FixtureRequest, monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> str:
    """The same in a folder that machines share, too."""
    if request.param == "s3":
        return str(request.getfixturevalue("store"))
    monkeypatch.setenv(LAKE_VARIABLE, f"file://{tmp_path}/mounted")
    return f"{tmp_path}/mounted"


def rows_of(*numbers: int) -> object:
    return decision_rows([(n, decision(n)) for n in numbers])


def counted(data: Path) -> tuple[int, int]:
    query = "SELECT count(*) AS n, count(DISTINCT decision_id) AS ids FROM decisions"
    (row,) = sql(database_of(data), query).to_pylist()
    return row["n"], row["ids"]


def test_what_is_published_there_is_read_on_any_machine(url: str, tmp_path: Path) -> None:
    lake, other = Lake(tmp_path / "one"), tmp_path / "two"
    assert not is_published(other)
    with pytest.raises(NotFound, match="start the worker"):
        database_of(other)
    assert lake.append("decisions", rows_of(*range(1, 30)), 29)
    assert not Lake(other).append("decisions", rows_of(*range(1, 30)), 29)
    lake.write_database([experiment()], NOW)
    assert counted(other) == (29, 29)
    before = database_of(other)
    assert database_of(other) == before  # nothing new, and nothing fetched
    lake.append("decisions", rows_of(30), 30)
    lake.write_database([experiment()], NOW + 1)
    assert counted(other) == (30, 30)
    assert not (tmp_path / "one" / DATABASE).exists()
    for file in lake.files("decisions"):
        assert file.startswith(f"{url}/decisions/experiment=home/bucket=")
    units = sql(database_of(other), "SELECT DISTINCT unit FROM decisions").to_pylist()
    named = {file.split("bucket=")[1].split("/")[0] for file in lake.files("decisions")}
    assert named == {str(bucket(row["unit"])) for row in units}


def test_of_two_publishers_each_row_is_there_once(store: str, tmp_path: Path) -> None:
    Lake(tmp_path)
    refused: list[str] = []

    def publish(name: str) -> None:
        lake = Lake(tmp_path / name)
        for n in range(1, 5):
            try:
                lake.append("decisions", rows_of(2 * n, 2 * n + 1), 2 * n + 1)
            except LogError as error:  # the other one was faster, and the next step goes on
                refused.append(str(error))

    threads = [threading.Thread(target=publish, args=(name,)) for name in ("one", "two")]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    lake = Lake(tmp_path)
    assert lake.repeated() == {}
    lake.write_database([experiment()], NOW)
    assert counted(tmp_path) == (8, 8)
    assert all("cannot append rows" in text for text in refused)


def test_sql_sees_the_lake_and_nothing_beside_it(store: str, tmp_path: Path) -> None:
    lake = Lake(tmp_path)
    lake.append("decisions", rows_of(1), 1)
    lake.write_database([experiment()], NOW)
    (file,) = lake.files("decisions")
    path = database_of(tmp_path)
    assert sql(path, f"FROM read_parquet('{file}')").num_rows == 1
    beside = f"{store}-of-others/x.parquet"
    for name in (beside, f"{store}/../x.parquet", "s3://other/x.parquet", "/etc/passwd"):
        for query in (f"FROM read_parquet('{name}')", f"FROM read_blob('{name}')"):
            with pytest.raises(BadRequest, match=r"(?i)^sql: (permission|.*disabled|.*illegal)"):
                sql(path, query)


def test_files_are_merged_healed_and_dead_ones_go(store: str, tmp_path: Path) -> None:
    lake = Lake(tmp_path, keep_for=0.0)
    for n in range(1, 4):
        lake.append("decisions", decision_rows([(n, decision(1, decision_id=f"d{n}"))]), n)
    assert lake.compact() == 3
    (file,) = Lake(tmp_path).files("decisions")
    assert lake.vacuum() == 3
    assert lake.damage() == []
    lake.write_database([experiment()], NOW)
    assert counted(tmp_path) == (3, 3)
    lake._places["decisions"].files.delete(file.removeprefix(f"{store}/"))
    assert [line.partition(": ")[2] for line in lake.damage()] == [
        "missing, with 3 rows of decisions"
    ]
    rows = decision_rows([(n, decision(1, decision_id=f"d{n}")) for n in range(1, 4)])
    assert lake.heal("decisions", lake.broken("decisions"), rows) == 3
    lake.write_database([experiment()], NOW)
    assert counted(tmp_path) == (3, 3)


def test_rows_that_repeat_an_id_are_taken_out(store: str, tmp_path: Path) -> None:
    lake = Lake(tmp_path)
    lake.append("decisions", decision_rows([(1, decision(1)), (2, decision(2))]), 2)
    lake.append("decisions", decision_rows([(3, decision(1)), (4, decision(4))]), 4)
    lake.write_database([experiment()], NOW)
    assert counted(tmp_path) == (3, 3)


def test_a_lake_belongs_to_one_log(url: str, tmp_path: Path) -> None:
    for name in ("one", "two"):
        (tmp_path / name).mkdir()
        open_log_of(tmp_path / name).close()
    check_home(tmp_path / "one")
    check_home(tmp_path / "one")
    with pytest.raises(LogError, match="belongs to another log"):
        check_home(tmp_path / "two")


def test_a_machine_that_stores_ids_of_units_otherwise_is_refused(url: str, tmp_path: Path) -> None:
    one, two = tmp_path / "one", tmp_path / "two"
    for data in (one, two):
        data.mkdir()
        (data / SETTINGS).write_text("hash_units: true\n")
    check_home(one)
    with pytest.raises(LogError, match="ids of units are stored hashed"):
        check_home(two)
    (two / SALT).write_bytes((one / SALT).read_bytes())
    with pytest.raises(LogError, match="belongs to another log"):  # and not the ids
        check_home(two)


def test_what_keeps_it_from_the_store_is_named(
    store: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv(LAKE_VARIABLE, "s3://nowhere/lake")
    for use in (Lake, is_published, database_of, check_home):
        with pytest.raises(LogError, match=r"s3://nowhere/lake.*no such bucket"):
            use(tmp_path / "new")
    monkeypatch.setenv("AWS_ENDPOINT_URL", "http://127.0.0.1:1")
    with pytest.raises(LogError, match="cannot be reached"):
        is_published(tmp_path / "new")
    monkeypatch.setenv("AWS_ALLOW_HTTP", "false")
    with pytest.raises(LogError, match="AWS_ALLOW_HTTP=true"):
        is_published(tmp_path / "new")


def test_what_is_appended_is_not_read_back_to_look_for_ids(store: str, tmp_path: Path) -> None:
    lake = Lake(tmp_path)
    lake.append("decisions", rows_of(*range(1, 20)), 19)
    kept = {path.name for path in (tmp_path / "lake" / "ids" / "decisions").iterdir()}
    assert len(kept) == len(lake.files("decisions"))
    assert lake.repeated() == {}
    assert {path.name for path in (tmp_path / "lake" / "ids" / "decisions").iterdir()} == kept


@pytest.fixture
def refusing(store: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[Gate]:
    """What stands before the store of the empty lake."""
    with gate(tmp_path) as before:
        monkeypatch.setenv("AWS_ENDPOINT_URL", before.address)
        yield before


REFUSALS = {
    "expired": (EVERYTHING, 400, "ExpiredToken", "the credentials have expired"),
    "unknown": (EVERYTHING, 403, "InvalidAccessKeyId", "does not know these credentials"),
    "wrong": (EVERYTHING, 403, "SignatureDoesNotMatch", "does not know these credentials"),
    "no right": (EVERYTHING, 403, "AccessDenied", "do not give the right"),
    "only to read": (WRITES, 403, "AccessDenied", "do not give the right"),
    "gone": (EVERYTHING, 404, "NoSuchBucket", "there is no such bucket"),
    "full": (WRITES, 507, "XMinioStorageFull", "is full"),
    "over its quota": (WRITES, 403, "QuotaExceeded", "is full"),
}


@pytest.mark.parametrize("kind", REFUSALS)
def test_what_a_store_refuses_is_named_and_published_when_it_does_not_any_more(
    kind: str, refusing: Gate, tmp_path: Path
) -> None:
    """Nothing counts as published meanwhile, and nothing is there twice afterwards."""
    methods, status, code, message = REFUSALS[kind]
    data = tmp_path / "data"
    Lake(data).append("decisions", rows_of(1, 2), 2)
    lake = Lake(data)
    refusing.refuse(methods, status, code)
    with pytest.raises(LogError, match=f"s3://.*{message}") as raised:
        lake.append("decisions", rows_of(3, 4), 4)
    assert "secret" not in str(raised.value)
    assert "\n" not in str(raised.value)
    if methods == EVERYTHING:
        with pytest.raises(LogError, match=f"s3://.*{message}"):
            check_home(data)
    refusing.open()
    again = Lake(data)
    assert again.position("decisions") == 2
    again.append("decisions", rows_of(3, 4), 4)
    again.write_database([experiment()], NOW)
    assert counted(data) == (4, 4)
