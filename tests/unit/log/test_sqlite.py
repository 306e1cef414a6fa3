"""The log stores once, durably, all or nothing, in an order that whoever reads it can rely on."""

from __future__ import annotations

import shutil
import sqlite3
from collections.abc import Iterator
from pathlib import Path

import msgspec
import pytest

from topbill.domain.errors import Conflict, LogError
from topbill.domain.records import Decision, Placement, RewardEvent, Snapshot
from topbill.log.entries import Entry
from topbill.log.sqlite import SqliteLog


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


def snapshot(version: int) -> Snapshot:
    return Snapshot(
        experiment="home",
        version=version,
        watermark=version * 10,
        fingerprint="f",
        states={"a": b"\x00s"},
    )


def test_what_was_appended_is_read_back_equal(log: SqliteLog) -> None:
    log.append([decision("d1")], [event("d1", "e1", 0.5)])
    stored = log.decision("d1")
    assert stored is not None
    assert stored.slate == (Placement(0, "close-up", 0.25),)
    assert stored.decided_at > 0
    assert [e.value for e in log.events("d1")] == [0.5]
    assert log.decision("d2") is None


def test_of_a_whole_entry_nothing_is_stored_where_its_key_was_before(log: SqliteLog) -> None:
    """Within one group and in a later one: a page that lost the race leaves none of its rows."""
    keyed = frozenset({"page"})
    first, second, third = (
        Entry([decision("page"), decision(row)], keyed_decisions=keyed, whole=True)
        for row in ("a", "b", "c")
    )
    receipts = [*log.commit([first, second]), *log.commit([third])]
    assert [list(receipt.stored) for receipt in receipts] == [[], ["page"], ["page"]]
    assert [d.decision_id for _, d in log.read_decisions(0, 9)] == ["page", "a"]


def test_the_same_id_again_returns_the_first_and_stores_nothing(log: SqliteLog) -> None:
    log.append([decision("d1", variant="first")])
    receipt = log.append([decision("d1", variant="second")])
    assert receipt.stored["d1"].variant == "first"
    assert len(log.read_decisions(0, 10)) == 1


def test_the_same_id_with_another_request_is_a_conflict_and_nothing_of_it_is_stored(
    log: SqliteLog,
) -> None:
    log.append([decision("d1", request_hash="one")])
    with pytest.raises(Conflict, match="d1"):
        log.append([decision("d0"), decision("d1", request_hash="two")], [event("d1", "e1")])
    assert [d.decision_id for _, d in log.read_decisions(0, 10)] == ["d1"]
    assert log.events("d1") == []


def test_two_entries_of_one_group_with_the_same_id_store_it_once(log: SqliteLog) -> None:
    entries = [
        Entry([decision("d", variant=v)], keyed_decisions=frozenset({"d"}))
        for v in ("first", "second")
    ]
    receipts = log.commit(entries)
    assert receipts[0].stored == {}
    assert receipts[1].stored["d"].variant == "first"
    assert len(log.read_decisions(0, 10)) == 1


def test_an_event_is_a_duplicate_only_under_the_same_decision(log: SqliteLog) -> None:
    log.append([decision("d1"), decision("d2")], [event("d1", "e"), event("d2", "e")])
    receipt = log.append([], [event("d1", "e", 9.0), event("d1", "f")])
    assert receipt.duplicates == (True, False)
    assert [(e.event_id, e.value) for e in log.events("d1")] == [("e", 1.0), ("f", 1.0)]


def test_a_group_larger_than_one_statement_is_stored_whole_and_in_order(log: SqliteLog) -> None:
    ids = [f"d{i:04d}" for i in range(1_000)]
    log.append([decision(i) for i in ids], [event(i, "e") for i in ids])
    assert [d.decision_id for _, d in log.read_decisions(0, 2_000)] == ids
    assert len(log.read_events(0, 2_000)) == 1_000


def test_stamps_never_decrease_even_when_the_clock_does(
    log: SqliteLog, monkeypatch: pytest.MonkeyPatch
) -> None:
    for i, clock in enumerate([1_000, 3_000, 2_000, 500]):
        monkeypatch.setattr("topbill.log.sqlite.now_micros", lambda now=clock: now)
        log.append([decision(f"d{i}")])
    assert [d.decided_at for _, d in log.read_decisions(0, 10)] == [1_000, 3_000, 3_000, 3_000]


