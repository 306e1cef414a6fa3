"""A backup that is taken while everything runs holds each row once, whatever the worker does
meanwhile; a restored folder goes on from there.
"""

from __future__ import annotations

import os
import signal
import threading
import time
from datetime import UTC, datetime
from pathlib import Path

import pytest

from topbill import backup
from topbill.backup import back_up, backups, restore
from topbill.domain.errors import BadRequest, LogError, NotFound
from topbill.domain.records import RewardEvent, UnitEvent
from topbill.lake import DATABASE, Lake, sql
from topbill.log import Log, open_log
from topbill.testing import a_decision, an_experiment
from topbill.worker.publisher import Publisher

from ..processes import python


def store(log: Log, *names: str) -> None:
    for name in names:
        event = RewardEvent(decision_id=name, event_id="e", event="play")
        back = UnitEvent(unit="u", unit_type="profile_id", event_id=name, event="back")
        log.append([a_decision(name)], [event], [back])


def publisher(data: Path, log: Log, keep_log: float = 3_600.0) -> Publisher:
    return Publisher(log, Lake(data), lambda: [an_experiment()], keep_log=keep_log)


def published(data: Path) -> list[list[str]]:
    """The ids of each table of a folder, when all is published."""
    with open_log(data / "log.sqlite") as log:
        publisher(data, log).step()
    queries = [
        "SELECT decision_id AS id FROM lake.main.decisions",
        "SELECT decision_id AS id FROM lake.main.rewards",
        "SELECT event_id AS id FROM lake.main.events",
    ]
    return [
        sorted(row["id"] for row in sql(data / DATABASE, query).to_pylist()) for query in queries
    ]


@pytest.fixture
def data(tmp_path: Path) -> Path:
    """A folder with rows in the lake, in the log's tables, and in its journal."""
    data = tmp_path / "data"
    with open_log(data / "log.sqlite") as log:
        store(log, "a", "b")
        publisher(data, log, keep_log=-1.0).step()  # the log has let go of them
        store(log, "c")
        publisher(data, log).step()
        store(log, "d")
        log.drain()
        store(log, "e")
    (data / "tables").mkdir()
    (data / "tables" / "orders.csv").write_text("unit,amount\nu,3\n")
    return data


ALL = [list("abcde")] * 3


def test_a_restored_folder_has_everything_once_and_goes_on(data: Path, tmp_path: Path) -> None:
    done = back_up(data, tmp_path / "backups")
    assert backups(tmp_path / "backups") == [done]
    restore(tmp_path / "backups", tmp_path / "new")
    assert (tmp_path / "new" / "tables" / "orders.csv").read_text() == "unit,amount\nu,3\n"
    assert published(tmp_path / "new") == ALL
    with open_log(tmp_path / "new" / "log.sqlite") as log:
        store(log, "f")
    assert published(tmp_path / "new") == [list("abcdef")] * 3
    assert published(data) == ALL


def test_the_second_backup_takes_no_space_again_for_the_lake(data: Path, tmp_path: Path) -> None:
    first = back_up(data, tmp_path / "backups")
    (row_file, *_) = [path for path in first.rglob("*.parquet") if "decisions" in str(path)]
    with open_log(data / "log.sqlite") as log:
        store(log, "f")
        publisher(data, log).step()
    second = back_up(data, tmp_path / "backups")
    assert row_file.stat().st_ino == (second / row_file.relative_to(first)).stat().st_ino
    restore(second, tmp_path / "new")
    assert published(tmp_path / "new") == [list("abcdef")] * 3
    restore(first, tmp_path / "old")
    assert published(tmp_path / "old") == ALL


def test_a_damaged_file_of_an_earlier_backup_is_not_linked(data: Path, tmp_path: Path) -> None:
    first = back_up(data, tmp_path / "backups")
    path = next(first.rglob("*.parquet"))
    content = bytearray(path.read_bytes())
    content[10] ^= 1
    path.write_bytes(content)
    second = back_up(data, tmp_path / "backups")
    with pytest.raises(LogError, match="damaged"):
        restore(first, tmp_path / "new")
    assert not (tmp_path / "new").exists()
    restore(second, tmp_path / "new")
    assert published(tmp_path / "new") == ALL


