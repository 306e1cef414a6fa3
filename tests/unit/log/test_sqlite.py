"""What is the embedded log's own beyond the contract: its files, and what becomes of them."""

from __future__ import annotations

import shutil
import sqlite3
from collections.abc import Iterator
from contextlib import closing
from pathlib import Path

import pytest

from topbill.domain.errors import LogError
from topbill.domain.records import Decision, Placement, RewardEvent, Snapshot, UnitEvent
from topbill.log import open_log
from topbill.log.database import LogDatabase
from topbill.log.entries import all_keyed
from topbill.log.mending import log_damage
from topbill.log.protocol import ConclusionLine, Order
from topbill.log.remembered_ids import RememberedIds
from topbill.log.sqlite import SqliteLog
from topbill.spec import Conclusion


@pytest.fixture
def log(tmp_path: Path) -> Iterator[SqliteLog]:
    log = SqliteLog(tmp_path / "data" / "log.sqlite")
    yield log
    log.close()


def decision(
    decision_id: str, *, experiment: str = "home", request_hash: str = "h", variant: str = "a"
) -> Decision:
    return Decision(
        decision_id=decision_id,
        experiment=experiment,
        revision="r1",
        variant=variant,
        unit="u",
        slate=(Placement(0, "close-up", 0.25),),
        policy="uniform",
        reason="policy",
        request_hash=request_hash,
    )


def event(decision_id: str, event_id: str, value: float = 1.0) -> RewardEvent:
    return RewardEvent(decision_id=decision_id, event_id=event_id, event="play", value=value)


def back(unit: str) -> UnitEvent:
    return UnitEvent(unit=unit, unit_type="profile_id", event_id="e", event="back")


def test_a_group_larger_than_one_statement_is_stored_whole_and_in_order(log: SqliteLog) -> None:
    ids = [f"d{i:04d}" for i in range(1_000)]
    log.append([decision(i) for i in ids], [event(i, "e") for i in ids])
    assert [d.decision_id for _, d in log.read_decisions(0, 2_000)] == ids
    assert len(log.read_events(0, 2_000)) == 1_000


def test_a_file_that_is_no_database_is_a_named_error(tmp_path: Path) -> None:
    path = tmp_path / "log.sqlite"
    path.write_text("this is not a database, but it is long enough to be read as a header" * 20)
    with pytest.raises(LogError, match=r"log\.sqlite"):
        SqliteLog(path)


def test_nothing_is_stored_in_a_file_that_was_deleted_or_moved_away(log: SqliteLog) -> None:
    log.append([decision("d1")])
    folder = log.path.parent
    aside = folder.rename(folder.with_name("aside"))
    with pytest.raises(LogError, match="deleted, moved or replaced"):
        log.append([decision("d2")])
    other = SqliteLog(log.path)  # somebody made a new one in its place
    with pytest.raises(LogError, match="deleted, moved or replaced"):
        log.append([decision("d2")])
    other.close()
    shutil.rmtree(folder)
    aside.rename(folder)
    log.append([decision("d2")])  # it is back
    assert [row.decision_id for _, row in log.read_decisions(0, 10)] == ["d1", "d2"]
    (folder / "log.state").unlink()
    with pytest.raises(LogError, match=r"log\.state"):
        log.check()


def test_a_write_that_fails_stores_nothing_and_says_so(
    log: SqliteLog, monkeypatch: pytest.MonkeyPatch
) -> None:
    def full(_file: int) -> None:
        raise OSError(28, "No space left on device")

    with monkeypatch.context() as broken:
        broken.setattr("topbill.log.journal.os.fdatasync", full)
        with pytest.raises(LogError, match=r"No space left.*nothing of this batch was stored"):
            log.append([decision("d1")], [event("d1", "e")])
    assert log.decision("d1") is None
    assert log.append([decision("d1")], [event("d1", "e")]).duplicates == (False,)
    assert len(log.read_events(0, 10)) == 1


def test_draining_that_fails_keeps_everything(log: SqliteLog) -> None:
    log.append([decision("d1")])
    log._database.execute("PRAGMA busy_timeout=10")
    with closing(sqlite3.connect(log.path, isolation_level=None)) as blocker:
        blocker.execute("BEGIN IMMEDIATE")
        with pytest.raises(LogError, match="cannot write"):
            log.drain()
        log.append([decision("d2")])
        blocker.execute("ROLLBACK")
    assert [d.decision_id for _, d in log.read_decisions(0, 10)] == ["d1", "d2"]