def test_nothing_can_be_stamped_before_a_barrier_once_it_was_given(
    log: SqliteLog, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("topbill.log.sqlite.now_micros", lambda: 5_000)
    barrier = log.barrier()
    monkeypatch.setattr("topbill.log.sqlite.now_micros", lambda: 4_000)
    log.append([decision("late")])
    assert log.read_decisions(0, 1)[0][1].decided_at > barrier


def test_matured_gives_each_decision_the_events_that_had_come_at_that_age(
    log: SqliteLog, monkeypatch: pytest.MonkeyPatch
) -> None:
    def at(now: int) -> None:
        monkeypatch.setattr("topbill.log.sqlite.now_micros", lambda: now)

    at(1_000)
    log.append([decision("old"), decision("other", experiment="elsewhere")])
    at(1_500)
    log.append([decision("young")], [event("old", "in-time")])
    at(2_001)
    log.append([], [event("old", "too-late")])
    first = log.matured("home", 0, age=1_000, barrier=2_400, limit=10)
    assert [(d.decision_id, [e.event_id for e in events]) for _, d, events in first] == [
        ("old", ["in-time"])
    ]
    again = log.matured("home", 0, age=1_000, barrier=9_000, limit=10)
    assert again[:1] == first
    assert [d.decision_id for _, d, _ in again] == ["old", "young"]


def test_a_snapshot_must_succeed_the_newest(log: SqliteLog) -> None:
    log.write_snapshot(snapshot(1))
    log.write_snapshot(snapshot(2))
    with pytest.raises(Conflict, match="another keeper"):
        log.write_snapshot(snapshot(2))
    newest = log.snapshot("home")
    assert newest is not None
    assert (newest.version, newest.watermark, newest.states) == (2, 20, {"a": b"\x00s"})
    first = log.snapshot("home", 1)
    assert first is not None
    assert first.watermark == 10
    assert (log.version("home"), log.version("elsewhere")) == (2, 0)


def test_snapshots_that_nothing_kept_was_decided_from_are_forgotten(
    log: SqliteLog, monkeypatch: pytest.MonkeyPatch
) -> None:
    def write(experiment: str, version: int, at: int) -> None:
        monkeypatch.setattr("topbill.log.store.now_micros", lambda: at)
        log.write_snapshot(msgspec.structs.replace(snapshot(version), experiment=experiment))

    for version, at in enumerate((100, 200, 300, 400), 1):
        write("home", version, at)
    write("quiet", 1, 50)
    assert log.forget_snapshots(350) == 2
    assert [log.snapshot("home", version) is not None for version in (1, 2, 3, 4)] == [
        False,
        False,
        True,
        True,
    ]
    assert log.version("quiet") == 1  # however old, it is the one that decides
    assert log.forget_snapshots(10_000) == 1
    assert log.version("home") == 4


def test_the_audit_notes_a_revision_only_when_it_changed(log: SqliteLog) -> None:
    assert [log.revise("home", r, "pm", "{}") for r in ("r1", "r1", "r2", "r1")] == [
        True,
        False,
        True,
        True,
    ]
    assert [r.revision for r in log.revisions("home")] == ["r1", "r2", "r1"]


def test_forgetting_takes_only_what_is_old_and_published_with_its_events(
    log: SqliteLog, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("topbill.log.sqlite.now_micros", lambda: 1_000)
    log.append([decision("a"), decision("b"), decision("c")], [event("a", "e"), event("b", "e")])
    assert log.forget(decisions_through=3, events_through=1, older_than=1_000) == 0
    assert log.forget(decisions_through=3, events_through=1, older_than=1_001) == 1
    assert log.first_seq() == 2
    assert [d.decision_id for _, d in log.read_decisions(0, 10)] == ["b", "c"]
    assert [e.decision_id for _, e in log.read_events(0, 10)] == ["b"]
    log.append([decision("d")])
    assert log.read_decisions(0, 10)[-1][0] == 4


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
    assert [held.decision_id for _, held in log.read_decisions(0, 10)] == ["d1", "d2"]
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
    blocker = sqlite3.connect(log.path, isolation_level=None)
    log._db.execute("PRAGMA busy_timeout=10")
    blocker.execute("BEGIN IMMEDIATE")
    with pytest.raises(LogError, match="cannot write"):
        log.drain()
    log.append([decision("d2")])
    blocker.execute("ROLLBACK")
    blocker.close()
    assert [d.decision_id for _, d in log.read_decisions(0, 10)] == ["d1", "d2"]
