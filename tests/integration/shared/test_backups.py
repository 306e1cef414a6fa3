"""A log in PostgreSQL is backed up with its lake while everything runs, goes on from a backup in
another database, and is looked through for damage.
"""

from __future__ import annotations

import threading
import time
from collections.abc import Iterable
from datetime import UTC, datetime
from pathlib import Path

import psycopg
import pytest
from tests import postgres_server
from tests.integration.shared.test_erasing import page_of
from tests.integration.shared.test_lake_whole import at_a_new_url
from tests.unit.log.test_contract import snapshot
from tests.unit.test_backup import ALL, store

from topbill.backup import back_up, backups, restore
from topbill.domain.errors import AlreadyDecided, BadRequest, LogError, NotFound
from topbill.domain.lake_url import LAKE_VARIABLE
from topbill.domain.log_url import LOG_VARIABLE
from topbill.domain.records import RewardEvent
from topbill.lake import Lake, database_of, sql
from topbill.lake.home import check_home
from topbill.lake.shared_files import sync
from topbill.log import Entry, Log, migrate_log, open_log, open_log_of, shared_log_damage
from topbill.log.horizon import HORIZON
from topbill.log.postgres_schema import NAMES
from topbill.testing import a_decision, an_experiment
from topbill.worker.damage import damage, repair
from topbill.worker.publisher import Publisher


def publisher(data: Path, log: Log, keep_log: float = 3_600.0) -> Publisher:
    return Publisher(log, Lake(data), lambda: [an_experiment()], keep_log=keep_log)


def published(data: Path) -> list[list[str]]:
    """The ids of each table of the lake, when all is published."""
    with open_log_of(data) as log:
        publisher(data, log).step()
    columns = {"decisions": "decision_id", "rewards": "decision_id", "events": "event_id"}
    queries = [f"SELECT {name} AS id FROM lake.main.{table}" for table, name in columns.items()]  # noqa: S608
    return [sorted(r["id"] for r in sql(database_of(data), q).to_pylist()) for q in queries]


@pytest.fixture
def data(url: str, log: Log, tmp_path: Path) -> Path:
    """A folder whose lake has some rows, of which the log has let go of the first."""
    data = tmp_path / "data"
    check_home(data)
    store(log, "a", "b")
    publisher(data, log, keep_log=-1.0).step()
    store(log, "c")
    publisher(data, log).step()
    store(log, "d", "e")
    (data / "tables").mkdir()
    (data / "tables" / "orders.csv").write_text("unit,amount\nu,3\n")
    return data


def elsewhere(monkeypatch: pytest.MonkeyPatch) -> str:
    """From now on the log is at another place, where none is yet."""
    url = postgres_server.fresh_url()
    monkeypatch.setenv(LOG_VARIABLE, url)
    return url