def test_whatever_the_worker_does_meanwhile(tmp_path: Path) -> None:
    data, stop, stored = tmp_path / "data", threading.Event(), []

    def write() -> None:
        with open_log(data / "log.sqlite") as log:
            while not stop.is_set():
                name = f"w{len(stored):05d}"
                store(log, name)
                stored.append(name)
                time.sleep(0.002)

    def publish() -> None:
        with open_log(data / "log.sqlite") as log:
            worker = publisher(data, log, keep_log=-1.0)
            while not stop.is_set():
                worker.step()
                if worker._steps % 3 == 0:
                    worker._lake.compact()

    open_log(data / "log.sqlite").close()
    threads = [threading.Thread(target=each) for each in (write, publish)]
    for thread in threads:
        thread.start()
    counts = []
    try:
        for _ in range(4):
            time.sleep(0.5)
            least = len(stored)
            counts.append((least, back_up(data, tmp_path / "backups")))
    finally:
        stop.set()
        for thread in threads:
            thread.join()
    for least, done in counts:
        restore(done, tmp_path / done.name)
        decisions, rewards, events = published(tmp_path / done.name)
        assert decisions == rewards == events == stored[: len(decisions)]
        assert len(decisions) >= least


def test_to_a_point_in_time(tmp_path: Path) -> None:
    data = tmp_path / "data"
    with open_log(data / "log.sqlite") as log:
        store(log, "a", "b")
        publisher(data, log).step()
        time.sleep(0.01)
        middle = datetime.now(UTC)
        time.sleep(0.01)
        store(log, "c", "d")
        publisher(data, log).step()
        store(log, "e")
    back_up(data, tmp_path / "backups")
    restore(tmp_path / "backups", tmp_path / "then", middle)
    assert published(tmp_path / "then") == [["a", "b"]] * 3
    with open_log(tmp_path / "then" / "log.sqlite") as log:
        store(log, "f")
    assert published(tmp_path / "then") == [["a", "b", "f"]] * 3
    with pytest.raises(NotFound, match="no backup after"):
        restore(tmp_path / "backups", tmp_path / "never", datetime(2200, 1, 1, tzinfo=UTC))


def test_what_lies_there_already_is_left_alone(data: Path, tmp_path: Path) -> None:
    done = back_up(data, tmp_path / "backups")
    with pytest.raises(BadRequest, match="is not empty"):
        restore(done, data)
    with pytest.raises(NotFound, match="no backup there"):
        restore(tmp_path / "nowhere", tmp_path / "new")
    with pytest.raises(NotFound, match="no log there"):
        back_up(tmp_path / "nowhere", tmp_path / "backups")
    assert published(data) == ALL


@pytest.mark.parametrize("verb", ["backup", "restore"])
def test_killed_at_any_moment_nothing_half_is_taken_for_whole(
    verb: str, data: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Each call that makes something durable is once the last one."""
    back_up(data, tmp_path / "backups")
    syncs = 0
    really = backup.sync

    def counted(path: Path) -> None:
        nonlocal syncs
        syncs += 1
        really(path)

    monkeypatch.setattr(backup, "sync", counted)
    if verb == "backup":
        back_up(data, tmp_path / "backups")
    else:
        restore(tmp_path / "backups", tmp_path / "before")
    monkeypatch.undo()
    program = (
        "import os, signal, sys; from pathlib import Path; from topbill import backup\n"
        "left = int(sys.argv[1]); really = backup.sync\n"
        "def sync(path):\n"
        "    global left\n"
        "    left -= 1\n"
        "    if left < 0: os.kill(os.getpid(), signal.SIGKILL)\n"
        "    really(path)\n"
        "backup.sync = sync\n"
        "source, to = Path(sys.argv[2]), Path(sys.argv[3])\n"
        f"backup.{'back_up' if verb == 'backup' else 'restore'}(source, to)\n"
    )
    source, to = (data, tmp_path / "backups"), (tmp_path / "backups", tmp_path / "new")
    where = source if verb == "backup" else to
    there = backups(tmp_path / "backups")
    for last in (0, syncs // 2, syncs - 2):  # the last one is after the folder has its name
        done = python(program, last, *where)
        assert done.returncode == -signal.SIGKILL
        assert not (tmp_path / "new").exists()
        if verb == "backup":
            with pytest.raises(NotFound, match="left that was killed"):
                restore(tmp_path / "backups" / ".unfinished", tmp_path / "new")
    assert backups(tmp_path / "backups") == there
    back_up(data, tmp_path / "backups")
    restore(tmp_path / "backups", tmp_path / "new")
    assert published(tmp_path / "new") == ALL
    left = {path.name for path in tmp_path.iterdir() if path.name.startswith(".")}
    assert left == set()
    assert ".unfinished" not in os.listdir(tmp_path / "backups")