def test_rows_that_cannot_be_read_are_set_aside_and_the_others_go_on(tmp_path: Path) -> None:
    """A body that is no record, whatever made it so, stops no reader: not one among others, nor
    more of them than a reader asks for at once.
    """
    now = 1_000_000
    with open_log(tmp_path / "log.sqlite", clock=lambda: now) as log:
        log.append([decision(f"d{n}") for n in range(8)], [event(f"d{n}", "e") for n in range(8)])
        log.append(unit_events=[back(f"u{n}") for n in range(3)])
        log.tend()
        with closing(sqlite3.connect(tmp_path / "log.sqlite")) as connection, connection:
            connection.execute("UPDATE decisions SET body = x'c1' WHERE seq IN (2, 3, 4, 8)")
            connection.execute("UPDATE reward_events SET body = '{\"event\":1}' WHERE seq = 5")
            connection.execute("UPDATE unit_events SET body = x'ff' WHERE seq = 1")
        barrier = 10_000_000
        assert [seq for seq, _ in log.read_decisions(0, 100)] == [1, 5, 6, 7]
        assert [seq for seq, _ in log.read_decisions(1, 2)] == [5]
        assert log.read_decisions(7, 2) == []
        assert [seq for seq, _ in log.read_events(0, 100)] == [1, 2, 3, 4, 6, 7, 8]
        assert [seq for seq, _ in log.read_unit_events(0, 100)] == [2, 3]
        matured = [log.matured("home", 1, 10, barrier, limit) for limit in (2, 100)]
        assert [[row.seq for row in rows] for rows in matured] == [[5], [5, 6, 7]]
        assert matured[0][0].events == []
        assert log.decision("d1") is None
        assert log.decision("d0") is not None
        # Its id is used all the same; who comes with another is stored beside it.
        group = [all_keyed([decision(name)], []) for name in ("d1", "fresh")]
        refused, stored = log.commit(group)
        assert (refused.let_go, stored.let_go, stored.conflict) == ("d1", None, None)
        assert log.decision("fresh") is not None
        counts = log.quarantine_counts()
        assert counts == {("decision", "read"): 4, ("reward", "read"): 1, ("event", "read"): 1}
        assert {row.id for row in log.quarantine("home")} == {"d1", "d2", "d3", "d7"}


def test_an_id_that_is_remembered_takes_at_most_64_bytes(tmp_path: Path) -> None:
    """However long it is. docs/data.md says how much."""
    count = 20_000
    database = LogDatabase(tmp_path / "log.sqlite")
    try:
        database.checkpoint()
        before = (tmp_path / "log.sqlite").stat().st_size
        remembered = RememberedIds(database)
        for start in range(0, count, 2_000):
            rows = [
                (f"{place:0200d}", 10**9 + place, 1_790_000_000_000_000 + place)
                for place in range(start, start + 2_000)
            ]
            with database.transaction():
                remembered.add(rows, [])
        database.checkpoint()
    finally:
        database.close()
    assert 30 < ((tmp_path / "log.sqlite").stat().st_size - before) / count <= 64


WITHOUT_ROWID = """
CREATE TABLE earlier (
    experiment TEXT NOT NULL,
    version INTEGER NOT NULL,
    watermark INTEGER NOT NULL,
    at INTEGER NOT NULL,
    fingerprint TEXT NOT NULL,
    start INTEGER NOT NULL,
    refit_at INTEGER NOT NULL,
    blob BLOB NOT NULL,
    PRIMARY KEY (experiment, version)) WITHOUT ROWID;
INSERT INTO earlier SELECT * FROM policy_snapshots;
DROP TABLE policy_snapshots;
ALTER TABLE earlier RENAME TO policy_snapshots;
"""


def test_no_look_up_of_a_key_reads_states_and_those_of_an_earlier_version_are_moved(
    log: SqliteLog,
) -> None:
    """A table without a rowid is a tree of whole rows: with states of a megabyte each comparison of
    keys read one, and to forget old versions took minutes, in which nothing could be written."""
    for version in (1, 2, 3):
        states = {"a": bytes([version]) * 10_000}
        log.write_snapshot(
            Snapshot(experiment="e", version=version, watermark=0, fingerprint="f", states=states)
        )
    before = [log.snapshot("e", version) for version in (1, 2, 3)]
    with closing(sqlite3.connect(log.path)) as connection:
        connection.executescript(WITHOUT_ROWID)
    with closing(SqliteLog(log.path)) as again:
        assert [again.snapshot("e", version) for version in (1, 2, 3)] == before
        assert log.snapshot("e") == before[-1]  # of a handle that was open all the time, too
        assert again.forget_snapshots(before=2**62) == 2
    with closing(sqlite3.connect(log.path)) as connection:
        tables = connection.execute("SELECT sql FROM sqlite_master WHERE sql LIKE '%BLOB%'")
        assert not [text for (text,) in tables if "WITHOUT ROWID" in text]


def test_orders_of_a_file_from_before_conclusions_are_kept_and_sound(tmp_path: Path) -> None:
    path = tmp_path / "log.sqlite"
    given = Order("home", "r1", "r2", 0, "pm", "stopped", "slow")
    with closing(SqliteLog(path)) as log:
        log.give_order(given)
    with closing(sqlite3.connect(path)) as file:
        file.execute("DROP INDEX launch_steps")
        for column in ("conclusion", "kind", "step", "traffic", "about"):
            file.execute(f"ALTER TABLE orders DROP COLUMN {column}")
        file.execute("DROP TABLE conclusions")
        file.commit()
    with closing(SqliteLog(path)) as log:
        (order,) = log.orders()
        assert order == given._replace(at=order.at)
        assert log.conclusions() == []
        concluded = given._replace(status=None, conclusion=Conclusion("b", "more"))
        log.conclude(ConclusionLine("home", "r1", "r2", 0, "pm", "b", "more", b"{}"), concluded)
        assert log.orders()[-1].conclusion == Conclusion("b", "more")
        assert log_damage(path) == []