def test_a_restored_log_has_everything_once_and_goes_on(
    data: Path, log: Log, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    log.commit([Entry(page_of("u"))])
    log.write_snapshot(snapshot(1))
    log.revise("home", "r1", "me", "{}")
    stored = log.decisions(["c", "d", "p0", "p2"])
    done = back_up(data, tmp_path / "backups")
    url = elsewhere(monkeypatch)
    new = tmp_path / "new"
    restore(tmp_path / "backups", new)
    assert (new / "tables" / "orders.csv").read_text() == "unit,amount\nu,3\n"
    with open_log(url, create=False) as restored:
        assert restored.decisions(["c", "d", "p0", "p2"]) == stored
        assert restored.snapshot("home") == log.snapshot("home")
        assert restored.revisions() == log.revisions()
        with pytest.raises(AlreadyDecided):
            restored.append([a_decision("a")])
        assert restored.append([], [RewardEvent(decision_id="d", event_id="e", event="play")])
        store(restored, "f")
        restored.revise("home", "r2", "me", "{}")
        restored.write_snapshot(snapshot(2))
        restored.tend(thorough=True)
    decisions, rewards, events = published(new)
    assert decisions == sorted([*"abcdef", "p0", "p1", "p2"])
    assert rewards == events == list("abcdef")
    assert damage(new) == []
    assert backups(tmp_path / "backups") == [done]


def test_the_restored_one_is_another_log(
    data: Path, url: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    back_up(data, tmp_path / "backups")
    other = elsewhere(monkeypatch)
    restore(tmp_path / "backups", tmp_path / "new")
    check_home(tmp_path / "new")
    with pytest.raises(LogError, match="belongs to another data folder"):
        check_home(data)
    with open_log(url) as first, open_log(other) as second:
        assert first.identity != second.identity


@pytest.mark.slow
def test_while_everything_runs_nothing_is_missing_or_twice(
    url: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Also rows of groups that are under way, and rows that the log lets go of meanwhile."""
    data = tmp_path / "data"
    check_home(data)
    stop = threading.Event()
    stored: list[list[str]] = [[], []]

    def write(number: int) -> None:
        with open_log(url) as log:
            while not stop.is_set():
                name = f"{number}-{len(stored[number]):05}"
                store(log, name)
                stored[number].append(name)
                time.sleep(0.002)

    def publish() -> None:
        with open_log(url) as log:
            worker = publisher(data, log, keep_log=-1.0)
            while not stop.is_set():
                worker.step()
                if worker._steps % 3 == 0:
                    worker._lake.compact()

    threads = [threading.Thread(target=write, args=(n,)) for n in (0, 1)]
    threads.append(threading.Thread(target=publish))
    for thread in threads:
        thread.start()
    counts = []
    try:
        for _ in range(3):
            time.sleep(0.4)
            least = [len(names) for names in stored]
            counts.append((least, back_up(data, tmp_path / "backups")))
    finally:
        stop.set()
        for thread in threads:
            thread.join()
    for least, done in counts:
        elsewhere(monkeypatch)
        restore(done, tmp_path / done.name)
        decisions, rewards, events = published(tmp_path / done.name)
        assert decisions == rewards == events
        for number, names in enumerate(stored):
            own = [name for name in decisions if name.startswith(f"{number}-")]
            assert own == names[: len(own)]
            assert len(own) >= least[number]


def test_to_a_point_in_time(
    url: str, log: Log, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    data = tmp_path / "data"
    check_home(data)
    store(log, "a", "b")
    log.write_snapshot(snapshot(1))
    publisher(data, log).step()
    time.sleep(0.01)
    middle = datetime.now(UTC)
    time.sleep(0.01)
    store(log, "c")
    log.write_snapshot(snapshot(2))
    publisher(data, log).step()
    store(log, "d")
    back_up(data, tmp_path / "backups")
    elsewhere(monkeypatch)
    then = tmp_path / "then"
    restore(tmp_path / "backups", then, middle)
    assert published(then) == [["a", "b"]] * 3
    with open_log_of(then) as restored:
        assert restored.version("home") == 1
        store(restored, "c", "f")
        restored.write_snapshot(snapshot(2))
    assert published(then) == [["a", "b", "c", "f"]] * 3


@pytest.mark.slow
def test_with_a_lake_in_a_store_any_folder_will_do(
    log: Log, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    at_a_new_url(monkeypatch)
    data = tmp_path / "data"
    check_home(data)
    store(log, *"ab")
    publisher(data, log, keep_log=-1.0).step()
    store(log, *"cde")
    (data / HORIZON).write_text("{}")
    sync(data)
    back_up(tmp_path / "machine of its own", tmp_path / "backups")
    elsewhere(monkeypatch)
    with pytest.raises(BadRequest, match="is not empty"):
        restore(tmp_path / "backups", tmp_path / "new")
    at_a_new_url(monkeypatch)
    restore(tmp_path / "backups", tmp_path / "new")
    assert (tmp_path / "new" / HORIZON).read_text() == "{}"
    assert published(tmp_path / "new") == ALL
    assert damage(tmp_path / "new") == []
    # And into a folder.
    elsewhere(monkeypatch)
    monkeypatch.delenv(LAKE_VARIABLE)
    restore(tmp_path / "backups", tmp_path / "folder")
    assert published(tmp_path / "folder") == ALL


def test_what_does_not_fit_is_refused_and_changes_nothing(
    data: Path, url: str, log: Log, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    with pytest.raises(NotFound, match="no such folder"):
        back_up(tmp_path / "nowhere", tmp_path / "backups")
    (tmp_path / "other").mkdir()
    with pytest.raises(LogError, match="belongs to another data folder"):
        back_up(tmp_path / "other", tmp_path / "backups")
    done = back_up(data, tmp_path / "backups")
    new = tmp_path / "new"
    with pytest.raises(BadRequest, match=r"has a log that was used \(\w+\); expected an empty"):
        restore(done, new)
    before = [decision for _, decision in log.read_decisions(0, 99)]
    assert [decision.decision_id for decision in before] == list("cde")
    monkeypatch.delenv(LOG_VARIABLE)
    with pytest.raises(BadRequest, match="is of a log in PostgreSQL; expected the URL"):
        restore(done, new)
    store(own := open_log(tmp_path / "own" / "log.sqlite"), "a")
    own.close()
    embedded = back_up(tmp_path / "own", tmp_path / "embedded")
    fresh = elsewhere(monkeypatch)
    with pytest.raises(BadRequest, match="is of a log in its data folder; expected no URL"):
        restore(embedded, new)
    with (done / "log" / "decision_rows.copy").open("r+b") as file:
        file.seek(40)
        file.write(b"?")
    with pytest.raises(LogError, match=r"decision_rows\.copy: damaged"):
        restore(done, new)
    assert not new.exists()
    with pytest.raises(NotFound, match="no log there"):
        open_log(fresh, create=False)


def test_a_log_that_was_made_and_not_used_may_be_filled(
    data: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    back_up(data, tmp_path / "backups")
    migrate_log(elsewhere(monkeypatch))
    restore(tmp_path / "backups", tmp_path / "new")
    assert published(tmp_path / "new") == ALL


def test_the_tables_of_a_backup_are_all_there_are(url: str) -> None:
    with psycopg.connect(url) as connection:
        rows = connection.execute(
            "SELECT relname FROM pg_class WHERE relnamespace = current_schema()::regnamespace "
            "AND relkind IN ('r', 'p') AND NOT relispartition"
        ).fetchall()
    assert sorted(NAMES) == sorted(name for (name,) in rows)


# ---------------------------------------------------------------------- damage


def change(url: str, statements: Iterable[str]) -> None:
    with psycopg.connect(url, autocommit=True) as connection:
        for statement in statements:
            connection.execute(statement.encode())


@pytest.mark.parametrize(
    ("statement", "said"),
    [
        ("UPDATE decision_rows SET experiment = 'other' WHERE decision_id = 'd'",
         "decisions, d other is not"),
        ("UPDATE reward_events SET body = body || ' ' WHERE decision_id = 'd'",
         "reward_events, d e is not"),
        ("UPDATE unit_events SET unit = 'v' WHERE event_id = 'd'",
         "unit_events, profile_id v is not"),
        ("UPDATE policy_snapshots SET watermark = 8", "policy_snapshots, home 1 is not"),
        ("UPDATE revisions SET who = 'you'", "revisions, home r1 is not"),
        ("UPDATE bundles SET content = set_byte(content, 30, 255 - get_byte(content, 30))",
         "the bundle of decision p0 is not"),
        ("DELETE FROM bundles", "the bundle of decision p0 is not"),
    ],
)  # fmt: skip
def test_each_kind_of_damage_is_told(statement: str, said: str, url: str, log: Log) -> None:
    store(log, "c", "d")
    log.commit([Entry(page_of("u"))])
    log.write_snapshot(snapshot(1))
    log.revise("home", "r1", "me", "{}")
    assert shared_log_damage(url) == []
    change(url, [statement])
    assert said in " ".join(shared_log_damage(url))


def test_a_lake_that_is_ahead_of_its_log_is_told(data: Path, url: str) -> None:
    assert damage(data) == []
    change(url, ["UPDATE clock SET at = 7"])
    assert "another log than the lake's: decisions count to" in " ".join(damage(data))


def test_a_damaged_file_of_the_lake_is_written_anew_from_the_log(data: Path) -> None:
    assert published(data) == ALL
    files = sorted(
        (data / "lake" / "decisions").rglob("*.parquet"), key=lambda p: p.stat().st_mtime
    )
    with files[-1].open("r+b") as file:
        file.seek(20)
        file.write(b"????")
    assert any(files[-1].name in line for line in damage(data))
    assert "rows were written anew from the log" in " ".join(repair(data))
    assert damage(data) == []
    assert published(data) == ALL
